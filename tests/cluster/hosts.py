"""Hosts of a laboratory on one machine: namespaces, a bridge between them, and an sshd in each.

Nothing of it is seen outside: the bridge lies in the laptop's network namespace, and all processes
of a host end with its process 1.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BOOT = Path(__file__).with_name("boot_host.sh")
SUBNET = "10.77.0"
TOOLS = ["unshare", "nsenter", "setpriv", "ip", "ss", "mount", "ssh", "ssh-keygen", "rsync"]
SSHD = Path("/usr/sbin/sshd")
SSHD_CONFIG = """
HostKey {etc}/host_key
AuthorizedKeysFile {etc}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxStartups 50
MaxSessions 50
Subsystem sftp internal-sftp
"""


def why_not() -> str:
    """Why hosts cannot be made on this machine; "" where they can."""
    if not sys.platform.startswith("linux"):
        return "hosts are made of Linux namespaces"
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    missing += [] if SSHD.exists() else ["sshd"]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: openssh-server, rsync, iproute2)"
    if any(find_spec(name) is None for name in ("grpc", "aiohttp_cors", "prometheus_client")):
        return "ray[default] is not installed: make test-cluster"
    words = ["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--mount-proc"]
    trial = ["sh", "-c", "ip link add type bridge && mount -t tmpfs tmpfs /mnt"]
    done = subprocess.run([*words, *trial], capture_output=True, text=True, check=False)
    return f"no namespaces: {done.stderr.strip()}" if done.returncode else ""


class Host:
    """One machine: its name, its address, and commands run on it as root."""

    def __init__(self, name: str, role: str, number: int, folder: Path, kept: list[Path]):
        self.name, self.role, self.ip = name, role, f"{SUBNET}.{number}"
        self._words = [str(BOOT), name, role, str(folder), str(ROOT), *map(str, kept)]
        self._log = folder / f"{name}.boot.log"
        self.boot()

    def boot(self) -> None:
        """Start process 1; with the test's own end, however it ends, comes the host's."""
        namespaces = ["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc"]
        words = ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, "--kill-child"]
        with self._log.open("w") as log:
            self._unshare = subprocess.Popen(
                [*words, "--", *self._words], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        wait_for(lambda: self._failed() or children.read_text().strip(), 10, f"{self.name} boots")
        self.pid = int(children.read_text())
        booted = Path(f"/proc/{self.pid}/root/run/booted")
        wait_for(lambda: self._failed() or booted.exists(), 20, f"{self.name} mounts its folders")

    def _failed(self) -> bool:
        if self._unshare.poll() is not None:
            raise RuntimeError(f"{self.name} did not boot: {self._log.read_text()}")
        return False

    def power_off(self) -> None:
        """End the host and every process on it."""
        if self._unshare.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._unshare.wait(20)

    def command(self, words: list[str], env: dict[str, str] | None = None) -> list[str]:
        """What runs these words on the host, in root's home, with nothing of our environment."""
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        plain = {"HOME": "/root", "USER": "root", "TERM": "dumb", "LANG": "C.UTF-8", "PATH": path}
        pairs = [f"{key}={value}" for key, value in {**plain, **(env or {})}.items()]
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--wd=/root"]
        return ["nsenter", "-t", str(self.pid), *namespaces, "--", "env", "-i", *pairs, *words]

    def run(
        self,
        *words: str,
        env: dict[str, str] | None = None,
        timeout: float = 60,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run words on the host; both streams come back as stdout."""
        done = subprocess.run(
            self.command(list(words), env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            what = f"{self.name}: {' '.join(words)} gave {done.returncode}"
            raise RuntimeError(f"{what}:\n{done.stdout}")
        return done

    def processes(self) -> list[str]:
        """Command lines of all processes but those that every idle host has."""
        listed = self.run("ps", "-eo", "pid=,stat=,args=").stdout.splitlines()
        idle = ("boot_host.sh", "sleep 3600", "sshd", "ps -eo")
        return [line for line in listed if not any(word in line for word in idle)]


class Lab:
    """A head, two workers, a laptop and an intruder on one network."""

    def __init__(self, folder: Path):
        self.folder, self.shared, self.home = folder, folder / "shared", folder / "laptop"
        self._write_files()
        kept = [Path(sys.base_prefix), Path(sys.prefix), *packages()]
        self._all: list[Host] = []
        try:
            for number, (name, role) in enumerate(
                {
                    "laptop": "laptop",
                    "songhead": "machine",
                    "songworker1": "machine",
                    "songworker2": "machine",
                    "intruder": "intruder",
                }.items(),
                start=1,
            ):
                self._all.append(Host(name, role, number, folder, kept))
            self.laptop, self.head, self.worker1, self.worker2, self.intruder = self._all
            self._connect()
        except BaseException:
            self.close()
            raise

    @property
    def machines(self) -> list[Host]:
        """The hosts of the cluster, its head first."""
        return [self.head, self.worker1, self.worker2]

    def _write_files(self) -> None:
        etc = self.folder / "etc"
        for path in (etc, self.shared, self.home / ".ssh"):
            path.mkdir(parents=True)
        names = ["laptop", "songhead", "songworker1", "songworker2", "intruder"]
        lines = [f"{SUBNET}.{number} {name}" for number, name in enumerate(names, start=1)]
        (etc / "hosts").write_text("127.0.0.1 localhost\n" + "\n".join(lines) + "\n")
        (etc / "sshd_config").write_text(SSHD_CONFIG.format(etc=etc))
        key = self.home / ".ssh" / "birdsong"
        for path in (etc / "host_key", key):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
            subprocess.run(words, check=True)
        shutil.copy(key.with_suffix(".pub"), etc / "authorized_keys")

    def _connect(self) -> None:
        """One bridge, which is the laptop's interface, and a cable to every other host."""
        run = self.laptop.run
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "lab", "type", "bridge")
        run("ip", "addr", "add", f"{self.laptop.ip}/24", "dev", "lab")
        run("ip", "link", "set", "lab", "up")
        for host in self._all[1:]:
            cable = self._cable(host)
            # The laptop's processes do not see the pids of other hosts: only its network is used.
            ip = ["nsenter", "-t", str(self.laptop.pid), "--net", "ip", "link"]
            peer = ["type", "veth", "peer", "name", "eth0", "netns", str(host.pid)]
            subprocess.run([*ip, "add", cable, *peer], check=True)
            run("ip", "link", "set", cable, "master", "lab", "up")
            host.run("ip", "link", "set", "lo", "up")
            host.run("ip", "addr", "add", f"{host.ip}/24", "dev", "eth0")
            host.run("ip", "link", "set", "eth0", "up")
            # Ray finds its own address by the route to the outside.
            host.run("ip", "route", "add", "default", "via", self.laptop.ip)

    @staticmethod
    def _cable(host: Host) -> str:
        return f"to-{host.name}"

    def cut_off(self, host: Host) -> None:
        """Pull the host's cable: nobody is told."""
        self.laptop.run("ip", "link", "set", self._cable(host), "down")

    def plug_in(self, host: Host) -> None:
        """Put the cable back."""
        self.laptop.run("ip", "link", "set", self._cable(host), "up")

    def share_environment(self) -> None:
        """Put a virtual environment with this Python's packages on the file server, read-only."""
        venv = "/srv/birdsong/venv"
        self.head.run(sys._base_executable, "-m", "venv", "--without-pip", venv, timeout=120)
        ours = self.shared / "venv"
        (inside,) = (ours / "lib").glob("python*/site-packages")
        (inside / "shared.pth").write_text("".join(f"{folder}\n" for folder in packages()))
        for name, module in {"ray": "ray.scripts.scripts", "pip": "pip"}.items():
            script = ours / "bin" / name
            script.write_text(f'#!/bin/sh\nexec {venv}/bin/python -m {module} "$@"\n')
            script.chmod(0o755)
        shutil.copy(ROOT / "requirements.txt", ours / "installed.txt")
        for host in self.machines:
            host.run("mount", "--bind", venv, venv)
            host.run("mount", "-o", "remount,bind,ro", venv)

    def close(self) -> None:
        """Power everything off."""
        for host in self._all:
            host.power_off()


def packages() -> list[Path]:
    """Folders that this Python takes installed packages from."""
    return [Path(folder) for folder in sys.path if Path(folder).name == "site-packages"]


def wait_for(is_true, seconds: float, what: str, every_s: float = 0.2):
    """Wait until a call gives something true, and give that; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        if found := is_true():
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(every_s)
