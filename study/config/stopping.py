"""The first comparison of trials: not before every searched parameter has had an effect."""

import math

from study.config.tree import StudyConfig

# Parameters of MDGAN that change nothing before the adversarial terms begin.
_ACT_LATE = (
    "lambda_latent", "disc_width", "disc_lr_ratio", "is_disc_lr_constant", "label_noise", "order",
    "gan_loss", "r1_r2", "adversarial_from",
)  # fmt: skip


def first_rung(config: StudyConfig) -> int:
    """The report, from 1, at which trials are compared first.

    It is ``search.grace_reports``. Where a parameter is searched that acts only with the
    adversarial terms, it is no earlier than the first report whose whole stretch of training had
    these terms: before it, trials that differ in that parameter alone are equal. May lie at the
    last report or beyond: then no trial is stopped early.
    """
    grace = config.search.grace_reports
    if not searched_late(config):
        return grace
    n_before = math.ceil(_adversarial_from(config) * config.mdgan.n_reports - 1e-9)
    return max(grace, n_before + 1)


def searched_late(config: StudyConfig) -> list[str]:
    """Searched parameters that act only after ``mdgan.adversarial_from``; [] where it is 0 or 1."""
    if _adversarial_from(config) == 0:
        return []
    return [name for name in config.search.space if name in _ACT_LATE]


def _adversarial_from(config: StudyConfig) -> float:
    """Share of the training after which every trial with an adversary has its terms; 0 for none.

    A value of 1 is an autoencoder: it never has an adversary, so nothing waits for it.
    """
    entry = config.search.space.get("adversarial_from")
    if entry is not None and entry.choice is None:
        return float(entry.bounds[1])
    values = entry.choice if entry is not None else (config.mdgan.adversarial_from,)
    return max((float(value) for value in values or () if value < 1), default=0.0)
