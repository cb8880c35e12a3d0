"""The run folder of a finished study, as far as how much song looks at it."""

import numpy as np

from data_io.files import write_json
from data_io.store import write_recordings
from study.config.reader import load_config
from tests.helpers.hmm_study import write_study

B1, B2 = ("b1", "45"), ("b2", "60")
SIDES = ["training"] * 5 + ["selection", "report", "report"]


def finished(root, bird_ages=(B1, B2), **hmm):
    """Make it below ``root``, with settings of the HMMs; gives its paths."""
    paths, recordings = write_study(root, bird_ages, n_recordings=len(SIDES), n_snippets=60)
    recordings = recordings.with_column("split", SIDES * len(bird_ages))
    n = len(recordings)
    recordings = recordings.with_column("sound_s", np.full(n, 3.0, np.float32))
    recordings = recordings.with_column("seconds", np.full(n, 4.0))
    write_recordings(paths.recordings, recordings)
    settings = {"n_states": "[1,4]", "min_snippets": 100, "n_restarts": 1} | hmm
    words = [f"hmm.{name}={value}" for name, value in settings.items()]
    config = load_config("smoke", None, ["snippets.hop=16", *words])
    wanted = {stage: f"key of {stage}" for stage in ("latents", "report")}
    facts = {"config": config.to_dict(), "data_dir": str(root / "data"), "wanted": wanted}
    write_json(paths.study, facts)
    for stage, key in wanted.items():
        write_json(paths.stages / f"{stage}.json", {"digest": stage, "key": key})
    return paths
