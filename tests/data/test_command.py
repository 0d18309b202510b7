"""Conversion there and back, and `fastdiff data` as a person uses it."""

from __future__ import annotations

import json
import sys
import zipfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from fastdiff.commands.data import data as command
from fastdiff.data import BUILT_IN, convert, open_data
from tests.data.writers import cifar_batches, cifar_members, npy, png, random_images, write_files, write_tar, write_zip


def run(*arguments: object):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def everything(source) -> tuple[torch.Tensor, torch.Tensor]:
    data = open_data(source)
    return data.batch(range(len(data)))


def test_digits_through_a_zip_are_rounded_to_8_bits(tmp_path):
    x, labels = everything("digits:test")
    convert(open_data("digits:test"), tmp_path / "digits.zip")
    again, labels_again = everything(tmp_path / "digits.zip")
    assert (again - x).abs().max() <= 1 / 255 + 1e-6
    assert torch.equal(labels, labels_again)
    assert torch.equal((again * 8).round() / 8, x)  # none of the 17 levels is lost
    assert open_data(tmp_path / "digits.zip").classes == 10


def test_digits_through_an_npz_are_the_same(tmp_path):
    convert(open_data("digits:test"), tmp_path / "digits.npz")
    for one, two in zip(everything("digits:test"), everything(tmp_path / "digits.npz"), strict=True):
        assert torch.equal(one, two)
    data = open_data(tmp_path / "digits.npz")
    assert (data.levels, data.classes) == (17, 10)


def test_8_bits_are_the_same_through_everything(tmp_path):
    path = write_tar(tmp_path / "cifar-10-python.tar.gz", cifar_members(cifar_batches()))
    x, labels = everything(path)
    convert(open_data(path), tmp_path / "a.zip")
    convert(open_data(tmp_path / "a.zip"), tmp_path / "b.npz")
    convert(open_data(tmp_path / "b.npz"), tmp_path / "c.zip")
    for source in ("a.zip", "b.npz", "c.zip"):
        again, labels_again = everything(tmp_path / source)
        assert torch.equal(again, x)
        assert torch.equal(labels_again, labels)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "c.zip").read_bytes()  # the same data give the same bytes
    assert np.load(tmp_path / "b.npz")["images"].shape == (10, 32, 32, 3)


def test_the_zip_is_the_one_of_edm(tmp_path):
    images = random_images(2, 3, 8)
    source = write_files(tmp_path / "in", {"b/0.png": png(images[1]), "a/0.png": png(images[0])})
    convert(open_data(source), tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == ["00000/img00000000.png", "00000/img00000001.png", "dataset.json"]
        assert all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
        assert json.loads(archive.read("dataset.json")) == {"labels": [["00000/img00000000.png", 0], ["00000/img00000001.png", 1]]}
        assert archive.getinfo("00000/img00000000.png").file_size > images[0].nbytes  # pixels are not compressed
        np.testing.assert_array_equal(np.asarray(Image.open(archive.open("00000/img00000000.png"))), images[0].transpose(1, 2, 0))
    convert(open_data(write_files(tmp_path / "flat", {"0.png": png(images[0])})), tmp_path / "flat.zip")
    with zipfile.ZipFile(tmp_path / "flat.zip") as archive:
        assert json.loads(archive.read("dataset.json")) == {"labels": None}


def test_continuous_values_are_never_rounded(tmp_path):
    latents = np.random.RandomState(0).randn(3, 4, 8, 8).astype(np.float32) * 3
    path = write_zip(tmp_path / "a.zip", {f"{i}.npy": npy(x) for i, x in enumerate(latents)})
    convert(open_data(path), tmp_path / "b.zip")
    assert torch.equal(everything(tmp_path / "b.zip")[0], torch.from_numpy(latents))
    with pytest.raises(ValueError, match=r"data: expected values in \[-1, 1\] for an \.npz, got -.*; write a \.zip"):
        convert(open_data(path), tmp_path / "b.npz")
    assert not (tmp_path / "b.npz").exists()


def test_points_go_through_an_npz(tmp_path):
    convert(open_data("moons:test"), tmp_path / "a.npz")
    assert torch.equal(everything(tmp_path / "a.npz")[0], everything("moons:test")[0])
    with pytest.raises(ValueError, match=r"data: expected images for a \.zip, got points \[2\] \(moons\); write an \.npz"):
        convert(open_data("moons"), tmp_path / "a.zip")


def test_a_conversion_that_fails_leaves_nothing(tmp_path):
    good = png(random_images(1, 3, 8)[0])
    path = write_zip(tmp_path / "a.zip", {"a.png": good, "b.png": good[:-60]})
    (tmp_path / "out.zip").write_bytes(b"before")
    with pytest.raises(ValueError, match=r"b\.png"):
        convert(open_data(path), tmp_path / "out.zip")
    assert (tmp_path / "out.zip").read_bytes() == b"before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.zip", "out.zip"]
    with pytest.raises(ValueError, match=r"data: expected a file to write that ends with \.zip or \.npz, got .*out\.tar"):
        convert(open_data(path), tmp_path / "out.tar")
    with pytest.raises(FileNotFoundError):
        convert(open_data(path), tmp_path / "nowhere" / "out.zip")


