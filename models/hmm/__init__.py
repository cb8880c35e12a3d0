"""Gaussian HMMs of the latents of songs, and the number of states by BIC.

Sources: Rabiner 1989 for EM; Schwarz 1978 for BIC. The models are hmmlearn's; gaussian.py does
their EM. A state is not a syllable: it is a kind of snippet.
"""

from models.hmm.arrays import covariances, restored, sample_latents
from models.hmm.choice import ChosenByBic, select_by_bic
from models.hmm.criteria import n_free_params
from models.hmm.fit import HmmFit
from models.hmm.gaussian import GaussianHMM
from models.hmm.grid import fit_hmm
from models.hmm.params import CovarianceType, HmmParams, too_few
from models.hmm.search import StatesFound, conclude, search_states, select_n_states

__all__ = [
    "CovarianceType",
    "GaussianHMM",
    "HmmFit",
    "HmmParams",
    "ChosenByBic",
    "StatesFound",
    "conclude",
    "covariances",
    "fit_hmm",
    "n_free_params",
    "restored",
    "sample_latents",
    "search_states",
    "select_by_bic",
    "select_n_states",
    "too_few",
]
