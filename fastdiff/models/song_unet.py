"""SongUNet: the DDPM++ and NCSN++ networks of Song et al. 2021 (arXiv:2011.13456), as parametrized by Karras et al. 2022.

Constructor arguments and state_dict names are those of NVlabs/edm, so its checkpoints load unchanged.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf
from torch.utils.checkpoint import checkpoint

from .layers import Conv2d, FourierEmbedding, GroupNorm, Linear, PositionalEmbedding, given_classes


class UNetBlock(nn.Module):
    """A residual block conditioned on an embedding, with optional resampling and self-attention.

    h = conv1(dropout(silu(norm1(conv0(silu(norm0(x)))) modulated by emb))), out = skip_scale * (h + skip(x)).
    """

    def __init__(
        self, in_channels, out_channels, emb_channels, up=False, down=False, attention=False, num_heads=None,
        channels_per_head=64, dropout=0, skip_scale=1, eps=1e-5, resample_filter=(1, 1), resample_proj=False,
        adaptive_scale=True, init=None, init_zero=None, init_attn=None,
    ):  # fmt: skip
        super().__init__()
        init = init or {}
        init_zero = init_zero or {"init_weight": 0}
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_heads = 0 if not attention else num_heads or out_channels // channels_per_head
        self.dropout = dropout
        self.skip_scale = skip_scale
        self.adaptive_scale = adaptive_scale

        resample = dict(up=up, down=down, resample_filter=resample_filter)
        self.norm0 = GroupNorm(in_channels, eps=eps)
        self.conv0 = Conv2d(in_channels, out_channels, kernel=3, **resample, **init)
        self.affine = Linear(emb_channels, out_channels * (2 if adaptive_scale else 1), **init)
        self.norm1 = GroupNorm(out_channels, eps=eps)
        self.conv1 = Conv2d(out_channels, out_channels, kernel=3, **init_zero)

        self.skip = None
        if out_channels != in_channels or up or down:
            kernel = 1 if resample_proj or out_channels != in_channels else 0
            self.skip = Conv2d(in_channels, out_channels, kernel=kernel, **resample, **init)
        if self.num_heads:
            self.norm2 = GroupNorm(out_channels, eps=eps)
            self.qkv = Conv2d(out_channels, out_channels * 3, kernel=1, **(init_attn or init))
            self.proj = Conv2d(out_channels, out_channels, kernel=1, **init_zero)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(self.norm0(x, silu=True))
        params = self.affine(emb).to(h.dtype)
        if self.adaptive_scale:
            scale, shift = params.chunk(2, dim=1)
            h = self.norm1(h, scale, shift, silu=True)
        else:
            h = self.norm1(h + params[:, :, None, None], silu=True)
        h = self.conv1(nnf.dropout(h, p=self.dropout, training=self.training))
        x = (h + (x if self.skip is None else self.skip(x))) * self.skip_scale
        return (x + self._attention(x)) * self.skip_scale if self.num_heads else x

    def _attention(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        # The checkpoint's qkv channels run (head, channel, q|k|v).
        qkv = self.qkv(self.norm2(x)).reshape(batch, self.num_heads, channels // self.num_heads, 3, height * width)
        q, k, v = (t.transpose(2, 3) for t in qkv.unbind(3))
        out = nnf.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(2, 3).reshape(batch, channels, height, width))


def run_block(net: nn.Module, block: nn.Module, x: Tensor, emb: Tensor) -> Tensor:
    """A block of a network, whose activations are computed again in the backward where the network says so."""
    if net.checkpointing and net.training and torch.is_grad_enabled():
        return checkpoint(block, x, emb, use_reentrant=False)
    return block(x, emb)


class SongUNet(nn.Module):
    """DDPM++ (the defaults) and NCSN++ (fourier embedding, residual encoder, [1, 3, 3, 1] filter).

    Args:
        img_resolution, in_channels, out_channels: image geometry.
        label_dim: number of classes, 0 for an unconditional network.
        augment_dim: size of the augmentation label, 0 for none.
        model_channels, channel_mult, channel_mult_emb, num_blocks, attn_resolutions: width and depth.
        dropout, label_dropout: rates while training; the latter drops class labels for classifier-free guidance.
        embedding_type: "positional" or "fourier".
        channel_mult_noise: size of the noise embedding, in model_channels.
        encoder_type: "standard", "skip" or "residual"; decoder_type: "standard" or "skip".
        resample_filter: taps of the resampling filter.
        checkpointing: while training, keep no activations within blocks and compute them again in the backward.

    Called with x [B, in_channels, H, W], noise_labels [B] (c_noise), class_labels [B, label_dim] or None, and
    augment_labels [B, augment_dim] or None; returns [B, out_channels, H, W].
    """

    def __init__(
        self, img_resolution, in_channels, out_channels, label_dim=0, augment_dim=0,
        model_channels=128, channel_mult=(1, 2, 2, 2), channel_mult_emb=4, num_blocks=4, attn_resolutions=(16,),
        dropout=0.10, label_dropout=0, embedding_type="positional", channel_mult_noise=1,
        encoder_type="standard", decoder_type="standard", resample_filter=(1, 1), checkpointing=False,
    ):  # fmt: skip
        super().__init__()
        _one_of("embedding_type", embedding_type, ("positional", "fourier"))
        _one_of("encoder_type", encoder_type, ("standard", "skip", "residual"))
        _one_of("decoder_type", decoder_type, ("standard", "skip"))
        self.label_dropout = label_dropout
        self.checkpointing = checkpointing
        emb_channels = model_channels * channel_mult_emb
        noise_channels = model_channels * channel_mult_noise
        init = dict(init_mode="xavier_uniform")
        init_zero = dict(init_mode="xavier_uniform", init_weight=1e-5)
        init_attn = dict(init_mode="xavier_uniform", init_weight=math.sqrt(0.2))

        def block(cin, cout, **kwargs):
            return UNetBlock(
                cin, cout, emb_channels, num_heads=1, dropout=dropout, skip_scale=math.sqrt(0.5), eps=1e-6,
                resample_filter=resample_filter, resample_proj=True, adaptive_scale=False,
                init=init, init_zero=init_zero, init_attn=init_attn, **kwargs,
            )  # fmt: skip

        def resampler(cin, cout, kernel, **kwargs):
            return Conv2d(cin, cout, kernel=kernel, resample_filter=resample_filter, **kwargs)

        self.map_noise: nn.Module
        if embedding_type == "positional":
            self.map_noise = PositionalEmbedding(noise_channels, endpoint=True)
        else:
            self.map_noise = FourierEmbedding(noise_channels)
        self.map_label = Linear(label_dim, noise_channels, **init) if label_dim else None
        self.map_augment = Linear(augment_dim, noise_channels, bias=False, **init) if augment_dim else None
        self.map_layer0 = Linear(noise_channels, emb_channels, **init)
        self.map_layer1 = Linear(emb_channels, emb_channels, **init)

        self.enc = nn.ModuleDict()
        cout = caux = in_channels
        skips = []
        for level, mult in enumerate(channel_mult):
            res = img_resolution >> level
            name = f"{res}x{res}"
            if level == 0:
                self.enc[f"{name}_conv"] = Conv2d(cout, model_channels, kernel=3, **init)
                cout = model_channels
            else:
                self.enc[f"{name}_down"] = block(cout, cout, down=True)
                if encoder_type == "skip":
                    self.enc[f"{name}_aux_down"] = resampler(caux, caux, 0, down=True)
                    self.enc[f"{name}_aux_skip"] = Conv2d(caux, cout, kernel=1, **init)
                elif encoder_type == "residual":
                    self.enc[f"{name}_aux_residual"] = resampler(caux, cout, 3, down=True, fused_resample=True, **init)
                    caux = cout
            skips.append(cout)
            for idx in range(num_blocks):
                cin, cout = cout, model_channels * mult
                self.enc[f"{name}_block{idx}"] = block(cin, cout, attention=res in attn_resolutions)
                skips.append(cout)

        self.dec = nn.ModuleDict()
        deepest = len(channel_mult) - 1
        for level in range(deepest, -1, -1):
            res = img_resolution >> level
            name = f"{res}x{res}"
            if level == deepest:
                self.dec[f"{name}_in0"] = block(cout, cout, attention=True)
                self.dec[f"{name}_in1"] = block(cout, cout)
            else:
                self.dec[f"{name}_up"] = block(cout, cout, up=True)
            for idx in range(num_blocks + 1):
                cin, cout = cout + skips.pop(), model_channels * channel_mult[level]
                attention = idx == num_blocks and res in attn_resolutions
                self.dec[f"{name}_block{idx}"] = block(cin, cout, attention=attention)
            if decoder_type == "skip" or level == 0:
                if decoder_type == "skip" and level < deepest:
                    self.dec[f"{name}_aux_up"] = resampler(out_channels, out_channels, 0, up=True)
                self.dec[f"{name}_aux_norm"] = GroupNorm(cout, eps=1e-6)
                self.dec[f"{name}_aux_conv"] = Conv2d(cout, out_channels, kernel=3, **init_zero)

    def forward(self, x: Tensor, noise_labels: Tensor, class_labels: Tensor | None = None, augment_labels=None) -> Tensor:
        emb = self._embedding(x, noise_labels, class_labels, augment_labels)
        skips: list[Tensor] = []
        aux = x
        for name, block in self.enc.items():
            if name.endswith("aux_down"):
                aux = block(aux)
            elif name.endswith("aux_skip"):
                x = skips[-1] = x + block(aux)
            elif name.endswith("aux_residual"):
                x = skips[-1] = aux = (x + block(aux)) * math.sqrt(0.5)
            else:
                x = run_block(self, block, x, emb) if isinstance(block, UNetBlock) else block(x)
                skips.append(x)

        out: Tensor | None = None
        for name, block in self.dec.items():
            if name.endswith("aux_up"):
                out = block(out)
            elif name.endswith("aux_norm"):
                normed = block(x, silu=True)
            elif name.endswith("aux_conv"):
                image = block(normed)
                out = image if out is None else out + image
            else:
                x = torch.cat([x, skips.pop()], dim=1) if x.shape[1] != block.in_channels else x
                x = run_block(self, block, x, emb)
        assert out is not None
        return out

    def _embedding(self, x, noise_labels, class_labels, augment_labels) -> Tensor:
        cosines, sines = self.map_noise(noise_labels).chunk(2, dim=1)
        emb = torch.cat([sines, cosines], dim=1)
        if self.map_label is not None:
            emb = emb + self.map_label(given_classes(self, x, class_labels) * math.sqrt(self.map_label.in_features))
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels)
        return nnf.silu(self.map_layer1(nnf.silu(self.map_layer0(emb))))


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
