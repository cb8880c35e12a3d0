"""The command: recordings to selected song models.

python study/run_tune.py --preset demo
python study/run_tune.py --data recordings --out runs/mine mdgan.width=32 search.n_trials=20
"""

import dataclasses
import os
import sys
from pathlib import Path

# Started as a script, Python looks for modules in study/; our packages lie one folder up. Replaced,
# not inserted: else ingest.py would be a module under two names, here and on workers.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from study.base.stopping import keeps_nothing, listen

if __name__ == "__main__":
    listen()  # what is imported below takes a second

from study.base.private import keep_compiled_code

keep_compiled_code()

from data_io.names.listing import Survey, survey
from study.base.command import run_command
from study.base.console import Console
from study.base.errors import FAILED, REFUSED
from study.base.paths import Where, absolute_uri, default_folder, default_tracking_uri
from study.config.options import Options, parse
from study.config.reader import ConfigError, load_config
from study.config.tree import StudyConfig
from study.plan import show_config, show_plan


def main(words: list[str] | None = None) -> int:
    """Run a study from command-line words, those of the process where none are given.

    Returns:
        The exit code.
    """
    return run_command(
        lambda console: _main(parse(sys.argv[1:] if words is None else words), console)
    )


def _main(options: Options, console: Console) -> int:
    config = load_config(options.preset, options.config, options.overrides, options.data)
    where = Where(
        out=(options.out or default_folder() / "runs" / config.name).absolute(),
        address=options.address or os.environ.get("RAY_ADDRESS") or None,
        tracking_uri=absolute_uri(
            options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri()
        ),
    )
    if options.verify or options.check or options.doctor or options.dry_run:
        keeps_nothing()
    if options.verify:
        from study.verify import verify

        return 0 if verify(where.out, console) else FAILED
    found = None
    if config.data.dir is not None:
        found = survey(Path(config.data.dir), config.data.layout, config.data.date_order)
    if options.check:
        return _check(config, where, found, options.out is None, console)
    if options.doctor:
        return _look(config, where, found, console)
    if options.dry_run:
        show_plan(config, where, found, console)
        show_config(config, console)
        return 0
    # Ray takes a second to import, all the rest ten: what can be refused before is.
    from study.preflight.capacity import check_before_start

    check_before_start(config, where.address, found)
    show_plan(config, where, found, console)
    from study.pipeline import run_study

    run_study(config, where, found, console)
    return 0


def _look(config: StudyConfig, where: Where, found: Survey | None, console: Console) -> int:
    """Look at all that the study needs, and run nothing of it."""
    from study.cluster.connection import connected
    from study.preflight.check import show_checks
    from study.preflight.run import run_checks

    show_plan(config, where, found, console)
    with connected(where.address) as here:
        checks = run_checks(config, where, found, here)
    show_checks(checks, console)
    return 0 if all(check.is_ok for check in checks) else REFUSED


def _check(
    config: StudyConfig, where: Where, found: Survey | None, is_default: bool, console: Console
) -> int:
    """Read and check every recording, and nothing else."""
    if found is None:
        raise ConfigError("There is nothing to check: give the folder, as in check DIR.")
    from study.check import check_recordings

    if is_default:
        where = dataclasses.replace(where, out=where.out.parent / f"check-{found.root.name}")
    return 0 if check_recordings(config, where, found, console) else REFUSED


if __name__ == "__main__":
    sys.exit(main())
