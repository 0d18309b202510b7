"""fastdiff likelihood, inpaint, interpolate, study, and sample --label, as a person uses them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fastdiff.commands.inpaint import MASKS, part
from fastdiff.models.digits.data import load_digits
from tests.test_cli import run


def test_guided_samples_are_the_asked_digit(tmp_path, capsys):
    """A classifier that saw no noise, trained here on the training split, judges 100 samples of each of three digits."""
    from sklearn.neural_network import MLPClassifier

    train = load_digits("train")
    judge = MLPClassifier((64,), max_iter=300, random_state=0).fit(train.images.flatten(1).numpy(), train.labels.numpy())
    right = []
    for digit in (3, 5, 8):
        npz = tmp_path / f"{digit}.npz"
        arguments = ("--label", str(digit), "--guidance-scale", "2", "-n", "100", "--seed", "1", "--npz", str(npz))
        code, out, _ = run(capsys, "sample", *arguments, "--out", str(tmp_path / "a.png"))
        assert code == 0
        assert "guidance" in out
        images = np.load(npz)["images"].astype(np.float32) / 127.5 - 1
        right.append((judge.predict(images.reshape(100, 64)) == digit).mean())
    assert np.mean(right) >= 0.9, right


def test_without_the_guidance_few_are(tmp_path, capsys):
    npz = tmp_path / "a.npz"
    code, _, _ = run(
        capsys, "sample", "--label", "3", "--guidance-scale", "0", "-n", "50", "--npz", str(npz), "--out", str(tmp_path / "a.png")
    )
    assert code == 0
    images = torch.from_numpy(np.load(npz)["images"].astype(np.float32) / 127.5 - 1).reshape(50, 1, 8, 8)
    from fastdiff.models import load_classifier

    assert (load_classifier("digits")(images, torch.tensor(0.05)).argmax(1) == 3).float().mean() < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sample", "--label", "11"), "--label: expected 0 .. 9, got 11"),
        (("sample", "--label", "3", "--class", "4"), "--label: expected neither --class nor --cfg beside it"),
        (("likelihood", "-n", "0"), "-n: expected an integer from 1 to 359, got 0"),
        (("likelihood", "--model", "cats"), "model: expected one of digits, digits-small, digits-small-perturbed, got 'cats'"),
        (("likelihood", "--tol", "0"), "rtol, atol: expected rtol >= 0 and atol > 0"),
        (("inpaint", "--known", "middle"), "Invalid value for '--known'"),
        (("inpaint", "--out", "/nowhere/a.png"), "/nowhere"),
        (("interpolate", "--steps", "1"), "--steps: expected an integer from 2 to 100, got 1"),
        (("study", "nothing"), "Invalid value"),
    ],
)
def test_errors_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert message in err
    assert err.strip().count("\n") == 0


def test_likelihood_prints_bits_per_dim_with_its_error_and_writes_json(tmp_path, capsys):
    code, out, err = run(capsys, "likelihood", "-n", "6", "--batch", "4", "--tol", "1e-2", "--json", str(tmp_path / "a.json"))
    assert code == 0
    assert "likelihood" in err  # the progress bar
    assert "nfe" in err
    for word in ("bits/dim", "+-", "6 images of the test split, 1 probe", "network calls an image"):
        assert word in out
    numbers = json.loads((tmp_path / "a.json").read_text())
    assert len(numbers["of_images"]) == 6
    assert 1.5 < numbers["bits_per_dim"] < 4.0  # log2(17) = 4.09 is the uniform distribution
    _, again, _ = run(capsys, "likelihood", "-n", "6", "--batch", "6", "--tol", "1e-2", "--json", str(tmp_path / "b.json"))
    whole = json.loads((tmp_path / "b.json").read_text())
    np.testing.assert_allclose(whole["of_images"], numbers["of_images"], atol=2e-3)  # the network's own rounding
    assert "bits/dim" in again


def test_inpaint_keeps_what_is_known(tmp_path, capsys):
    path = tmp_path / "a.png"
    arguments = ("-n", "2", "--completions", "3", "--steps", "6", "--known", "top", "--out", str(path))
    code, out, _ = run(capsys, "inpaint", *arguments)
    assert code == 0
    assert "3 completions" in out
    picture = np.asarray(Image.open(path)).astype(int)
    assert picture.shape == (102, 252)
    tiles = [[picture[2 + 50 * r : 50 + 50 * r, 2 + 50 * c : 50 + 50 * c] for c in range(5)] for r in range(2)]
    for row in tiles:
        for tile in row[2:]:
            assert np.abs(tile[:24] - row[0][:24]).max() <= 1
        assert np.abs(row[2][24:] - row[3][24:]).max() > 20  # completions differ


@pytest.mark.parametrize("name", MASKS)
def test_masks(name):
    mask = part(name, (1, 8, 8), seed=0)
    assert mask.shape == (1, 1, 8, 8)
    assert 0.2 < mask.mean() < 0.8
    assert set(mask.unique().tolist()) == {0.0, 1.0}


def test_interpolate_starts_and_ends_at_the_images(tmp_path, capsys):
    path = tmp_path / "a.png"
    code, out, _ = run(capsys, "interpolate", "-n", "1", "--steps", "3", "--tol", "1e-3", "--out", str(path))
    assert code == 0
    assert float(out.split("within ")[1].split()[0]) < 0.6
    assert np.asarray(Image.open(path)).shape == (52, 152)
    code, out, _ = run(capsys, "interpolate", "-n", "1", "--steps", "2", "--tol", "1e-2", "--temperature", "0.5", "--out", str(path))
    assert code == 0
    assert "come back" not in out


@pytest.mark.parametrize("command", ["likelihood", "inpaint", "interpolate", "study"])
def test_help_teaches(command, capsys):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"fastdiff {command}" in out


def test_models_lists_the_classifier(capsys):
    _, out, _ = run(capsys, "models")
    assert "classifier" in out
