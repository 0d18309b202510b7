"""The network of the digits model."""

from ..precond import EDMPrecond

#: Standard deviation of the training pixels.
SIGMA_DATA = 0.7526


def build() -> EDMPrecond:
    """The untrained network."""
    return EDMPrecond(
        img_resolution=8, img_channels=1, label_dim=10, sigma_data=SIGMA_DATA, model_type="SongUNet",
        model_channels=32, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4],
        dropout=0.1, label_dropout=0.1,
    )  # fmt: skip
