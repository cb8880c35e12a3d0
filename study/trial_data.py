"""What all trials of a study are trained and measured on, loaded once."""

import numpy as np
import torch

from data_io.atomic import atomic_file
from data_io.recordings import Recording
from models.reference import MAX_PCA_DIM, Reference, fit_reference
from study.config import StudyConfig
from study.ingest import data_hash
from study.paths import RunPaths
from study.trial import TrialData
from study.trial_snippets import choose_held_out, load_side

N_REFERENCE_SNIPPETS = 8000  # training snippets that the reference PCA is fitted to


def load_trial_data(config: StudyConfig, recordings: list[Recording], paths: RunPaths) -> TrialData:
    """Load frames and fixed held-out snippets; fit and save the reference of the study."""
    train, held_out = (load_side(config, recordings, paths, split) for split in ("train", "valid"))
    rng = np.random.default_rng(config.seed)
    valid = held_out.crops(choose_held_out(config, held_out, rng))
    seen = train.crops(rng.integers(len(train.starts), size=N_REFERENCE_SNIPPETS))
    reference = fit_reference(
        torch.from_numpy(seen),
        torch.from_numpy(valid),
        config.seed,
        max(MAX_PCA_DIM, config.mdgan.n_components),  # the dense paths begin as its PCA
    )
    with atomic_file(paths.reference) as temporary:
        reference.save(temporary)
    reference = Reference.load(paths.reference)
    return TrialData(train, valid, reference, data_hash(recordings))
