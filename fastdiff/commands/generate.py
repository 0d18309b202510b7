"""What `fastdiff sample` does: generate, write the picture, and say how long what took."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..distributed import world
from ..eager import edm_sampler
from ..epsilon_scaling import EpsilonScaling
from ..files import check_writable
from ..guidance import ClassifierFree, classifier_guidance
from ..images import save_grid, save_npz, save_scatter, to_uint8
from ..loop import run
from ..models import CLASSIFIERS, discriminator_guidance, load_classifier
from ..noise import keys, randn
from ..opening import open_discriminator, open_model
from ..samplers import EDMSampler

#: More than this is a slip of the hand.
MOST_SAMPLES = 1_000_000


class TimedNetwork:
    """A network that adds up the time of its calls, with events on a GPU so that nothing waits in the loop."""

    def __init__(self, net: torch.nn.Module, device: torch.device) -> None:
        self.net = net
        self.device = device
        self.on_call: Callable[[int], object] = lambda samples: None
        self.spans: list[Callable[[], float]] = []

    def __call__(self, *args, **kwargs) -> Tensor:
        self.on_call(args[0].shape[0])
        if self.device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            result = self.net(*args, **kwargs)
            end.record()
            self.spans.append(lambda: start.elapsed_time(end) / 1e3)
            return result
        begin = time.perf_counter()
        result = self.net(*args, **kwargs)
        elapsed = time.perf_counter() - begin
        self.spans.append(lambda: elapsed)
        return result

    def seconds(self) -> float:
        """Time spent in the network since the last call of this."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        total = sum(span() for span in self.spans)
        self.spans.clear()
        return total


def generate(
    *, model: str, weights: Path | None, count: int, seed: int, out: Path, npz: Path | None, class_index: int | None,
    label: int | None, guidance_scale: float, discriminator: str | None, dg_weight: float, own: bool, steps: int, s_churn: float,
    eps_scale: float, cfg: float, batch: int, device: str | None, compare: bool,
) -> None:  # fmt: skip
    """Generate `count` samples, write them, and print the times; under torchrun on all its processes."""
    for name, value in (("-n", count), ("--batch", batch)):
        if not 1 <= value <= MOST_SAMPLES:
            raise ValueError(f"{name}: expected an integer from 1 to {MOST_SAMPLES}, got {value}")
    if steps < 2:
        raise ValueError(f"--steps: expected an integer >= 2, got {steps}")
    for path in filter(None, (out, npz)):
        check_writable(path)
    among = world(device)
    place = among.device
    described = open_model(model, weights, place)
    net = TimedNetwork(described.net, place)
    if class_index is not None and not 0 <= class_index < described.classes:
        raise ValueError(f"--class: expected 0 .. {described.classes - 1}, got {class_index}")
    if label is not None and (class_index is not None or cfg != 1):
        raise ValueError("--label: expected neither --class nor --cfg beside it (it guides the unconditional model), got one")
    if label is not None and not (model in CLASSIFIERS and 0 <= label < CLASSIFIERS[model].classes):
        raise ValueError(f"--label: expected 0 .. {CLASSIFIERS[model].classes - 1 if model in CLASSIFIERS else 'none'}, got {label}")
    if label is not None:
        class_index = label
    if discriminator is not None and label is not None:
        raise ValueError("--discriminator: expected none beside --label, got one")
    labels = torch.arange(count) % max(described.classes, 1) if class_index is None else torch.full((count,), class_index)
    one_hot = torch.nn.functional.one_hot(labels, described.classes).to(place, torch.float32) if described.classes else None
    # Whole batches go to each process: which samples are made together changes nothing, and neither does how many processes there are.
    starts = [first for k, first in enumerate(range(0, count, batch)) if k in among.share(-(-count // batch))]
    own_count = sum(min(batch, count - first) for first in starts)

    sampler = described.sampler if own else EDMSampler(steps=steps, S_churn=s_churn)
    plan = EpsilonScaling.of(eps_scale).apply(sampler.plan(described.parametrization))
    free = ClassifierFree(cfg) if cfg != 1 else None
    classifier = None if label is None else load_classifier(model, device=place)
    teller = None if discriminator is None else discriminator_guidance(open_discriminator(discriminator, described, place), dg_weight)
    size = min(count, batch)
    with torch.no_grad():  # warm up
        labelled = {} if one_hot is None else {"class_labels": one_hot[:size]}
        net.net(torch.zeros(size, *described.shape, device=place), torch.ones(size, device=place), **labelled)
    images = [torch.empty(0, *described.shape)]
    calls = len(plan) * (2 if free else 1)
    with tqdm(total=own_count * calls, desc="sampling", unit="call", unit_scale=True, disable=not among.is_main) as bar:
        net.on_call = bar.update
        started = time.perf_counter()
        for first in starts:
            key = keys(seed, min(batch, count - first), first=first, device=place)
            latents = randn((len(key), *described.shape), key, device=place)
            condition = {} if one_hot is None else {"class_labels": None if label is not None else one_hot[first : first + batch]}
            chosen = labels[first : first + batch].to(place)
            guidance = teller if classifier is None else classifier_guidance(classifier, chosen, guidance_scale)
            drawn = run(plan, net, latents, key=key, guidance=guidance, cfg=free, condition=condition, progress=False)
            images.append(drawn.cpu())
        gathered = among.gather(torch.cat(images))
        total = time.perf_counter() - started
    net.on_call = lambda samples: None
    share = 1 - net.seconds() / total
    if gathered is None:
        return
    samples = gathered
    if samples.dim() == 2:
        save_scatter(samples, out)
    else:
        save_grid(samples, out, columns=described.classes if class_index is None and 0 < described.classes <= count else None)
    if npz is not None:
        classes = {"labels": labels.numpy()} if one_hot is not None else {}
        save_npz(npz, images=samples.numpy() if samples.dim() == 2 else to_uint8(samples), **classes)
    whose = "sampler's" if classifier is None and teller is None else "sampler's and guidance's"
    print(f"fastdiff  {count / total:8.1f} images/s   {whose} share {share:6.2%}   ({calls} network calls, {total:.2f} s)")
    if compare and label is None and teller is None and not own and one_hot is not None and among.size == 1:
        _compare(net, described.shape, one_hot, min(count, batch), place, steps, s_churn, eps_scale, cfg)
    print(f"wrote {out}" + (f" and {npz}" if npz else ""))


def _compare(net, shape, one_hot, size: int, place: torch.device, steps, s_churn, eps_scale, cfg) -> None:
    """The same network under the eager sampler, one batch."""
    latents = randn((size, *shape), 0, device=place)

    def guided(x: Tensor, sigma: Tensor, class_labels: Tensor) -> Tensor:
        D_uncond = net(x, sigma, class_labels=None)
        return D_uncond + cfg * (net(x, sigma, class_labels=class_labels) - D_uncond)

    denoiser = net if cfg == 1 else guided
    started = time.perf_counter()
    edm_sampler(denoiser, latents, num_steps=steps, S_churn=s_churn, eps_scaler=eps_scale, class_labels=one_hot[:size]).cpu()
    total = time.perf_counter() - started
    share = 1 - net.seconds() / total
    print(f"eager     {size / total:8.1f} images/s   sampler's share {share:6.2%}   (one batch of {size}, float64 state, {total:.2f} s)")
    print("A fused step does not make the network faster: where the eager share is small, so is the gain.")
