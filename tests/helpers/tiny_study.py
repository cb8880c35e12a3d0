"""A study of one bird at two ages in seconds: by the command's words, MLflow in memory."""

import copy
import shutil
from unittest import mock

from data_io.aviary.params import AviaryParams
from data_io.aviary.write import simulate_bird_age
from tests.helpers.inline_ray import inline_command
from tests.helpers.memory_mlflow import MemoryMlflow

BIRD, AGES = "sim1", (45, 60)
SONG = AviaryParams(n_birds=1, ages_dph=AGES, minutes=0.17, recording_s=(1.8, 2.2))
WORDS = {
    "mdgan.n_snippets": "640", "mdgan.n_reports": "3", "mdgan.dense_width": "8",
    "search.n_trials": "2", "search.n_eval_snippets": "100", "search.grace_reports": "3",
    "search.selection": "{rule: lowest, n_seeds: 0}",
    "hmm.n_states": "[1,2]", "hmm.max_n_states": "2", "hmm.n_restarts": "1",
    "hmm.min_snippets": "50", "songs.seconds": "1.0", "songs.griffin_lim_iterations": "2",
    "checks.n_replicas": "5", "checks.n_snippets": "500", "checks.sound_s": "10",
}  # fmt: skip


class TinyStudy:
    """A folder of recordings, ``data``, and a run folder, ``run``.

    Args:
        folder: of both; where it is not there, it is made, with recordings.
        mlflow: in memory; a new one where None.
        words: of the configuration that differ from ``WORDS``.
    """

    def __init__(self, folder, mlflow=None, words=None):
        self.folder, self.words = folder, words or {}
        self.mlflow = MemoryMlflow() if mlflow is None else mlflow
        self.data, self.out = folder / "data", folder / "run"
        self.uri = "sqlite:////nowhere/mlflow.db"  # MLflow is in memory
        if not folder.exists():
            for age in AGES:
                simulate_bird_age(self.data, SONG, 0, BIRD, age)

    def copied(self, folder):
        """The run folder and MLflow elsewhere, of the same recordings."""
        shutil.copytree(self.out, folder / "run")
        same = TinyStudy(folder, self.mlflow_now(), self.words)
        same.data = self.data
        return same

    def mlflow_now(self):
        """A copy of MLflow that goes its own way."""
        mlflow = MemoryMlflow()
        mlflow.runs = copy.deepcopy(self.mlflow.runs)
        return mlflow

    def command(self, *overrides, options=(), data=None, out=None, uri=None, mlflow=None):
        """Give the command; give its exit code and what it printed.

        Args:
            overrides: key=value, beside ``WORDS``.
            options: of the command.
            data, out, uri: where they are others.
            mlflow: that ``uri`` means.
        """
        words = {**WORDS, **self.words, **dict(one.split("=", 1) for one in overrides)}
        given = ["--preset", "smoke", "--data", data or self.data, "--out", out or self.out]
        given += ["--tracking-uri", uri or self.uri, *options]
        given += [f"{name}={value}" for name, value in words.items()]
        # UMAP takes longer than all else together.
        with mock.patch("study.report.trial_figures.map_latents", lambda z, seed: (z[:, :2], "")):
            return inline_command(given, self.mlflow if mlflow is None else mlflow)


def notes(text):
    """What the command printed between its plan and its tables, each sentence on one line."""
    lines = []
    for line in text.partition("\nPreflight: ")[2].partition("\nTrials, best first")[0].split("\n"):
        if line.startswith("      ") and lines and not lines[-1].startswith("["):
            lines[-1] += " " + line.strip()
        else:
            lines.append(line.strip())
    return lines


def skipped(text):
    """Names of stages that were skipped."""
    stage, found = "", []
    for line in text.split("\n"):
        if line.startswith("["):
            stage = line.partition("] ")[2]
        elif "done before, its input has not changed: skipped" in line:
            found.append(stage)
    return found


def twice(mlflow):
    """What MLflow has twice: runs of one thing, or a metric at one step."""
    found, seen = [], set()
    for run in mlflow.runs.values():
        names = ("stage", "study_run_id", "trial_id", "bird", "age", "seed")
        key = tuple(run.tags.get(name, "") for name in names)
        found += [f"run {key}"] if key in seen else []
        seen.add(key)
        found += [f"{run.name} {name}" for name, rows in run.metrics.items()
                  if len(rows) > len({step for step, _ in rows})]  # fmt: skip
    return found


def hollow(mlflow):
    """Runs of a trial, or a bird and age, without parameters or metrics."""
    return [f"{run.name} {run.status}" for run in mlflow.runs.values()
            if run.tags.get("stage") != "study" and not (run.params and run.metrics)]  # fmt: skip
