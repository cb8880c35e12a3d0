"""Checks of what the nodes of a cluster reported: versions, run folder, recordings, disks."""

import dataclasses
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ray

from data_io.files import digest
from data_io.names.listing import Survey
from study.cluster.gpu_facts import gpu_fault
from study.cluster.nodes import Node
from study.config.tree import StudyConfig
from study.preflight.check import CLUSTER, Check
from study.preflight.node_probe import NodeReport

MAX_NAMED = 3  # nodes in a message
HASH_CHARS = 12
NO_GPUS = "or set resources.gpus_per_trial=0 and resources.gpus_per_encode=0"


@dataclass(frozen=True)
class Cluster:
    """The connected cluster.

    Attributes:
        address: as given; None where Ray was started for this study alone.
        nodes: that run, and kinds of nodes that may be started.
        reports: of the nodes that answered.
        silent: the others, each with the reason.
    """

    address: str | None
    nodes: Sequence[Node]
    reports: Sequence[NodeReport]
    silent: Sequence[str]

    @property
    def there(self) -> list[Node]:
        """The nodes that run."""
        return [node for node in self.nodes if node.is_there]

    @property
    def in_words(self) -> str:
        """Its size, such as "3 nodes, 12 CPUs, 2 GPUs"."""
        n = len(self.there)
        cpus, gpus = sum(node.cpus for node in self.there), sum(node.gpus for node in self.there)
        return f"{n} node{'s' * (n != 1)}, {cpus:g} CPUs, {gpus:g} GPUs"


def check_nodes(cluster: Cluster) -> Check:
    """Check that every node answers."""
    if cluster.silent:
        n = len(cluster.silent)
        return Check(
            CLUSTER,
            False,
            f"{n} of {len(cluster.there)} nodes cannot be used: {named(cluster.silent, '; ')}.",
            "Look at those nodes (ray status, and Ray's logs there), or take them out of the "
            "cluster.",
        )
    text = cluster.in_words
    later = [f"up to {node.count} {node.name}" for node in cluster.nodes if not node.is_there]
    if later:
        text += f"; the autoscaler may start {', '.join(later)}"
    return Check(CLUSTER, True, text)


def check_versions(config: StudyConfig, cluster: Cluster) -> Check:
    """Check that nodes have the driver's Ray and Python, and a torch that can use their GPUs."""
    mine = f"Ray {ray.__version__}, Python {_minor(platform.python_version())}"
    others = [
        f"{one.host} has Ray {one.ray}, Python {_minor(one.python)}"
        for one in cluster.reports
        if f"Ray {one.ray}, Python {_minor(one.python)}" != mine
    ]
    if others:
        return Check(
            "versions",
            False,
            f"{mine} here, but {named(others, '; ')}.",
            "Install requirements.txt with the same Python on every node, and start Ray there "
            "again.",
        )
    with_gpus = {node.name: node.gpus for node in cluster.there if node.gpus}
    blind = [f"{one.host} has {one.torch or 'none'}" for one in cluster.reports
             if one.host in with_gpus and not one.torch_has_gpus]  # fmt: skip
    if blind and config.resources.wants_gpus:
        return Check(
            "versions",
            False,
            f"GPUs are asked for, but torch was built for CPUs on nodes that have them: "
            f"{named(blind)}.",
            f"Install a build of torch for GPUs there, {NO_GPUS}.",
        )
    faults = {one.host: gpu_fault(one.gpus, with_gpus[one.host])
              for one in cluster.reports if one.gpus}  # fmt: skip
    if found := {host: fault for host, fault in faults.items() if fault}:
        causes = [f"on {host} {cause}" for host, (cause, _) in found.items()]
        remedies = " ".join(dict.fromkeys(f"{remedy}, {NO_GPUS}." for _, remedy in found.values()))
        return Check(
            "versions",
            False,
            f"GPUs are asked for, but cannot be used: {named(causes, '; ')}.",
            remedies,
        )
    builds = sorted({one.torch for one in cluster.reports})
    text = f"{mine}, torch {' and '.join(builds)}"
    hint = "" if len(builds) < 2 else "With another torch the same trial gives other numbers."
    return Check("versions", True, f"{text}; {cluster.address or 'Ray on this machine'}", hint)


