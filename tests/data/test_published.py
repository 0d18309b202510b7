"""CIFAR-10 and MNIST as published, and every way in which their files can be wrong."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile

import numpy as np
import pytest
import torch

from fastdiff.data import describe, open_data
from fastdiff.data.pickles import load_numeric
from tests.data.writers import (
    CIFAR_TRAIN,
    cifar_batches,
    cifar_members,
    idx,
    python2_pickle,
    random_images,
    write_files,
    write_mnist,
    write_tar,
)

NAMES = {False: "cifar-10-python.tar.gz", True: "cifar-10-binary.tar.gz"}


def stacked(batches, names):
    pixels = torch.from_numpy(np.concatenate([batches[name][0] for name in names]))
    return pixels, torch.tensor([label for name in names for label in batches[name][1]])


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("form", ["archive", "folder", "parent"])
def test_cifar10(form, binary, tmp_path):
    batches = cifar_batches()
    members = cifar_members(batches, binary)
    if form == "archive":
        source = write_tar(tmp_path / NAMES[binary], members)
    else:
        source = write_files(tmp_path, members)
        source = source / next(iter(members)).split("/")[0] if form == "folder" else source
    data = open_data(source)
    pixels, labels = stacked(batches, CIFAR_TRAIN)
    assert torch.equal(data.pixels, pixels)
    assert data.pixels.dtype == torch.uint8
    assert torch.equal(data.labels, labels)
    assert (data.shape, data.classes, data.levels, data.class_names[3]) == ((3, 32, 32), 10, 256, "cat")
    assert torch.equal(data.batch([4])[0][0], pixels[4] / 127.5 - 1)
    test = open_data(f"{source}:test")
    assert torch.equal(test.pixels, stacked(batches, ["test_batch"])[0])
    assert torch.equal(open_data(f"{source}:train").pixels, pixels)
    assert "test split" in test.about


def test_a_pickle_of_python_3_is_read_too():
    pixels = random_images(2).reshape(2, -1)
    for protocol in (2, 4):
        for array in (pixels, np.asfortranarray(pixels), pixels.astype(">f4")):
            loaded = load_numeric(pickle.dumps({b"data": array, "labels": [1, 2]}, protocol), "a")
            np.testing.assert_array_equal(loaded["data"], array)
            assert loaded["labels"] == [1, 2]


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_in_an_archive_runs_nothing(protocol, tmp_path):
    import os

    mark = tmp_path / "mark"
    members = cifar_members(cifar_batches())
    members["cifar-10-batches-py/data_batch_2"] = pickle.dumps({b"data": Hostile(os.system, f"touch {mark}")}, protocol)
    path = write_tar(tmp_path / NAMES[False], members)
    with pytest.raises(ValueError, match=r"data: expected arrays of numbers only, got the global \w+\.system, .*data_batch_2.* md5 is "):
        open_data(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Hostile(eval, "1"), "the global .*eval"),
        (Hostile(np.frombuffer, b"a"), "the global .*frombuffer"),
        (np.array([print], dtype=object), "dtype 'O8'|the global"),
        (np.array(["a"]), "dtype 'U1'"),
        (np.zeros(2, "datetime64[s]"), "dtype 'M8'"),
    ],
)
def test_pickles_of_other_things_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        load_numeric(pickle.dumps({"data": value}, 2), "a")


def test_damaged_pickles():
    good = python2_pickle(random_images(1).reshape(1, -1), [3])
    for cut in (0, 10, 300, len(good) - 1):
        with pytest.raises(ValueError, match="expected a whole pickle"):
            load_numeric(good[:cut], "a")
    with pytest.raises(ValueError, match=r"expected 6144 bytes for an array \[2, 3072\], got 3072"):
        load_numeric(good.replace(b"J\x01\x00\x00\x00J\x00\x0c", b"J\x02\x00\x00\x00J\x00\x0c"), "a")


def test_a_tar_with_a_path_that_leads_outside(tmp_path):
    for name in ("../outside", "/outside", "cifar-10-batches-py/../../outside"):
        path = write_tar(tmp_path / NAMES[False], {name: b"a"})
        with pytest.raises(ValueError, match=r"data: expected members inside the archive's own folder, got '.*outside'"):
            open_data(path)
    assert not (tmp_path.parent / "outside").exists()


def test_links_and_sizes_in_a_tar(tmp_path):
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("data_batch_1")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(ValueError, match="got none called data_batch_1"):
        open_data(path)
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("data_batch_1")
        member.size = 100 << 20
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(ValueError, match="expected at most 64 members of 67108864 bytes, got 104857600 bytes in data_batch_1"):
        open_data(path)
    write_tar(path, {f"file{i}": b"" for i in range(80)})
    with pytest.raises(ValueError, match="got 65 or more"):
        open_data(path)


def test_truncated_and_other_archives(tmp_path):
    path = write_tar(tmp_path / NAMES[False], cifar_members(cifar_batches()))
    whole = path.read_bytes()
    for cut in (len(whole) // 2, len(whole) - 20, 10):
        path.write_bytes(whole[:cut])
        with pytest.raises(
            ValueError, match=r"data: expected a whole tar archive, got a corrupt .* its md5 is \w{32}, that of the published"
        ):
            open_data(path)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="expected a whole tar archive"):
        open_data(path)
    for at in (len(whole) // 2, len(whole) - 6):  # random pixels are stored as they are: only the checksum tells
        broken = bytearray(whole)
        broken[at] ^= 1
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="data: expected a whole tar archive, got a corrupt or truncated one"):
            open_data(path)


def _wrong_batches():
    pixels = random_images(2).reshape(2, -1)
    yield "labels missing", python2_pickle(pixels, [1]), "expected 2 integer labels, one for each image, got 1"
    yield "label out of range", python2_pickle(pixels, [1, 10]), r"expected labels 0 \.\. 9, got 1 \.\. 10"
    yield "other shape", python2_pickle(pixels[:, :100], [1, 2]), r"expected data \[N, 3072\] uint8, got \[2, 100\] uint8"
    yield "other dtype", python2_pickle(pixels.astype("<i2"), [1, 2], b"i2"), r".*got \[2, 3072\] int16"
    yield "no data", pickle.dumps({"labels": [1]}, 2), r"expected data \[N, 3072\] uint8, got NoneType"
    yield "no dictionary", pickle.dumps([1, 2], 2), "expected a dictionary with data and labels, got list"
    yield "text labels", pickle.dumps({"data": pixels, "labels": ["a", "b"]}, 2), "expected 2 integer labels"
    yield "another length", python2_pickle(pixels[:1], [1]), "expected as many images in each batch"


@pytest.mark.parametrize(("batch", "message"), [case[1:] for case in _wrong_batches()], ids=[case[0] for case in _wrong_batches()])
def test_wrong_batches(batch, message, tmp_path):
    members = cifar_members(cifar_batches()) | {"cifar-10-batches-py/data_batch_3": batch}
    with pytest.raises(ValueError, match=f"data: {message}"):
        open_data(write_tar(tmp_path / NAMES[False], members))
    with pytest.raises(ValueError, match=f"data: {message}"):
        open_data(write_files(tmp_path / "extracted", members))


def test_wrong_binary_batches(tmp_path):
    members = cifar_members(cifar_batches(), binary=True)
    batch = "cifar-10-batches-bin/data_batch_3.bin"
    for data, message in (
        (members[batch][:-1], "expected records of 3073 bytes, got 6145 bytes"),
        (b"", "expected records of 3073 bytes, got 0 bytes"),
        (members[batch][:3073], "expected as many images in each batch"),
        (b"\x0b" + members[batch][1:], r"expected labels 0 \.\. 9, got"),
    ):
        with pytest.raises(ValueError, match=message):
            open_data(write_tar(tmp_path / NAMES[True], members | {batch: data}))


def test_a_missing_batch_and_another_archive(tmp_path):
    members = cifar_members(cifar_batches())
    del members["cifar-10-batches-py/data_batch_4"]
    with pytest.raises(ValueError, match="got none called data_batch_4"):
        open_data(write_tar(tmp_path / NAMES[False], members))
    with pytest.raises(FileNotFoundError, match=r"data: expected the batch data_batch_4 .* cifar-10-python.tar.gz \(md5 c58f30108f71"):
        open_data(write_files(tmp_path, members))
    with pytest.raises(ValueError, match="expected the batches data_batch_1"):
        open_data(write_tar(tmp_path / "cifar-100-python.tar.gz", {"cifar-100-python/train": b"a"}))
    (tmp_path / "b" / "cifar-10-batches-py").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="expected the batch data_batch_1"):
        open_data(tmp_path / "b" / "cifar-10-batches-py")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar-10-python.tar.gz", r"cifar-10-binary\.tar\.gz \(md5 c32a1d4ab5d03f1284b67883e8d87530\)"),
        ("data/mnist", r"train-images-idx3-ubyte\.gz \(md5 f68b3c2dcbeaaa9fbdd348bbdeb94873\)"),
        ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"),
        ("digit", "swiss-roll, mixture, moons, checkerboard, or the path of"),
        ("nothing:test", "got nothing .nothing does not exist"),
    ],
)
def test_what_does_not_exist(name, message):
    with pytest.raises(FileNotFoundError, match=rf"data: expected .*{message}") as error:
        open_data(name)
    assert "http" not in str(error.value)


@pytest.mark.parametrize("zipped", [False, True])
def test_mnist(zipped, tmp_path):
    written = write_mnist(tmp_path, {"train": 13, "t10k": 11}, zipped)
    for prefix, source in {"train": tmp_path, "t10k": f"{tmp_path}:test"}.items():
        images, labels = written[prefix]
        data = open_data(source)
        assert torch.equal(data.pixels, torch.from_numpy(images)[:, None])
        assert torch.equal(data.labels, torch.from_numpy(labels))
        assert (data.shape, data.classes, data.levels) == ((1, 28, 28), 10, 256)
    one = open_data(tmp_path / f"t10k-images-idx3-ubyte{'.gz' if zipped else ''}")
    assert len(one) == 11
    assert describe(open_data(tmp_path)).counts == (2, 2, 2, 1, 1, 1, 1, 1, 1, 1)
    assert open_data(tmp_path, resolution=32).shape == (1, 32, 32)


def test_wrong_idx_files(tmp_path):
    write_mnist(tmp_path, {"train": 12}, zipped=False)
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    whole, whole_labels = images.read_bytes(), labels.read_bytes()
    for path, data, message in (
        (images, whole[:-5], r"expected 9408 values for \[12, 28, 28\], got 9403 .*train-images"),
        (images, whole + b"a", "expected 9408 values .* got more"),
        (images, whole[:7], "expected an idx file that starts with 00000803, got 00000803|got 0000"),
        (images, b"", "got nothing"),
        (images, idx(np.zeros((12, 28, 28)), magic=0x803 + 0x100), "expected an idx file that starts with 00000803, got 00000903"),
        (images, whole_labels, "expected an idx file that starts with 00000803, got 00000801"),
        (images, whole[:4] + b"\xff" * 12, "expected at most 1073741824 values"),
        (images, idx(np.zeros((0, 28, 28))), r"expected 0 labels|expected images, got \[0, 28, 28\]"),
        (labels, idx(np.arange(9)), "expected 12 labels, one for each image of train-images-idx3-ubyte, got 9"),
        (labels, idx(np.full(12, 10)), r"expected labels 0 \.\. 9, got 10 \.\. 10"),
    ):
        images.write_bytes(whole)
        labels.write_bytes(whole_labels)
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"data: .*{message}"):
            open_data(tmp_path)


def test_wrong_gzip_files(tmp_path):
    write_mnist(tmp_path, {"train": 12})
    images = tmp_path / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    for data in (whole[: len(whole) // 2], b"plain", gzip.compress(b"")[:5]):
        images.write_bytes(data)
        with pytest.raises(ValueError, match=r"data: expected .* its md5 is \w{32}, that of the published file f68b3c2d"):
            open_data(tmp_path)


def test_missing_idx_files(tmp_path):
    write_mnist(tmp_path, {"train": 12})
    with pytest.raises(FileNotFoundError, match=r"data: expected t10k-images-idx3-ubyte or t10k-images-idx3-ubyte\.gz, got nothing"):
        open_data(f"{tmp_path}:test")
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="data: expected train-labels-idx1-ubyte or"):
        open_data(tmp_path)
