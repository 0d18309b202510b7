"""Checkpoints: the native format, and readers of foreign ones that execute nothing."""

from .convert import Report, convert
from .native import Native, load_network, read_network, save_network
from .torch_file import read
from .unpickle import UntrustedPickle

__all__ = ["Native", "Report", "UntrustedPickle", "convert", "load_network", "read", "read_network", "save_network"]
