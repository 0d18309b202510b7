"""Noise format 1: known answers, the bits whatever the run, and the statistics."""

from __future__ import annotations

import importlib
from functools import lru_cache

import numpy as np
import pytest
import torch
from scipy import stats

import fastdiff
from fastdiff.ops import OPS, noise_format
from tests.conftest import need
from tests.ops import numpy_noise

KINDS = ("normal", "uniform", "rademacher")

# counter, key, words: kat_vectors of Random123 (Salmon et al. 2011), philox4x32 with 10 rounds
RANDOM123 = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def _extension():
    need("cpu", fastdiff.CPU_EXTENSION_ERROR is None, str(fastdiff.CPU_EXTENSION_ERROR))
    return importlib.import_module("fastdiff._C")


def _capabilities() -> list[str]:
    return [] if fastdiff.CPU_EXTENSION_ERROR else importlib.import_module("fastdiff._C").cpu_capabilities()


@pytest.mark.parametrize(("counter", "key", "words"), RANDOM123)
def test_philox_known_answers(counter, key, words):
    assert numpy_noise.philox(np.array([counter]), np.array([key])).tolist() == [words]
    as_tensors = noise_format.philox4x32_10([torch.tensor([c]) for c in counter], [torch.tensor([k]) for k in key])
    assert [int(w) for w in as_tensors] == words
    assert _extension().philox(np.array([counter], np.uint32), np.array([key], np.uint32)).tolist() == [words]


def test_normal_known_answers():
    """Frozen: a change of these values is a new noise format."""
    like = torch.empty(2, 5)
    key = torch.tensor([0, 0x0123456789ABCDEF])
    z = fastdiff.normal(like, key, draw=7, stream=3)
    assert z.double().tolist() == [[float.fromhex(v) for v in row] for row in KNOWN_NORMALS]


KNOWN_NORMALS = [
    ["0x1.8577dc0000000p+0", "-0x1.9a57ec0000000p-1", "0x1.6971120000000p-2", "-0x1.60fccc0000000p+0", "0x1.efbdcc0000000p-1"],
    ["-0x1.0bac4e0000000p+1", "-0x1.0b63b60000000p+0", "-0x1.894cb40000000p+0", "-0x1.081c0a0000000p+0", "0x1.b9bb140000000p-2"],
]


def test_words_to_values_of_the_extension_and_the_extremes():
    _C = _extension()
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**32, (100_000, 4), dtype=np.uint32)
    edge = np.array([0, 1, 2**29 - 1, 2**29, 2**30, 2**31 - 1, 2**31, 3 * 2**29, 2**32 - 2, 2**32 - 1], np.uint32)
    words = np.concatenate([words, np.stack(np.meshgrid(edge, edge), -1).reshape(-1, 4)])
    normals = _C.words_to_normal(words)
    first, second = numpy_noise.pair(words[:, 0], words[:, 1])
    assert np.array_equal(normals[:, 0], first)
    assert np.array_equal(normals[:, 1], second)
    assert np.isfinite(normals).all()
    assert np.abs(normals).max() < 6.67
    uniforms = _C.words_to_uniform(words)
    assert uniforms.min() >= 0
    assert uniforms.max() < 1
    assert set(np.unique(_C.words_to_rademacher(words))) == {-1.0, 1.0}


def test_accuracy_of_the_normals_in_ulp():
    """Against float64 Box-Muller of the same u and angle; docs/noise.md states the bound."""
    rng = np.random.default_rng(1)
    w0, w1 = rng.integers(0, 2**32, (2, 500_000), dtype=np.uint32)
    half = (w0 >> np.uint32(1)).astype(np.int32).astype(np.float32)
    u = numpy_noise.fma(half, np.float32(2.0**-31), np.float32(2.0**-32)).astype(np.float64)
    angle = 2 * np.pi * w1.astype(np.float64) / 2**32
    for z, wave in zip(numpy_noise.pair(w0, w1), (np.cos, np.sin), strict=True):
        exact = np.sqrt(-2 * np.log(u)) * wave(angle)
        ulp = np.abs(z - exact) / np.spacing(np.abs(exact).astype(np.float32))
        assert ulp.max() < 4
        assert np.median(ulp) < 0.5


@pytest.mark.parametrize("stream", [0, 2**32 - 1])
@pytest.mark.parametrize("draw", [0, 1, 2**40 + 3])
def test_numpy_written_from_the_docs_agrees_in_every_bit(draw, stream):
    key = fastdiff.keys(5, 3)
    z = fastdiff.normal(torch.empty(3, 1001), key, draw, stream)
    for row, k in zip(z, key.tolist(), strict=True):
        assert np.array_equal(row.numpy(), numpy_noise.normal(k, 1001, draw, stream))


@pytest.mark.parametrize("kind", KINDS)
def test_triton_agrees_in_every_bit(kind):
    error = importlib.import_module("fastdiff._backends").triton_error()
    need("triton", error is None, str(error))
    kernels = importlib.import_module("fastdiff.kernels")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    key = fastdiff.keys(5, 2)
    got = kernels.LAUNCHERS[kind](torch.empty(2, 3001, device=device), key.to(device), 2**33 + 1, 4)
    assert torch.equal(got.cpu(), OPS[kind].overload(torch.empty(2, 3001), key, 2**33 + 1, 4))


