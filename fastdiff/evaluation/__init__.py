"""How good samples are: Frechet distance, inception score, kernel distance, precision and recall, and likelihoods.

>>> from fastdiff.data import open_data
>>> from fastdiff.evaluation import digits_features, evaluate
>>> evaluation = evaluate(net, open_data("digits"), extractor=digits_features(), n=1000, blocks=3, classes=10)
>>> print(evaluation)
"""

from .evaluate import Block, Evaluation, Reference, evaluate, evaluate_images, reference_of, sample_source
from .features import FeatureExtractor, digits_features, eight_bit, inception_features, open_features
from .metrics import inception_score, kernel_distance, precision_recall
from .nll import NLL, nll, nll_table
from .statistics import Moments, Statistics, frechet_distance

__all__ = [
    "NLL",
    "Block",
    "Evaluation",
    "FeatureExtractor",
    "Moments",
    "Reference",
    "Statistics",
    "digits_features",
    "eight_bit",
    "evaluate",
    "evaluate_images",
    "frechet_distance",
    "inception_features",
    "inception_score",
    "kernel_distance",
    "nll",
    "nll_table",
    "open_features",
    "precision_recall",
    "reference_of",
    "sample_source",
]
