"""Whether some node holds each kind of work, and whether fractions of a GPU fill it."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from ray._private import accelerators

from data_io.names.listing import Survey
from study.cluster.nodes import ROUNDING, Node
from study.config.tree import StudyConfig
from study.preflight.check import Check, PreflightError
from study.preflight.node_checks import check_listing

# A fraction of a GPU may leave so much of it idle: 0.33 is a third.
IDLE_ALLOWED = 0.05
SMALLEST_SHARE = 0.0001  # Ray counts GPUs in ten-thousandths

Problem = tuple[str, str]  # cause, remedy


@dataclass(frozen=True)
class Demand:
    """CPUs and GPUs that one piece of work takes of a node.

    Attributes:
        noun: the work in words.
        cpus, gpus: that it takes.
        cpu_setting, gpu_setting: of ``resources``, that decide it; empty where none does.
    """

    noun: str
    cpus: float
    gpus: float
    cpu_setting: str
    gpu_setting: str


def demands(config: StudyConfig) -> list[Demand]:
    """Every kind of work of a study, trials first; "auto" needs no GPU."""
    resources = config.resources
    gpus = 0.0 if resources.gpus_per_trial == "auto" else float(resources.gpus_per_trial)
    return [
        Demand("a trial", resources.cpus_per_trial, gpus, "cpus_per_trial", "gpus_per_trial"),
        Demand("an encoding task", 1, resources.gpus_per_encode, "", "gpus_per_encode"),
    ]


def check_resources(config: StudyConfig, nodes: Sequence[Node], where: str) -> Check:
    """Check that some node holds each kind of work, and that fractions of a GPU fill it.

    Args:
        config: of the study.
        nodes: that are there, and kinds that may be started.
        where: the cluster in words.
    """
    if problems := _problems(config, nodes, where):
        return _failed(problems)
    trial = demands(config)[0]
    takes = f"cpus_per_trial={trial.cpus:g}"
    takes += f", gpus_per_trial={trial.gpus:g}" if trial.gpus else ""
    n_now = sum(node.n_at_once(trial.cpus, trial.gpus) for node in nodes if node.is_there)
    n_new = sum(n.count for n in nodes if not n.is_there and n.holds(trial.cpus, trial.gpus))
    text = f"{n_now} trials at once ({takes})"
    if not n_now:
        text = f"no node holds a trial yet ({takes}); the autoscaler may add up to {n_new} that do"
    elif n_new:
        text += f"; the autoscaler may go up to {n_new} nodes that hold trials"
    return Check("resources", True, text, _idle_gpus(trial, nodes))


def check_before_start(
    config: StudyConfig, address: str | None, found: Survey | None = None
) -> None:
    """Refuse what can be refused before Ray is started, which takes seconds.

    Args:
        config: of the study.
        address: of a Ray cluster; None where Ray is to be started on this machine.
        found: in the folder of recordings; None where birds are simulated.

    Raises:
        PreflightError: it holds every cause with its remedy.
    """
    if address is None:
        problems = _problems(config, [this_machine()], "this machine")
    else:
        problems = _bad_shares(config)
    failed = [_failed(problems)] if problems else []
    if found is not None and not (listed := check_listing(found)).is_ok:
        failed.append(listed)
    if failed:
        raise PreflightError(failed)


def this_machine() -> Node:
    """CPUs and visible GPUs that Ray will find here, seen without starting it."""
    manager = accelerators.get_accelerator_manager_for_resource("GPU")
    gpus = manager.get_current_node_num_accelerators() if manager else 0
    visible = manager.get_current_process_visible_accelerator_ids() if manager else None
    if visible is not None:
        gpus = min(gpus, len(visible))
    return Node("this machine", float(os.cpu_count() or 1), float(gpus))


def _failed(problems: Sequence[Problem]) -> Check:
    causes = " ".join(cause for cause, _ in problems)
    remedies = " ".join(dict.fromkeys(remedy for _, remedy in problems))
    return Check("resources", False, causes, remedies)


def _problems(config: StudyConfig, nodes: Sequence[Node], where: str) -> list[Problem]:
    misfits = [_misfit(demand, nodes, where) for demand in demands(config)]
    return [*_bad_shares(config), *filter(None, misfits)]


def _misfit(demand: Demand, nodes: Sequence[Node], where: str) -> Problem | None:
    """Say what fits on no node, and the remedy; None where some node holds the work."""
    if any(node.holds(demand.cpus, demand.gpus) for node in nodes):
        return None
    n_there = sum(node.is_there for node in nodes)
    among = f"no node of {where}"
    if n_there < len(nodes):
        among += ", nor any that its autoscaler may start,"
    most_cpus = max((node.cpus for node in nodes), default=0.0)
    most_gpus = max((node.gpus for node in nodes), default=0.0)
    for setting, kind, amount, most in (
        (demand.cpu_setting, "CPU", demand.cpus, most_cpus),
        (demand.gpu_setting, "GPU", demand.gpus, most_gpus),
    ):
        if amount > most:
            asked = (
                f"resources.{setting} is {amount:g}" if setting else f"{demand.noun} takes 1 CPU"
            )
            cause = f"{asked}, but {among} has more than {most:g} {kind}s ({n_there} nodes)."
            return cause, _less(setting, kind, most)
    best = max((n for n in nodes if n.gpus >= demand.gpus), key=lambda n: n.cpus)
    cause = (
        f"{demand.noun[0].upper()}{demand.noun[1:]} takes {demand.cpus:g} CPUs and "
        f"{demand.gpus:g} GPUs together, but {among} has both: of those with GPUs, {best.name} has "
        f"the most CPUs, {best.cpus:g} ({n_there} nodes)."
    )
    if demand.cpu_setting and best.cpus >= 1:
        return cause, _less(demand.cpu_setting, "CPU", best.cpus)
    return (
        cause,
        "Offer CPUs on the GPU nodes (ray start --num-cpus), or set "
        f"resources.{demand.gpu_setting}=0.",
    )


def _less(setting: str, kind: str, most: float) -> str:
    if kind == "CPU" and most < 1:
        return "Start a node that offers CPUs (ray status shows what there is), then try again."
    remedy = (
        f"Set resources.{setting}={int(most)}, or connect to a cluster that has more (--address)."
    )
    if kind == "GPU" and most == 0:
        remedy += " A study on CPUs wants small nets: --preset demo."
    return remedy


def _bad_shares(config: StudyConfig) -> list[Problem]:
    """Fractions of a GPU that leave much of it idle, each with fractions that do not."""
    problems = []
    for demand in demands(config):
        setting, share = f"resources.{demand.gpu_setting}", demand.gpus
        if not 0 < share < 1:
            continue
        if share < SMALLEST_SHARE:
            cause = f"{setting} is {share:g}, below the least that Ray counts."
            problems.append((cause, f"Set {setting}={SMALLEST_SHARE:g} or more."))
            continue
        n = math.floor(1 / share + ROUNDING)
        idle = 1 - n * share
        if idle > IDLE_ALLOWED + ROUNDING:
            holds = "one such piece" if n == 1 else f"{n} such pieces"
            cause = (
                f"{setting} is {share:g}: a GPU would hold {holds} of work, and {idle:.0%} of it "
                "would lie idle."
            )
            problems.append((cause, f"Set {setting} to {_share_of(n + 1)} or {_share_of(n)}."))
    return problems


def _share_of(n: int) -> str:
    """1/n, rounded down to what Ray counts."""
    return f"{math.floor(1 / n / SMALLEST_SHARE + ROUNDING) * SMALLEST_SHARE:.4g}"


def _idle_gpus(trial: Demand, nodes: Sequence[Node]) -> str:
    """A hint where CPUs run out before GPUs do; "" where they do not."""
    for node in nodes if trial.gpus else ():
        by_gpus = node.n_on_gpus(trial.gpus)
        by_cpus = math.floor(node.cpus / trial.cpus + ROUNDING)
        if 0 < by_cpus < by_gpus:
            return (
                f"{node.name} has CPUs for {by_cpus} trials at once and GPUs for {by_gpus}: a "
                "lower resources.cpus_per_trial, or a higher gpus_per_trial, would use all of both."
            )
    return ""
