"""Feature extractors: the shipped digits features, and Inception from a local file."""

from __future__ import annotations

import pickle
from importlib import resources

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from fastdiff.evaluation import FeatureExtractor, digits_features, eight_bit, inception_features, open_features
from fastdiff.evaluation.inception import InceptionV3, resized
from fastdiff.images import to_uint8
from fastdiff.models.digits.data import load_digits
from fastdiff.models.digits.features import build_features
from fastdiff.models.digits.train_features import main, shifted
from tests.evaluation.inception_weights import filled


def test_digits_features_read_unseen_digits():
    data = load_digits("test")
    extractor = digits_features()
    features, logits = extractor(data.images)
    assert extractor.name.startswith("digits-features-")
    assert features.shape == (359, extractor.dim) == (359, 64)
    assert (logits.argmax(1) == data.labels).float().mean() >= 0.97  # measured: 0.997
    assert features.std(0).min() > 0.1  # every feature says something


def test_shipped_weights_are_small():
    assert (resources.files("fastdiff.models.digits") / "features.safetensors").stat().st_size < 500_000
    assert 60_000 < sum(p.numel() for p in build_features().parameters()) < 100_000


def test_shifts_move_whole_images():
    torch.manual_seed(0)
    image = load_digits("train").images[:1]
    found = shifted(image.expand(50, -1, -1, -1))
    wide = torch.nn.functional.pad(image, (1, 1, 1, 1), value=-1.0)
    allowed = [wide[0, 0, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    assert len({next(k for k, a in enumerate(allowed) if torch.equal(a, x[0])) for x in found}) == 9


def test_the_training_script_writes_what_loads(tmp_path):
    out = tmp_path / "few.safetensors"
    done = CliRunner().invoke(main, ["--out", str(out), "--steps", "3", "--batch", "8"])
    assert done.exit_code == 0, done.output
    from fastdiff.models.hub import load_weights

    load_weights(build_features(), out)


def test_eight_bits_are_those_of_the_written_file():
    x = torch.linspace(-1.2, 1.2, 1001).reshape(1, 1, 7, 143)
    written = torch.from_numpy(to_uint8(x)).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert torch.equal(eight_bit(x), written)
    assert torch.equal(eight_bit(written), written)


def test_resizing_is_tensorflows():
    """Output pixel i is read at i*in/out: not at pixel centres, and not with the corners aligned."""
    x = torch.tensor([[0.0, 1.0, 4.0]]).reshape(1, 1, 1, 3)
    torch.testing.assert_close(resized(x, 6)[0, 0, 0], torch.tensor([0.0, 0.5, 1.0, 2.5, 4.0, 4.0]))
    torch.testing.assert_close(resized(x, 2)[0, 0, 0], torch.tensor([0.0, 2.5]))


@pytest.fixture(scope="module")
def weights():
    return filled(InceptionV3())


def test_inception_is_the_original_network(weights, tmp_path):
    """Numbers of torch-fidelity 0.4.0's FeatureExtractorInceptionV3 ('2048' and 'logits_unbiased') with the same weights."""
    path = tmp_path / "inception.safetensors"
    save_file(weights, path)
    extractor = inception_features(path)
    pixels = torch.arange(3 * 32 * 32).reshape(1, 3, 32, 32) * 37 % 256
    features, logits = extractor(pixels.float() / 127.5 - 1)
    assert features.shape == (1, extractor.dim) == (1, 2048)
    expected = torch.tensor([0.180012, 0.001882, 0.002747, 0.293319, 0.019458, 0.000000])
    torch.testing.assert_close(features[0, ::400], expected, atol=1e-5, rtol=0)
    expected = torch.tensor([-0.096962, 0.178214, -0.020235, 0.550186, 0.474852])
    torch.testing.assert_close(logits[0, ::250], expected, atol=1e-5, rtol=0)
    assert features.mean().item() == pytest.approx(0.164917, abs=1e-5)


def test_inception_weights_come_as_pth_too_and_name_the_extractor(weights, tmp_path):
    path = tmp_path / "a.pth"
    torch.save(weights | {"Conv2d_1a_3x3.bn.num_batches_tracked": torch.tensor(3)}, path)
    save_file(weights, tmp_path / "a.safetensors")
    names = [open_features(f"inception:{p}").name for p in (path, tmp_path / "a.safetensors")]
    assert names[0] == names[1]
    assert names[0].startswith("inception-v3-")
    torch.save(weights | {"fc.bias": weights["fc.bias"] + 1}, path)
    assert open_features(f"inception:{path}").name != names[0]


class Evil:
    def __reduce__(self):
        return (print, ("code in a weights file was run",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_inception_files_that_are_something_else(weights, tmp_path, capsys):
    path = tmp_path / "a.pth"
    with pytest.raises(FileNotFoundError, match="inception: no such file"):
        inception_features(path)
    for state, message in (
        (weights | {"fc.bias": torch.zeros(10)}, r"expected fc.bias of shape \[1008\], got \[10\]"),
        ({k: v for k, v in weights.items() if k != "fc.bias"}, r"expected fc.bias of shape \[1008\], got none"),
        (weights | {"more": torch.zeros(1)}, "got also more"),
        ([1], "expected a file of named tensors"),
    ):
        torch.save(state, path)
        with pytest.raises(ValueError, match=message):
            inception_features(path)
    for spoilt in (pickle.dumps(Evil()), b"", b"\x00" * 100):
        path.write_bytes(spoilt)
        with pytest.raises(ValueError, match="inception: expected a file of tensors"):
            inception_features(path)
    assert capsys.readouterr().out == ""


def test_errors_name_what_came():
    with pytest.raises(ValueError, match="features: expected digits, or inception:FILE"):
        open_features("vgg")
    with pytest.raises(ValueError, match=r"digits-features: expected images \[B, 1, 8, 8\], got \[2, 3, 8, 8\]"):
        digits_features()(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"odd: expected features \[2, 3\], got \[2, 4\]"):
        FeatureExtractor("odd", 3, lambda x: (torch.zeros(2, 4), None))(torch.zeros(2, 1, 1, 1))
    with pytest.raises(ValueError, match="odd: expected 5 logits, got 0"):
        FeatureExtractor("odd", 3, lambda x: (torch.zeros(2, 3), None), classes=5)(torch.zeros(2, 1, 1, 1))
