"""The server of a laboratory without Docker: what mlflow/compose.yaml starts, from installed parts.

The scripts, settings and secrets are those of mlflow/, copied to a folder that goes away again;
addresses of containers are replaced by free ports of this machine. PostgreSQL and the proxy run as
an account without rights where the tests run as root, which PostgreSQL refuses; MLflow runs as the
tests do, since their Python may be out of that account's reach.
"""

import contextlib
import csv
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from study.base.paths import ROOT

START_LIMIT = 240  # seconds; a new database takes 20 on a free core


def missing() -> str:
    """What the server lacks on this machine, in words; "" where it can be started."""
    programs = [name for name in ("initdb", "postgres", "psql", "pg_dump") if not _program(name)]
    packages = [name for name in ("psycopg", "flask_wtf") if not importlib.util.find_spec(name)]
    wanted = []
    if programs:
        wanted.append(f"no {', '.join(programs)} (Debian: apt install postgresql)")
    if packages:
        wanted.append(f"no {', '.join(packages)} (pip install -r mlflow/requirements.txt)")
    wanted += [
        f"no {name} (Debian: apt install {package})"
        for name, package in {"nginx": "nginx", "openssl": "openssl", "curl": "curl"}.items()
        if not _program(name)
    ]
    return "; ".join(wanted)


def _program(name: str) -> str | None:
    """Path of a program; those of PostgreSQL are often beside the PATH."""
    folders = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"]
    if config := shutil.which("pg_config"):
        done = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=True)
        folders.append(done.stdout.strip())
    return shutil.which(name, path=os.pathsep.join(folders))


