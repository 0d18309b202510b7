"""Everything that a GPU machine must show, in one command: make gpu-check, or python -m benchmarks.gpu_check

Builds with CUDA, runs the tests with every backend required, compute-sanitizer, the CUDA-graph and noise checks (which are
tests), then measures every op against the bandwidth of a copy, against eager PyTorch and torch.compile, and writes
benchmarks/results/<device>.json and .md. With --dry-run the same steps run on the CPU at small sizes, and the report goes
to the folder given by --out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"

#: What the CUDA path has to reach.
TARGETS = {"copy": 0.85, "copy with noise": 0.70, "eager": 3.0, "torch.compile": 1.0, "host_us": 10.0}


def step(title: str, command: list[str], **environment: str) -> dict[str, Any]:
    """Run one command, show its end, and say whether it passed."""
    print(f"\n== {title}: {' '.join(command)}", flush=True)
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    tail = (done.stdout + done.stderr).strip().splitlines()[-15:]
    print("\n".join(tail), flush=True)
    return {"step": title, "passed": done.returncode == 0, "seconds": round(time.perf_counter() - start, 1), "summary": tail[-1:] or [""]}


class Clock:
    """Times calls on a device: events on a GPU, the wall clock on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def seconds(self, f: Callable[[], Any], rounds: int = 20) -> float:
        """Median time of one call."""
        for _ in range(3):
            f()
        if self.device.type == "cpu":
            times = []
            for _ in range(rounds):
                start = time.perf_counter()
                f()
                times.append(time.perf_counter() - start)
            return statistics.median(times)
        pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(rounds)]
        for begin, end in pairs:
            begin.record()
            f()
            end.record()
        torch.cuda.synchronize()
        return statistics.median(begin.elapsed_time(end) for begin, end in pairs) / 1e3

    def host_seconds(self, f: Callable[[], Any], calls: int = 200) -> float:
        """Time that the host spends on one call, while the device works on its own."""
        f()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            f()
        elapsed = time.perf_counter() - start
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return elapsed / calls


