"""Trials of a real Ray Tune whose processes fail in the way that is planned for each."""

import errno
import os
import signal
from pathlib import Path

from ray import tune

PLANS = "FAILING_TRIALS"  # variable with a plan for each number, as "0:disk,disk;1:killed"
ATTEMPTS = "FAILING_ATTEMPTS"  # variable with the folder in which attempts are counted
FILE = "search/trial/checkpoint-0001/state.safetensors"


def trial(config, data, job):
    """Fail as planned at each attempt, and end well at the next."""
    number = config["spec"]["number"]
    plans = dict(one.split(":") for one in os.environ[PLANS].split(";") if one)
    plan = plans.get(str(number), "").split(",")
    folder = Path(os.environ[ATTEMPTS])
    n_before = len(list(folder.glob(f"{number}-*")))
    (folder / f"{number}-{n_before}").touch()
    how = plan[n_before] if n_before < len(plan) else ""
    if how == "disk":
        raise OSError(errno.EIO, os.strerror(errno.EIO), FILE)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "bug":
        raise KeyError("latent_dim")
    tune.report(
        {"objective": 1.0, "valid/objective": 1.0, "valid/collapsed": 0.0, "report": 2,
         "snippets_seen": 1, "reason": ""}
    )  # fmt: skip
