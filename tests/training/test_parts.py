"""The parts of training: configurations, averages, order, augmentation, presets."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastdiff import Discrete, keys
from fastdiff.models import build
from fastdiff.training import PRESETS, TrainConfig, train
from fastdiff.training.augment import LABELS, augment
from fastdiff.training.config import read_config
from fastdiff.training.ema import Average, keep, power_exponent
from fastdiff.training.objectives import parametrization_for, process_for
from fastdiff.training.order import Order, Positions


def test_a_config_is_a_preset_with_changes(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text('preset = "digits"\nlr = 1e-4\nimages = 1000\n[arguments]\ndropout = 0.3\n')
    config = read_config(str(path), PRESETS, ["batch=32", "data=mnist", "arguments.model_channels=16", "betas=[0.8, 0.9]"])
    assert (config.lr, config.images, config.batch, config.data, config.betas) == (1e-4, 1000, 32, "mnist", [0.8, 0.9])
    assert config.arguments["dropout"] == 0.3
    assert config.arguments["model_channels"] == 16
    assert config.arguments["img_resolution"] == 8
    assert PRESETS["digits"].arguments["dropout"] == 0.1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["learning_rate=1"], "learning_rate: expected a field of the configuration"),
        (["lr"], "override: expected key=value, got 'lr'"),
        (["lr=fast"], "lr: expected float, got 'fast'"),
        (["batch=1.5"], "batch: expected int, got 1.5"),
        (["batch=0"], "batch: expected an integer >= 1, got 0"),
        (["process=cold"], "process: expected one of edm, vp"),
        (["compile=1"], "compile: expected bool, got 1"),
        (["augment=2.0"], "augment: expected a probability"),
        (["betas=[0.9]"], r"betas: expected two numbers"),
        (["sigma_data=0.0"], "sigma_data: expected a number > 0"),
        (["seed=-1"], "seed: expected a number >= 0, got -1"),
        (["levels=uniform-time"], "levels: expected uniform-time with the processes vp, sub-vp and ve only"),
        (["weighting=variational"], "levels: expected uniform-steps of process ddpm with it"),
    ],
)
def test_bad_overrides_say_what_was_expected(overrides, message):
    with pytest.raises(ValueError, match=message):
        read_config("digits", PRESETS, overrides)


def test_bad_sources_say_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match=r"preset: expected a \.toml file or one of"):
        read_config("digit", PRESETS)
    with pytest.raises(FileNotFoundError, match="config: no such file"):
        read_config(str(tmp_path / "none.toml"), PRESETS)
    (tmp_path / "bad.toml").write_text("lr = = 1")
    with pytest.raises(ValueError, match="config: expected a TOML file"):
        read_config(str(tmp_path / "bad.toml"), PRESETS)


# Karras et al. 2022, tables 3 and 7: 56 M and 296 M parameters.
@pytest.mark.parametrize(
    ("name", "parameters"), [("cifar10-ddpmpp", 55_733_891), ("cifar10-ncsnpp", 56_397_827), ("adm-imagenet64", 295_899_267)]
)
def test_published_networks_have_their_parameters(name, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in build(PRESETS[name].spec).parameters()) == parameters


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("digits", {"data": "swiss-roll"}, r"data: expected samples of the network's shape \[1, 8, 8\], got \[2\]"),
        ("digits", {"arguments.img_resolution": 16}, r"data: expected samples of the network's shape \[1, 16, 16\]"),
        ("digits", {"conditional": False}, r"arguments.label_dim: expected 0 \(conditional is false\), got 10"),
        ("ddpm-digits", {"conditional": True}, r"arguments.label_dim: expected 10 \(the classes\), got 0"),
        ("swiss-roll", {"conditional": True}, "conditional: expected data with a class for each image"),
        ("digits", {"augment": 0.1}, "arguments.augment_dim: expected 9 with augmentation"),
        ("digits-extractor", {"augment": 0.1}, "augment: expected 0 but for denoisers of images"),
        ("digits-extractor", {"arguments.out_channels": 5}, "arguments.out_channels: expected 10, the classes of the data, got 5"),
        ("digits-discriminator", {"generated": ""}, "generated: expected the path of generated samples"),
    ],
)
def test_what_does_not_fit_the_data_is_refused_before_anything_is_written(tmp_path, preset, changes, message):
    with pytest.raises(ValueError, match=message):
        train(PRESETS[preset].changed(changes), tmp_path / "run", device="cpu", progress=False)
    assert not (tmp_path / "run").exists()


def test_every_preset_here_can_tell_its_noise_levels_apart():
    """The embedding of the network's label must vary smoothly: times a thousandth apart look alike, those a tenth apart do not."""
    for name in ("ddpm-digits", "sde-digits", "smld-digits", "digits"):
        torch.manual_seed(0)
        net = build(PRESETS[name].spec)
        meaning = parametrization_for(PRESETS[name], net)
        process = process_for(PRESETS[name])
        end = len(process) - 1 if isinstance(process, Discrete) else process.T
        t = torch.tensor([0.5, 0.501, 0.6], dtype=torch.float64) * end
        sigma = process.sigma(t)
        embed = net.model.map_noise if hasattr(net, "model") else net.map_noise
        a, b, c = nn.functional.normalize(embed(meaning.label(sigma).float()), dim=1)
        assert a @ b > 0.9, name
        assert a @ c < a @ b, name