def measure(device: torch.device, n: int) -> list[dict[str, Any]]:
    """One row for each op and backend: bandwidth against a copy of as many bytes, eager, torch.compile."""
    import importlib

    import fastdiff
    from benchmarks.peers import compiled, eager_denoising_loss, eager_group_norm_silu, eager_perturb, eager_step
    from fastdiff.ops import OPS, coef_row
    from fastdiff.ops._table import Sample

    clock = Clock(device)
    batch = 64
    shape = (batch, n // batch)
    generator = torch.Generator(device).manual_seed(0)
    x, F, H = (torch.randn(shape, device=device, generator=generator) for _ in range(3))
    key = fastdiff.keys(0, batch, device=device)
    m, s = torch.rand(batch, device=device), torch.rand(batch, device=device)
    values = {"a": 0.3, "b": 0.7, "c_x": 0.2, "c_D": 0.8, "c_h1": 0.1, "c_n": 0.5}
    coef = coef_row(**values).to(device)
    scalars = [values[name] for name in ("a", "b", "c_x", "c_D", "c_h1")]
    source, target = torch.randn(n, device=device), torch.empty(n, device=device)
    copy_bandwidth = 2 * 4 * n / clock.seconds(lambda: target.copy_(source))

    base = coef_row(a=1.0, b=-0.5, c_D=1.0, e_x=2.0, e_D=-2.0, c_l=0.02).to(device)
    draws, draw_weights = torch.arange(20, device=device), torch.rand(20, dtype=torch.float64, device=device)
    slopes = torch.stack([x, F, H, x, F, H, x])
    stage_weights = torch.rand(6, dtype=torch.float64, device=device)
    error_weights = torch.rand(7, dtype=torch.float64, device=device) - 0.5

    def langevin(x, F):
        score, z = -2.0 * (2.0 * x - 2.0 * (x - 0.5 * F)), torch.randn_like(x)
        return 2 * (0.1 * z.norm(dim=1).mean() / score.norm(dim=1).mean()) ** 2

    def dot(g):
        return (g * (2.0 * torch.randint_like(g, 2) - 1)).sum(1)

    def summed(x):
        total = torch.zeros_like(x)
        for weight in draw_weights:
            total = total + weight.float() * torch.randn_like(x)
        return total

    def stage(x, F, K):
        k = scalars[2] * x + scalars[3] * (scalars[0] * x + scalars[1] * F)
        return k, x + torch.einsum("m,mbn->bn", stage_weights.float(), torch.cat([K[:5], k[None]]))

    def error(x, y, K):
        e = torch.einsum("m,mbn->bn", error_weights.float(), K)
        return (e / (1e-5 + 1e-5 * torch.maximum(x.abs(), y.abs()))).square().sum(1)

    loss_coef = torch.tensor([0.7, -0.2, 0.3, 1.0], dtype=torch.float64, device=device)
    loss_scalars = [torch.tensor(v, device=device) for v in (0.8, 0.7, 1.0)]

    def denoising(F, x0):
        return eager_denoising_loss(F, x0, x0 + 0.375 * torch.randn_like(x0), *loss_scalars)

    pixels = n // (batch * 128)  # 32 groups of four channels
    image = x.reshape(batch, 128, pixels)
    gamma, beta = torch.rand(128, device=device), torch.rand(128, device=device)
    _, mean, rstd = OPS["group_norm_silu"].overload(image, gamma, beta, 32, 1e-5)
    tracked = image.detach().clone().requires_grad_()

    def norm_backward(grad):
        return torch.autograd.grad(eager_group_norm_silu(tracked, gamma, beta, 32), tracked, grad)[0]

    def churned(x, F, H, *scalars):
        return eager_step(x, F, H, *scalars) + 0.5 * torch.randn_like(x)

    cases = {
        ("sampler_step", "three inputs"): ((x, F, coef), {"H1": H}, lambda g: lambda: g(eager_step)(x, F, H, *scalars)),
        ("sampler_step", "three inputs and noise"): (
            (x, F, coef),
            {"H1": H, "key": key},
            lambda g: lambda: g(churned)(x, F, H, *scalars),
        ),
        ("perturb", "noise"): ((x, m, s, key), {}, lambda g: lambda: g(eager_perturb)(x, m, s)),
        ("normal", "noise"): ((x, key), {}, lambda g: lambda: g(torch.randn_like)(x)),
        ("langevin_row", "noise"): ((x, F, base), {"key": key, "shared": True}, lambda g: lambda: g(langevin)(x, F)),
        ("probe_dot", "noise"): ((x, key), {}, lambda g: lambda: g(dot)(x)),
        ("normal_sum", "noise, 20 draws"): ((x, key, draws, draw_weights), {}, lambda g: lambda: g(summed)(x)),
        ("ode_stage", "fifth"): ((x, F, coef, x, slopes[:5], stage_weights), {}, lambda g: lambda: g(stage)(x, F, slopes)),
        ("denoising_loss", "noise"): ((F, x, loss_coef, key), {}, lambda g: lambda: g(denoising)(F, x)),
        ("group_norm_silu", "32 groups"): (
            (image, gamma, beta, 32, 1e-5),
            {},
            lambda g: lambda: g(eager_group_norm_silu)(image, gamma, beta, 32),
        ),
        ("group_norm_silu_backward", "peers with the forward"): (
            (image, F.reshape(image.shape), gamma, beta, mean, rstd, 32),
            {},
            lambda _: lambda: norm_backward(F.reshape(image.shape)),
        ),
        ("ode_error", "seven slopes"): ((x, F, slopes, error_weights, 1e-5, 1e-5), {}, lambda g: lambda: g(error)(x, F, slopes)),
    }
    launchers: dict[str, Callable[[str], Callable]] = {"dispatcher": lambda name: OPS[name].overload}
    if device.type == "cuda":
        kernels = importlib.import_module("fastdiff.kernels")
        launchers["triton"] = lambda name: kernels.LAUNCHERS[name]
    rows = []
    for (name, variant), (args, kwargs, peer) in cases.items():
        moved = OPS[name].bytes_moved(Sample(variant, args, kwargs))
        eager = clock.seconds(peer(lambda f: f))
        compile_seconds = clock.seconds(peer(compiled))
        for backend, find in launchers.items():
            op = find(name)

            def call(op=op, args=args, kwargs=kwargs):
                with torch.inference_mode():
                    return op(*args, **kwargs)

            expected = OPS[name].reference(*args, **kwargs)
            got, wanted = (v[0] if isinstance(v, tuple) else v for v in (call(), expected))
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)  # a wrong result is not timed
            seconds = clock.seconds(call)
            rows.append(
                {
                    "op": name, "variant": variant, "backend": backend, "elements": n, "seconds": seconds,
                    "share_of_copy_bandwidth": moved / seconds / copy_bandwidth, "times_eager": eager / seconds,
                    "times_torch_compile": compile_seconds / seconds, "host_us": 1e6 * clock.host_seconds(call),
                }
            )  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def verdicts(row: dict[str, Any]) -> str:
    """Met or missed, target by target."""
    bandwidth = TARGETS["copy with noise" if "noise" in row["variant"] else "copy"]
    checks = {
        f"{bandwidth:.0%} of copy": row["share_of_copy_bandwidth"] >= bandwidth,
        f"{TARGETS['eager']:g}x eager": row["times_eager"] >= TARGETS["eager"],
        "torch.compile": row["times_torch_compile"] >= TARGETS["torch.compile"],
        f"{TARGETS['host_us']:g} us host": row["host_us"] < TARGETS["host_us"],
    }
    missed = [name for name, met in checks.items() if not met]
    return "all met" if not missed else "missed: " + ", ".join(missed)


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"# {report['device']}",
        "",
        f"torch {report['torch']}; `make gpu-check`.",
        "",
        "| step | result | seconds |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {s['step']} | {'passed' if s['passed'] else 'FAILED'} | {s['seconds']} |" for s in report["steps"]]
    lines += [
        "",
        "| op | backend | time | of copy bandwidth | x eager | x torch.compile | host | targets |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in report["rows"]:
        lines.append(
            f"| {row['op']}, {row['variant']}, {row['elements']:,} elements | {row['backend']} | {row['seconds'] * 1e3:.3f} ms "
            f"| {row['share_of_copy_bandwidth']:.0%} | {row['times_eager']:.2f} | {row['times_torch_compile']:.2f} "
            f"| {row['host_us']:.1f} us | {verdicts(row)} |"
        )
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--dry-run", is_flag=True, help="The same steps on the CPU at small sizes; nothing is a GPU figure then.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default=True, help="Where the report goes.")
@click.option("--build/--no-build", default=True, show_default=True, help="Build the extension first.")
def main(dry_run: bool, out: Path, build: bool) -> None:
    """Build, test, sanitize and measure on a GPU machine, and write the report."""
    if not dry_run and not torch.cuda.is_available():
        raise click.UsageError("no GPU here: use --dry-run, or run this on a machine with one")
    python = sys.executable
    required = "cpu" if dry_run else "cpu,cuda,triton"
    steps = []
    if build:
        environment = {} if dry_run else {"FASTDIFF_CUDA": "1"}
        install = [python, "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "-e", "."]
        steps.append(step("build", install, **environment))
    selection = ["-k", "test_backend_agrees and odd"] if dry_run else []
    workers = [] if dry_run else ["-n", "8"]
    tests = ["tests/ops"] if dry_run else ["tests"]
    steps.append(step("tests", [python, "-m", "pytest", "-q", *workers, *tests, *selection], FASTDIFF_REQUIRE=required))
    sanitizer = shutil.which("compute-sanitizer")
    if dry_run:
        print("\n== compute-sanitizer: a GPU is needed")
    elif sanitizer is None:
        steps.append({"step": "compute-sanitizer", "passed": False, "seconds": 0.0, "summary": ["not found on the PATH"]})
    else:
        command = [
            sanitizer,
            "--error-exitcode",
            "9",
            python,
            "-m",
            "pytest",
            "-q",
            "tests/ops/test_table.py",
            "-k",
            "test_backend_agrees and cuda and float32",
        ]
        steps.append(step("compute-sanitizer", command, PYTORCH_NO_CUDA_MEMORY_CACHING="1"))
    device = torch.device("cpu" if dry_run else "cuda")
    report = {
        "device": "dry run on the CPU" if dry_run else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "steps": steps,
        "rows": measure(device, 2**16 if dry_run else 2**26),
    }
    out.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^a-z0-9]+", "-", report["device"].lower()).strip("-")
    (out / f"{stem}.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / f"{stem}.md").write_text(markdown(report))
    print(f"\nwrote {out / stem}.json and .md")
    failed = [s["step"] for s in steps if not s["passed"]]
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
