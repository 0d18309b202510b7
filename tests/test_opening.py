"""Models by path: what training wrote is sampled, evaluated and guided like what is shipped, with any number of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fastdiff
from fastdiff.checkpoints import save_network
from fastdiff.models import Spec, build, load_discriminator, load_model
from fastdiff.models.digits.network import EXTRACTOR, HEAD
from fastdiff.opening import open_discriminator, open_model
from fastdiff.samplers import DDPM, AnnealedLangevin, EDMSampler
from fastdiff.training import PRESETS, train

TINY = {"images": 256, "batch": 128, "arguments.model_channels": 8, "sample_every": 0}


@pytest.mark.parametrize(("name", "sampler"), [("ddpm-digits", DDPM), ("smld-digits", AnnealedLangevin), ("swiss-roll", EDMSampler)])
def test_trained_networks_open_with_what_samplers_need(tmp_path, name, sampler):
    changes = {k: v for k, v in TINY.items() if name != "swiss-roll" or "model_channels" not in k}
    path = train(PRESETS[name].changed(changes), tmp_path, device="cpu", progress=False)
    opened = open_model(str(path))
    assert isinstance(opened.sampler, sampler)
    assert opened.shape == ((2,) if name == "swiss-roll" else (1, 8, 8))
    samples = fastdiff.sample(opened.net, (3, *opened.shape), sampler=EDMSampler(4), parametrization=opened.parametrization)
    assert torch.isfinite(samples).all()


def test_shipped_models_open_by_name():
    opened = open_model("digits-small")
    assert (opened.shape, opened.classes) == ((1, 8, 8), 10)
    assert sum(p.numel() for p in opened.net.parameters()) < sum(p.numel() for p in load_model("digits").parameters()) / 8


def test_discriminators_open_by_name_and_by_path(tmp_path):
    shipped = load_discriminator("digits")
    save_network(tmp_path / "d", Spec("Discriminator", {"extractor": EXTRACTOR, "head": HEAD}), shipped.state_dict())
    x, sigma, labels = fastdiff.randn((2, 1, 8, 8), 0), torch.ones(2), torch.tensor([1, 2])
    expected = shipped.log_ratio(x, sigma, labels)
    torch.testing.assert_close(open_discriminator(str(tmp_path / "d"), open_model("digits")).log_ratio(x, sigma, labels), expected)
    torch.testing.assert_close(open_discriminator("digits", open_model("digits")).log_ratio(x, sigma, labels), expected)


def test_errors(tmp_path):
    spec = Spec("ADMEncoder", EXTRACTOR)
    save_network(tmp_path / "e", spec, build(spec).state_dict())
    with pytest.raises(ValueError, match=r"--model: expected a denoiser .* got ADMEncoder"):
        open_model(str(tmp_path / "e"))
    with pytest.raises(ValueError, match="--discriminator: expected the checkpoint of a Discriminator, got a ADMEncoder"):
        open_discriminator(str(tmp_path / "e"), open_model("digits"))
    with pytest.raises(ValueError, match="--discriminator: expected a checkpoint or one of digits, got 'cats'"):
        open_discriminator("cats", open_model("digits"))
    with pytest.raises(ValueError, match="model: expected one of digits"):
        open_model("cats")
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_model(str(tmp_path / "none.safetensors"))


def _sampled(folder: Path, *more: str, processes: int = 0) -> np.ndarray:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes else []
    out = folder / f"{processes}.npz"
    command = [sys.executable, *launcher, "-m", "fastdiff.cli", "sample", "--model", "digits-small", "-n", "22", "--batch", "4"]
    command += ["--steps", "4", "--npz", str(out), "--out", str(folder / "a.png"), "--device", "cpu", "--no-compare", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return np.load(out)["images"]


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_images(tmp_path):
    guided = ("--discriminator", "digits", "--dg-weight", "1", "--eps-scale", "1.01")
    expected = _sampled(tmp_path, *guided)
    assert expected.shape == (22, 8, 8, 1)
    for processes in (1, 2, 3):
        assert np.array_equal(_sampled(tmp_path, *guided, processes=processes), expected)
    assert not np.array_equal(_sampled(tmp_path), expected)
