"""A finished study, as its run folder tells it."""

import dataclasses
import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from data_io.aviary.truth import AGES_FILE, SOUNDS_FILE
from data_io.files import BrokenSealError, digest, read_json
from data_io.recordings.table import Recordings
from data_io.store import read_recordings
from models.hmm import HmmParams
from study.base.errors import REFUSED, StudyError
from study.base.ledger import not_done
from study.base.paths import RunPaths
from study.config.reader import ConfigError, config_of
from study.config.tree import StudyConfig
from study.how_much.truth import TruthFiles

LATENTS = "latents"  # stage
OF_ANOTHER = "is of other recordings or settings than the study is now"


class NotFinishedError(StudyError):
    """There is no finished study with latents in the folder."""

    exit_code = REFUSED


@dataclass(frozen=True)
class Finished:
    """A finished study.

    Attributes:
        paths: of its run folder.
        config: that made it.
        recordings: that it used.
        depends_on: hashes of the latents, and of the truth where somebody knows it.
        truth: of its simulated birds; None where nobody knows it.
    """

    paths: RunPaths
    config: StudyConfig
    recordings: Recordings
    depends_on: list[str]
    truth: TruthFiles | None


def open_study(folder: Path) -> Finished:
    """Read a run folder.

    Raises:
        NotFinishedError: it is none, its study is not finished or has no latents, a record was
            altered, or another version wrote it.
    """
    paths = RunPaths(folder)
    try:
        facts = read_json(paths.study) if folder.is_dir() else None
        wanted = {} if facts is None else facts["wanted"]
        records = {name: read_json(paths.stages / f"{name}.json") for name in wanted}
    except BrokenSealError as error:
        raise NotFinishedError(str(error)) from error
    if facts is None:
        raise NotFinishedError(
            f"{folder} is not the run folder of a study: it holds no study.json. Give a folder "
            "that a study wrote to, for instance runs/demo."
        )
    again = "Give its own command again: it goes on from there."
    latents = records.get(LATENTS)
    if latents is None or not paths.latents.is_dir():
        raise NotFinishedError(f"The study in {folder} has no latents. {again}")
    # study.json holds the settings of the last start, and the records may be of one before it.
    if left := not_done(wanted, {name: one["key"] for name, one in records.items() if one}):
        raise NotFinishedError(
            f"The study in {folder} is not finished: {', '.join(left)} are not done, or not with "
            f"the settings in study.json. {again}"
        )
    try:
        config = config_of(facts["config"])
    except ConfigError as error:
        raise NotFinishedError(
            f"Another version made the study in {folder} ({error}) Give its own command again: "
            "this version then does what it does otherwise."
        ) from error
    data = Path(facts["data_dir"])
    depends_on, truth = [latents["digest"]], None
    tables = [data / SOUNDS_FILE, data / AGES_FILE]
    if all(path.is_file() for path in tables):
        frame_s, snippets = config.spectrogram.frame_s, config.snippets
        truth = TruthFiles(data, snippets.n_frames * frame_s, snippets.hop * frame_s)
        depends_on += [hashlib.sha256(path.read_bytes()).hexdigest() for path in tables]
    return Finished(paths, config, read_recordings(paths.recordings).used, depends_on, truth)


def answered_for(latents_digest: str, hmm: HmmParams) -> str:
    """Hash of what an answer is of: latents, and how HMMs are fitted to them."""
    return digest([latents_digest, dataclasses.asdict(hmm)])


def of_another_study(paths: RunPaths, latents_digest: str, hmm: HmmParams) -> str:
    """Say that the answer in a run folder is not of its study; "" where it is, or there is none."""
    try:
        answer = read_json(paths.how_much_files)
    except BrokenSealError:
        return ""  # verify names it
    of = None if answer is None else answer.get("of")  # version 0.11 did not write it
    if of is None or of == answered_for(latents_digest, hmm):
        return ""
    return OF_ANOTHER


def not_of_study(paths: RunPaths) -> str:
    """As `of_another_study`, of a study as its run folder tells it; "" where it does not."""
    with suppress(BrokenSealError, ConfigError, OSError):  # named elsewhere
        study, latents = (read_json(p) for p in (paths.study, paths.stages / f"{LATENTS}.json"))
        if study is not None and latents is not None:
            return of_another_study(paths, latents["digest"], config_of(study["config"]).hmm)
    return ""
