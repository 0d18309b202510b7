"""Whole pipelines of diffusers: the same images with its schedulers and with fastdiff's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

original = pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("transformers")  # diffusers' Stable Diffusion needs it

import fastdiff.compat.diffusers as ours  # noqa: E402


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return original.UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(32, 32), norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """A Stable Diffusion of random weights, without a text encoder: prompts are embeddings."""
    torch.manual_seed(0)
    unet = original.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(32, 64), norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=8,
    ).eval()  # fmt: skip
    vae = original.AutoencoderKL(
        block_out_channels=(16, 16), in_channels=3, out_channels=3, latent_channels=4, norm_num_groups=8, sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()  # fmt: skip
    return {
        "unet": unet, "vae": vae, "text_encoder": None, "tokenizer": None, "safety_checker": None, "feature_extractor": None,
        "requires_safety_checker": False,
    }  # fmt: skip


SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
STABLE = {
    "DDPMScheduler": SCALED | {"clip_sample": False},
    "DDIMScheduler": SCALED | {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1},
    "EulerDiscreteScheduler": SCALED,
    "EulerAncestralDiscreteScheduler": SCALED,
    "HeunDiscreteScheduler": SCALED,
    "DPMSolverMultistepScheduler": SCALED | {"use_karras_sigmas": True},
    "DPMSolverSinglestepScheduler": SCALED,
    "UniPCMultistepScheduler": SCALED,
    "LMSDiscreteScheduler": SCALED,
}


def images_of(pipe: Any, **arguments: Any) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    return np.asarray(pipe(generator=torch.Generator().manual_seed(3), output_type="np", **arguments).images)


def both(make: Any, **arguments: Any) -> None:
    """The pipeline as it is, and accelerated."""
    expected = images_of(make(), **arguments)
    pipe = ours.accelerate(make())
    assert type(pipe.scheduler).__module__.startswith("fastdiff.")
    assert pipe.scheduler.handed_over == ""
    got = images_of(pipe, **arguments)
    assert expected.std() > 0.01  # images, not one color
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3)


def test_ddpm_pipeline(unet):
    both(lambda: original.DDPMPipeline(unet, original.DDPMScheduler()), batch_size=2, num_inference_steps=10)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("clipped", [None, True])
def test_ddim_pipeline(unet, eta, clipped):
    arguments = {"batch_size": 2, "num_inference_steps": 10, "eta": eta, "use_clipped_model_output": clipped}
    both(lambda: original.DDIMPipeline(unet, original.DDIMScheduler()), **arguments)


@pytest.mark.parametrize("name", list(STABLE))
def test_text_to_image(parts, name):
    embeddings = torch.randn(2, 3, 5, 16, generator=torch.Generator().manual_seed(1))
    arguments = {
        "prompt_embeds": embeddings[0], "negative_prompt_embeds": embeddings[1], "num_inference_steps": 6, "height": 16, "width": 16,
        "guidance_scale": 4.0,
    }  # fmt: skip
    both(lambda: original.StableDiffusionPipeline(scheduler=getattr(original, name)(**STABLE[name]), **parts), **arguments)


@pytest.mark.parametrize("name", list(STABLE))
def test_image_to_image(parts, name):
    embeddings = torch.randn(2, 1, 5, 16, generator=torch.Generator().manual_seed(1))
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    arguments = {
        "prompt_embeds": embeddings[0], "negative_prompt_embeds": embeddings[1], "image": image, "strength": 0.6, "num_inference_steps": 8,
    }  # fmt: skip
    both(lambda: original.StableDiffusionImg2ImgPipeline(scheduler=getattr(original, name)(**STABLE[name]), **parts), **arguments)


@pytest.mark.parametrize("name", list(STABLE))
def test_inpainting(parts, name):
    """Known pixels are put back between the steps."""
    embeddings = torch.randn(2, 1, 5, 16, generator=torch.Generator().manual_seed(1))
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    arguments = {
        "prompt_embeds": embeddings[0], "negative_prompt_embeds": embeddings[1], "image": image, "mask_image": mask, "strength": 0.9,
        "num_inference_steps": 6, "height": 16, "width": 16,
    }  # fmt: skip
    both(lambda: original.StableDiffusionInpaintPipeline(scheduler=getattr(original, name)(**STABLE[name]), **parts), **arguments)


def test_our_class_in_the_constructor_and_a_saved_pipeline(unet, tmp_path):
    """DDIMPipeline makes a DDIMScheduler of its own out of any it is given: that is what accelerate is for."""
    pipe = original.DDIMPipeline(unet, ours.DDIMScheduler())
    assert type(pipe.scheduler) is original.DDIMScheduler
    ddpm = original.DDPMPipeline(unet, ours.DDPMScheduler())
    assert type(ddpm.scheduler) is ours.DDPMScheduler
    expected = images_of(original.DDPMPipeline(unet, original.DDPMScheduler()), num_inference_steps=4)
    np.testing.assert_allclose(images_of(ddpm, num_inference_steps=4), expected, rtol=0, atol=1e-3)
    ours.accelerate(pipe).save_pretrained(tmp_path)
    loaded = original.DDIMPipeline.from_pretrained(tmp_path, low_cpu_mem_usage=False)  # without fastdiff, too
    assert type(loaded.scheduler) is original.DDIMScheduler


def test_the_worked_example_runs_before_and_after():
    page = (Path(__file__).parents[2] / "docs" / "compat_diffusers.md").read_text(encoding="utf-8")
    results = []
    for fence in ("```python before\n", "```python\n"):
        names: dict[str, Any] = {}
        exec(page.split(fence, 1)[1].split("```", 1)[0], names)
        results.append((names["images"], names["x"]))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=0, atol=1e-3)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-4, atol=1e-4)
    assert type(names["pipe"].scheduler) is ours.DDPMScheduler
