"""Whether MLflow can be written to, before a study begins; no run is begun and none is changed."""

import datetime
import fcntl
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from study.base.paths import sqlite_file
from study.tracking.client import answering_client
from study.tracking.errors import TrackingError, deleted_experiment

LOCK_WAIT_S = 5.0  # for another writer of the SQLite file
CHECKED_TAG = "last_preflight"  # of the experiment


def check_server(uri: str, experiment: str) -> None:
    """Raise where MLflow is not there or does not let us write.

    A server is asked to set a tag of the experiment, where that exists: nothing less shows whether
    an account may write. A SQLite file is opened for writing and left as it was.

    Args:
        uri: tracking URI, absolute.
        experiment: name of the study.

    Raises:
        TrackingError: the message says why, and what to do.
    """
    if (path := sqlite_file(uri)) is not None:
        _check_file(path)
        return
    with answering_client(uri) as client:
        known = client.get_experiment_by_name(experiment)
        if known is None:
            return
        if known.lifecycle_stage != "active":
            raise deleted_experiment(experiment, known.experiment_id)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        client.set_experiment_tag(known.experiment_id, CHECKED_TAG, now)


def _check_file(path: Path) -> None:
    remedy = "Mend that, or give another --tracking-uri."
    if not path.exists():
        folder = next(parent for parent in path.parents if parent.exists())
        try:
            with TemporaryDirectory(prefix=".preflight.", suffix=".tmp", dir=folder) as there:
                _try_sqlite(Path(there) / "try.db")
        except (OSError, sqlite3.Error) as error:
            cause = getattr(error, "strerror", None) or error
            raise TrackingError(
                f"MLflow's {path} cannot be made in {folder}: {cause}. {remedy}"
            ) from error
        return
    try:
        address = f"file:{quote(str(path))}?mode=rw"
        with closing(sqlite3.connect(address, LOCK_WAIT_S, uri=True)) as file:
            file.execute("BEGIN IMMEDIATE")
            file.rollback()
        with path.open("rb") as opened:  # as SQLite tables are made by one study at a time
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    except (OSError, sqlite3.Error) as error:
        raise TrackingError(f"MLflow's {path} cannot be written to: {error}. {remedy}") from error


def _try_sqlite(path: Path) -> None:
    """Make a database and lock it, as MLflow and its client here do."""
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE t (a)")
        file.execute("BEGIN EXCLUSIVE")
        file.rollback()
    with path.open("rb") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
