"""Blocks of seeds: their metrics, mean and spread, independence of batches and processes, and the command."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fastdiff
from fastdiff.data import open_data
from fastdiff.evaluation import (
    FeatureExtractor,
    Reference,
    Statistics,
    digits_features,
    evaluate,
    evaluate_images,
    nll,
    nll_table,
    reference_of,
)
from fastdiff.models import load_model
from tests.test_cli import run

QUICK = fastdiff.EDMSampler(steps=4)


@pytest.fixture(autouse=True)
def _one_thread(threads):
    """Digits are too little work for two."""
    threads(1)


@pytest.fixture(scope="module")
def data():
    return open_data("digits")


@pytest.fixture(scope="module")
def extractor():
    return digits_features()


@pytest.fixture(scope="module")
def reference(data, extractor):
    return reference_of(data, extractor, progress=False)


@pytest.fixture(scope="module")
def net():
    return load_model("digits")


def of(images, reference, extractor, *, n, **options):
    return evaluate_images(lambda index: images[index], reference, extractor, n=n, progress=False, **options)


def test_reference_is_the_data(data, reference, extractor):
    features, _ = extractor(data.batch(range(len(data)))[0])
    assert reference.statistics.count == len(data) == len(reference.features)
    assert reference.statistics.features == extractor.name
    np.testing.assert_allclose(reference.statistics.mu, features.mean(0), atol=0.02)  # 8 bits against 17 levels
    assert reference_of(data, extractor, keep=False, progress=False).features is None


def test_blocks_are_apart_and_their_summary_is_right(net, data, reference, extractor):
    pytest.importorskip("torchmetrics")
    found = evaluate(
        net, reference, extractor=extractor, shape=data.shape, n=60, blocks=3, classes=10, sampler=QUICK, progress=False,
        metrics=("fid", "is", "kid", "pr"), shown=5,
    )  # fmt: skip
    assert [(b.first, b.last) for b in found.blocks] == [(0, 59), (60, 119), (120, 179)]
    for name in ("fid", "is", "kid", "precision", "recall"):
        values = [block.values[name] for block in found.blocks]
        row = found.summary[name]
        assert row["mean"] == pytest.approx(statistics.fmean(values))
        assert (row["min"], row["max"]) == (min(values), max(values))
        assert row["spread"] == pytest.approx(max(values) - min(values))
        assert row["std"] == pytest.approx(statistics.stdev(values))
    assert len({block.values["fid"] for block in found.blocks}) == 3
    assert found.shown.shape == (5, 1, 8, 8)
    assert "fid" in str(found)
    json.dumps(found.record(), allow_nan=False)

    # The second block is the samples of keys 60 .. 119, each of the class of its key.
    key = fastdiff.keys(0, 60, first=60)
    labels = torch.nn.functional.one_hot(key % 10, 10).float()
    images = fastdiff.sample(net, (60, 1, 8, 8), seeds=key, sampler=QUICK, class_labels=labels)
    alone = of(images, reference, extractor, n=60, blocks=1)
    assert alone.blocks[0].values["fid"] == pytest.approx(found.blocks[1].values["fid"], rel=1e-9)
    assert alone.summary["fid"]["std"] is None


def test_the_batch_does_not_matter(net, data, reference, extractor):
    def fid(batch):
        arguments = dict(extractor=extractor, shape=data.shape, n=40, blocks=1, sampler=QUICK, progress=False)
        return evaluate(net, reference, batch=batch, **arguments).summary["fid"]["mean"]

    assert fid(40) == pytest.approx(fid(7), rel=1e-3)  # the network's own rounding


def test_noise_makes_every_metric_worse(data, reference, extractor):
    pytest.importorskip("torchmetrics")
    images = open_data("digits:test").batch(range(359))[0]
    metrics = ("fid", "is", "kid", "pr")
    rows = []
    for sigma in (0.0, 0.3, 1.0):
        noisy = fastdiff.perturb(images, 1.0, sigma, fastdiff.keys(0, len(images)))
        rows.append(of(noisy, reference, extractor, n=359, blocks=1, metrics=metrics).blocks[0].values)
    for name, sign in (("fid", 1), ("kid", 1), ("is", -1), ("precision", -1)):
        assert sign * rows[0][name] < sign * rows[1][name] < sign * rows[2][name], name
    assert rows[2]["recall"] < rows[0]["recall"]
    assert abs(rows[0]["kid"]) < 0.1 * rows[2]["kid"]


def test_the_reference_itself_is_at_distance_zero(data, reference, extractor):
    images = data.batch(range(len(data)))[0]
    values = of(images, reference, extractor, n=len(data), blocks=1, metrics=("fid", "pr")).blocks[0].values
    assert values["fid"] == pytest.approx(0, abs=1e-9)
    assert (values["precision"], values["recall"]) == (1.0, 1.0)


def test_any_extractor_any_network_any_guidance(data):
    """Raw pixels as features, a network that is a function, and one guidance for each batch."""
    pixels = FeatureExtractor("pixels", 64, lambda x: (x.flatten(1), None))
    seen = []

    def condition(index):
        seen.append(index.tolist())
        return {"guidance": fastdiff.Guidance(lambda x, sigma: -x, weight=0.1)}

    found = evaluate(
        lambda x, sigma: 0.1 * x, data, extractor=pixels, n=6, blocks=2, batch=4, sampler=QUICK, condition=condition, progress=False
    )
    assert seen == [[0, 1, 2, 3], [4, 5], [6, 7, 8, 9], [10, 11]]
    assert found.features == "pixels"


def test_errors_name_what_came(data, reference, extractor):
    images = torch.zeros(4, 1, 8, 8)
    statistics_only = Reference(reference.statistics)
    with pytest.raises(ValueError, match="metrics: expected any of fid, is, kid, pr, got 'fad'"):
        of(images, reference, extractor, n=4, metrics=("fad",))
    with pytest.raises(ValueError, match="metrics: expected data to compare with for pr, got statistics alone"):
        of(images, statistics_only, extractor, n=4, metrics=("pr",))
    with pytest.raises(ValueError, match="n: expected an integer >= 2, got 1"):
        of(images, reference, extractor, n=1)
    with pytest.raises(ValueError, match="expected those of one extractor, got other and digits-features"):
        of(images, Reference(Statistics(reference.statistics.mu, reference.statistics.sigma, 3, "other")), extractor, n=4)
    with pytest.raises(ValueError, match="expected an extractor with class probabilities for is, got pixels"):
        of(images, Reference(Statistics.of(torch.rand(9, 64))), FeatureExtractor("pixels", 64, lambda x: (x, None)), n=4, metrics=("is",))
    with pytest.raises(ValueError, match=r"shape: expected \(C, H, W\)"):
        evaluate(lambda x, sigma: x, reference, extractor=extractor, n=2)


# ---- Likelihoods -------------------------------------------------------------------------------------------------------


def test_nll_does_not_depend_on_the_batch_and_makes_a_table(net, data):
    loose = fastdiff.ODESolver(0.1, 0.1)
    rows = [
        nll(net, data, model="digits", count=5, conditional=c, batch=b, solver=loose, progress=False) for c, b in ((False, 5), (True, 2))
    ]
    again = nll(net, data, count=5, batch=3, solver=loose, progress=False)
    np.testing.assert_allclose(rows[0].bits, again.bits, atol=5e-3)
    assert rows[0].standard_error == pytest.approx(rows[0].bits.std().item() / 5**0.5)
    lines = nll_table(rows).splitlines()
    assert len(lines) == 3
    assert len({len(line) for line in lines}) == 1
    assert "log p(x | y)" in lines[2]
    assert f"{rows[1].mean:.4f}" in lines[2]
    json.dumps(rows[0].record(), allow_nan=False)


def test_nll_errors(net, data):
    with pytest.raises(ValueError, match=r"count: expected 1 \.\. 1438, got 0"):
        nll(net, data, count=0)
    with pytest.raises(ValueError, match="batch: expected an integer >= 1, got 0"):
        nll(net, data, batch=0)


# ---- The command -------------------------------------------------------------------------------------------------------


def test_the_command_writes_a_record_and_a_picture(tmp_path, capsys):
    pytest.importorskip("torchmetrics")
    out, stats = tmp_path / "a.json", tmp_path / "stats.npz"
    arguments = ("-n", "40", "--blocks", "2", "--steps", "3", "--eps-scale", "1.01", "--stats-out", str(stats), "--out", str(out))
    code, text, err = run(capsys, "eval", *arguments)
    assert code == 0, err
    assert "block 2 of 2" in err  # the progress bar
    for word in ("Fréchet distance of digits-features", "spread", "recall", f"wrote {out}"):
        assert word in text
    assert "FID" not in text
    record = json.loads(out.read_text())
    assert record["features"].startswith("digits-features-")
    assert [block["first"] for block in record["evaluation"]["blocks"]] == [0, 40]
    assert (record["network_calls"], record["eps_scale"], record["n"]) == (5, 1.01, 40)
    assert {"fastdiff", "torch", "torchmetrics"} <= set(record["versions"])
    assert "Philox" in record["seeds"]
    assert "command" in record
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.shape[1] > 1000
    assert picture.std() > 20

    # EDM's statistics are enough for the distance, and give the same one.
    again = ("-n", "40", "--blocks", "2", "--steps", "3", "--eps-scale", "1.01", "--reference", str(stats), "--out", str(out))
    code, _, err = run(capsys, "eval", *again)
    assert code == 0, err
    found = json.loads(out.read_text())
    assert set(found["evaluation"]["summary"]) == {"fid", "is"}
    assert found["evaluation"]["summary"]["fid"] == record["evaluation"]["summary"]["fid"]


def test_ready_samples_and_likelihoods(tmp_path, capsys):
    files = [tmp_path / f"{seed}.npz" for seed in (0, 1)]
    for seed, path in enumerate(files):
        arguments = ("-n", "30", "--steps", "3", "--seed", str(seed), "--no-compare", "--npz", str(path), "--out", str(tmp_path / "a.png"))
        assert run(capsys, "sample", *arguments)[0] == 0
    code, _, err = run(capsys, "eval", *map(str, files), "--metrics", "fid,pr", "--out", str(tmp_path / "b.json"))
    assert code == 0, err
    record = json.loads((tmp_path / "b.json").read_text())
    assert record["files"] == [str(path) for path in files]
    assert len(record["evaluation"]["blocks"]) == 2
    code, text, err = run(capsys, "eval", "-n", "0", "--nll", "--nll-count", "2", "--nll-tol", "0.1", "--out", str(tmp_path / "c.json"))
    assert code == 0, err
    assert text.count("log p(x | y)") == 2
    assert [row["data"] for row in json.loads((tmp_path / "c.json").read_text())["nll"]] == ["digits:test"] * 2 + ["digits"] * 2
    assert (tmp_path / "c.png").exists()
    code, text, _ = run(capsys, "eval", "-n", "0", "--stats-out", str(tmp_path / "s.npz"), "--out", str(tmp_path / "d.json"))
    assert code == 0
    assert "1438 images" in text
    assert not (tmp_path / "d.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metrics", "fad"), "metrics: expected any of fid, is, kid, pr, got 'fad'"),
        (("--features", "vgg"), "features: expected digits, or inception:FILE"),
        (("--features", "inception:none.pth"), "inception: no such file: none.pth"),
        (("--reference", "none.npz"), "none.npz"),
        (("--data", "cats"), "cats"),
        (("none.npz",), "none.npz"),
        (("--model", "cats"), "model: expected one of"),
        (("-n", "1"), "-n: expected 0, or at least 2 samples"),
        (("-n", "0"), "-n: expected samples, or --stats-out or --nll without any, got 0"),
        (("--blocks", "0"), "--blocks: expected an integer from 1"),
        (("--out", "a.png"), "--out: expected the name of the record"),
        (("--out", "/nowhere/a.json"), "/nowhere"),
        (("--device", "foo"), "--device: expected one that works here"),
        (("--cfg", "2", "--unconditional"), "--cfg: expected a model with classes"),
        (("--stats-out", "s.npz", "--reference", "r.npz"), "--stats-out: expected --data"),
    ],
)
def test_errors_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "eval", *arguments)
    assert code == 2
    assert message in err
    assert err.strip().count("\n") == 0
    assert list(tmp_path.iterdir()) == []


def test_help_teaches(capsys):
    code, out, _ = run(capsys, "eval", "--help")
    assert code == 0
    for word in ("fastdiff eval --metrics fid --nll", "torchrun", "inception:FILE"):
        assert word in out


# ---- Several processes -------------------------------------------------------------------------------------------------

SCRIPT = """
import json, sys, torch
import fastdiff
from fastdiff.data import open_data
from fastdiff.evaluation import digits_features, evaluate, nll
from fastdiff.models import load_model

