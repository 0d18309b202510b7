"""Preconditioned denoisers: D(x, sigma) from a raw network, in the conventions of NVlabs/edm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .song_unet import SongUNet

_NETWORKS = {"SongUNet": SongUNet}


class EDMPrecond(nn.Module):
    """D(x, sigma) = c_skip*x + c_out*F(c_in*x, ln(sigma)/4), preconditioning of Karras et al. 2022, table 1.

        c_skip = sigma_data^2 / (sigma^2 + sigma_data^2)
        c_out  = sigma*sigma_data / sqrt(sigma^2 + sigma_data^2)
        c_in   = 1 / sqrt(sigma^2 + sigma_data^2)

    Args:
        img_resolution, img_channels: image geometry; label_dim: number of classes, 0 for none.
        use_fp16: run the network in float16 on a GPU.
        sigma_min, sigma_max: the noise levels that the network supports; sigma_data: standard deviation of the data.
        model_type: class of the raw network; further keywords go to it.

    Called with x [B, C, H, W] and sigma [B] or a scalar, both in data units; returns D [B, C, H, W] in float32.
    """

    def __init__(
        self, img_resolution, img_channels, label_dim=0, use_fp16=False, sigma_min=0, sigma_max=float("inf"),
        sigma_data=0.5, model_type="SongUNet", **model_kwargs,
    ):  # fmt: skip
        super().__init__()
        if model_type not in _NETWORKS:
            raise ValueError(f"model_type: expected one of {', '.join(_NETWORKS)}, got {model_type!r}")
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.label_dim = label_dim
        self.use_fp16 = use_fp16
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.sigma_data = sigma_data
        self.model = _NETWORKS[model_type](
            img_resolution=img_resolution, in_channels=img_channels, out_channels=img_channels, label_dim=label_dim, **model_kwargs
        )

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None, force_fp32=False, **model_kwargs) -> Tensor:
        x = x.to(torch.float32)
        sigma = torch.as_tensor(sigma, device=x.device).to(torch.float32).reshape(-1, 1, 1, 1)
        if self.label_dim == 0:
            class_labels = None
        elif class_labels is None:
            class_labels = x.new_zeros(1, self.label_dim)
        else:
            class_labels = class_labels.to(torch.float32).reshape(-1, self.label_dim)
        half = self.use_fp16 and not force_fp32 and x.device.type == "cuda"

        variance = sigma**2 + self.sigma_data**2
        c_in, c_skip = variance.rsqrt(), self.sigma_data**2 / variance
        c_out, c_noise = sigma * self.sigma_data * c_in, sigma.log() / 4
        net_in = (c_in * x).to(torch.float16 if half else torch.float32)
        raw = self.model(net_in, c_noise.flatten(), class_labels=class_labels, **model_kwargs)
        return c_skip * x + c_out * raw.to(torch.float32)

    def round_sigma(self, sigma) -> Tensor:
        """The noise level nearest to sigma that the network was trained for: here, sigma itself."""
        return torch.as_tensor(sigma)