def check_folder(out: Path, error: str, cluster: Cluster, unread: Sequence[str]) -> Check:
    """Check that the driver and every node see the run folder and write to it.

    Args:
        out: run folder.
        error: why the driver cannot write to it; empty where it can.
        cluster: whose nodes tried.
        unread: hosts whose file the driver could not read.
    """
    if error:
        return Check("run folder", False, f"{out} cannot be written to: {error}.",
                     "Give another folder with --out.")  # fmt: skip
    problems = [f"{one.host} {one.folder_error}" for one in cluster.reports if one.folder_error]
    problems += [f"what {host} writes to it is not seen here" for host in unread]
    if problems:
        return Check(
            "run folder",
            False,
            f"{out} is not shared by all nodes: {named(problems, '; ')}.",
            "Give a folder that every node mounts at the same path (NFS, EFS, ...): --out "
            "/shared/runs/NAME.",
        )
    return Check("run folder", True, f"{out}, read and written by {_all(cluster)}")


def check_data(config: StudyConfig, found: Survey | None, cluster: Cluster) -> Check:
    """Check that there are recordings, and that every node sees those that the driver sees.

    Args:
        config: of the study.
        found: by the driver in the folder of recordings; None where birds are simulated.
        cluster: whose nodes looked.
    """
    if found is None:
        content = {"simulation": dataclasses.asdict(config.data.simulation), "seed": config.seed}
        return Check("data", True, f"simulated birds, hash {digest(content)[:HASH_CHARS]}")
    if not (listed := check_listing(found)).is_ok:
        return listed
    n_bird_ages = len(found.recordings.used.birds_and_ages())
    problems = [f"{one.host}: {one.recordings_error}" for one in cluster.reports
                if one.recordings_error]  # fmt: skip
    if problems:
        return Check(
            "data",
            False,
            f"{found.root} is not the same on all nodes: {named(problems, '; ')}.",
            "Mount the recordings at the same path on every node; reading is enough.",
        )
    n_used = int(found.recordings.is_used.sum())
    text = f"{n_used:,} recordings of {n_bird_ages} birds and ages, hash "
    return Check("data", True, f"{text}{found.fingerprint[:HASH_CHARS]}, seen by {_all(cluster)}")


def check_listing(found: Survey) -> Check:
    """Check that every folder could be listed that may hold a bird.

    A study without the recordings in it would be another one, and replace the results of before.
    """
    if not found.unlisted:
        return Check("data", True, "every folder can be listed")
    folders = named([f"{found.root / name} ({why})" for name, why in found.unlisted])
    return Check(
        "data",
        False,
        f"Nobody knows which recordings there are, because this cannot be listed: {folders}.",
        "See to the disk, or to the rights of the folder. Or leave the bird out: write it into "
        f"birds.csv with exclude=yes, or move the folder out of {found.root}.",
    )


def check_disks(free: int, needed: int, ray_needed: int, cluster: Cluster) -> Check:
    """Check the room for results in the run folder, and for Ray's own files on every node.

    Args:
        free: bytes in the run folder.
        needed: bytes there, about.
        ray_needed: bytes for Ray's files on each node, about.
        cluster: whose nodes looked.
    """
    problems, remedies = [], []
    if free < needed:
        problems.append(f"The run folder has {_gb(free)} free, a study needs about {_gb(needed)}.")
        remedies.append("Make room, or give a folder on another disk with --out.")
    low = [f"{one.temp_dir} on {one.host} has {_gb(one.temp_free)} free" for one in cluster.reports
           if one.temp_free < ray_needed]  # fmt: skip
    if low:
        problems.append(f"Ray's files take about {_gb(ray_needed)} on a node: {named(low)}.")
        remedies.append("Make room there, start Ray with another --temp-dir, or lower "
                        "snippets.max_minutes.")  # fmt: skip
    if problems:
        return Check("disk", False, " ".join(problems), " ".join(remedies))
    text = f"run folder {_gb(free)} free, about {_gb(needed)} needed"
    if cluster.reports:
        least = min(cluster.reports, key=lambda one: one.temp_free)
        text += (
            f"; Ray's files ({least.temp_dir} on {least.host}) {_gb(least.temp_free)} free, "
            f"{_gb(ray_needed)} needed"
        )
    return Check("disk", True, text)


def named(problems: Sequence[str], between: str = ", ") -> str:
    """Join the first few, and say how many more there are."""
    more = len(problems) - MAX_NAMED
    shown = between.join(problems[:MAX_NAMED])
    return f"{shown}{between}and {more} more" if more > 0 else shown


def _all(cluster: Cluster) -> str:
    n = len(cluster.reports)
    return "the one node" if n == 1 else f"all {n} nodes"


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _gb(n_bytes: int) -> str:
    gb = n_bytes / 1e9
    if gb < 1:
        return f"{n_bytes / 1e6:,.0f} MB"
    return f"{gb:,.0f} GB" if gb >= 10 else f"{gb:.1f} GB"
