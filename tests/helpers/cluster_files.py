"""The two files for `ray up`, and how their commands are read."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.autoscaler as ray_autoscaler
import yaml
from ray.scripts.scripts import start as ray_start

from study.base.paths import ROOT

COMMAND_KEYS = [
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
]


@dataclass(frozen=True)
class ClusterFile:
    """One of the files.

    Attributes:
        name: of the file.
        provider: of machines, as Ray names it.
        venv: the virtual environment on the machines.
        mounts: folders without which a machine must not join.
    """

    name: str
    provider: str
    venv: str
    mounts: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of it, comments too."""
        return (ROOT / self.name).read_text()

    def load(self) -> dict[str, Any]:
        """What Ray reads."""
        return yaml.safe_load(self.text)

    def packaged_defaults(self) -> dict[str, Any]:
        """What Ray would put in for each part that the file leaves out."""
        path = Path(ray_autoscaler.__file__).parent / self.provider / "defaults.yaml"
        return yaml.safe_load(path.read_text())


AWS = ClusterFile("cluster.yaml", "aws", "~/venv", ("/mnt/runs", "/mnt/recordings"))
ONPREM = ClusterFile("cluster-onprem.yaml", "local", "/srv/birdsong/venv", ("/srv/birdsong",))

# Cores of the machines in cluster.yaml, as AWS counts them for its quotas.
VCPUS = {"m6i.2xlarge": 8, "g5.2xlarge": 8, "c6i.4xlarge": 16}


def commands(cluster: dict[str, Any]) -> list[str]:
    """All commands for machines."""
    return [command for key in COMMAND_KEYS for command in cluster[key]]


def start_command(cluster: dict[str, Any], which: str) -> str:
    """The one command of this list that runs `ray start`."""
    (found,) = [c for c in cluster[f"{which}_start_ray_commands"] if "ray start" in c]
    return found


def start_options(cluster: dict[str, Any], which: str) -> dict[str, Any]:
    """What `ray start` understands of its command; an unknown option is an error."""
    behind = start_command(cluster, which).split("ray start", 1)[1]
    arguments = re.split(r"\|\||;", behind, maxsplit=1)[0]
    return ray_start.make_context("start", shlex.split(arguments)).params


def pins(name: str = "requirements.txt") -> dict[str, str]:
    """Package name (without extras) -> pinned version, of a file of requirements."""
    lines = (ROOT / name).read_text().splitlines()
    found = [re.match(r"([\w.-]+)(?:\[[\w,-]+\])?==(\S+)", line) for line in lines]
    return {match[1]: match[2] for match in found if match}
