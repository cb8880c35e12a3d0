"""The GPUs of a node, its driver and its torch, and whether they go together.

A driver that is too old for torch's CUDA, and a card that torch was not built for, both look like
no GPU at all to ``torch.cuda.is_available()``, or fail at the first kernel. NVIDIA's library tells
them apart, whatever ``CUDA_VISIBLE_DEVICES`` says. torch is imported when it is asked, since that
takes seconds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pynvml

DRIVER_FILE = Path("/proc/driver/nvidia/version")
# Oldest driver by major version of CUDA, from NVIDIA's "CUDA Compatibility".
OLDEST_DRIVER = {12: 525, 13: 580}
# Builds of torch 2.13: CUDA's major version, and the architectures (PYTORCH_RELEASES_CODE_CC in
# torch/cuda/__init__.py, x86_64). Those for older cards come first.
BUILDS = {
    "cu126": (12, (50, 60, 70, 75, 80, 86, 90)),
    "cu129": (12, (75, 80, 86, 90, 100, 120)),
    "cu130": (13, (75, 80, 86, 90, 100, 120)),
}


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        name: of the model.
        capability: ten times its compute capability: 75 is 7.5.
    """

    name: str
    capability: int

    def __str__(self) -> str:
        return f"{self.name} ({self.capability / 10:.1f})"


@dataclass(frozen=True)
class GpuFacts:
    """What is installed on a node for its GPUs.

    Attributes:
        torch: its version.
        cuda: version that torch was built for, such as "13.0"; empty where for none.
        architectures: that torch was built for, such as "sm_75".
        driver: version of NVIDIA's driver; empty where none is loaded.
        driver_cuda: newest CUDA that the driver knows, such as "12.2"; empty where it gives no
            answer.
        cards: GPUs that the driver knows.
        error: why NVIDIA's library gives no answer; empty where it does.
    """

    torch: str
    cuda: str
    architectures: tuple[str, ...]
    driver: str
    driver_cuda: str
    cards: tuple[Card, ...]
    error: str = ""

    @property
    def in_words(self) -> str:
        """All of it in a line."""
        cards = _in_words(self.cards) or "none"
        return (
            f"driver {self.driver or 'none'} (CUDA {self.driver_cuda or 'unknown'}), torch "
            f"{self.torch} for CUDA {self.cuda} and {' '.join(self.architectures)}, cards: {cards}"
        )


def gpu_facts() -> GpuFacts:
    """Ask torch and NVIDIA's library of this node; needs no GPU from Ray."""
    import torch

    driver, driver_cuda, error = _loaded_driver(), "", ""
    cards: list[Card] = []
    try:
        pynvml.nvmlInit()
        driver = pynvml.nvmlSystemGetDriverVersion()
        known = pynvml.nvmlSystemGetCudaDriverVersion_v2()  # 12020 is 12.2
        driver_cuda = f"{known // 1000}.{known % 1000 // 10}"
        for i in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(i)
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
            cards.append(Card(pynvml.nvmlDeviceGetName(handle), 10 * major + minor))
    except pynvml.NVMLError as raised:
        error = str(raised)
    architectures = tuple(torch.cuda.get_arch_list())
    cuda = torch.version.cuda or ""
    return GpuFacts(
        torch.__version__, cuda, architectures, driver, driver_cuda, tuple(cards), error
    )


def _loaded_driver() -> str:
    """Version of the driver that the kernel has loaded; "" where it has none."""
    if not DRIVER_FILE.exists():
        return ""
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", DRIVER_FILE.read_text("utf-8"))
    return found.group() if found else "unknown"


def gpu_fault(facts: GpuFacts, n_gpus: float) -> tuple[str, str] | None:
    """Cause and remedy where torch cannot use the GPUs; None where it can, or was built for others.

    Args:
        facts: of the node.
        n_gpus: GPUs that Ray gives out there; other cards may be of any age.
    """
    if not facts.cuda:
        return None
    oldest = OLDEST_DRIVER[_major(facts.cuda)]
    if not facts.driver:
        why = f"no NVIDIA driver is loaded: {facts.error}"
        return f"{why} ({facts.in_words})", f"Install driver {oldest} or newer"
    if facts.error:
        return (
            f"NVIDIA's library gives no answer: {facts.error} ({facts.in_words})",
            "Run nvidia-smi there: after an update of the driver, restart the machine; in a "
            "container, give it the GPUs (docker --gpus all, apptainer --nv)",
        )
    causes = []
    is_old = _major(facts.driver_cuda) < _major(facts.cuda)
    if is_old:
        causes.append(f"the driver is too old for torch's CUDA {facts.cuda}")
    foreign = [card for card in facts.cards if not _has_code_for(card, facts.architectures)]
    if is_foreign := len(facts.cards) - len(foreign) < min(n_gpus, len(facts.cards)):
        causes.append(f"torch was not built for {_in_words(foreign)}")
    if not causes:
        return None
    remedy = _other_build(facts)
    if is_old and not is_foreign:
        remedy = f"install driver {oldest} or newer, or {remedy}"
    return f"{' and '.join(causes)} ({facts.in_words})", f"{remedy[0].upper()}{remedy[1:]}"


def _other_build(facts: GpuFacts) -> str:
    """How to get a build of torch for all cards, for this driver where there is one."""
    version = facts.torch.partition("+")[0]
    builds = [
        (cuda, tag) for tag, (cuda, codes) in BUILDS.items()
        if all(_has_code_for(card, [f"sm_{code}" for code in codes]) for card in facts.cards)
    ]  # fmt: skip
    if not builds:
        return f"take the cards out of the cluster: no build of torch {version} is for all of them"
    mine = _major(facts.driver_cuda)
    cuda, tag = next((build for build in builds if build[0] <= mine), builds[0])
    driver = f" with driver {OLDEST_DRIVER[cuda]} or newer" if cuda > mine else ""
    # With its tag: pip takes any build of this version as installed already where none is named.
    return (
        f"install another build of torch on every node (pip install torch=={version}+{tag} "
        f"--index-url https://download.pytorch.org/whl/{tag}){driver}"
    )


def _has_code_for(card: Card, architectures: Sequence[str]) -> bool:
    """Whether one of the architectures runs on a card, as CUDA's rules say.

    sm_86 runs on 8.6 and 8.9, sm_90a on 9.0 alone; compute_80 is compiled for what is newer.
    """
    for architecture in architectures:
        kind, _, number = architecture.partition("_")
        code = int(number.rstrip("af"))
        if code == card.capability:
            return True
        is_near = kind == "compute" or code // 10 == card.capability // 10
        if is_near and code < card.capability and number.isdigit():
            return True
    return False


def _in_words(cards: Sequence[Card]) -> str:
    return ", ".join(dict.fromkeys(map(str, cards)))


def _major(version: str) -> int:
    return int(version.partition(".")[0])
