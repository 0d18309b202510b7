"""The training loop: resumed after SIGKILL with the same bits, on one or several processes the same losses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fastdiff.checkpoints import load_network
from fastdiff.training import PRESETS, TrainConfig, TrainingError, train
from fastdiff.training.loop import _Run

TINY = [
    "arguments.model_channels=8", "arguments.channel_mult=[1, 1]", "arguments.attn_resolutions=[]", "arguments.augment_dim=9",
    "augment=0.2",
    "images=640", "batch=32", "log_every=64", "save_every=64", "warm_up=64", "ema_half_life=100",
]  # fmt: skip


def config(*more: str) -> TrainConfig:
    from fastdiff.training.config import read_config

    return read_config("digits", PRESETS, [*TINY, *more])


def command(folder: Path, *more: str, launcher: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, *launcher, "-m", "fastdiff.cli", "train", "digits", *TINY, *more, "--out", str(folder), "--device", "cpu"]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(line["images"], line["loss"]) for line in map(json.loads, (folder / "log.jsonl").read_text().splitlines())]


def test_killed_and_resumed_training_ends_with_the_same_bits(tmp_path):
    """Dropout, augmentation, label dropout, an unfinished epoch and the average of the weights included."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    reference = subprocess.Popen(command(whole), env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    kills = 0
    for _ in range(40):
        process = subprocess.Popen(command(killed), env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        before = (killed / "state.pt").stat().st_mtime_ns if (killed / "state.pt").exists() else 0
        deadline = time.time() + 60
        while process.poll() is None and time.time() < deadline:
            if kills < 2 and (killed / "state.pt").exists() and (killed / "state.pt").stat().st_mtime_ns > before:
                time.sleep(0.05 * kills)  # somewhere within the steps after a checkpoint
                process.send_signal(signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
                break
            time.sleep(0.005)
        if process.wait(60) == 0:
            break
    assert reference.wait(120) == 0
    assert kills == 2
    assert (killed / "network.safetensors").read_bytes() == (whole / "network.safetensors").read_bytes()
    assert losses(killed) == losses(whole)
    assert [n for n, _ in losses(whole)] == list(range(64, 641, 64))


def test_a_signal_ends_the_run_after_its_step_with_its_state_saved(tmp_path):
    process = subprocess.Popen(
        command(tmp_path / "run", "images=64000", "save_every=64000"),
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "run" / "log.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "the same command goes on from the checkpoint" in error
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert 0 < state["images"] < 64000


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_ends_both_with_the_state_saved(tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    more = ("images=64000", "save_every=64000", "arguments.dropout=0.0")
    process = subprocess.Popen(
        command(tmp_path / "run", *more, launcher=launcher), env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    while not (tmp_path / "run" / "log.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGTERM)
    process.communicate(timeout=100)
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["images"] > 0


def test_a_torn_line_of_the_log_and_a_failed_start_are_no_obstacle(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(FileNotFoundError):
        train(config("data=nowhere.npz"), folder, device="cpu", progress=False)
    train(config("images=64"), folder, device="cpu", progress=False)
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"images": 6')
    train(config("images=64"), folder, device="cpu", progress=False)
    assert [n for n, _ in losses(folder)] == [64]


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path):
    fixed = ("arguments.dropout=0.0", "arguments.label_dropout=0.0", "images=320")
    runs = {}
    for size in (1, 2):
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size))
        folder = tmp_path / str(size)
        subprocess.run(command(folder, *fixed, launcher=launcher), env=environment(), check=True, capture_output=True, timeout=240)
        runs[size] = losses(folder)
    assert [n for n, _ in runs[1]] == [n for n, _ in runs[2]]
    torch.testing.assert_close(torch.tensor([v for _, v in runs[2]]), torch.tensor([v for _, v in runs[1]]), rtol=1e-4, atol=0)


def test_parts_of_a_batch_give_the_gradients_of_the_whole(tmp_path):
    fixed = ("arguments.dropout=0.0", "arguments.label_dropout=0.0", "images=96")
    for parts in (1, 2):
        train(config(*fixed, f"accumulate={parts}"), tmp_path / str(parts), device="cpu", progress=False)
    torch.testing.assert_close(
        torch.tensor([v for _, v in losses(tmp_path / "2")]), torch.tensor([v for _, v in losses(tmp_path / "1")]), rtol=1e-4, atol=0
    )


def test_a_run_learns_and_leaves_what_it_promises(tmp_path):
    path = train(config("images=3200", "lr=5e-3", "sample_every=1600", "log_every=320"), tmp_path / "run", device="cpu", progress=False)
    values = [v for _, v in losses(tmp_path / "run")]
    assert values[-1] < 0.85 * values[0]
    net = load_network(path)
    assert net.label_dim == 10
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert {"config.json", "state.pt", "log.jsonl", "network.json", "samples-000001600.png", "samples-000003200.png"} <= names
    with pytest.raises(ValueError, match=r"expected a new one or the same run, got .* another .*lr: 0\.005 there, 0\.001 here"):
        train(config("images=3200", "lr=1e-3", "sample_every=1600"), tmp_path / "run", device="cpu", progress=False)


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_checkpoint(tmp_path):
    with pytest.raises(TrainingError, match="lower lr, set clip=1"):
        train(config("lr=1e30", "clip=0", "warm_up=0", "images=6400", "save_every=6400"), tmp_path / "run", device="cpu", progress=False)
    assert not (tmp_path / "run" / "network.safetensors").exists()
    with pytest.raises(TrainingError):  # nor does a checkpoint between two lines of the log keep the spoiled weights
        train(config("lr=1e30", "clip=0", "warm_up=0", "images=640", "log_every=640"), tmp_path / "b", device="cpu", progress=False)
    state = torch.load(tmp_path / "b" / "state.pt", weights_only=True) if (tmp_path / "b" / "state.pt").exists() else {"net": {}}
    assert all(torch.isfinite(t).all() for t in state["net"].values())


def test_damaged_state_says_so(tmp_path):
    train(config("images=64"), tmp_path / "run", device="cpu", progress=False)
    (tmp_path / "run" / "state.pt").write_bytes(b"no state")
    with pytest.raises(ValueError, match="state: expected what a training run wrote, got a damaged"):
        train(config("images=64"), tmp_path / "run", device="cpu", progress=False)


@pytest.mark.parametrize(
    "more", [("precision=bf16",), ("optimizer=adamw", "weight_decay=0.1"), ("ema=power",), ("workers=1",), ("input_perturbation=0.1",)]
)
def test_variants_run(tmp_path, more):
    train(config("images=64", *more), tmp_path / "run", device="cpu", progress=False)
    assert all(torch.isfinite(torch.tensor(v)) for _, v in losses(tmp_path / "run"))


@pytest.mark.parametrize("name", ["smld-digits", "ddpm-digits", "sde-digits", "digits-extractor", "swiss-roll"])
def test_presets_take_a_step(tmp_path, name):
    changes = {"images": PRESETS[name].batch, "sample_every": 0}
    path = train(PRESETS[name].changed(changes), tmp_path / "run", device="cpu", progress=False)
    load_network(path)


@pytest.mark.slow
def test_a_training_step_compiles_without_graph_breaks(tmp_path):
    run = _Run(config("arguments.dropout=0.0", "arguments.label_dropout=0.0", "augment=0.0", "images=64"), tmp_path, _world())
    objective = run.objective
    x0, labels, key = torch.rand(4, 1, 8, 8) * 2 - 1, torch.arange(4), torch.arange(4)
    compiled = torch.compile(objective, fullgraph=True, dynamic=False)
    expected, got = objective(x0, labels, key), compiled(x0, labels, key)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    got.mean().backward()
    compiled_gradients = [p.grad.clone() for p in run.parameters if p.grad is not None]
    run.optimizer.zero_grad()
    expected.mean().backward()
    torch.testing.assert_close(compiled_gradients, [p.grad for p in run.parameters if p.grad is not None], rtol=1e-3, atol=1e-5)


def _world():
    from fastdiff.distributed import World

    return World(0, 1, torch.device("cpu"))
