"""fastdiff convert, as a person uses it."""

from __future__ import annotations

from click.testing import CliRunner

from fastdiff.checkpoints import load_network
from fastdiff.commands.convert import convert
from fastdiff.models import EDMPrecond
from tests.checkpoints.writers import edm_pickle

KEYWORDS = dict(
    img_resolution=8, img_channels=1, model_type="SongUNet", model_channels=8, channel_mult=[1], num_blocks=1, attn_resolutions=[]
)


def test_it_says_what_it_found_and_wrote(tmp_path):
    (tmp_path / "a.pkl").write_bytes(edm_pickle(EDMPrecond(**KEYWORDS), KEYWORDS, tmp_path / "executed"))
    done = CliRunner().invoke(convert, [str(tmp_path / "a.pkl"), str(tmp_path / "net")], catch_exceptions=False)
    assert done.exit_code == 0
    for word in ("edm", "EDMPrecond", "values in", "net.safetensors", "net.json"):
        assert word in done.output
    load_network(tmp_path / "net")


def test_help_teaches():
    done = CliRunner().invoke(convert, ["--help"])
    for word in ("fastdiff convert", "--extractor", "--kind", "load_network"):
        assert word in done.output
