"""Preconditioned denoisers: D(x, sigma) = c_skip*x + c_out*F(c_in*x, c_noise), in the conventions of NVlabs/edm.

Constructor arguments, attributes and state_dict names are those of NVlabs/edm (Karras et al. 2022, table 1).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..parametrizations import Parametrization
from ..schedules import N
from .dhariwal_unet import DhariwalUNet
from .song_unet import SongUNet

_NETWORKS = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}


class Coefficients(NamedTuple):
    """Table 1's columns at sigma, each in sigma's shape."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


class Precond(nn.Module):
    """A raw network under a preconditioning; subclasses say its coefficients and noise levels.

    Args:
        img_resolution, img_channels: image geometry; label_dim: number of classes, 0 for none.
        use_fp16: run the network in float16 on a GPU; the preconditioning stays in float32.
        model_type: class of the raw network; further keywords go to it.
        out_factor: output channels of the raw network, in img_channels.

    Called with x [B, C, H, W] and sigma [B] or a scalar, both in data units, class_labels [B, label_dim] or None, and
    augment_labels [B, augment_dim] or None; returns D [B, C, H, W] in float32. Under autocast the network follows it.
    """

    sigma_min: float
    sigma_max: float

    def __init__(
        self, img_resolution: int, img_channels: int, label_dim: int, use_fp16: bool, model_type: str, out_factor: int = 1, **model_kwargs
    ):
        super().__init__()
        if model_type not in _NETWORKS:
            raise ValueError(f"model_type: expected one of {', '.join(_NETWORKS)}, got {model_type!r}")
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.label_dim = label_dim
        self.use_fp16 = use_fp16
        self.model = _NETWORKS[model_type](
            img_resolution=img_resolution,
            in_channels=img_channels,
            out_channels=img_channels * out_factor,
            label_dim=label_dim,
            **model_kwargs,
        )

    @abstractmethod
    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The preconditioning at sigma."""

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None, force_fp32: bool = False, **model_kwargs) -> Tensor:
        x = x.to(torch.float32)
        sigma = torch.as_tensor(sigma, device=x.device).to(torch.float32).reshape(-1, 1, 1, 1)
        c = self.coefficients(sigma)
        half = self.use_fp16 and not force_fp32 and x.device.type == "cuda"
        net_in = (c.c_in * x).to(torch.float16 if half else torch.float32)
        raw = self.raw(net_in, c.c_noise.flatten(), class_labels, **model_kwargs)
        return c.c_skip * x + c.c_out * raw[:, : self.img_channels].to(torch.float32)

    def raw(self, net_in: Tensor, c_noise: Tensor, class_labels: Tensor | None = None, **model_kwargs) -> Tensor:
        """F of the preconditioned input: what a training loss needs without the arithmetic around it."""
        if self.label_dim == 0:
            class_labels = None
        elif class_labels is None:
            class_labels = net_in.new_zeros(1, self.label_dim, dtype=torch.float32)
        else:
            if class_labels.shape[-1:] != (self.label_dim,):
                raise ValueError(f"class_labels: expected [B, {self.label_dim}], one-hot, got {list(class_labels.shape)}")
            class_labels = class_labels.to(torch.float32).reshape(-1, self.label_dim)
        return self.model(net_in, c_noise, class_labels=class_labels, **model_kwargs)

    def round_sigma(self, sigma) -> Tensor:
        """The noise level nearest to sigma that the network was trained for: here, sigma itself."""
        return torch.as_tensor(sigma)

    @property
    def parametrization(self) -> Preconditioned:
        """What `raw` returns: with it, samplers and losses do the preconditioning in their own kernels."""
        return Preconditioned(
            self.sigma_min, self.sigma_max, lambda sigma: float(self.round_sigma(torch.tensor(sigma, dtype=torch.float64))), net=self
        )


@dataclass(frozen=True)
class Preconditioned(Parametrization):
    """The raw network under a preconditioned one."""

    net: Precond = field(kw_only=True)

    def _at(self, sigma: N) -> Coefficients:
        if isinstance(sigma, Tensor):
            return self.net.coefficients(sigma)
        return Coefficients(*(float(v) for v in self.net.coefficients(torch.tensor(sigma, dtype=torch.float64))))  # type: ignore[arg-type]

    def denoiser(self, sigma: N) -> tuple[N, N]:
        c = self._at(sigma)
        return c.c_skip, c.c_out  # type: ignore[return-value]

    def c_in(self, sigma: N) -> N:
        return self._at(sigma).c_in  # type: ignore[return-value]

    def label(self, sigma: N) -> N:
        return self._at(sigma).c_noise  # type: ignore[return-value]


class EDMPrecond(Precond):
    """The preconditioning of EDM: unit variance of the input and of the training target at every noise level.

        c_skip = sigma_data^2/(sigma^2 + sigma_data^2)         c_in = 1/sqrt(sigma^2 + sigma_data^2)
        c_out = sigma*sigma_data/sqrt(sigma^2 + sigma_data^2)  c_noise = ln(sigma)/4

    Args:
        sigma_min, sigma_max: the noise levels that the network supports; sigma_data: standard deviation of the data.
        others: see Precond.
    """

    def __init__(
        self, img_resolution, img_channels, label_dim=0, use_fp16=False, sigma_min=0, sigma_max=float("inf"),
        sigma_data=0.5, model_type="DhariwalUNet", **model_kwargs,
    ):  # fmt: skip
        super().__init__(img_resolution, img_channels, label_dim, use_fp16, model_type, **model_kwargs)
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.sigma_data = sigma_data

    def coefficients(self, sigma: Tensor) -> Coefficients:
        variance = sigma**2 + self.sigma_data**2
        c_in = variance.rsqrt()
        return Coefficients(self.sigma_data**2 / variance, sigma * self.sigma_data * c_in, c_in, sigma.log() / 4)


class VPPrecond(Precond):
    """An eps network of the VP SDE: c_skip = 1, c_out = -sigma, c_in = 1/sqrt(sigma^2 + 1), c_noise = (M - 1)*t(sigma).

    Args:
        beta_d, beta_min: sigma(t)^2 = exp(beta_d*t^2/2 + beta_min*t) - 1; M: discrete steps that the labels count.
        epsilon_t: smallest time, of which sigma_min is the noise level.
        others: see Precond.
    """

    def __init__(
        self, img_resolution, img_channels, label_dim=0, use_fp16=False, beta_d=19.9, beta_min=0.1, M=1000,
        epsilon_t=1e-5, model_type="SongUNet", **model_kwargs,
    ):  # fmt: skip
        super().__init__(img_resolution, img_channels, label_dim, use_fp16, model_type, **model_kwargs)
        self.beta_d = beta_d
        self.beta_min = beta_min
        self.M = M
        self.epsilon_t = epsilon_t
        # On the CPU even where the network is built on another device, or on none.
        self.sigma_min = float(self.sigma(torch.tensor(epsilon_t, device="cpu")))
        self.sigma_max = float(self.sigma(torch.tensor(1.0, device="cpu")))

    def coefficients(self, sigma: Tensor) -> Coefficients:
        return Coefficients(torch.ones_like(sigma), -sigma, 1 / (sigma**2 + 1).sqrt(), (self.M - 1) * self.sigma_inv(sigma))

    def sigma(self, t) -> Tensor:
        """Noise level at time t."""
        t = t if isinstance(t, Tensor) else torch.as_tensor(t)
        # exp - 1 in float32: sigma_min = 0.0009765625 is what published networks say, and samplers start from it.
        return ((0.5 * self.beta_d * t**2 + self.beta_min * t).exp() - 1).sqrt()

    def sigma_inv(self, sigma) -> Tensor:
        """Time of a noise level."""
        integral = (torch.as_tensor(sigma) ** 2 + 1).log()
        return ((self.beta_min**2 + 2 * self.beta_d * integral).sqrt() - self.beta_min) / self.beta_d


class VEPrecond(Precond):
    """A score network of the VE SDE: c_skip = 1, c_out = sigma, c_in = 1, c_noise = ln(sigma/2)."""

    def __init__(
        self,
        img_resolution,
        img_channels,
        label_dim=0,
        use_fp16=False,
        sigma_min=0.02,
        sigma_max=100,
        model_type="SongUNet",
        **model_kwargs,
    ):
        super().__init__(img_resolution, img_channels, label_dim, use_fp16, model_type, **model_kwargs)
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max

    def coefficients(self, sigma: Tensor) -> Coefficients:
        one = torch.ones_like(sigma)
        return Coefficients(one, sigma, one, (sigma / 2).log())


class iDDPMPrecond(Precond):
    """An eps network with learned variance on iDDPM's M cosine levels: c_skip = 1, c_out = -sigma, c_noise = the level's index.

    Args:
        C_1: least ratio of consecutive alpha_bar; C_2: offset of the cosine; M: number of levels.
        others: see Precond. The raw network has twice the channels; the second half, the variance, is not used for D.
    """

    u: Tensor  #: [M + 1] the levels, falling; u[M] = 0

    def __init__(
        self,
        img_resolution,
        img_channels,
        label_dim=0,
        use_fp16=False,
        C_1=0.001,
        C_2=0.008,
        M=1000,
        model_type="DhariwalUNet",
        **model_kwargs,
    ):
        super().__init__(img_resolution, img_channels, label_dim, use_fp16, model_type, out_factor=2, **model_kwargs)
        self.C_1 = C_1
        self.C_2 = C_2
        self.M = M
        levels = torch.zeros(M + 1, device="cpu")  # float32, step by step, as the published networks have them
        steps = torch.arange(M + 1, device="cpu")
        for j in range(M, 0, -1):
            ratio = (self.alpha_bar(steps[j - 1]) / self.alpha_bar(steps[j])).clamp(min=C_1)
            levels[j - 1] = ((levels[j] ** 2 + 1) / ratio - 1).sqrt()
        self.register_buffer("u", levels)
        self.sigma_min = float(levels[M - 1])
        self.sigma_max = float(levels[0])

    def alpha_bar(self, j) -> Tensor:
        """Signal power at index j, counted from the noisy end."""
        j = j if isinstance(j, Tensor) else torch.as_tensor(j)
        return (0.5 * math.pi * j / self.M / (self.C_2 + 1)).sin() ** 2

    def coefficients(self, sigma: Tensor) -> Coefficients:
        index = self.round_sigma(sigma, return_index=True).to(torch.float32)
        return Coefficients(torch.ones_like(sigma), -sigma, 1 / (sigma**2 + 1).sqrt(), self.M - 1 - index)

    def round_sigma(self, sigma, return_index=False) -> Tensor:
        """The level nearest to sigma, or its index."""
        sigma = torch.as_tensor(sigma)
        wanted = sigma.to(self.u.device, torch.float32).reshape(-1, 1)
        index = (wanted - self.u).abs().argmin(1)
        result = index if return_index else self.u[index].to(sigma.dtype)
        return result.reshape(sigma.shape).to(sigma.device)
