"""Whether every kind of work fits on one node, and GPUs are shared without waste."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from ray._private import accelerators

from study.cluster.nodes import ROUNDING, Node
from study.config.tree import StudyConfig
from study.preflight.check import Check, refusal

# A fraction of a GPU may leave so much of it idle: 0.33 is a third.
IDLE_ALLOWED = 0.05
SMALLEST_SHARE = 0.0001  # Ray counts GPUs in ten-thousandths


@dataclass(frozen=True)
class Work:
    """What one piece of work asks of a node: settings of ``resources`` and their values."""

    noun: str
    cpus: float
    gpus: float
    cpu_setting: str = ""
    gpu_setting: str = ""


def kinds_of_work(config: StudyConfig) -> list[Work]:
    """All that a study runs; "auto" needs no GPU."""
    resources = config.resources
    gpus = 0.0 if resources.gpus_per_trial == "auto" else float(resources.gpus_per_trial)
    return [
        Work("a trial", resources.cpus_per_trial, gpus, "cpus_per_trial", "gpus_per_trial"),
        Work("an encoding task", 1, resources.gpus_per_encode, "", "gpus_per_encode"),
    ]


def check_work(config: StudyConfig, nodes: Sequence[Node], where: str) -> Check:
    """Whether some node holds each kind of work, CPUs and GPUs together.

    Args:
        config: of the study.
        nodes: that are there, and kinds that may be started.
        where: the cluster in words.
    """
    problems = [p for work in kinds_of_work(config) if (p := _problem(work, nodes, where))]
    if problems:
        texts, remedies = zip(*problems, strict=True)
        return Check("resources", False, " ".join(texts), " ".join(dict.fromkeys(remedies)))
    trial = kinds_of_work(config)[0]
    takes = f"cpus_per_trial={trial.cpus:g}"
    takes += f", gpus_per_trial={trial.gpus:g}" if trial.gpus else ""
    n_now = sum(node.n_at_once(trial.cpus, trial.gpus) for node in nodes if node.is_there)
    n_new = sum(n.count for n in nodes if not n.is_there and n.holds(trial.cpus, trial.gpus))
    text = f"{n_now} trials at once ({takes})"
    if not n_now:
        text = f"no node holds a trial yet ({takes}); the autoscaler may add up to {n_new} that do"
    elif n_new:
        text += f"; the autoscaler may go up to {n_new} nodes that hold trials"
    return Check("resources", True, text)


def _problem(work: Work, nodes: Sequence[Node], where: str) -> tuple[str, str] | None:
    """What does not fit and the remedy; None where some node holds the work."""
    if any(node.holds(work.cpus, work.gpus) for node in nodes):
        return None
    n_there = sum(node.is_there for node in nodes)
    among = f"no node of {where}"
    if n_there < len(nodes):
        among += ", nor any that its autoscaler may start,"
    for setting, kind, amount, have in (
        (work.cpu_setting, "CPU", work.cpus, [node.cpus for node in nodes]),
        (work.gpu_setting, "GPU", work.gpus, [node.gpus for node in nodes]),
    ):
        largest = max(have, default=0.0)
        if amount <= largest:
            continue
        asked = f"resources.{setting} is {amount:g}" if setting else f"{work.noun} takes 1 CPU"
        text = f"{asked}, but {among} has more than {largest:g} {kind}s ({n_there} nodes)."
        return text, _remedy(setting, kind, largest)
    with_gpus = max((n for n in nodes if n.gpus >= work.gpus), key=lambda n: n.cpus)
    text = (
        f"{work.noun[0].upper()}{work.noun[1:]} takes {work.cpus:g} CPUs and {work.gpus:g} GPUs "
        f"together, but {among} has both: of those with GPUs, {with_gpus.name} has the most CPUs, "
        f"{with_gpus.cpus:g} ({n_there} nodes)."
    )
    if work.cpu_setting and with_gpus.cpus >= 1:
        return text, (
            f"Set resources.{work.cpu_setting}={int(with_gpus.cpus)}, or connect to a cluster "
            "whose GPU nodes have more (--address)."
        )
    return (
        text,
        "Offer CPUs on the GPU nodes (ray start --num-cpus), or set "
        f"resources.{work.gpu_setting}=0.",
    )


def _remedy(setting: str, kind: str, largest: float) -> str:
    if kind == "CPU" and largest < 1:
        return "Start a node that offers CPUs (ray status shows what there is), then try again."
    remedy = (
        f"Set resources.{setting}={int(largest)}, or connect to a cluster that has them "
        "(--address)."
    )
    if kind == "GPU" and largest == 0:
        remedy += " A study on CPUs wants small nets: --preset demo."
    return remedy


def check_shares(config: StudyConfig, nodes: Sequence[Node]) -> Check:
    """Whether fractions of a GPU fill it; a hint where CPUs keep GPUs idle."""
    resources = config.resources
    problems = []
    for setting in ("gpus_per_trial", "gpus_per_encode"):
        share = getattr(resources, setting)
        if share != "auto" and 0 < share < 1 and (problem := _idle(setting, share)):
            problems.append(problem)
    if problems:
        texts, remedies = zip(*problems, strict=True)
        return Check("GPU shares", False, " ".join(texts), " ".join(remedies))
    n_gpus = sum(node.gpus for node in nodes if node.is_there)
    may_have = any(node.gpus for node in nodes)
    asked = resources.gpus_per_trial
    if asked == "auto":
        if may_have:
            return Check("GPU shares", True, "auto: measured before the search begins")
        hint = "A study on CPUs wants small nets: --preset demo."
        return Check("GPU shares", True, "auto, but there is no GPU: trials run on CPUs.", hint)
    if not asked:
        if not n_gpus:
            return Check("GPU shares", True, "trials ask for no GPU")
        text = f"{n_gpus:g} GPUs are not used by trials (resources.gpus_per_trial=auto does)"
        return Check("GPU shares", True, text)
    if asked < 1:
        text = f"{math.floor(1 / asked + ROUNDING)} trials share a GPU"
    else:
        text = f"{asked:g} GPUs for each trial"
    return Check("GPU shares", True, text, _cpu_hint(resources.cpus_per_trial, asked, nodes))


def _idle(setting: str, share: float) -> tuple[str, str] | None:
    """What a share leaves idle, and shares that do not; None where it fills a GPU."""
    n = math.floor(1 / share + ROUNDING)
    if share < SMALLEST_SHARE:
        return (
            f"resources.{setting} is {share:g}, below the least that Ray counts.",
            f"Set resources.{setting}={SMALLEST_SHARE:g} or more.",
        )
    idle = 1 - n * share
    if idle <= IDLE_ALLOWED + ROUNDING:
        return None
    holds = "one such piece" if n == 1 else f"{n} such pieces"
    return (
        f"resources.{setting} is {share:g}: a GPU would hold {holds} of work, and {idle:.0%} of "
        "it would lie idle.",
        f"Set resources.{setting} to {_share_of(n + 1)} or {_share_of(n)}.",
    )


def _share_of(n: int) -> str:
    """1/n, rounded down to what Ray counts."""
    return f"{math.floor(1 / n / SMALLEST_SHARE + ROUNDING) * SMALLEST_SHARE:.4g}"


def _cpu_hint(cpus: int, gpus: float, nodes: Sequence[Node]) -> str:
    for node in nodes:
        by_gpus = node.n_on_gpus(gpus)
        by_cpus = math.floor(node.cpus / cpus + ROUNDING)
        if not 0 < by_cpus < by_gpus:
            continue
        text = (
            f"On {node.name} CPUs allow {by_cpus} trials at once, its GPUs would hold {by_gpus}: "
        )
        if node.cpus >= by_gpus:
            return text + f"resources.cpus_per_trial={int(node.cpus // by_gpus)} would use them."
        share = _share_of(math.ceil(by_cpus / node.gpus))
        return text + f"resources.gpus_per_trial={share} would give each more memory."
    return ""


def this_machine() -> Node:
    """What Ray will find when it is started here, seen without starting it."""
    manager = accelerators.get_accelerator_manager_for_resource("GPU")
    gpus = manager.get_current_node_num_accelerators() if manager else 0
    visible = manager.get_current_process_visible_accelerator_ids() if manager else None
    if visible is not None:
        gpus = min(gpus, len(visible))
    return Node("this machine", float(os.cpu_count() or 1), float(gpus))


def check_before_start(config: StudyConfig, address: str | None) -> None:
    """Refuse what can be refused before Ray is started, which takes seconds.

    Raises:
        PreflightError: it holds every cause with its remedy.
    """
    nodes = [this_machine()] if address is None else []
    checks = [check_shares(config, nodes)]
    if nodes:
        checks.append(check_work(config, nodes, "this machine"))
    failed = [check for check in checks if not check.is_ok]
    if failed:
        raise refusal(failed)
