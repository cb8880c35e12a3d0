"""The command: recordings to selected song models.

python study/run_tune.py --preset demo
python study/run_tune.py --data recordings --out runs/mine mdgan.width=32 search.n_trials=20
"""

import argparse
import os
import sys
from pathlib import Path

# Started as a script, Python looks for modules in study/; our packages lie one folder up. Replaced,
# not inserted: else config.py would be a module under two names, here and on workers.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from data_io.recordings import NoRecordingsError
from data_io.store import BrokenFileError
from study.base.console import Console
from study.base.paths import ROOT, Where, absolute_uri, default_tracking_uri
from study.config.reader import PRESETS, ConfigError, load_config
from study.config.tree import StudyConfig

EXIT_REFUSED = 2  # nothing was started
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130  # as shells say it of Ctrl-C


def main(arguments: list[str]) -> int:
    """Run a study from command-line words; give the exit code."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        config = _resolve(options)
        out = (options.out or ROOT / "runs" / config.name).absolute()
        address = options.address or os.environ.get("RAY_ADDRESS") or None
        uri = absolute_uri(
            options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri()
        )
        if options.doctor:
            return _doctor(config, out, address, uri, console)
        return _run(config, out, address, uri, options.dry_run, console)
    except (ConfigError, NoRecordingsError) as error:
        return _refuse(error)


def _run(
    config: StudyConfig, out: Path, address: str | None, uri: str, is_dry: bool, console: Console
) -> int:
    if not is_dry:
        from study.cluster.connection import ResourceError
        from study.preflight.capacity import check_before_start

        try:
            check_before_start(config, address)  # ahead of all that takes seconds to import
        except ResourceError as error:
            return _refuse(error)
    from study.plan import show_config, show_plan

    show_plan(config, out, address, uri, console)
    if is_dry:
        show_config(config, console)
        return 0
    # Ray, Tune and MLflow take seconds to import: only now that there is something to do.
    from data_io.files import STORAGE_FULL
    from study.base.ledger import FolderInUseError
    from study.cluster.tasks import TaskError
    from study.pipeline import run_study
    from study.search.search import InterruptedSearchError, NoTrialError
    from study.search.trial_folder import BrokenRecordError
    from study.search.watcher import StorageFullError
    from study.tracking.tracker import TrackingError

    try:
        run_study(config, Where(out, address, uri), console)
    except (ResourceError, TrackingError, FolderInUseError) as error:
        return _refuse(error)
    except (NoTrialError, TaskError, BrokenFileError, BrokenRecordError, StorageFullError) as error:
        return _fail(str(error))
    except OSError as error:
        if error.errno not in STORAGE_FULL:
            raise
        return _fail(
            f"{error}. Make room on the disk of {out}: what was done before is kept, and the same "
            "command goes on from there."
        )
    except (KeyboardInterrupt, InterruptedSearchError) as error:
        console.end_progress()
        what = f": {error}" if str(error) else ""
        print(f"Interrupted{what}. The same command goes on from here.", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _doctor(config: StudyConfig, out: Path, address: str | None, uri: str, console: Console) -> int:
    """Look at all that the study needs, and run nothing of it."""
    from study.cluster.connection import ResourceError, connected
    from study.plan import show_plan
    from study.preflight.check import show_checks
    from study.preflight.run import run_checks

    show_plan(config, out, address, uri, console)
    try:
        with connected(address):
            checks = run_checks(config, Where(out, address, uri))
    except ResourceError as error:
        return _refuse(error)
    show_checks(checks, console)
    return 0 if all(check.is_ok for check in checks) else EXIT_REFUSED


def _resolve(options: argparse.Namespace) -> StudyConfig:
    overrides = list(options.overrides)
    if options.data is not None:
        overrides.append(f"data.dir={str(options.data.absolute())!r}")
    return load_config(options.preset, options.config, overrides)


def _fail(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return EXIT_FAILED


def _refuse(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return EXIT_REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_tune.py",
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
    return parser  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