torch.set_num_threads(1)
net, data, metrics = load_model("digits"), open_data("digits"), json.loads(sys.argv[2])
arguments = dict(extractor=digits_features(), n=100, blocks=2, batch=20, classes=10, metrics=metrics, progress=False)
found = evaluate(net, data, sampler=fastdiff.EDMSampler(steps=3, S_churn=5), shown=8, **arguments)
bits = nll(net, data, count=5, batch=2, solver=fastdiff.ODESolver(1e-2, 1e-2), progress=False)
assert (found is None) == (bits is None) == (fastdiff.distributed.world().rank > 0)
if found:
    json.dump({**found.record(), "bits": bits.bits.tolist(), "shown": found.shown.tolist()}, open(sys.argv[1], "w"))
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_find_what_one_finds(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    try:
        import torchmetrics  # noqa: F401
    except ImportError:
        metrics = ["fid", "pr"]
    else:
        metrics = ["fid", "is", "kid", "pr"]
    paths = [str(Path(fastdiff.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths)), "CUDA_VISIBLE_DEVICES": ""}
    records = []
    for ranks in (1, 2):
        out = tmp_path / f"{ranks}.json"
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
        command = [sys.executable, *launch, str(script), str(out), json.dumps(metrics)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        records.append(json.loads(out.read_text()))
    one, two = records
    for a, b in zip(one["blocks"], two["blocks"], strict=True):
        assert a == pytest.approx(b, rel=1e-9)
    assert (one["shown"], one["bits"]) == (two["shown"], two["bits"])
