"""An MLflow server on a SQLite file that can be killed and started again, or made to hang."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

START_LIMIT_S = 180.0


class MlflowServer:
    """A server of this machine, with its database and artefacts in ``folder``.

    Attributes:
        uri: the same after each start.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; come back when it answers."""
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1",
            "--port", str(self._port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}",
            "--artifacts-destination", str(self._folder / "artifacts"),
        ]  # fmt: skip
        environment = {
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        with (self._folder / "server.log").open("ab") as log:
            # A session of its own, so that its worker is killed with it.
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_LIMIT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                text = (self._folder / "server.log").read_text(errors="replace")
                raise RuntimeError(f"The MLflow server did not start: {text[-2000:]}")
            time.sleep(0.2)

    def _answers(self) -> bool:
        with suppress(OSError):
            urllib.request.urlopen(f"{self.uri}/health", timeout=5).read()
            return True
        return False

    def kill(self) -> None:
        """End it as a loss of power would."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """Let it take connections and never answer."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End `hang`: what it was asked meanwhile is done now."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
