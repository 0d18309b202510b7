"""fastdiff.compat.diffusers against diffusers' own schedulers, called as pipelines call them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

original = pytest.importorskip("diffusers")

import fastdiff.compat.diffusers as ours  # noqa: E402
from benchmarks.end_to_end import sampler_share  # noqa: E402

CIFAR, TINY = (64, 3, 32, 32), (2, 1, 8, 8)
STEPS = 50
TARGETS = {
    "DDPMScheduler": 4, "DDIMScheduler": 4, "EulerAncestralDiscreteScheduler": 4, "DPMSolverMultistepScheduler": 4,
    "EulerDiscreteScheduler": 2, "HeunDiscreteScheduler": 2,
}  # fmt: skip
OTHERS = tuple(cls.__name__ for cls in ours.SCHEDULERS if cls.__name__ not in TARGETS)


def walk(scheduler: Any, x: torch.Tensor, F: torch.Tensor, **step: Any) -> torch.Tensor:
    """A schedule's steps with an output that costs nothing."""
    scheduler._step_index = scheduler._begin_index = None
    for name, value in (("dt", None), ("lower_order_nums", 0), ("last_sample", None), ("is_scale_input_called", True)):
        if hasattr(scheduler, name):
            setattr(scheduler, name, value)
    if hasattr(scheduler, "derivatives"):
        scheduler.derivatives = []
    function = getattr(scheduler, "step", None) or scheduler.step_pred
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = function(F, t, x, return_dict=False, **step)[0]
    return x


def pair(name: str, shape: tuple[int, ...]) -> tuple[Any, Any, torch.Tensor, torch.Tensor]:
    theirs, mine = getattr(original, name)(), getattr(ours, name)()
    for scheduler in (theirs, mine):
        scheduler.set_timesteps(STEPS)
    assert mine.handed_over == ""
    x, F = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    return theirs, mine, x, F


def check(name: str) -> None:
    """The same numbers, with the original's noise."""
    theirs, mine, x, F = pair(name, (4, 3, 8, 8))
    results = []
    for scheduler in (theirs, mine):
        noisy = "generator" in (getattr(scheduler, "step", None) or scheduler.step_pred).__code__.co_varnames
        results.append(walk(scheduler, x, F, **({"generator": torch.Generator().manual_seed(1)} if noisy else {})))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3 * float(results[0].abs().max()))


@pytest.mark.parametrize("shape", [CIFAR, TINY], ids=["cifar", "tiny"])
@pytest.mark.parametrize("name", [*TARGETS, *OTHERS])
def test_steps(compare, name, shape):
    theirs, mine, x, F = pair(name, shape)
    target = {} if name in OTHERS else {"diffusers": 4 if shape == TINY else TARGETS[name]}
    case = f"compat.diffusers {name}.step, {len(mine.timesteps)} of them {list(shape)}"
    compare(case, lambda: walk(mine, x, F), {"diffusers": lambda: walk(theirs, x, F)}, lambda: check(name), target, rounds=7)


@pytest.mark.parametrize("name", ["DDPMScheduler", "EulerAncestralDiscreteScheduler"])
def test_steps_with_a_generator(compare, name):
    """The original's noise, which is most of the step."""
    theirs, mine, x, F = pair(name, CIFAR)
    generator = torch.Generator().manual_seed(0)
    case = f"compat.diffusers {name}.step with a generator, {STEPS} of them {list(CIFAR)}"
    peers = {"diffusers": lambda: walk(theirs, x, F, generator=generator)}
    compare(case, lambda: walk(mine, x, F, generator=generator), peers, lambda: check(name), rounds=7)


def test_pipeline_end_to_end(compare):
    """DDIMPipeline with a U-Net of 3.6 M parameters: the sampler is a small share, which the case's name says."""
    torch.manual_seed(0)
    unet = original.UNet2DModel(
        sample_size=32, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(32, 64, 64), norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip
    pipes = [original.DDIMPipeline(unet, original.DDIMScheduler()) for _ in range(2)]
    ours.accelerate(pipes[1])

    def images(pipe: Any) -> Any:
        pipe.set_progress_bar_config(disable=True)
        return pipe(batch_size=4, num_inference_steps=5, generator=torch.Generator().manual_seed(0), output_type="np").images

    def check() -> None:
        a, b = (torch.from_numpy(images(pipe)) for pipe in pipes)
        torch.testing.assert_close(a, b, rtol=0, atol=1e-3)

    def of(scheduler: Any) -> float:
        scheduler.set_timesteps(5)

        def run(net: Any) -> None:
            x = torch.randn(4, 3, 32, 32)
            with torch.no_grad():
                for t in scheduler.timesteps:
                    x = scheduler.step(net(x, t).sample, t, x).prev_sample

        return sampler_share(run, unet)

    parameters = sum(p.numel() for p in unet.parameters()) / 1e6
    shares = f"sampler's share {of(pipes[1].scheduler):.2%}, diffusers' {of(pipes[0].scheduler):.2%}"
    case = f"compat.diffusers DDIMPipeline end to end, U-Net of {parameters:.1f} M parameters [4, 3, 32, 32], 5 steps ({shares})"
    compare(case, lambda: images(pipes[1]), {"diffusers": lambda: images(pipes[0])}, check, rounds=5)
