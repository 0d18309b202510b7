"""The ADM encoder: half a U-Net as a noise-conditional classifier and feature extractor (Dhariwal and Nichol 2021, arXiv:2105.05233).

Constructor arguments and state_dict names are those of guided-diffusion's EncoderUNetModel, so its checkpoints load unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from ..schedules import VP
from .layers import frequencies, waves


class Normalization(nn.GroupNorm):
    """Group normalization with 32 groups, in the dtype of its weights whatever the dtype around it."""

    def __init__(self, channels: int):
        super().__init__(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class Blocks(nn.Sequential):
    """Blocks in a row, of which residual ones take the embedding."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        for block in self:
            x = block(x, emb) if isinstance(block, ResBlock) else block(x)
        return x


class ResBlock(nn.Module):
    """A residual block; with `down` it halves the resolution by averaging before its first convolution.

    With use_scale_shift_norm the embedding scales and shifts the second norm, else it is added before it.
    """

    def __init__(self, channels, emb_channels, dropout, out_channels=None, use_scale_shift_norm=False, down=False):
        super().__init__()
        out_channels = out_channels or channels
        self.down = down
        self.use_scale_shift_norm = use_scale_shift_norm
        self.in_layers = nn.Sequential(Normalization(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, (2 if use_scale_shift_norm else 1) * out_channels))
        self.out_layers = nn.Sequential(
            Normalization(out_channels), nn.SiLU(), nn.Dropout(dropout), _zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        )
        self.skip_connection = nn.Identity() if out_channels == channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, act, conv = self.in_layers
        h = act(norm(x))
        if self.down:
            h, x = nnf.avg_pool2d(h, 2), nnf.avg_pool2d(x, 2)
        h = conv(h)
        added = self.emb_layers(emb).to(h.dtype)[:, :, None, None]
        if self.use_scale_shift_norm:
            scale, shift = added.chunk(2, dim=1)
            h = self.out_layers[1:](torch.addcmul(shift, self.out_layers[0](h), 1 + scale))
        else:
            h = self.out_layers(h + added)
        return self.skip_connection(x) + h


