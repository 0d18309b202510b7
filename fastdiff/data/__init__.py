"""Data sets: digits and points of the plane built in; CIFAR-10, MNIST, image folders, EDM's zips and .npz files from the disk."""

from .convert import convert
from .describe import Summary, describe
from .image_data import ImageData
from .sources import BUILT_IN, FORMATS, open_data
from .toys import TOYS, Toy

__all__ = ["BUILT_IN", "FORMATS", "TOYS", "ImageData", "Summary", "Toy", "convert", "describe", "open_data"]