def free_port() -> int:
    """A port nobody listens to at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LabServer:
    """PostgreSQL, MLflow and the proxy, each startable on its own.

    Args:
        folder: of this server; the account must be able to reach it.

    Attributes:
        mlflow: copy of the folder mlflow/, with secrets/ and server/.
        url: of the proxy, as users type it.
        direct: of MLflow behind it, which compose.yaml does not publish.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.mlflow = folder / "mlflow"
        self.socket = folder / "socket"
        self.account = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self.port, self.mlflow_port, self.database_port = free_port(), free_port(), free_port()
        self.url = f"https://localhost:{self.port}"
        self.direct = f"http://127.0.0.1:{self.mlflow_port}"
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    # --- Once ---------------------------------------------------------------------------------

    def prepare(self) -> None:
        """The files of mlflow/, new secrets, and an empty PostgreSQL with its two databases."""
        self.mlflow.mkdir()
        for source in (ROOT / "mlflow").iterdir():
            # Passwords and records that somebody has there stay there.
            if source.is_file() and not source.name.endswith(".db") and source.name != ".env":
                shutil.copy(source, self.mlflow)
        for made in (self.socket, self.folder / "bin"):
            made.mkdir()
        if identity := self._identity():
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, identity["user"], identity["group"])
        self.run([self.mlflow / "make_secrets.sh", "localhost", str(self.port)])
        database = self.mlflow / "server" / "database"
        options = [f"--pwfile={self.secret('postgres_password')}", "--auth-local=trust"]
        services = yaml.safe_load((ROOT / "mlflow" / "compose.yaml").read_text())["services"]
        options += services["postgres"]["environment"]["POSTGRES_INITDB_ARGS"].split()
        options += ["--username=postgres"]
        self.run([_program("initdb"), *options, "--no-sync", "--pgdata", database])
        self.start_database()
        self.run([self.mlflow / "create_databases.sh"], POSTGRES_USER="postgres", **self.as_owner())

    def secret(self, name: str) -> Path:
        """File of a secret."""
        return self.mlflow / "secrets" / name

    def password(self, name: str = "admin_password") -> str:
        """What stands in it."""
        return self.secret(name).read_text().strip()

    # --- Processes ----------------------------------------------------------------------------

    def as_owner(self) -> dict[str, str]:
        """Environment of PostgreSQL's own account, which may connect by its socket alone."""
        return {"PGHOST": str(self.socket), "PGPORT": str(self.database_port)}

    def environment(self, **more: str) -> dict[str, str]:
        """What a container would get, and where programs are. Nothing of the caller's own."""
        programs = [str(Path(sys.executable).parent), str(self.folder / "bin")]
        programs += [str(Path(path).parent) for name in ("postgres", "nginx")
                     if (path := _program(name))]  # fmt: skip
        return {
            "PATH": os.pathsep.join([*programs, os.defpath, os.environ.get("PATH", "")]),
            "HOME": str(self.folder),
            "SECRETS_DIR": str(self.mlflow / "secrets"),
            "OMP_NUM_THREADS": "1",
            **more,
        }

    def _identity(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        entry = pwd.getpwnam(self.account)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def run(
        self, command: list, check: bool = True, as_account: bool = True, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; an error shows what it said."""
        done = subprocess.run(
            command, env=self.environment(**env), cwd=self.folder, text=True, check=False,
            capture_output=True, **(self._identity() if as_account else {}),
        )  # fmt: skip
        if check and done.returncode != 0:
            raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
        return done

    def query(self, statement: str, database: str = "mlflow") -> list[list[str]]:
        """Rows of a statement, asked by PostgreSQL's own account."""
        command = ["psql", "--username=postgres", "--no-psqlrc", "--csv", "--tuples-only"]
        done = self.run([*command, f"--command={statement}", database], **self.as_owner())
        return list(csv.reader(done.stdout.splitlines()))

    def add_user(self, name: str, role: str) -> str:
        """A new user, made as README says; the password."""
        done = self.run([self.mlflow / "users.sh", "add", name, role])
        return re.search(r"^password +(\S+)$", done.stdout, re.MULTILINE)[1]

    def client_settings(self, user: str, password: str) -> dict[str, str]:
        """Environment of a client, as env.example has it."""
        return {
            "MLFLOW_TRACKING_URI": self.url,
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": password,
            "MLFLOW_TRACKING_SERVER_CERT_PATH": str(self.secret("tls.crt")),
        }

    def _start(self, name: str, command: list, as_account: bool = True, **env: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command, env=self.environment(**env), cwd=self.folder, stdout=log, stderr=log,
                start_new_session=True, **(self._identity() if as_account else {}),
            )  # fmt: skip

    def start_database(self) -> None:
        """PostgreSQL, until it takes connections."""
        options = [f"-p{self.database_port}", f"-k{self.socket}", "-h127.0.0.1"]
        data = self.mlflow / "server" / "database"
        self._start("postgres", [_program("postgres"), "-D", data, *options])
        self._wait("postgres", lambda: self.query("SELECT 1", "postgres"))

    def server_environment(self) -> dict[str, str]:
        """Environment of start_server.sh, as compose.yaml has it but for addresses."""
        return {
            "PUBLIC_HOST": "localhost",
            "PUBLIC_PORT": str(self.port),
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.database_port),
            "PGUSER": "mlflow",
            "ARTIFACTS_DIR": str(self.mlflow / "server" / "artifacts"),
            "LISTEN_PORT": str(self.mlflow_port),
        }

    def start_mlflow(self) -> None:
        """MLflow, until it answers."""
        script = self.mlflow / "start_server.sh"
        self._start("mlflow", [script], as_account=False, **self.server_environment())
        self._wait("mlflow", lambda: urllib.request.urlopen(f"{self.direct}/health", timeout=5))

    def start_proxy(self) -> None:
        """The proxy, until it answers."""
        text = (ROOT / "mlflow" / "nginx.conf").read_text()
        for there, here in {
            "/tmp/": f"{self.folder}/proxy-",  # first: the others may be under /tmp
            "http://mlflow:5000": self.direct,
            "/run/secrets": str(self.mlflow / "secrets"),
            "listen 8443": f"listen 127.0.0.1:{self.port}",
        }.items():
            assert there in text, f"nginx.conf: no {there}"
            text = text.replace(there, here)
        settings = self.mlflow / "nginx.conf"
        settings.write_text(text)
        nginx = [_program("nginx"), "-e", "stderr", "-c", settings, "-g", "daemon off;"]
        self._start("proxy", nginx)
        trusted = ssl.create_default_context(cafile=self.secret("tls.crt"))
        health = f"{self.url}/health"
        self._wait("proxy", lambda: urllib.request.urlopen(health, timeout=5, context=trusted))

    def _wait(self, name: str, ask: Callable[[], Any]) -> None:
        end = time.monotonic() + START_LIMIT
        while time.monotonic() < end and self.running[name].poll() is None:
            with contextlib.suppress(OSError, RuntimeError):
                ask()
                return
            time.sleep(0.3)
        log = (self.folder / f"{name}.log").read_text()[-4000:]
        raise RuntimeError(f"{name} did not start:\n{log}")

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End a process and all that it started."""
        process = self.running.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End all, the database last."""
        for name in ("proxy", "mlflow", "postgres"):
            if name in self.running:
                # SIGINT: PostgreSQL would wait for its clients.
                self.stop(name, signal.SIGINT if name == "postgres" else signal.SIGTERM)

    def pretend_docker(self) -> None:
        """Put a program docker on the PATH which does here what a container would do."""
        script = self.folder / "bin" / "docker"
        script.write_text(
            "#!/usr/bin/env bash\n"
            'case "$1 $2 $4 $5 $6" in\n'
            '  "compose -f exec -T postgres") shift 6; '
            f'PGHOST={self.socket} PGPORT={self.database_port} exec "$@" ;;\n'
            '  "compose -f up --detach --wait") [[ "$7" == postgres ]] ;;\n'
            '  *) echo "docker $*: not known here" >&2; exit 64 ;;\n'
            "esac\n"
        )
        script.chmod(0o755)


@contextlib.contextmanager
def lab_server(whole: bool = True) -> Iterator[LabServer]:
    """A server for the time of the block.

    Args:
        whole: with MLflow and the proxy; else PostgreSQL alone, with two empty databases.
    """
    # Not in pytest's folder, which no other account may enter.
    folder = Path(tempfile.mkdtemp(prefix="lab-server-"))
    server = LabServer(folder)
    try:
        server.prepare()
        if whole:
            server.start_mlflow()
            server.start_proxy()
        yield server
    finally:
        server.close()
        shutil.rmtree(folder)