def test_inspect(tmp_path):
    result = run("digits", "--out", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    for words in ("1438 of shape [1, 8, 8]", "10: 0 (151), 1 (147)", "-1 .. 1, 17 grey levels", "0.75257 (sigma_data)", "a class in a row"):
        assert words in result.output
    assert "reading" in result.stderr  # the progress bar
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.shape == (10 * 50 + 2, 8 * 50 + 2)
    tile = picture[2:50, 2:50].astype(int)
    first = open_data("digits")
    zero = first.batch((first.labels == 0).nonzero().flatten()[:1])[0][0, 0]
    assert np.abs(tile[::6, ::6] - (zero.numpy() * 127.5 + 127.5)).max() <= 1


def test_pictures_of_images_without_classes_and_of_rare_ones(tmp_path):
    images = random_images(5, 3, 8)
    flat = write_files(tmp_path / "flat", {f"{i}.png": png(image) for i, image in enumerate(images)})
    result = run(flat, "--out", tmp_path / "a.png", "--per-class", 3)
    assert "classes  none" in result.output
    assert "the first 5 images" in result.output
    assert "256 grey levels" in result.output
    assert np.asarray(Image.open(tmp_path / "a.png")).shape == (2 * 50 + 2, 3 * 50 + 2, 3)
    many = write_files(tmp_path / "many", {f"{i:02}/0.png": png(images[0]) for i in range(25)})
    result = run(many, "--out", tmp_path / "b.png", "--per-class", 2)
    assert "each of the first 20 classes" in result.output
    assert "and 5 more with 5 together" in result.output
    assert np.asarray(Image.open(tmp_path / "b.png")).shape == (20 * 50 + 2, 2 * 50 + 2, 3)


def test_convert_on_the_command_line(tmp_path):
    images = {f"{i}.png": png(random_images(1, 3, 9 + i)[0]) for i in range(3)}
    source = write_files(tmp_path / "in", images)
    result = run(source, "--resolution", 4, "--filter", "box", "--to", tmp_path / "out.zip")
    assert result.exit_code == 0, result.output
    assert "3 images" in result.output
    assert "note" not in result.output
    assert "writing" in result.stderr
    assert open_data(tmp_path / "out.zip").shape == (3, 4, 4)
    result = run(source, "--resolution", 5, "--to", tmp_path / "out.zip")
    assert "note: EDM's own training reads squares whose side is a power of two, these are 5 x 5" in result.output
    result = run("moons:test", "--to", tmp_path / "moons.npz")
    assert "10000 points" in result.output


def test_points_are_drawn(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    result = run("checkerboard:test", "--out", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    assert 0.1 < (pixels > 250).mean() < 0.9
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("moons:test", "--out", tmp_path / "b.png")
    assert "pip install 'fastdiff-torch[plot]'" in str(result.exception)
    assert not (tmp_path / "b.png").exists()


def test_the_list_and_the_help():
    listed = run().output
    for name in (*BUILT_IN, "cifar-10-python.tar.gz", "FILE.npz"):
        assert name in listed
    text = run("--help").output
    for words in ("fastdiff data digits", "sigma_data", "--to cifar10.zip"):
        assert words in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("digit",), "data: expected one of digits"),
        (("digits", "--per-class", "0"), "--per-class: expected an integer from 1 to 1000, got 0"),
        (("digits", "--resolution", "-1"), "resolution: expected 1 .. 8192 pixels, got -1"),
        (("digits", "--to", "a.tar"), "data: expected a file to write that ends with .zip or .npz, got a.tar"),
        (("digits", "--out", "/nowhere/a.png"), "/nowhere"),
        (("moons", "--to", "a.zip"), "data: expected images for a .zip"),
    ],
)
def test_errors(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert isinstance(result.exception, ValueError | OSError)
    assert message in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_pictures_of_four_channels_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.npy": npy(np.zeros((4, 8, 8), np.float32))})
    assert "--out: expected images with 1 or 3 channels, got 4" in str(run(path, "--out", tmp_path / "a.png").exception)
