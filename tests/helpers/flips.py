"""One bit of one file of a run folder is flipped, and the same command is given again."""

import json
import os
import random
import re
import shutil
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from study.context import Stage
from study.search.trial_folder import TrialFolder
from tests.helpers.inline_ray import forked, inline_command
from tests.helpers.memory_mlflow import MemoryMlflow
from tests.helpers.remedies import RESTORE, follow, is_refusal, names, sentences
from tests.helpers.same_results import same_results
from tests.helpers.tiny_study import TinyStudy, twice

# No result and no record: altered, it may stay so, since no number comes of it.
MAY_STAY = ("owner.json", "optuna.log", ".lock")


def stopped_before(stage: str) -> mock._patch:
    """In this block a study ends, as by Ctrl-C, where the stage would begin."""
    do = Stage.do

    def stopped(self: Stage, study: object) -> None:
        if self.name == stage:
            raise KeyboardInterrupt
        do(self, study)  # type: ignore[arg-type]

    return mock.patch.object(Stage, "do", stopped)


def stopped_in_trial(name: str, report: int) -> mock._patch:
    """In this block a study ends when a trial has written a checkpoint."""
    save = TrialFolder.save

    def stopped(self: TrialFolder, number: int, *words: object) -> None:
        save(self, number, *words)  # type: ignore[arg-type]
        if self.path.name == name and number == report:
            raise KeyboardInterrupt

    return mock.patch.object(TrialFolder, "save", stopped)


def stopped_in_hmms() -> mock._patch:
    """In this block a study ends when all entries of the journal are written."""
    return mock.patch("study.hmms.stage._write_models", side_effect=KeyboardInterrupt)


MOMENTS: dict[str, Callable[[], mock._patch]] = {
    "in the trials": lambda: stopped_in_trial("trial-001", 2),
    "before the latents": lambda: stopped_before("latents"),
    "in the HMMs": stopped_in_hmms,
    "before the songs": lambda: stopped_before("songs"),
    "before the report": lambda: stopped_before("report"),
}
FINISHED = "finished"


def kind_of(name: str) -> str:
    """The kind of a file, from its name in the run folder: numbers, birds and hashes left out."""
    name = re.sub(r"(trial|checkpoint|part)-\d+", r"\1-*", name)
    name = re.sub(r"-seed\d+", "-seed*", name)
    name = re.sub(r"[0-9a-f]{16,}", "*", name)
    name = re.sub(r"(bird|age)=[^/]+", r"\1=*", name)
    name = re.sub(r"^(hmm|songs|data)/[^/]+/[^/]+(?=/)", r"\1/*/*", name)
    name = re.sub(r"^(hmm|\.hmm/\*/[^/]+)/([^/]+)/[^/]+(?=\.)", r"\1/*/*", name)
    return re.sub(r"[^/]*\.(wav|txt)$", r"*.\1", name) if name.startswith("data/") else name


@dataclass
class Tally:
    """What came of the flips of one kind of file.

    Attributes:
        n: flips.
        healed: the file was named or written anew, and the results are equal.
        harmless: nothing uses the file, all others are equal, and ``verify`` names it.
        refused: the command ended with a sentence that names the file and a remedy.
        remedied: of these, those whose remedy was followed and gave equal results.
        wrong: all else, in words.
        said: the first sentence.
    """

    n: int = 0
    healed: int = 0
    harmless: int = 0
    refused: int = 0
    remedied: int = 0
    wrong: list[str] = field(default_factory=list)
    said: str = ""


