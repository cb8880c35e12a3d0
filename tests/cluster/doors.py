"""Every listening port of a cluster's machines, and what it answers to whoever knocks."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from hosts import Host, Lab

KNOCK = Path(__file__).with_name("knock.py")
# What may answer without a token: whether a process is well, and nothing else.
HEALTH = {"/api/healthz: 200", "/api/local_raylet_healthz: 200", "grpc.health.v1.Health/Check: OK"}


@dataclass(frozen=True)
class Door:
    """A port that listens on a machine.

    Attributes:
        host: the machine's name.
        bound_to: the address that it listens on.
        process: who listens.
    """

    host: str
    ip: str
    bound_to: str
    port: int
    process: str

    @property
    def is_for_the_machine_alone(self) -> bool:
        """Whether only processes of the machine itself reach it."""
        return self.bound_to in ("127.0.0.1", "[::1]", "[::ffff:127.0.0.1]")


def doors_of(host: Host) -> list[Door]:
    """All listening TCP ports of a host."""
    found = []
    for line in host.run("ss", "-ltnpH").stdout.splitlines():
        words = line.split()
        address, _, port = words[3].rpartition(":")
        process = words[5].split('"')[1] if len(words) > 5 else "?"
        found.append(Door(host.name, host.ip, address, int(port), process))
    return sorted(found, key=lambda door: (door.port, door.bound_to))


def knock(lab: Lab, doors: list[Door], token: str = "") -> dict[tuple[str, int], list[str]]:
    """What each door says to the intruder: all answers that are neither a refusal nor "unknown"."""
    addresses = sorted({f"{door.ip}:{door.port}" for door in doors})
    # The intruder does not see this folder: the script goes with the command.
    words = [sys.executable, "-c", KNOCK.read_text(), *addresses]
    env = {"KNOCK_TOKEN": token} if token else {}
    said = {}
    for line in lab.intruder.run(*words, env=env, timeout=300).stdout.splitlines():
        answer = json.loads(line)
        ip, port = answer["door"].rsplit(":", 1)
        said[ip, int(port)] = answer["opened"]
    return said


def table(doors: list[Door], without: dict[tuple[str, int], list[str]]) -> str:
    """The doors as a table to read."""
    rows = [("machine", "listens on", "process", "without a token")]
    for door in doors:
        answers = without.get((door.ip, door.port), [])
        if door.is_for_the_machine_alone:
            said = "out of reach"
        else:
            said = ", ".join(answers) or "turned away"
        rows.append((door.host, f"{door.bound_to}:{door.port}", door.process, said))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]])
        for row in rows
    )
