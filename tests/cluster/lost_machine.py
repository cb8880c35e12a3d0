"""A study on the on-premise cluster, in the middle of which a worker's cable is pulled."""

import json
import re
import time
from pathlib import Path

from hosts import Host, wait_for
from onprem import OnPremises


class StudyThatLosesAMachine:
    """Runs the study when made, loses a worker that trains, gives it back when all went on.

    Attributes:
        folder: the study's run folder.
        machine: the worker that was cut off.
        lost: the trial that ran there.
        reports_at_the_cut: what each trial under way had saved by then.
        seconds, seen_after_s, on_again_after_s: of the study; from the cut until the loss was
            seen, and until the trial reported from another machine.
        back_after_s: from the cable's return until the machine took work again.
    """

    def __init__(self, cluster: OnPremises, arguments: str, log: Path):
        self._cluster, self._log = cluster, log
        self.folder = cluster.lab.shared / "runs" / "smoke"
        command = f"python study/run_tune.py {arguments} --address auto"
        started = time.monotonic()
        with log.open("w") as stream:
            self.process = cluster.start_on_head(command, stream)
            try:
                self._lose_and_regain()
                self.process.wait(900)
            finally:
                self.process.kill()
        self.seconds = time.monotonic() - started

    @property
    def text(self) -> str:
        """All that it printed."""
        return self._log.read_text()

    def _wait(self, is_true, seconds: float, what: str):
        def or_ended():
            assert self.process.poll() is None, f"ended before {what}:\n{self.text[-3000:]}"
            return is_true()

        return wait_for(or_ended, seconds, f"{what}:\n{self.text[-3000:]}")

    def _lose_and_regain(self) -> None:
        lab = self._cluster.lab
        workers = (lab.worker1, lab.worker2)
        self.machine = self._wait(
            lambda: next(filter(self._has_trained_and_trains_again, workers), None),
            600,
            "a worker's second trial",
        )
        lab.cut_off(self.machine)
        cut_at = time.monotonic()
        self.reports_at_the_cut = self._saved_reports()
        (self.lost,) = self._wait(self._dead_trials, 180, "the loss is seen")
        self.seen_after_s = time.monotonic() - cut_at
        # It has no other machine than the ones that are left: this one is still cut off.
        self._wait(self._has_gone_on, 300, f"{self.lost} goes on")
        self.on_again_after_s = time.monotonic() - cut_at
        lab.plug_in(self.machine)
        plugged_at = time.monotonic()
        self._wait(lambda: self._cluster.n_machines() == 3, 300, "the machine joins again")
        self.back_after_s = time.monotonic() - plugged_at

    def _under_way(self) -> list[Path]:
        trials = [path.parent for path in self.folder.glob("search/trial-*/trial.json")]
        return [trial for trial in trials if not (trial / "ended.json").exists()]

    def _saved_reports(self) -> dict[str, list[dict]]:
        newest = {
            trial.name: max(trial.glob("checkpoint-*[0-9]/reports.json"), default=None)
            for trial in self._under_way()
        }
        return {name: json.loads(path.read_text()) for name, path in newest.items() if path}

    def _has_trained_and_trains_again(self, worker: Host) -> bool:
        ended = [json.loads(path.read_text()) for path in self.folder.glob("search/*/ended.json")]
        if not any(entry["node"] == worker.name for entry in ended):
            return False
        saved = [any(trial.glob("checkpoint-*[0-9]")) for trial in self._under_way()]
        trains = any("ray::ImplicitFunc" in line for line in worker.processes())
        return all(saved) and trains

    def _dead_trials(self) -> list[str]:
        return re.findall(r"(trial-\d+): its process died", self.text)

    def _has_gone_on(self) -> bool:
        after = self.text.split(f"{self.lost}: its process died", 1)[1]
        return f"{self.lost} report" in after
