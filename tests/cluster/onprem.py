"""The laboratory's cluster of cluster-onprem.yaml, driven from the laptop as its comments say."""

import re
import secrets
import shlex
import subprocess
import sys

from hosts import ROOT, Host, Lab, wait_for

# Each machine offers one core, what one has compiled serves all (their homes begin empty), and
# machines give each other up sooner than in earnest: the head a worker that was silent for 3 x 2 s
# (not 5 x 10 s), a worker the head after 20 s (not 60 s). The machines' own settings say so; the
# cluster's file does not know of it.
BASHRC = """
export RAY_OVERRIDE_RESOURCES='{"CPU": 1}'
export NUMBA_CACHE_DIR=/srv/birdsong/numba
export RAY_health_check_initial_delay_ms=2000 RAY_health_check_period_ms=2000
export RAY_health_check_timeout_ms=2000 RAY_health_check_failure_threshold=3
export RAY_gcs_rpc_server_reconnect_timeout_s=20
"""
CHANGES = {
    "CHANGE-ME-head": "songhead",
    "CHANGE-ME-worker1": "songworker1",
    "CHANGE-ME-worker2": "songworker2",
    "ssh_user: CHANGE-ME": "ssh_user: root",
}
FILE = "/root/cluster-onprem.yaml"


class OnPremises:
    """Commands of the laptop for the cluster."""

    def __init__(self, lab: Lab):
        self.lab = lab
        self.token = secrets.token_hex(32)
        lab.share_environment()
        for host in lab.machines:
            host.run("bash", "-c", f"cat >> ~/.bashrc <<'END'\n{BASHRC}END")
        self._fill_in()

    def _fill_in(self) -> None:
        """Replace what the file says to change, and nothing else; make the token."""
        text = (ROOT / "cluster-onprem.yaml").read_text()
        for old, new in CHANGES.items():
            assert old in text, f"cluster-onprem.yaml no longer has {old}"
            text = text.replace(old, new)
        left = [line for line in text.splitlines() if re.search(r"CHANGE-ME", line)]
        assert not left, left
        (self.lab.home / "cluster-onprem.yaml").write_text(text)
        folder = self.lab.home / ".ray"
        folder.mkdir(mode=0o700)
        (folder / "auth_token").write_text(self.token)
        (folder / "auth_token").chmod(0o600)

    def command(self, *words: str) -> list[str]:
        """What runs `ray` with these words on the laptop, in the checkout."""
        ray = [sys.executable, "-m", "ray.scripts.scripts", *words]
        return ["sh", "-c", f"cd {ROOT} && exec {shlex.join(ray)}"]

    def ray(self, *words: str, timeout: float = 300) -> str:
        """Run `ray` on the laptop and give all that it prints."""
        env = {"RAY_UP_enable_autoscaler_v2": "0", "PYTHONUNBUFFERED": "1"}
        return self.lab.laptop.run(*self.command(*words), env=env, timeout=timeout).stdout

    def up(self) -> None:
        """`ray up`, until all machines are there."""
        self.ray("up", "-y", FILE)
        wait_for(lambda: self.n_machines() == 3, 180, "three machines joined", every_s=3)

    def down(self) -> None:
        """`ray down`."""
        self.ray("down", "-y", FILE)

    def n_machines(self) -> int:
        """Machines that take work now."""
        code = "import ray; ray.init('auto', logging_level=40, log_to_driver=False); "
        code += "print('alive', sum(node['Alive'] for node in ray.nodes()))"
        done = self.on_head(f"python -c {shlex.quote(code)}", check=False)
        found = re.search(r"^alive (\d+)$", done, re.MULTILINE)
        return int(found[1]) if found else 0

    def on_head(self, command: str, check: bool = True, timeout: float = 120) -> str:
        """Run a line in a shell on the head, as `ray attach` gives it."""
        words = self.shell(command)
        return self.lab.head.run(*words, check=check, timeout=timeout).stdout

    def start_on_head(self, command: str, log) -> subprocess.Popen:
        """Start a line in a shell on the head."""
        words = self.lab.head.command(self.shell(command))
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @staticmethod
    def shell(command: str) -> list[str]:
        """A shell that knows the environment."""
        return ["bash", "-ic", f"cd ~/birdsong && {command}"]


def ray_processes(host: Host) -> list[str]:
    """What is left of Ray, or of anything that it started, on a host."""
    return [line[:150] for line in host.processes()]
