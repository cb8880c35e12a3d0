"""Gaussian HMMs of the latents of songs, and the number of states by BIC.

Sources: Rabiner 1989 for EM; Schwarz 1978 for BIC. The models are hmmlearn's; gaussian.py does
their EM. A state is not a syllable: it is a kind of snippet.
"""

from models.hmm.arrays import covariances, restored, sample_latents
from models.hmm.carry import search_with_carry
from models.hmm.choice import ChosenByBic, select_by_bic
from models.hmm.contexts import Remembered, add_memory
from models.hmm.criteria import n_free_params
from models.hmm.fit import HmmFit
from models.hmm.found import StatesFound
from models.hmm.gaussian import GaussianHMM
from models.hmm.grid import fit_hmm
from models.hmm.params import CovarianceType, HmmParams, too_few
from models.hmm.search import conclude, search_states
from models.hmm.select import select_n_states
from models.hmm.song_hmm import SongHmm

__all__ = [
    "CovarianceType",
    "GaussianHMM",
    "HmmFit",
    "HmmParams",
    "ChosenByBic",
    "Remembered",
    "SongHmm",
    "StatesFound",
    "add_memory",
    "conclude",
    "covariances",
    "fit_hmm",
    "n_free_params",
    "restored",
    "sample_latents",
    "search_states",
    "search_with_carry",
    "select_by_bic",
    "select_n_states",
    "too_few",
]
