"""Image folders, EDM's zips and .npz files: what is in them, in loaders with workers, and every way in which they can be wrong."""

from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fastdiff.data import describe, open_data
from tests.data.writers import npy, png, random_images, write_files, write_zip

SIDE = 6


def members(count=5, channels=3, side=SIDE):
    """({name: PNG}, [count, C, side, side])."""
    images = random_images(count, channels, side)
    return {f"00000/img{i:08d}.png": png(image) for i, image in enumerate(images)}, torch.from_numpy(images)


def labelled(names, labels):
    return [[name, label] for name, label in zip(names, labels, strict=True)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_edm_format(kind, channels, tmp_path):
    files, images = members(5, channels)
    labels = labelled(files, [2, 0, 1, 2, 2])[::-1]  # names say which is whose, not the order
    if kind == "zip":
        source = write_zip(tmp_path / "a.zip", files, labels)
    else:
        source = write_files(tmp_path, {**files, "dataset.json": json.dumps({"labels": labels}).encode()})
    data = open_data(source)
    assert torch.equal(data.raw(range(5)), images)
    assert torch.equal(data.batch([3, 1])[0], images[[3, 1]] / 127.5 - 1)
    assert data.labels.tolist() == [2, 0, 1, 2, 2]
    assert (data.shape, data.classes, data.levels) == ((channels, SIDE, SIDE), 3, 256)
    assert data[1][1] == 0
    assert torch.equal(data[1][0], images[1] / 127.5 - 1)


def test_a_zip_without_labels(tmp_path):
    files, _ = members()
    for labels in (None, ...):
        data = open_data(write_zip(tmp_path / "a.zip", files, labels))
        assert data.classes == 0
        assert (data.labels == -1).all()


def test_raw_files_keep_their_values(tmp_path):
    latents = np.random.RandomState(0).randn(3, 4, SIDE, SIDE).astype(np.float32) * 5
    data = open_data(
        write_zip(tmp_path / "a.zip", {f"{i}.npy": npy(x) for i, x in enumerate(latents)}, labelled(["0.npy", "1.npy", "2.npy"], [0, 1, 1]))
    )
    assert torch.equal(data.batch(range(3))[0], torch.from_numpy(latents))
    assert (data.levels, data.shape, data.classes) == (0, (4, SIDE, SIDE), 2)
    grey = random_images(2, 1, SIDE)
    data = open_data(write_zip(tmp_path / "b.zip", {f"{i}.npy": npy(x[0]) for i, x in enumerate(grey)}))
    assert torch.equal(data.batch(range(2))[0], torch.from_numpy(grey) / 127.5 - 1)
    assert data.levels == 256


def _workers_read(context, epochs, tmp_path):
    files, images = members(40)
    data = open_data(write_zip(tmp_path / "a.zip", files, labelled(files, [i % 4 for i in range(40)])))
    data.batch([0, 1])  # the parent's handle is open before the workers start
    loader = DataLoader(data, batch_size=5, num_workers=2, multiprocessing_context=context)
    for _ in range(epochs):
        batches = list(loader)
        assert torch.equal(torch.cat([x for x, _ in batches]), images / 127.5 - 1)
        assert torch.cat([labels for _, labels in batches]).tolist() == [i % 4 for i in range(40)]


def test_two_forked_workers_read_a_zip(tmp_path):
    _workers_read("fork", 2, tmp_path)


@pytest.mark.slow
def test_two_spawned_workers_read_a_zip(tmp_path):
    _workers_read("spawn", 1, tmp_path)


def test_a_pickled_zip_opens_again(tmp_path):
    files, images = members()
    data = open_data(write_zip(tmp_path / "a.zip", files))
    data.batch([0])
    assert torch.equal(pickle.loads(pickle.dumps(data)).raw([4, 2]), images[[4, 2]])


def test_an_image_folder_has_a_class_for_each_subfolder(tmp_path):
    images = random_images(4, 3, SIDE)
    write_files(
        tmp_path,
        {
            "dogs/b.png": png(images[3]), "dogs/a.bmp": png(images[2], format="BMP"), "cats/deep/x.PNG": png(images[0]),
            "cats/y.png": png(images[1]), "notes.txt": b"hello", ".hidden/z.png": b"no image", "cats/._y.png": b"no image",
        },
    )  # fmt: skip
    data = open_data(tmp_path)
    assert data.class_names == ("cats", "dogs")
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(data.raw(range(4)), torch.from_numpy(images))
    assert describe(data).counts == (2, 2)


def test_a_flat_folder_has_no_classes(tmp_path):
    images = random_images(3, 1, SIDE)
    data = open_data(write_files(tmp_path, {f"{i}.png": png(image) for i, image in enumerate(images)}))
    assert data.classes == 0
    assert torch.equal(data.raw(range(3)), torch.from_numpy(images))


def test_splits_of_a_folder(tmp_path):
    images = random_images(3, 1, SIDE)
    names = ("train/a/0.png", "train/b/0.png", "test/a/0.png")
    write_files(tmp_path, {name: png(image) for name, image in zip(names, images, strict=True)})
    assert len(open_data(tmp_path)) == len(open_data(f"{tmp_path}:train")) == 2
    assert open_data(tmp_path).class_names == ("a", "b")
    assert torch.equal(open_data(f"{tmp_path}:test").raw([0]), torch.from_numpy(images[2:]))
    with pytest.raises(FileNotFoundError, match="data: expected a folder test"):
        open_data(f"{tmp_path}/train:test")


def test_greys_among_colors_and_palettes(tmp_path):
    color, grey = random_images(1, 3, SIDE)[0], random_images(1, 1, SIDE)[0]
    files = {"0.png": png(grey), "1.png": png(color), "2.png": png(np.repeat(grey, 3, 0) // 64 * 64, "P"), "3.png": png(grey, "1")}
    data = open_data(write_files(tmp_path, files))
    x = data.raw(range(4))
    assert torch.equal(x[0], torch.from_numpy(grey).expand(3, -1, -1))
    assert torch.equal(x[1], torch.from_numpy(color))
    assert x.shape == (4, 3, SIDE, SIDE)
    assert set(x[3].unique().tolist()) <= {0, 255}


def test_resolution_takes_images_of_any_size(tmp_path):
    wide = np.zeros((3, 8, 16), np.uint8)
    wide[:, :, 4:8], wide[:, :, 8:12] = 100, 200  # the middle square is half 100 and half 200
    source = write_zip(tmp_path / "a.zip", {"a.png": png(wide), "b.png": png(random_images(1, 3, 5)[0])})
    data = open_data(source, resolution=4, resize="box")
    assert data.shape == (3, 4, 4)
    assert torch.equal(data.raw([0])[0, 0], torch.tensor([100, 100, 200, 200], dtype=torch.uint8).expand(4, 4))
    with pytest.raises(
        ValueError, match=r"data: expected \[3, 8, 16\] like a\.png, got \[3, 5, 5\] uint8 .*b\.png.* give all images one size"
    ):
        open_data(source)


def test_a_size_that_differs_late_is_found_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("fastdiff.data.files._LOOKED_AT", 2)
    files, _ = members(5)
    names = list(files)
    source = write_zip(tmp_path / "a.zip", files | {names[2]: png(random_images(1, 3, 7)[0])})
    data = open_data(source)
    with pytest.raises(ValueError, match=rf"data: expected \[3, 6, 6\] of uint8, got \[3, 7, 7\] uint8 .*{names[2]}"):
        describe(data)
    files, _ = members(5, 1)
    data = open_data(write_zip(tmp_path / "b.zip", files | {names[2]: png(random_images(1, 3, SIDE)[0])}))
    with pytest.raises(ValueError, match=rf"expected a grey image like the others, got mode RGB .*{names[2]}"):
        data.batch([2])


@pytest.mark.parametrize(("damage", "when"), [("pixels", "read"), ("header", "open"), ("empty", "open")])
def test_a_corrupt_png_is_named(damage, when, tmp_path):
    files, _ = members()
    name = list(files)[3]
    good = files[name]
    files[name] = {"pixels": good[: len(good) * 2 // 3], "header": b"\x89PNG" + good[20:], "empty": b""}[damage]
    for source in (write_zip(tmp_path / "a.zip", files), write_files(tmp_path / "a", files)):
        with pytest.raises(
            ValueError, match=rf"data: expected a whole image, got a corrupt one \(.*\) \(.*{name}\); replace the file"
        ) as error:
            describe(open_data(source))
        assert " at 0x" not in str(error.value)
        if when == "open":
            with pytest.raises(ValueError, match="expected a whole image"):
                open_data(source)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "CMYK", "I;16", "F"])
def test_unsupported_modes(mode, tmp_path):
    image = random_images(1, 1 if mode in ("I;16", "F", "LA") else 3, SIDE)[0]
    name = "a.tif" if mode in ("CMYK", "F") else "a.png"
    source = write_files(tmp_path, {name: png(image, mode, format="TIFF" if name == "a.tif" else "PNG")})
    with pytest.raises(ValueError, match=rf"data: expected an image of mode L, 1, RGB, P, got mode {mode} .*{name}.*; convert it"):
        open_data(source)


def test_empty_and_other_sources(tmp_path):
    with pytest.raises(ValueError, match=r"data: expected images \(\.png, .*\), got nothing"):
        open_data(tmp_path)
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(ValueError, match="got 1 files of other kinds"):
        open_data(tmp_path)
    with pytest.raises(ValueError, match=r"data: expected one of digits, .* got a file that ends with '\.txt'"):
        open_data(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="got nothing"):
        open_data(write_zip(tmp_path / "a.zip", {}))
    with pytest.raises(ValueError, match=r"expected .*a\.zip without a split, got .*a\.zip:test"):
        open_data(f"{tmp_path / 'a.zip'}:test")


def test_images_beside_subfolders(tmp_path):
    image = png(random_images(1, 1, SIDE)[0])
    write_files(tmp_path, {"a/0.png": image, "b/0.png": image, "loose.png": image})
    with pytest.raises(ValueError, match=r"expected either a subfolder for each class or images only, got 2 subfolders and loose\.png"):
        open_data(tmp_path)


def test_damaged_zips(tmp_path):
    files, _ = members()
    path = write_zip(tmp_path / "a.zip", files)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="data: expected a whole zip archive, got a corrupt or truncated one"):
        open_data(path)
    name = list(files)[2]
    at = whole.index(files[name]) + len(files[name]) - 30
    path.write_bytes(whole[:at] + b"\0\1\2\3" + whole[at + 4 :])
    with pytest.raises(ValueError, match=rf"data: expected a whole member, got a corrupt one \(Bad CRC.* \(.*{name}\)"):
        open_data(path)


def test_zips_that_are_not_safe(tmp_path):
    files, _ = members(1)
    for name in ("../a.png", "/a.png", "..\\a.png"):
        with pytest.raises(ValueError, match="data: expected members inside the archive's own folder"):
            open_data(write_zip(tmp_path / "a.zip", {**files, name: b""}))
    path = tmp_path / "twice.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", b"")
    with pytest.raises(ValueError, match=r"expected each name once, got a\.png twice"):
        open_data(path)
    data = bytearray(write_zip(tmp_path / "b.zip", files).read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "b.zip").write_bytes(data)
    with pytest.raises(ValueError, match="expected members without a password"):
        open_data(tmp_path / "b.zip")


def test_zips_that_are_too_large(tmp_path, monkeypatch):
    files, _ = members(2)
    monkeypatch.setattr("fastdiff.data.files._BYTES_LIMIT", 20)
    with pytest.raises(ValueError, match="expected members of at most 20 bytes"):
        open_data(write_zip(tmp_path / "a.zip", files))
    with pytest.raises(ValueError, match="expected at most 20 bytes"):
        open_data(write_files(tmp_path / "a", files))


def test_wrong_dataset_json(tmp_path):
    files, _ = members(3)
    names = list(files)
    for labels, message in (
        (labelled(names[:2], [0, 1]), rf"expected 3 labels, one for each image, got 2 \({names[2]} has none\)"),
        (labelled([*names, "other.png"], [0, 1, 2, 3]), r"expected 3 labels, one for each image, got 4 \(other\.png is not there\)"),
        ([[names[0], -1]], r"expected labels \[name, class >= 0\], got \["),
        ([[names[0], [0.5, 0.5]]], r"expected labels \[name, class >= 0\]"),
        ([[names[0], True]], r"expected labels \[name, class >= 0\]"),
        ([names[0]], r"expected labels \[name, class >= 0\]"),
        ("a", 'expected an object with "labels"'),
    ):
        with pytest.raises(ValueError, match=rf"data: {message}.*dataset\.json.*; write "):
            open_data(write_zip(tmp_path / "a.zip", files, labels))
    for text in (b"{", b"\xff\xfe", b"[1]"):
        with pytest.raises(ValueError, match=r"dataset\.json"):
            open_data(write_zip(tmp_path / "a.zip", {**files, "dataset.json": text}))


def test_wrong_raw_files(tmp_path):
    for array, message in (
        (np.zeros((2, 3, 4, 5), np.uint8), r"expected \[C, H, W\] or \[H, W\], uint8 or floating, got \[2, 3, 4, 5\] uint8"),
        (np.zeros((3, 4), np.int64), r"got \[1, 3, 4\] int64"),
        (np.array([print]), r"expected a whole \.npy file of numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            open_data(write_zip(tmp_path / "a.zip", {"a.npy": npy(array)}))
    zeros = npy(np.zeros((3, SIDE, SIDE), np.float32))
    for members_of, message in (
        ({"a.npy": zeros, "b.png": png(random_images(1, 3, SIDE)[0])}, r"expected images only, or raw \.npy files only"),
        ({"a.npy": zeros, "b.npy": npy(np.zeros((3, SIDE, SIDE), np.uint8))}, r"got \[3, 6, 6\] uint8"),
        ({"a.npy": zeros, "b.npy": npy(np.zeros((1, SIDE, SIDE), np.float32))}, r"got \[1, 6, 6\]"),
        ({"a.npy": zeros[:-3]}, r"expected a whole \.npy file"),
    ):
        with pytest.raises(ValueError, match=message):
            open_data(write_zip(tmp_path / "a.zip", members_of))
    with pytest.raises(ValueError, match="no resolution with"):
        open_data(write_zip(tmp_path / "a.zip", {"a.npy": zeros}), resolution=4)


@pytest.mark.parametrize("key", ["images", "arr_0", "samples"])
def test_npz(key, tmp_path):
    images = random_images(5, 3, SIDE)
    np.savez(tmp_path / "a.npz", **{key: images.transpose(0, 2, 3, 1), "label": np.array([0, 1, 2, 1, 0], np.uint8)})
    data = open_data(tmp_path / "a.npz")
    assert torch.equal(data.pixels, torch.from_numpy(images))
    assert data.pixels.dtype == torch.uint8
    assert data.labels.tolist() == [0, 1, 2, 1, 0]
    assert (data.classes, data.levels) == (3, 256)


def test_npz_of_floats_and_of_points(tmp_path):
    images = np.random.RandomState(0).uniform(-1, 1, (4, SIDE, SIDE, 3))
    np.savez(tmp_path / "a.npz", images=images)
    data = open_data(tmp_path / "a.npz")
    assert torch.equal(data.pixels, torch.from_numpy(images.transpose(0, 3, 1, 2)).float())
    assert (data.levels, data.classes, data.labels.tolist()) == (0, 0, [-1] * 4)
    np.savez(tmp_path / "a.npz", images=images.transpose(0, 3, 1, 2))
    assert torch.equal(open_data(tmp_path / "a.npz").pixels, data.pixels)  # channels first
    assert open_data(tmp_path / "a.npz", resolution=3).shape == (3, 3, 3)
    np.savez(tmp_path / "b.npz", arr_0=np.arange(8.0).reshape(4, 2))
    assert open_data(tmp_path / "b.npz").shape == (2,)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": np.zeros((2, 4, 4, 3))}, "expected an entry called images, arr_0, samples, got pictures"),
        ({"images": np.zeros((2, 4, 4, 3), np.int32)}, r"got \[2, 4, 4, 3\] int32"),
        ({"images": np.zeros((2, 4, 4), np.uint8)}, r"expected uint8 or floats \[N, H, W, C\], .* got \[2, 4, 4\] uint8"),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8)}, r"got \[0, 4, 4, 3\] uint8"),
        ({"images": np.zeros((2, 9, 9, 9), np.uint8)}, r"with at most 4 channels, got \[2, 9, 9, 9\]"),
        ({"images": np.zeros((2, 2), np.uint8)}, r"expected floats for points \[N, D\]"),
        ({"images": np.linspace(0, 1, 32).reshape(2, 4, 4, 1)}, r"expected floats from -1 to 1, got 0 \.\. 1 .* become 2\*x - 1"),
        ({"images": np.linspace(-5, 255, 32).reshape(2, 4, 4, 1)}, r"expected floats from -1 to 1, got -5 \.\. 255"),
        ({"images": np.full((2, 4, 4, 1), np.nan)}, "expected finite numbers, got NaN"),
        ({"images": np.zeros((2, 4, 4, 1), np.uint8), "labels": np.zeros(3, int)}, r"expected \[2\] integer labels, .* got \[3\] int64"),
        ({"images": np.zeros((2, 4, 4, 1), np.uint8), "labels": np.zeros(2)}, r"got \[2\] float64"),
        ({"images": np.zeros((2, 4, 4, 1), np.uint8), "labels": np.array([0, -2])}, r"expected labels from 0 \(-1 for none\), got -2"),
        ({"images": np.array([print], dtype=object)}, r"expected a whole \.npz of numbers"),
    ],
)
def test_wrong_npz(arrays, message, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=rf"data: .*{message}"):
        open_data(tmp_path / "a.npz")


def test_damaged_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, images=random_images(5, 3, SIDE).transpose(0, 2, 3, 1))
    whole = path.read_bytes()
    for data in (whole[:300], b"hello", b"", whole[:150] + b"\0\1\2" + whole[153:], npy(np.zeros(3))):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"data: expected a(n \.npz| whole \.npz of numbers), got"):
            open_data(path)
