"""A study by its command that is stopped by signals, and what it left: code, words, processes."""

import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from study.base.paths import ROOT

# Small in everything, with every stage that a study of simulated birds has.
TINY = [
    "data.simulation.n_birds=1", "data.simulation.ages_dph=[60]",
    "data.simulation.minutes=0.17", "data.simulation.recording_s=[1.8,2.2]",
    "mdgan.n_snippets=2560", "mdgan.n_reports=4", "mdgan.dense_width=8", "search.n_trials=3",
    "search.n_eval_snippets=200", "search.grace_reports=4", "search.max_retries=5",
    "search.selection={rule: lowest, n_seeds: 1}",
    "hmm.n_states=[1,2]", "hmm.max_n_states=2", "hmm.n_restarts=1", "hmm.min_snippets=50",
    "songs.seconds=1.0", "songs.griffin_lim_iterations=2",
]  # fmt: skip
PATIENCE_S = 300.0
SENTENCE = re.compile(r"^(.*)\. The same command goes on from here\.$", re.MULTILINE)


@dataclass(frozen=True)
class Ended:
    """How the command ended.

    Attributes:
        code: its exit code.
        seconds: from the first signal to the end.
        left: processes of the command that were there a second after its end.
        text: all that it said.
    """

    code: int
    seconds: float
    left: list[str]
    text: str

    @property
    def sentences(self) -> list[str]:
        """What it said of the stop."""
        return SENTENCE.findall(self.text)

    @property
    def is_clean(self) -> bool:
        """Whether nobody printed a trace, of Python or of C++."""
        return not re.search(r"Traceback|Exception ignored|\*\*\*|SIG[A-Z]+ received", self.text)


@dataclass
class Command:
    """The command under way; start it once.

    Args:
        out: folder of the run folder and of MLflow's database.
        words: of the command; by default those of a tiny study.
        has_terminal: whether it has a terminal of its own.
        ignored: names of signals that it ignores from the start, as with ``nohup``.
    """

    out: Path
    words: list[str] = field(default_factory=list)
    has_terminal: bool = False
    ignored: tuple[str, ...] = ()
    text: str = ""

    def __post_init__(self):
        self._mark = uuid.uuid4().hex
        self._is_closing = threading.Event()
        self._reader, writer = pty.openpty() if self.has_terminal else os.pipe()
        words = self.words or [
            str(ROOT / "study" / "run_tune.py"), "--preset", "smoke", "--out", str(self.run),
            "--tracking-uri", self.uri, *TINY,
        ]  # fmt: skip

        # The first terminal that the leader of a session opens is its terminal from then on.
        name = os.ttyname(writer) if self.has_terminal else ""
        opened = f"exec <{name} >{name} 2>&1; " if self.has_terminal else ""
        traps = "".join(f"trap '' {name}; " for name in self.ignored)
        self.process = subprocess.Popen(
            ["bash", "-c", f'{opened}{traps}exec "$@"', "bash", sys.executable, *words],
            stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, cwd=self.out,
            start_new_session=True,
            env={**os.environ, "BIRDSONG_TEST_MARK": self._mark, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        os.close(writer)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.out / "run"

    @property
    def uri(self) -> str:
        """MLflow's database."""
        return f"sqlite:///{self.out / 'mlflow.db'}"

    def _read(self) -> None:
        while not self._is_closing.is_set():
            # Closed under a read, a terminal would stay until the read has come back.
            if not select.select([self._reader], [], [], 0.02)[0]:
                continue
            try:
                got = os.read(self._reader, 1 << 16)
            except OSError:  # so a terminal says that nobody has it any more
                return
            if not got:
                return
            self.text += got.decode("utf-8", "replace").replace("\r\n", "\n")

    def wait_for(self, words: str) -> bool:
        """Wait until the command says ``words``, a pattern; whether it did before it ended."""
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(words, self.text, re.MULTILINE):
            if self.process.poll() is not None:
                self._thread.join(2.0)
                return re.search(words, self.text, re.MULTILINE) is not None
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"no {words!r} in {PATIENCE_S:g} s: {self.text[-2000:]}")
            time.sleep(0.01)
        return True

    def family(self) -> list[psutil.Process]:
        """The command and all that it started, whoever their parents are now."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("BIRDSONG_TEST_MARK") == self._mark:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def stop(self, how: str) -> None:
        """Stop it: by one of `WAYS`."""
        pid = self.process.pid
        if how == "closed terminal":
            self._is_closing.set()
            self._thread.join()
            os.close(self._reader)
        elif how == "scancel":  # every process of a step, one after another, ours not first
            for process in reversed(self.family()):
                try:
                    process.send_signal(signal.SIGTERM)
                except psutil.Error:
                    continue
        elif how in ("SIGINT", "SIGINT twice"):  # as a terminal does: the whole group
            os.killpg(pid, signal.SIGINT)
            if how == "SIGINT twice":
                time.sleep(0.3)
                if self.process.poll() is None:
                    os.killpg(pid, signal.SIGINT)
        elif how == "SIGQUIT":  # Ctrl-\\
            os.killpg(pid, signal.SIGQUIT)
        elif how in LOST:
            (process,) = [one for one in self.family() if one.name() == how]
            process.kill()
        else:
            os.kill(pid, signal.Signals[how])

    def stopped(self, how: str) -> Ended:
        """Stop it and wait for its end."""
        began = time.monotonic()
        self.stop(how)
        return self.ended(began)

    def ended(self, began: float | None = None) -> Ended:
        """Wait for its end."""
        began = time.monotonic() if began is None else began
        try:
            code = self.process.wait(PATIENCE_S)
            code = 128 - code if code < 0 else code  # as a shell gives that of a signal
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        seconds = time.monotonic() - began
        time.sleep(1.0)
        left = [" ".join(process.cmdline())[:100] for process in self.family()
                if process.status() != psutil.STATUS_ZOMBIE]  # fmt: skip
        self.kill()
        self._thread.join(2.0)
        return Ended(code, seconds, left, self.text)

    def kill(self) -> None:
        """End all that is left of it."""
        for process in self.family():
            try:
                process.kill()
            except psutil.Error:
                continue


WAYS = {
    "SIGINT": 130, "SIGINT twice": 130, "SIGTERM": 143, "SIGHUP": 129, "closed terminal": 129,
    "scancel": 143, "SIGQUIT": 131,
}  # fmt: skip
LOST = {"raylet": 1, "gcs_server": 1}  # processes of Ray, killed as for want of memory


def n_running(out: Path) -> int:
    """MLflow runs that MLflow takes to be under way."""
    return _count(out, "SELECT count(*) FROM runs WHERE status = 'RUNNING'")


def n_runs(out: Path) -> int:
    """All MLflow runs."""
    return _count(out, "SELECT count(*) FROM runs WHERE lifecycle_stage = 'active'")


def _count(out: Path, query: str) -> int:
    path = out / "mlflow.db"
    if not path.exists():
        return 0
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        try:
            return int(database.execute(query).fetchone()[0])
        except sqlite3.OperationalError:  # its tables are not made yet
            return 0