@pytest.mark.parametrize("kind", KINDS)
class TestNoiseDoesNotDependOnHowYouRun:
    shape = (64, 3, 9, 11)

    def noise(self, kind, key, shape=None, **kwargs):
        return OPS[kind].overload(torch.empty(len(key), *(shape or self.shape)[1:], **kwargs), key, 3, 0)

    def test_batches_of_one(self, kind):
        key = fastdiff.keys(0, 64)
        whole = self.noise(kind, key)
        assert torch.equal(whole, torch.cat([self.noise(kind, key[i : i + 1]) for i in range(64)]))

    def test_any_split(self, kind):
        key = fastdiff.keys(0, 64)
        parts = [self.noise(kind, k) for k in key.split([1, 7, 30, 26])]
        assert torch.equal(self.noise(kind, key), torch.cat(parts))

    def test_any_order(self, kind):
        key = fastdiff.keys(0, 64)
        order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
        assert torch.equal(self.noise(kind, key)[order], self.noise(kind, key[order]))

    def test_channels_last(self, kind):
        key = fastdiff.keys(0, 64)
        last = self.noise(kind, key, memory_format=torch.channels_last)
        assert last.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(last, self.noise(kind, key))

    def test_threads(self, kind, threads):
        key = fastdiff.keys(0, 64)
        both = []
        for count in (1, 2):
            threads(count)
            both.append(self.noise(kind, key, (64, 3, 40, 41)))
        assert torch.equal(*both)

    def test_instruction_sets(self, kind, capability):
        key = fastdiff.keys(0, 64)
        every = []
        for name in _capabilities():
            capability(name)
            every.append(self.noise(kind, key))
        assert len(every) >= 1
        assert all(torch.equal(every[0], other) for other in every)

    def test_a_longer_sample_begins_with_a_shorter_one(self, kind):
        key = fastdiff.keys(0, 2)
        assert torch.equal(self.noise(kind, key, (2, 5000))[:, :4099], self.noise(kind, key, (2, 4099)))

    def test_lower_precision_is_the_rounded_float32(self, kind):
        key = fastdiff.keys(0, 8)
        exact = self.noise(kind, key)
        for dtype in (torch.float64, torch.bfloat16, torch.float16):
            assert torch.equal(self.noise(kind, key, dtype=dtype), exact.to(dtype))


def test_instruction_set_override():
    _C = _extension()
    with pytest.raises(ValueError, match=r"capability: expected one of .*portable.*, got pentium"):
        _C.set_cpu_capability("pentium")
    assert _C.cpu_capability() == _C.cpu_capabilities()[-1]


class TestStatistics:
    """Fixed seeds; the bounds are quantiles that a right generator exceeds less than once in 10^6 tests."""

    n = 2_000_000
    z = staticmethod(lru_cache(lambda: fastdiff.randn((8, TestStatistics.n // 8), seeds=2024).double()))

    def test_moments(self):
        z = self.z()
        n = z.numel()
        for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
            assert abs(float((z**power).mean()) - expected) < 5 * (variance / n) ** 0.5, power

    def test_kolmogorov_smirnov(self):
        assert stats.kstest(self.z().flatten().numpy()[:1_000_000], "norm").pvalue > 1e-6
        u = fastdiff.uniform(torch.empty(4, 100_000), fastdiff.keys(1, 4)).flatten().numpy()
        assert stats.kstest(u, "uniform").pvalue > 1e-6

    def test_tails_beyond_five_sigma(self):
        count = total = 0
        for draw in range(10):
            z = fastdiff.randn((8, 1_000_000), seeds=7, draw=draw)
            count += int((z.abs() > 5).sum())
            total += z.numel()
        expected = total * 2 * stats.norm.sf(5)
        assert abs(count - expected) < 5 * expected**0.5
        assert count > 0

    def test_chi_square_of_the_uniforms(self):
        u = fastdiff.uniform(torch.empty(1, self.n), fastdiff.keys(3, 1))
        counts = torch.histc(u, bins=256, min=0, max=1).numpy()
        assert stats.chisquare(counts).pvalue > 1e-6

    def test_rademacher_is_balanced(self):
        r = fastdiff.rademacher(torch.empty(4, self.n // 4), fastdiff.keys(3, 4))
        assert abs(float(r.mean())) < 5 / self.n**0.5

    @pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 64])
    def test_neighbouring_elements_are_independent(self, lag):
        z = self.z()
        for f in (lambda x: x, torch.abs, torch.square):
            x = f(z) - f(z).mean()
            correlation = (x[:, lag:] * x[:, :-lag]).mean() / x.square().mean()
            assert abs(float(correlation)) < 5 / self.n**0.5

    @pytest.mark.parametrize("what", ["draw", "stream", "key", "seed"])
    def test_draws_streams_keys_and_seeds_are_independent(self, what):
        like, key = torch.empty(1, 500_000), fastdiff.keys([11], 1)
        other = {
            "draw": lambda: fastdiff.normal(like, key, 1),
            "stream": lambda: fastdiff.normal(like, key, 0, 1),
            "key": lambda: fastdiff.normal(like, key + 1),
            "seed": lambda: fastdiff.randn(like.shape, seeds=12),
        }[what]()
        for f in (lambda x: x, torch.square):
            pair = torch.cat([f(fastdiff.normal(like, key)), f(other)])
            assert abs(float(torch.corrcoef(pair)[0, 1])) < 5 / 500_000**0.5