def test_order_shows_every_image_once_an_epoch_wherever_it_starts():
    order = Order(10, seed=1)
    whole = order.indices(range(0, 35))
    for epoch in range(3):
        assert sorted(whole[10 * epoch : 10 * epoch + 10].tolist()) == list(range(10))
    assert whole[:10].tolist() != whole[10:20].tolist()
    assert Order(10, seed=1).indices(range(13, 29)).tolist() == whole[13:29].tolist()
    assert Order(10, seed=2).indices(range(10)).tolist() != whole[:10].tolist()


def test_shares_and_parts_together_are_the_batch():
    order = Order(100, seed=0)
    whole = [order.indices(range(s, s + 12)).tolist() for s in (0, 12)]
    parts = [list(Positions(order, 0, 24, 12, range(6 * rank, 6 * rank + 6), 2)) for rank in (0, 1)]
    assert [[i for rank in (0, 1) for part in parts[rank][2 * s : 2 * s + 2] for i in part] for s in (0, 1)] == whole


def test_half_life_average():
    config = TrainConfig(ema_half_life=1000, ema_ramp=0.0, batch=100)
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    average = Average(net)
    nn.init.zeros_(net.weight)
    for step in range(10):
        average.update(keep(config, 100 * (step + 1)))
    assert average.net.weight.item() == pytest.approx(0.5)
    ramped = TrainConfig(ema_half_life=1000, ema_ramp=0.05, batch=100)
    assert keep(ramped, 100) == 0
    assert keep(ramped, 10_100) == pytest.approx(2 ** (-100 / 500))


def test_power_average_has_its_profile():
    """After many steps the weights of step t are in the average in proportion to t^gamma, whose relative width is ema_std."""
    config = TrainConfig(ema="power", ema_std=0.1, batch=1)
    steps = 4000
    weights = torch.zeros(steps, dtype=torch.float64)
    for t in range(1, steps + 1):
        beta = keep(config, t)
        weights *= beta
        weights[t - 1] += 1 - beta
    position = (torch.arange(steps, dtype=torch.float64) + 1) / steps
    mean = (weights * position).sum()
    assert weights.sum().item() == pytest.approx(1)
    assert (weights * (position - mean) ** 2).sum().sqrt().item() == pytest.approx(0.1, rel=1e-2)
    assert power_exponent(0.1) == pytest.approx(6.94, abs=0.01)  # Karras et al. 2024, table 5 of the appendix


def test_average_leaves_frozen_weights_and_copies_buffers():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net[0].requires_grad_(False)
    average = Average(net)
    net[1].running_mean.fill_(3.0)
    nn.init.constant_(net[1].weight, 2.0)
    average.update(0.5)
    torch.testing.assert_close(average.net[0].weight, net[0].weight)
    assert average.net[1].running_mean.tolist() == [3, 3]
    assert average.net[1].weight.tolist() == [1.5, 1.5]


def test_without_probability_only_flips_are_made():
    images = torch.rand(64, 1, 8, 8)
    augmented, labels = augment(images, keys(0, 64), 0.0)
    assert labels.shape == (64, LABELS)
    flipped = labels[:, 0] == 1
    assert 16 < flipped.sum() < 48
    assert (labels[:, 1:] == 0).all()
    torch.testing.assert_close(augmented[flipped], images[flipped].flip(3), rtol=0, atol=0)
    torch.testing.assert_close(augmented[~flipped], images[~flipped], rtol=0, atol=0)


def test_augmentations_do_what_their_labels_say():
    """A smooth blob: its centre follows the translation, its size the scale."""
    axis = torch.linspace(-1, 1, 32)
    blob = torch.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / 0.02)
    images = blob.expand(400, 1, 32, 32).contiguous()
    augmented, labels = augment(images, keys(1, 400), 1.0)
    mass = augmented.clamp(min=0).sum((1, 2, 3))
    x, y = ((augmented.clamp(min=0) * v).sum((1, 2, 3)) / mass for v in (axis[None, None, None], axis[None, None, :, None]))
    shift = labels[:, 7:] * 0.25
    # Where neither the blob leaves the image nor its mirror images come in.
    inside = (shift.abs() < 0.25).all(1) & (labels[:, 5:7].norm(dim=1) < 1) & (labels[:, 2] > 0.3)
    assert inside.sum() > 30
    torch.testing.assert_close(x[inside], shift[inside, 0], rtol=0, atol=0.04)
    torch.testing.assert_close(y[inside], shift[inside, 1], rtol=0, atol=0.04)
    size = mass[inside] / blob.sum()
    torch.testing.assert_close(size, torch.exp2(0.4 * labels[inside, 2]), rtol=0.08, atol=0)
    again, _ = augment(images[200:], keys(1, 200, first=200), 1.0)
    torch.testing.assert_close(again, augmented[200:])
