"""The options of the command line."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from study.config.reader import PRESETS


@dataclass(frozen=True)
class Options:
    """The options of one command; None for options that were left out.

    Attributes:
        preset: name of the configuration to start from.
        config: file with the values that differ from the preset.
        data: folder of recordings.
        out: run folder.
        address: of a Ray cluster.
        tracking_uri: of MLflow.
        dry_run: print the plan and start nothing.
        doctor: check what a study needs and start nothing.
        overrides: "key=value" texts.
    """

    preset: str
    config: Path | None
    data: Path | None
    out: Path | None
    address: str | None
    tracking_uri: str | None
    dry_run: bool
    doctor: bool
    overrides: list[str]


def parse(words: list[str]) -> Options:
    """Read the command line; a wrong option ends the process."""
    return Options(**vars(_parser().parse_args(words)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Learn a generative model of developing song: search for the best MDGAN, then "
        "fit hidden Markov models per bird and age.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--preset",
        choices=PRESETS,
        default="demo",
        help="smoke: under 3 minutes on 2 cores; demo (default): under 10; full: for GPUs",
    )
    add("--config", type=Path, metavar="FILE", help="YAML with only what differs from the preset")
    add(
        "--data",
        type=Path,
        metavar="DIR",
        help="recordings as <bird>/<age or date>/songs/*.wav; left out: simulated birds",
    )
    add("--out", type=Path, metavar="DIR", help="run folder, default runs/<study name>")
    add(
        "--address",
        metavar="ADDR",
        help="a running Ray cluster, or auto; left out: RAY_ADDRESS, else Ray on this machine",
    )
    add(
        "--tracking-uri",
        metavar="URI",
        help="MLflow; left out: MLFLOW_TRACKING_URI, else SQLite inside the project",
    )
    add(
        "--dry-run",
        action="store_true",
        help="print plan and resolved configuration, start nothing",
    )
    add(
        "--doctor",
        action="store_true",
        help="look at cluster, folders, disk and MLflow, say what is wrong, start nothing",
    )
    add(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="for instance mdgan.latent_dim=16 search.n_trials=8 'hmm.n_states=[5,10,20]'",
    )
    return parser
