"""DhariwalUNet: the ADM network of Dhariwal and Nichol 2021 (arXiv:2105.05233), as parametrized by Karras et al. 2022.

Constructor arguments and state_dict names are those of NVlabs/edm, so its checkpoints load unchanged.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from .layers import Conv2d, GroupNorm, Linear, PositionalEmbedding, given_classes
from .song_unet import UNetBlock, run_block


class DhariwalUNet(nn.Module):
    """ADM: adaptive group normalization, attention of 64 channels a head, box resampling.

    Args:
        img_resolution, in_channels, out_channels: image geometry.
        label_dim: number of classes, 0 for an unconditional network.
        augment_dim: size of the augmentation label, 0 for none.
        model_channels, channel_mult, channel_mult_emb, num_blocks, attn_resolutions: width and depth.
        dropout, label_dropout: rates while training; the latter drops class labels for classifier-free guidance.
        checkpointing: while training, keep no activations within blocks and compute them again in the backward.

    Called as SongUNet.
    """

    def __init__(
        self, img_resolution, in_channels, out_channels, label_dim=0, augment_dim=0,
        model_channels=192, channel_mult=(1, 2, 3, 4), channel_mult_emb=4, num_blocks=3, attn_resolutions=(32, 16, 8),
        dropout=0.10, label_dropout=0, checkpointing=False,
    ):  # fmt: skip
        super().__init__()
        self.label_dropout = label_dropout
        self.checkpointing = checkpointing
        emb_channels = model_channels * channel_mult_emb
        init = dict(init_mode="kaiming_uniform", init_weight=math.sqrt(1 / 3), init_bias=math.sqrt(1 / 3))
        init_zero = dict(init_mode="kaiming_uniform", init_weight=0, init_bias=0)

        def block(cin, cout, **kwargs):
            return UNetBlock(cin, cout, emb_channels, channels_per_head=64, dropout=dropout, init=init, init_zero=init_zero, **kwargs)

        self.map_noise = PositionalEmbedding(model_channels)
        self.map_augment = Linear(augment_dim, model_channels, bias=False, **init_zero) if augment_dim else None
        self.map_layer0 = Linear(model_channels, emb_channels, **init)
        self.map_layer1 = Linear(emb_channels, emb_channels, **init)
        self.map_label = Linear(label_dim, emb_channels, bias=False, init_weight=math.sqrt(label_dim)) if label_dim else None

        self.enc = nn.ModuleDict()
        cout = in_channels
        skips = []
        for level, mult in enumerate(channel_mult):
            res = img_resolution >> level
            name = f"{res}x{res}"
            if level == 0:
                cin, cout = cout, model_channels * mult
                self.enc[f"{name}_conv"] = Conv2d(cin, cout, kernel=3, **init)
            else:
                self.enc[f"{name}_down"] = block(cout, cout, down=True)
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
                self.dec[f"{name}_block{idx}"] = block(cin, cout, attention=res in attn_resolutions)
        self.out_norm = GroupNorm(cout)
        self.out_conv = Conv2d(cout, out_channels, kernel=3, **init_zero)

    def forward(self, x: Tensor, noise_labels: Tensor, class_labels: Tensor | None = None, augment_labels=None) -> Tensor:
        emb = self._embedding(x, noise_labels, class_labels, augment_labels)
        skips: list[Tensor] = []
        for block in self.enc.values():
            x = run_block(self, block, x, emb) if isinstance(block, UNetBlock) else block(x)
            skips.append(x)
        for block in self.dec.values():
            x = torch.cat([x, skips.pop()], dim=1) if x.shape[1] != block.in_channels else x
            x = run_block(self, block, x, emb)
        return self.out_conv(self.out_norm(x, silu=True))

    def _embedding(self, x, noise_labels, class_labels, augment_labels) -> Tensor:
        emb = self.map_noise(noise_labels)
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels)
        emb = self.map_layer1(nnf.silu(self.map_layer0(emb)))
        if self.map_label is not None:
            emb = emb + self.map_label(given_classes(self, emb, class_labels))
        return nnf.silu(emb)
