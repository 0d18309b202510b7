"""The networks of the digits model, and of the discriminator that guides it."""

from typing import Any

from ..precond import EDMPrecond

#: Standard deviation of the training pixels.
SIGMA_DATA = 0.7526

ARGUMENTS: dict[str, Any] = {
    "img_resolution": 8, "img_channels": 1, "label_dim": 10, "sigma_data": SIGMA_DATA, "model_type": "SongUNet",
    "model_channels": 32, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4],
    "dropout": 0.1, "label_dropout": 0.1,
}  # fmt: skip

#: With 0.05 M parameters: a model that makes mistakes, for studies of what mends them.
#: (The samples of the large one cannot be told from its data.)
SMALL = ARGUMENTS | {"model_channels": 8}

#: What the extractor and the head of the discriminator share, as in EDM-G++.
_ENCODER: dict[str, Any] = {
    "num_head_channels": 32, "use_scale_shift_norm": True, "resblock_updown": True, "pool": "attention", "dropout": 0.1,
}  # fmt: skip
#: A noise-conditional classifier of digits, whose 4x4 features the head sees.
EXTRACTOR = _ENCODER | {
    "image_size": 8, "in_channels": 1, "model_channels": 32, "out_channels": 10, "num_res_blocks": 1, "attention_resolutions": [2],
    "channel_mult": [1, 2],
}  # fmt: skip
HEAD = _ENCODER | {
    "image_size": 4, "in_channels": 64, "model_channels": 32, "out_channels": 1, "num_res_blocks": 1, "attention_resolutions": [1],
    "channel_mult": [1], "condition": True, "num_class": 10,
}  # fmt: skip


def build() -> EDMPrecond:
    """The untrained network."""
    return EDMPrecond(**ARGUMENTS)
