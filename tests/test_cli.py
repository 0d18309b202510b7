"""The command line, as a person uses it: pictures, help, and one clear line where something is wrong."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fastdiff.cli import main
from fastdiff.models import load_model


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the command."""
    with pytest.raises(SystemExit) as done:
        main(list(arguments))
    captured = capsys.readouterr()
    return int(done.value.code or 0), captured.out, captured.err


def test_sample_writes_a_picture_and_the_samples(tmp_path, capsys):
    png, npz = tmp_path / "a.png", tmp_path / "a.npz"
    code, out, err = run(capsys, "sample", "-n", "20", "--steps", "4", "--out", str(png), "--npz", str(npz))
    assert code == 0
    assert "sampling" in err  # the progress bar
    for word in ("fastdiff", "eager", "images/s", "sampler's share", "7 network calls"):
        assert word in out
    picture = np.asarray(Image.open(png))
    assert picture.shape == (102, 502)
    assert picture.std() > 20
    arrays = np.load(npz)
    assert arrays["images"].shape == (20, 8, 8, 1)
    assert arrays["images"].dtype == np.uint8
    assert arrays["labels"].tolist() == [i % 10 for i in range(20)]


def test_samples_depend_on_the_seed_and_not_on_the_batch(tmp_path, capsys):
    def images(*arguments):
        npz = tmp_path / "b.npz"
        code, _, _ = run(
            capsys, "sample", "-n", "7", "--steps", "3", "--no-compare", "--npz", str(npz), "--out", str(tmp_path / "b.png"), *arguments
        )
        assert code == 0
        return np.load(npz)["images"].astype(int)

    first = images("--seed", "3", "--s-churn", "10")
    assert np.abs(first - images("--seed", "3", "--batch", "2", "--s-churn", "10")).max() <= 1  # the network's own rounding
    assert np.abs(first - images("--seed", "4", "--s-churn", "10")).max() > 50


def test_one_class_with_classifier_free_guidance_and_epsilon_scaling(tmp_path, capsys):
    arguments = ("--class", "7", "--cfg", "1.5", "--eps-scale", "1.004", "-n", "2", "--steps", "2", "--out", str(tmp_path / "c.png"))
    code, out, _ = run(capsys, "sample", *arguments)
    assert code == 0
    assert "6 network calls" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nope"], "model: expected one of digits, digits-small, digits-small-perturbed, got 'nope'"),
        (["-n", "0"], "-n: expected an integer from 1 to 1000000, got 0"),
        (["-n", "some"], "'some' is not a valid integer"),
        (["--batch", "0"], "--batch: expected an integer from 1"),
        (["--steps", "1"], "--steps: expected an integer >= 2"),
        (["--class", "10"], "--class: expected 0 .. 9, got 10"),
        (["--out", "/no/such/folder/x.png"], "the folder /no/such/folder does not exist"),
        (["--out", "/"], "expected a file to write, got a folder"),
        (["--weights", "/no/such/file"], "weights: no such file: /no/such/file"),
        (["--bogus"], "No such option"),
        (["--eps-scale", "0"], "EpsilonScaling: expected"),
        (["--device", "foo"], "--device: expected one that works here, such as cpu, got 'foo'"),
        (["--device", "meta"], "--device: expected one that works here"),
        (["-n", "100000000000000"], "-n: expected an integer from 1 to 1000000"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "sample", *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.startswith("fastdiff: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def _corrupt(path):
    path.write_bytes(b"\x00" * 100)


def _truncated(path):
    from safetensors.torch import save

    path.write_bytes(save(load_model("digits").state_dict())[:5000])


def _wrong_keys(path):
    from safetensors.torch import save_file

    save_file({f"other.{k}": v for k, v in load_model("digits").state_dict().items()}, path)


def _wrong_shape(path):
    from safetensors.torch import save_file

    state = load_model("digits").state_dict()
    state["model.map_layer0.bias"] = torch.zeros(3)
    save_file(state, path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_corrupt, "expected a safetensors file"),
        (_truncated, "expected a safetensors file"),
        (_wrong_keys, "missing model."),
        (_wrong_shape, "expected model.map_layer0.bias of shape [128], got [3]"),
    ],
)
def test_bad_weights(spoil, message, capsys, tmp_path, monkeypatch):
    weights = tmp_path / "w.safetensors"
    spoil(weights)
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "sample", "--weights", str(weights))
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [weights]


def test_help_teaches(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "fastdiff sample --model digits" in out
    code, out, _ = run(capsys, "sample", "--help")
    assert code == 0
    assert "classifier-free" in out
    assert "[default: 18]" in out


def test_models_and_version(capsys):
    assert "digits" in run(capsys, "models")[1]
    assert run(capsys, "--version")[1].startswith("fastdiff, version")


def test_doctor(capsys):
    code, out, _ = run(capsys, "doctor")
    assert code == 0
    for word in ("torch", "threads", "sampler_step", "what to do"):
        assert word in out


def test_special_files_are_not_replaced(tmp_path, capsys):
    import os
    import stat

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code, _, err = run(capsys, "sample", "-n", "1", "--steps", "2", "--out", str(pipe))
    assert code == 2
    assert "expected a regular file to write" in err
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_module_entry_point():
    done = subprocess.run([sys.executable, "-m", "fastdiff.cli", "models"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "digits" in done.stdout
