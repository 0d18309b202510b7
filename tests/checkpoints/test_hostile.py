"""Files made to harm: each fails with a ValueError that says why, nothing is executed, nothing is written, and no memory is spent."""

from __future__ import annotations

import io
import os
import pickle
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from fastdiff.checkpoints import UntrustedPickle, convert, read
from fastdiff.checkpoints.torch_file import loads
from fastdiff.models import EDMPrecond
from fastdiff.models.song_unet import UNetBlock
from tests.checkpoints.writers import Persistent, edm_pickle, nvlabs_modules, score_sde_content, torch_bytes

KEYWORDS = dict(
    img_resolution=8, img_channels=1, model_type="SongUNet", model_channels=8, channel_mult=[1], num_blocks=1, attn_resolutions=[8]
)


class Call:
    """Pickled as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attack(name: str, marker: Path):
    touch = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w')"
    return {
        "os.system": Call(os.system, touch),
        "builtins.eval": Call(eval, code),
        "builtins.exec": Call(exec, code),
        "builtins.getattr": Call(getattr, "", "join"),
        "nested": Call(Call, Call(os.system, touch)),
        "operator.attrgetter": Call(__import__("operator").attrgetter, "system"),
        "functools.partial": Call(__import__("functools").partial, os.system, touch),
        "subprocess.Popen": Call(__import__("subprocess").Popen, touch, -1),
        "torch.load": Call(torch.load, str(marker)),
        "torch.serialization": Call(torch.serialization._get_layout, "torch.strided"),
        "pathlib": Call(type(marker).touch, marker),
        "numpy.load": Call(np.load, str(marker), None, True),
    }[name]


NAMES = {
    "os.system": r"(posix|nt|os)\.system", "builtins.eval": r"_*builtins?_*\.eval", "builtins.exec": r"_*builtins?_*\.exec",
    "builtins.getattr": r"_*builtins?_*\.getattr", "nested": r"tests\.checkpoints\.test_hostile\.Call",
    "operator.attrgetter": r"operator\.attrgetter",
    "functools.partial": r"functools\.partial", "subprocess.Popen": r"(subprocess|commands)\.Popen",
    "torch.load": r"torch\.serialization\.load",
    "torch.serialization": r"torch\.serialization\._get_layout", "pathlib": r"(pathlib|_*builtins?_*)", "numpy.load": r"numpy",
}  # fmt: skip


@pytest.fixture
def marker(tmp_path):
    path = tmp_path / "executed"
    yield path
    assert not path.exists(), "something in the file was executed"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("out")], "something was written"


def refused(tmp_path: Path, data: bytes, match: str) -> None:
    """The bytes are refused by reader and converter, naming the file, quickly."""
    path = tmp_path / "hostile.pkl"
    path.write_bytes(data)
    started = time.perf_counter()
    with pytest.raises(UntrustedPickle, match=match) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).startswith("checkpoint: expected")
    with pytest.raises(ValueError, match="checkpoint: expected"):
        convert(path, tmp_path / "out")
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_call_in_a_pickle_is_refused_by_name(tmp_path, marker, name, protocol):
    value = {"ema": attack(name, marker), "state": [1, 2]}
    refused(tmp_path, pickle.dumps(value, protocol), rf"expected tensors and plain containers, got the global {NAMES[name]}")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "nested"])
def test_a_call_in_a_torch_file_is_refused_by_name(tmp_path, marker, name, legacy):
    refused(tmp_path, torch_bytes({"model": attack(name, marker)}, legacy), f"got the global {NAMES[name]}")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_call_in_a_torch_file_within_a_pickle(tmp_path, marker, legacy):
    nested = torch_bytes([attack("os.system", marker)], legacy)
    refused(tmp_path, pickle.dumps(Call(torch.storage._load_from_bytes, nested)), r"got the global (posix|nt)\.system")


def test_a_call_hidden_beside_a_whole_network(tmp_path, marker):
    data = edm_pickle(EDMPrecond(**KEYWORDS), KEYWORDS, marker, extra=attack("os.system", marker))
    refused(tmp_path, data, r"got the global (posix|nt)\.system")


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (b"cos\nsystem\n(S'touch MARKER'\ntR.", r"the global os\.system"),
        (b"(S'touch MARKER'\nios\nsystem\n.", r"the global os\.system"),
        (b"(cos\nsystem\nS'touch MARKER'\no.", r"the global os\.system"),
        (b"c__builtin__\neval\n(S'1'\ntR.", r"the global __builtin__\.eval"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.", r"the global os\.system"),
        (b"\x80\x04\x8c\x17torch_utils.persistence\x8c\x0bsys.modules\x93.", r"the global torch_utils\.persistence\.sys\.modules"),
        (b"\x80\x04\x8c\x0etorch.nn.modul\x8c\x02os\x93.", r"the global torch\.nn\.modul\.os"),
        (b"\x80\x04\x8c\x13torch.nn.modules.os\x8c\x06system\x93.", r"the global torch\.nn\.modules\.os\.system"),
        (b"\x80\x02\x82\x01.", "the opcode EXT1"),
        (b"\x80\x05\x97.", "the opcode NEXT_BUFFER"),
        (b"Pos.system\n.", "the opcode PERSID"),
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "a persistent id"),
        (b"ctorch\nTensor\n(tR.", r"a call of torch\.Tensor"),
        (b"\x80\x02]N\x85R.", r"a call of a value \(list\)"),
        (b"\x80\x02ctorch.nn.modules.linear\nLinear\n)}X\x01\x00\x00\x00aK\x01s\x92.", "an object made with keywords"),
    ],
)
def test_handwritten_opcodes(tmp_path, marker, code, name):
    refused(tmp_path, code.replace(b"MARKER", str(marker).encode()), f"got {name} in ")


def nested_lists(depth: int) -> bytes:
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


def doubling(opcode: bytes, times: int = 60) -> bytes:
    """A tuple or list of the last one twice, again and again: small here, without end for who walks through it."""
    return b"\x80\x02" + (b")" if opcode == b"\x86" else b"]") + (b"2" + opcode) * times


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (b"\x80\x02Nr\xff\xff\xff\xff" + b"Nj\xfe\xff\xff\xff.", "KeyError"),  # a memo index that Python's own unpickler makes room for
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.", "expected 4611686018427387904 bytes"),
        (b"\x80\x04B\xff\xff\xff\xffx.", "expected 4294967295 bytes"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"x.", "ValueError"),
        (b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01.", "ValueError"),
        (b"\x80\x02\x8b" + struct.pack("<i", 5000) + b"\x7f" * 5000 + b".", "an integer of 39999 bits"),
        (b"\x80\x04\x95" + struct.pack("<Q", 2**64 - 1) + b"N", "ValueError"),
        (b"I" + b"9" * 100_000 + b"\n.", "ValueError"),
        (doubling(b"\x86") + b"}" + b"\x85b.", "TypeError"),
        (b"\x80\x02}" + doubling(b"\x86")[2:] + b"K\x01s.", "expected text or numbers as keys, got tuple"),
        (b"\x80\x04\x8f(" + doubling(b"\x86")[2:] + b"\x90.", "expected text or numbers as keys, got tuple"),
        (b"\x80\x02NN.", "too many values"),
        (b"\x80\x02.", "not enough values"),
        (b"\x80\x02}(K\x01K\x02K\x03u.", "a key without a value"),
        (b"\x80\x02t.", "IndexError"),
        (b"", "ValueError"),
        (b"not a pickle", "ValueError|UntrustedPickle|IndexError"),
    ],
)
def test_sizes_and_structures_without_end(tmp_path, marker, code, reason):
    refused(tmp_path, code, f"damaged one in .*({reason})")


def test_too_many_operations(tmp_path, marker, monkeypatch):
    monkeypatch.setattr("fastdiff.checkpoints.unpickle.MAX_OPERATIONS", 1000)
    refused(tmp_path, b"\x80\x02(" + b"}" * 2000 + b"t.", "expected at most 1000 operations")


@pytest.mark.parametrize("depth", [1000, 200_000])
def test_deep_nesting_ends_without_recursion(tmp_path, marker, depth):
    path = tmp_path / "deep.pkl"
    path.write_bytes(nested_lists(depth))
    with pytest.raises(ValueError, match="expected one of edm"):
        convert(path, tmp_path / "out")


def persistent_bytes(state: dict, class_name: str = "EDMPrecond") -> bytes:
    with nvlabs_modules():
        return pickle.dumps({"ema": Persistent(class_name, "source", state)}, protocol=4)


def shared(times: int):
    value: list = []
    for _ in range(times):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"_init_args": (), "_init_kwargs": {"channel_mult": shared(60)}}, "expected at most 10000 values in 16 levels"),
        ({"_init_args": (), "_init_kwargs": {"channel_mult": shared(14)}}, "expected at most 10000 values"),
        ({"_init_args": (), "_init_kwargs": {"channel_mult": {1, 2}}}, "expected numbers, texts, lists and dicts, got set"),
        ({"_init_args": (), "_init_kwargs": dict(img_resolution=8, img_channels=1, model_channels=10**12)}, "expected"),
        ({"_init_args": (), "_init_kwargs": dict(img_resolution=8, img_channels=1, num_blocks=10**9)}, "much deeper"),
        ({"_init_args": (), "_init_kwargs": dict(img_resolution=8, img_channels=1, M=10**9)}, "expected M of at most"),
        ({"_init_args": [1] * 9, "_init_kwargs": {}}, "at most 2 positional arguments"),
        ({"_init_args": (), "_init_kwargs": None}, "expected the arguments of EDMPrecond, got none"),
        ({"_modules": 3}, "expected _modules of a module, got int"),
        ({"_modules": {"a": 3}}, "expected a module at 'a.', got int"),
        ({"_parameters": {"a": 3}}, "expected a tensor at a, got int"),
    ],
)
def test_networks_without_end(tmp_path, marker, state, message):
    path = tmp_path / "a.pkl"
    path.write_bytes(persistent_bytes(state))
    with pytest.raises(ValueError, match=message):
        convert(path, tmp_path / "out")


def test_a_module_that_contains_itself(tmp_path, marker):
    state: dict = {"_init_args": (), "_init_kwargs": {}, "_modules": {}}
    inner = torch.nn.Sequential()
    inner._modules = {"a": inner, "b": inner}  # type: ignore[dict-item]
    state["_modules"]["model"] = inner
    path = tmp_path / "a.pkl"
    path.write_bytes(persistent_bytes(state))
    with pytest.raises(ValueError, match="modules in 32 levels"):
        convert(path, tmp_path / "out")


def tensor_call(*arguments):
    return Call(torch._utils._rebuild_tensor_v2, *arguments)


def storage_of(tensor: torch.Tensor) -> torch.storage.TypedStorage:
    return torch.storage.TypedStorage(wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype, _internal=True)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (9,), (1,)), (1, (8,), (1,)), (-1, (2,), (1,)), (0, (2,), (-1,)), (0, (2, 5), (5, 1)), (0, (2,), (2**62,)), (0, (10**6,), (0,)),
        (0, (4, 4), (1, 1)), (2**63, (1,), (1,)), (0, (2,), (1, 1)), (0, (1,) * 40, (1,) * 40), (0, (0, 2**62), (1, 1)), (0.5, (1,), (1,)),
        (0, ("a",), (1,)), (0, (True,), (1,)), (0, None, None), (shared(60), (1,), (1,)), (0, shared(60), (1,)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_beyond_their_storage(tmp_path, marker, offset, size, stride, legacy):
    value = tensor_call(storage_of(torch.arange(8.0)), offset, size, stride, False, {})
    refused(tmp_path, torch_bytes(value, legacy), "damaged one")


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rezip(content: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return file.getvalue()


def test_compressed_members_are_refused(tmp_path, marker):
    content = members(torch_bytes({"a": torch.zeros(100_000)}))
    bomb = rezip(content, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 4000
    refused(tmp_path, bomb, "the compressed member 'archive/data.pkl'")


def test_storages_that_are_not_there(tmp_path, marker):
    content = members(torch_bytes({"a": torch.zeros(100)}))
    del content["archive/data/0"]
    refused(tmp_path, rezip(content), "damaged one.*data/0")
    content["archive/data/0"] = b"abc"
    refused(tmp_path, rezip(content), "3 bytes of a storage of 400")
    content["archive/other/data.pkl"] = content["archive/data.pkl"]
    refused(tmp_path, rezip(content), "2 members called data.pkl")
    refused(tmp_path, rezip({"a": b"b"}), "0 members called data.pkl")
    refused(tmp_path, rezip({"a/data.pkl": b"N.", "a/byteorder": b"middle"}), "the byte order 'middle'")


def test_a_member_larger_than_the_file(tmp_path, marker):
    data = torch_bytes({"a": torch.zeros(8)})
    head = data.rindex(b"PK\x01\x02")
    forged = data[: head + 20] + struct.pack("<II", 2**31, 2**31) + data[head + 28 :]
    refused(tmp_path, forged, "members that are larger than the file")


@pytest.mark.parametrize("count", [2**20, 2**40, 2**62, -1, True])
def test_a_storage_larger_than_the_file(tmp_path, marker, count):
    identity = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    number = b"\x88" if count is True else b"\x8a\x09" + int(count).to_bytes(9, "little", signed=True)
    code = b"\x80\x02" + identity + number + b"tQ."
    forged = rezip({"archive/data.pkl": code, "archive/data/0": b"\0" * 16})
    refused(tmp_path, forged, "no larger than the file|damaged one")


def test_one_storage_read_again_and_again(tmp_path, marker):
    """Small bytes that a pickle names often: their copies together may not be larger than the file."""
    nested = torch_bytes(storage_of(torch.zeros(2000)), legacy=True)
    again = pickle.dumps([Call(torch.storage._load_from_bytes, nested) for _ in range(50)])
    assert len(again) < 2 * len(nested)
    refused(tmp_path, again, "expected tensors no larger than the file")


def test_torch_files_nested_in_torch_files(tmp_path, marker):
    inner = torch_bytes(storage_of(torch.zeros(2)), legacy=True)
    outer = torch_bytes([Call(torch.storage._load_from_bytes, inner)])
    refused(tmp_path, pickle.dumps(Call(torch.storage._load_from_bytes, outer)), "nested more than 1 deep")


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_objects(tmp_path, marker, protocol):
    value = np.array([None, {}], dtype=object)
    refused(tmp_path, pickle.dumps(value, protocol), "expected a dtype of numbers, got O8")


def test_a_view_of_a_legacy_storage_and_a_foreign_persistent_id(tmp_path, marker):
    data = torch_bytes(torch.zeros(2), legacy=True)
    assert b"storage" in data
    refused(tmp_path, data.replace(b"storage", b"modules", 1), "persistent id of a storage, got modules")


def files(tmp_path: Path) -> dict[str, bytes]:
    torch.manual_seed(0)
    net = EDMPrecond(**KEYWORDS)
    tensors = {name: tensor for name, tensor in net.state_dict().items() if tensor.numel() < 2000}
    return {
        "edm": edm_pickle(net, KEYWORDS, tmp_path / "executed"),
        "edm_small": edm_pickle(UNetBlock(4, 4, 4), {}, tmp_path / "executed"),
        "zip": torch_bytes(tensors),
        "legacy": torch_bytes(tensors, legacy=True),
        "score_sde": torch_bytes(score_sde_content(tensors, [])),
    }


@pytest.mark.parametrize("kind", ["edm", "zip", "legacy", "score_sde"])
def test_a_file_cut_at_every_kilobyte(tmp_path, marker, kind):
    data = files(tmp_path)[kind]
    read_whole = loads(data, "whole")
    assert read_whole
    path = tmp_path / "cut.bin"
    for end in [*range(0, len(data), 1024), len(data) - 1]:
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match=r"checkpoint: expected .*cut\.bin"):
            convert(path, tmp_path / "out")


@pytest.mark.parametrize("kind", ["edm", "legacy"])
def test_bytes_after_the_end(tmp_path, marker, kind):
    refused(tmp_path, files(tmp_path)[kind] + b"\0" * 100, "100 bytes after the pickle")