class AttentionBlock(nn.Module):
    """Self-attention over pixels. The order of qkv's channels is (head, q|k|v, channel), or (q|k|v, head, channel) in the new order."""

    def __init__(self, channels, num_heads=1, num_head_channels=-1, use_new_attention_order=False):
        super().__init__()
        self.num_heads = _heads(channels, num_heads, num_head_channels)
        self.use_new_attention_order = use_new_attention_order
        self.norm = Normalization(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = _zero(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        h = _attend(self.qkv(self.norm(flat)), self.num_heads, self.use_new_attention_order)
        return (flat + self.proj_out(h)).reshape(x.shape)


class AttentionPool2d(nn.Module):
    """One vector for an image: the answer of attention to the query of the mean pixel (CLIP's pooling)."""

    def __init__(self, spacial_dim, embed_dim, num_head_channels, output_dim):
        super().__init__()
        self.num_heads = _heads(embed_dim, 1, num_head_channels)
        self.positional_embedding = nn.Parameter(torch.randn(embed_dim, spacial_dim**2 + 1) / math.sqrt(embed_dim))
        self.qkv_proj = nn.Conv1d(embed_dim, 3 * embed_dim, 1)
        self.c_proj = nn.Conv1d(embed_dim, output_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        x = torch.cat([x.mean(dim=2, keepdim=True), x], dim=2)
        if x.shape[2] != self.positional_embedding.shape[1]:
            side = math.isqrt(self.positional_embedding.shape[1] - 1)
            raise ValueError(f"x: expected features of {side}x{side} for attention pooling, got {x.shape[2] - 1} pixels")
        x = x + self.positional_embedding.to(x.dtype)
        return self.c_proj(_attend(self.qkv_proj(x), self.num_heads, new_order=True))[:, :, 0]


class ADMEncoder(nn.Module):
    """The encoder of ADM with a head, conditioned on time and optionally on a class.

    Args:
        image_size: side of the input; in_channels, out_channels: of the input, and numbers that come out.
        model_channels, num_res_blocks, channel_mult: width and depth.
        attention_resolutions: downsampling rates with self-attention, e.g. (1, 2, 4).
        num_heads, num_head_channels: of attention; the second wins unless -1.
        use_scale_shift_norm, resblock_updown, conv_resample, use_new_attention_order, dropout: as in guided-diffusion.
        pool: "attention", or "adaptive" for the mean over pixels.
        condition: whether a class enters the embedding; num_class: how many there are.

    Called with x [B, in_channels, H, W] and timesteps [B] in [0, 1] (the network sees 999*t), and condition: [B] int64 classes or
    [B, num_class] one-hot. Returns [B, out_channels]; the features before the head [B, C, h, w] with feature=True; the sigmoid of the
    output with sigmoid=True.
    """

    def __init__(
        self, image_size: int, in_channels: int, model_channels: int, out_channels: int, num_res_blocks: int,
        attention_resolutions: Sequence[int], dropout: float = 0, channel_mult: Sequence[float] = (1, 2, 4, 8), conv_resample: bool = True,
        num_heads: int = 1, num_head_channels: int = -1, use_scale_shift_norm: bool = False, resblock_updown: bool = False,
        use_new_attention_order: bool = False, pool: Literal["adaptive", "attention"] = "adaptive", condition: bool = False,
        num_class: int = 1000,
    ):  # fmt: skip
        super().__init__()
        if pool not in ("adaptive", "attention"):
            raise ValueError(f"pool: expected 'adaptive' or 'attention', got {pool!r}")
        self.image_size = image_size
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.condition = condition
        emb = 4 * model_channels
        self.time_embed = nn.Sequential(nn.Linear(model_channels, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.freqs: Tensor
        self.register_buffer("freqs", frequencies(model_channels), persistent=False)
        if condition:
            self.label_emb = nn.Embedding(num_class, emb)

        def residual(cin, cout, **kwargs):
            return ResBlock(cin, emb, dropout, cout, use_scale_shift_norm, **kwargs)

        def attention(channels):
            return AttentionBlock(channels, num_heads, num_head_channels, use_new_attention_order)

        def downsample(channels):
            if resblock_updown:
                return residual(channels, channels, down=True)
            return Downsample(channels) if conv_resample else nn.AvgPool2d(2)

        ch = int(channel_mult[0] * model_channels)
        self.input_blocks = nn.ModuleList([Blocks(nn.Conv2d(in_channels, ch, 3, padding=1))])
        for level, mult in enumerate(channel_mult):
            for _ in range(num_res_blocks):
                block = [residual(ch, int(mult * model_channels))]
                ch = int(mult * model_channels)
                if 2**level in attention_resolutions:
                    block.append(attention(ch))
                self.input_blocks.append(Blocks(*block))
            if level != len(channel_mult) - 1:
                self.input_blocks.append(Blocks(downsample(ch)))
        self.middle_block = Blocks(residual(ch, ch), attention(ch), residual(ch, ch))
        side = image_size >> (len(channel_mult) - 1)
        self.features = (ch, side, side)  #: shape of the features of an image
        if pool == "adaptive":
            head: list[nn.Module] = [nn.AdaptiveAvgPool2d((1, 1)), _zero(nn.Conv2d(ch, out_channels, 1)), nn.Flatten()]
        else:
            head = [AttentionPool2d(side, ch, num_head_channels, out_channels)]
        self.out = nn.Sequential(Normalization(ch), nn.SiLU(), *head)

    def forward(
        self, x: Tensor, timesteps: Tensor, feature: bool = False, sigmoid: bool = False, condition: Tensor | None = None
    ) -> Tensor:
        emb = self.time_embed(waves(timesteps.to(self.freqs.dtype) * 999.0, self.freqs).to(x.dtype))
        if self.condition:
            if condition is None:
                raise ValueError("condition: expected classes [B] or one-hot [B, num_class] for a conditional network, got none")
            emb = emb + self.label_emb(condition if condition.dim() == 1 else condition.argmax(1))
        h = x
        for block in self.input_blocks:
            h = block(h, emb)
        h = self.middle_block(h, emb)
        if feature:
            return h
        logits = self.out(h)
        return logits.sigmoid() if sigmoid else logits

    def classify(self, x: Tensor, sigma: Tensor) -> Tensor:
        """[B, out_channels] logits of unscaled samples x = x0 + sigma*z; sigma [B] or a scalar, both in data units."""
        state, t = vp_state(x, sigma, self.freqs.dtype)
        return self(state, t)


def vp_state(x: Tensor, sigma: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(x/sqrt(1 + sigma^2), t(sigma)): the state and the time of the VP SDE (beta from 0.1 to 20) that an unscaled sample stands for."""
    sigma = sigma.expand(len(x))
    mean = (1 + sigma**2).rsqrt().reshape(-1, *[1] * (x.dim() - 1))
    return (mean * x).to(dtype), VP().time(sigma).to(dtype)


class Downsample(nn.Module):
    """A convolution with stride 2."""

    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


def _attend(qkv: Tensor, heads: int, new_order: bool) -> Tensor:
    """[B, 3*C, N] to [B, C, N]."""
    batch, width, length = qkv.shape
    if new_order:
        q, k, v = qkv.reshape(batch, 3, heads, width // (3 * heads), length).unbind(1)
    else:
        q, k, v = qkv.reshape(batch, heads, 3, width // (3 * heads), length).unbind(2)
    out = nnf.scaled_dot_product_attention(q.transpose(2, 3), k.transpose(2, 3), v.transpose(2, 3))
    return out.transpose(2, 3).reshape(batch, width // 3, length)


def _heads(channels: int, heads: int, head_channels: int) -> int:
    if head_channels == -1:
        return heads
    if channels % head_channels:
        raise ValueError(f"num_head_channels: expected a divisor of {channels} channels, got {head_channels}")
    return channels // head_channels


def _zero(module: nn.Module) -> nn.Module:
    """A residual branch that starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
