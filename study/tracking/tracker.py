"""MLflow as a picture of the run folder.

Runs are flat: one for the study, one per trial, one per bird and age. Their lineage is in tags.
The driver shows pictures of runs (picture.py), made from what is in the run folder. One thread
(sender.py) compares each with what was sent (sent.py) and sends the difference (difference.py). So
no call waits for MLflow, and what could not be sent is sent when the folder is shown again.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Collection, Mapping, Set
from contextlib import suppress
from pathlib import Path
from typing import Any

from study.base import stopping
from study.base.paths import without_password
from study.tracking.client import Mlflow, answering_client
from study.tracking.difference import Differences
from study.tracking.picture import (
    STUDY,
    RunIdentity,
    RunPicture,
    Status,
    check_allowed,
    now_ms,
    param_texts,
    tag_texts,
)
from study.tracking.sender import Sender
from study.tracking.sent import Sent, SentRun


class Tracker:
    """Shows the runs of one study to MLflow; after `start_study` no method waits for it.

    Args:
        uri: tracking URI, absolute.
        experiment: name of the study.
        lineage: tags that every run gets (study, git_commit, data_hash, config_hash, ...).
        folder: for the small file that says what was sent; this driver has it for itself.
        allowed_params: names of parameters that MLflow may be told.
        say: shows one line: when MLflow goes away and when it is back, what it refused.

    Raises:
        TrackingError: MLflow is not there, or its experiment cannot be used.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        lineage: Mapping[str, str],
        folder: Path,
        allowed_params: Collection[str],
        say: Callable[[str], None] = lambda _: None,
    ):
        self.uri = uri
        self.lineage = dict(lineage)
        self.study_run_id = ""
        self._allowed = frozenset(allowed_params)
        self._mlflow = Mlflow(uri, experiment)
        self.experiment_id = self._mlflow.experiment_id
        self._sent = Sent(folder, uri, experiment)
        self._say = say
        self._found: set[str] = set()  # ids of the folder's study runs that MLflow has, or deleted
        if self._sent.copied_from is not None:
            say(
                f"This run folder is a copy of {self._sent.copied_from}: MLflow gets runs of its "
                "own for it, and those of the other stay as they are."
            )
        for path, what in self._sent.altered.items():
            say(f"{path} {what}: it is made anew, and MLflow is asked what it has")
        receiver = Differences(self._mlflow, self._sent, say)
        self._sender = Sender(f"MLflow at {without_password(uri)}", receiver, say)

    def start_study(self, same: Mapping[str, str], run_name: str, params: Mapping[str, Any]) -> str:
        """Begin the study's run, or go on with the one of this folder that has the tags ``same``.

        This waits for MLflow. What other study runs of the folder left open is ended.

        Args:
            same: what makes it this study run, such as hashes of configuration and data.
            run_name: shown by MLflow.
            params: of the study's run.

        Raises:
            TrackingError: MLflow does not answer.
            ValueError: a parameter is not among those allowed.
        """
        check_allowed(params, self._allowed)
        of_folder = {**STUDY.tags(), "run_folder": self._sent.folder_id}
        found_by = {**of_folder, **tag_texts(same)}
        tags = {**tag_texts(self.lineage), **found_by}
        self._sent.write()  # the folder's id is on disk before a run has it
        with answering_client(self.uri):
            before = self._mlflow.search(of_folder, also_deleted=True)
            self._found = {run.info.run_id for run in before}
            self._forget_missing()
            known = self._sent.studies.keys()
            run_id = self._mlflow.begin_run(found_by, tags, run_name, now_ms(), known)
            self._mlflow.set_tags(run_id, {"study_run_id": run_id})
            self._mlflow.log_params(run_id, param_texts(params))
            self._sent.begin_study(run_id, _in_a_line(same, tag_texts(same)))
            for run in before:
                if run.info.lifecycle_stage == "active":
                    of_run = _in_a_line(same, run.data.tags)
                    self._sent.learn_study(run.info.run_id, of_run, run.info.status)
            self._find_open({*self._found, run_id})
        self.study_run_id = run_id
        self._sent.write()
        for other in list(self._sent.studies):
            if other != run_id:
                self._end_open(other)
        self.show(RunPicture(STUDY, run_id, tags=self.lineage, status="RUNNING"))
        return run_id

    def _forget_missing(self) -> None:
        """Forget the study runs that MLflow does not have at all: its database is another one.

        One that was deleted on MLflow's page is there: that is a person's will.
        """
        listed = [one for one in self._sent.studies if one not in self._found]
        if gone := [one for one in listed if not self._mlflow.knows(one)]:
            for one in gone:
                self._sent.forget_study(one)
            self._say(
                f"MLflow does not have the study run {' and '.join(gone)} any more, so that its "
                "database is another one: all that the run folder holds is sent anew."
            )

    def _find_open(self, ours: Set[str]) -> None:
        """Learn which runs of this folder are open: a killed driver may not have noted all of them.

        Where nothing shows such a run again, as after fewer trials, it would stay open for ever.

        Args:
            ours: ids of the folder's study runs, also of one that was begun twice and is gone.
        """
        for run in self._mlflow.open_runs():
            run_id, tags = str(run.info.run_id), run.data.tags
            study_run_id = tags.get("study_run_id", run_id)  # a study run's is set after it began
            study = self._sent.studies.get(study_run_id)
            if study is None and study_run_id in ours:
                # Of other settings, begun by a driver that never heard of it, or in a list of what
                # was sent that was altered: how it ended is lost with it.
                self._mlflow.set_status(run_id, "KILLED", now_ms())
            if study is None:
                continue
            known = study.runs.setdefault(RunIdentity.of(tags).key(), SentRun(run_id))
            if known.run_id == run_id:
                known.status = "RUNNING"
            else:  # begun twice: a try that was given up took effect after all
                self._mlflow.put_away(run_id)

    def show(self, *pictures: RunPicture) -> None:
        """Let MLflow look like these pictures, soon.

        What belongs to a study run that MLflow does not have, as one of another MLflow or of the
        folder that this one is a copy of, is shown in the one that is the same study here; where
        there is none, in the study run of now, and stays there.

        Raises:
            ValueError: a parameter is not among those allowed.
            OSError: the list of what was sent cannot be written.
        """
        for picture in pictures:
            check_allowed(picture.params, self._allowed)
            self._take_in(picture.study_run_id)
            shown_as = self._sent.shown_as
            if shown_as(picture.study_run_id) in self._sent.studies:
                lineage = {name: shown_as(value) for name, value in picture.lineage.items()}
                study_run_id = shown_as(picture.study_run_id)
                self._sender.add(
                    dataclasses.replace(picture, study_run_id=study_run_id, lineage=lineage)
                )

    def _take_in(self, study_run_id: str) -> None:
        known = {*self._sent.studies, *self._found}
        if self._sent.shown_as(study_run_id) in known or not self.study_run_id:
            return
        self._sent.take_in(study_run_id, self.study_run_id)
        if self._sent.is_new:
            self._sent.is_new = False  # said once
            self._say(
                "The run folder had no .tracking, which says what MLflow was sent: MLflow gets new "
                "runs for all that it holds. If it has some of before, they stay as they are: "
                "delete on its page those that you do not want twice."
            )

    def stamp(self) -> dict[str, Any]:
        """The note in the run folder for a run that begins now.

        Its lineage, its study run, and the time (seconds of `time.time`).
        """
        return {**self.lineage, "study_run_id": self.study_run_id, "began_at": time.time()}

    def end_study(self, status: Status, reason: str = "") -> None:
        """Close the study's run, and as KILLED those of its runs that are still open."""
        end = {"status": status, "tags": {"reason": reason}, "ended_at": time.time()}
        with stopping.held():  # cut in half, the study would be open in MLflow and over here
            # On disk: nothing else in the run folder says how a study ended.
            self._sent.studies[self.study_run_id].end = end
            self._sent.changed()
            self._end_open(self.study_run_id)

    def _end_open(self, study_run_id: str) -> None:
        """End the runs of a study run that are open: its own as its driver said."""
        study = self._sent.studies[study_run_id]
        states = {key: run.status for key, run in list(study.runs.items())}
        for picture in self._sender.pending():
            if picture.study_run_id == study_run_id and picture.status is not None:
                states[picture.identity.key()] = picture.status
        killed = {"status": "KILLED", "ended_at": time.time()}
        for key, status in states.items():
            if status in ("RUNNING", ""):
                identity = RunIdentity(**json.loads(key))
                end = study.end or killed if identity == STUDY else killed
                self._sender.add(RunPicture(identity, study_run_id, **end))

    def run_id(self, identity: RunIdentity, study_run_id: str = "") -> str | None:
        """MLflow's id of a run of a study run, by default of this one; None until it is begun."""
        run = self._sent.run(self._sent.shown_as(study_run_id or self.study_run_id), identity)
        return (run.run_id or None) if run is not None else None

    def flush(self, timeout_s: float) -> int:
        """Wait until all is sent; give the number of runs that still wait."""
        return self._sender.flush(timeout_s)

    def close(self, timeout_s: float = 5.0) -> int:
        """Flush and stop; give the number of runs that are left to the next driver."""
        n_waiting = self._sender.close(timeout_s)
        with suppress(OSError):  # what is not noted is sent again
            self._sent.write()
        return n_waiting


def _in_a_line(names: Collection[str], tags: Mapping[str, str]) -> str:
    """The tags of these names as one line of text."""
    return json.dumps({name: tags.get(name, "") for name in names}, sort_keys=True)