class Flips:
    """A tiny study, finished and stopped at several moments, whose files are flipped.

    Args:
        folder: all is below it; it is made anew.
        moments: names of `MOMENTS`; the finished study is always among them.
    """

    def __init__(self, folder: Path, moments: tuple[str, ...] = tuple(MOMENTS)):
        shutil.rmtree(folder, ignore_errors=True)
        self.folder = folder
        self.study = TinyStudy(folder / "now")
        self._kept: dict[str, tuple[Path, MemoryMlflow]] = {}
        for name in moments:
            with MOMENTS[name]():
                code, text = self.study.command()
            assert code == 130, text
            self._keep(name)
        code, text = self.study.command()
        assert code == 0, text
        self._keep(FINISHED)

    def _keep(self, moment: str) -> None:
        kept = self.folder / moment
        shutil.copytree(self.study.folder, kept)
        self._kept[moment] = kept, self.study.mlflow_now()

    def kinds(self) -> dict[str, list[tuple[str, str]]]:
        """Moment and name of every file that there is, by kind."""
        found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for moment, (kept, _) in self._kept.items():
            for path in sorted(kept.rglob("*")):
                name = path.relative_to(kept).as_posix()
                if path.is_file() and path.stat().st_size and path.name != ".lock":
                    found[kind_of(name.removeprefix("run/"))].append((moment, name))
        return dict(sorted(found.items()))

    def flip(self, kind: str, n: int, seed: int = 0) -> Tally:
        """Flip ``n`` bits of files of a kind, one at a time: at each moment, then when finished."""
        files: dict[str, list[str]] = defaultdict(list)
        for moment, name in self.kinds()[kind]:
            files[moment].append(name)
        tally = Tally()
        for i in range(n):
            # To go on from a moment takes seconds, to look at a finished study takes none.
            is_last = i >= len(files) and FINISHED in files
            moment = FINISHED if is_last else list(files)[i % len(files)]
            rng = random.Random(f"{seed} {kind} {i}")  # noqa: S311
            self._one(moment, rng.choice(files[moment]), rng, tally)
        return tally

    def _one(self, moment: str, name: str, rng: random.Random, tally: Tally) -> None:
        self.set_back(moment)
        path = self.study.folder / name
        place = flip_bit(path, rng)
        altered = path.read_bytes()
        tally.n += 1
        what = f"{moment}, {name}, bit {place}"
        code, text, faults = self._again(moment, path, altered)
        if code == 0 and not faults:
            stays = path.exists() and path.read_bytes() == altered
            is_named = names(text, path)
            tally.healed += is_named or not stays
            tally.harmless += stays and not is_named
        elif code in (1, 2) and not faults and is_refusal(text, path):
            tally.refused += 1
            self._follow(moment, path, text, what, tally)
        else:
            tally.wrong.append(f"{what}: exit {code}, differs: {faults[:4]}, {text[-500:]!r}")
        if not tally.said:
            tally.said = next((line for line in sentences(text) if names(line, path)), "")

    def _may_stay(self, name: str) -> bool:
        return name.endswith(MAY_STAY) or not name.startswith("run/")

    def _follow(self, moment: str, path: Path, text: str, what: str, tally: Tally) -> None:
        """Do what a refusal says, and give the same command again."""
        error = sentences(text)[-1]
        if not follow(error):
            assert RESTORE.search(error), error
            original = self._kept[moment][0] / path.relative_to(self.study.folder)
            shutil.copy2(original, path)
        code, text, faults = self._again(moment)
        if code == 0 and not faults:
            tally.remedied += 1
        else:
            tally.wrong.append(f"{what}: after its remedy exit {code}, {faults[:4]}, {text[-500:]}")

    def _again(
        self, moment: str, path: Path | None = None, altered: bytes = b""
    ) -> tuple[int | None, str, list[str]]:
        """Give the command in a process of its own: exit code, what it said, what is not equal.

        The file at ``path`` may stay ``altered`` where nothing uses it, and ``verify`` names it.
        """
        answer = self.folder / "answer.json"
        answer.unlink(missing_ok=True)
        finished = self._kept[FINISHED][0] / "run"
        mlflow = self._kept[moment][1]  # the child has a copy

        def work() -> None:
            try:
                code, text = self.study.command(mlflow=mlflow)
                faults = []
                if code == 0 and path and path.exists() and path.read_bytes() == altered:
                    name = path.relative_to(self.study.folder)
                    if not self._may_stay(name.as_posix()):
                        found = inline_command(["verify", self.study.out])
                        if found[0] == 0 or not names(found[1], path):
                            faults.append(f"verify does not name {name}: {found}")
                    with kept_whole(path, self._kept[moment][0] / name):
                        faults += same_results(self.study.out, finished)
                elif code == 0:
                    faults += same_results(self.study.out, finished)
                faults += [f"MLflow has {one} twice" for one in twice(mlflow)]
            except BaseException:
                code, text, faults = None, traceback.format_exc(), []
            answer.write_text(json.dumps([code, text, faults]), "utf-8")

        forked(work)
        return tuple(json.loads(answer.read_text("utf-8"))) if answer.exists() else (None, "", [])

    def set_back(self, moment: str) -> None:
        """Put the study back to what it was at a moment."""
        shutil.rmtree(self.study.folder)
        shutil.copytree(self._kept[moment][0], self.study.folder)


@contextmanager
def kept_whole(path: Path, original: Path) -> Iterator[None]:
    """In this block a file is as it was before it was altered."""
    altered = path.read_bytes()
    path.write_bytes(original.read_bytes())
    yield
    path.write_bytes(altered)


def flip_bit(path: Path, rng: random.Random) -> str:
    """Flip one bit of a file, whose times stay; give its place."""
    facts = path.stat()
    content = bytearray(path.read_bytes())
    place, bit = rng.randrange(len(content)), rng.randrange(8)
    content[place] ^= 1 << bit
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    return f"{place}.{bit}"
