"""Moments of a data set's latents: E[X_0] and tr(Cov(X_0))/d (App. A).

moments: the pair, and its fitting to a clip; files: how it is kept; authors_files: the files of
the paper's authors; print_through: what a data set prints into its mean.
"""

from .files import load, save
from .moments import Moments, check_space, fit, resample
from .print_through import DETAILS, border, simplify, warning, without_border

__all__ = ["DETAILS", "Moments", "border", "check_space", "fit", "load", "resample", "save", "simplify", "warning", "without_border"]
