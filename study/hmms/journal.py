"""The finished tasks of the HMM stage on disk: a study that was killed goes on from them.

One entry for each kind of task, and bird and age (or bird): a sealed JSON file, and the model
beside it as .npz with a hash in the JSON. The JSON is written last and makes the entry count. The
folder is named by a hash of all that the searches depend on.
"""

import dataclasses
import errno
import json
from contextlib import suppress
from pathlib import Path

from data_io.files import digest, kept_for, make_folder, read_json, remove_folder, write_json
from data_io.recordings.table import BirdAge
from data_io.song_models import load_song_model, save_song_model
from data_io.store import BrokenFileError
from models.hmm import HmmParams
from study import __version__
from study.base.console import Console
from study.base.paths import RunPaths
from study.hmms.tables import Searched


def journal_folder(paths: RunPaths) -> Path:
    """Folder of the journals of a run folder."""
    return paths.root / ".hmm"


def journal_key(params: HmmParams, seed: int, latents_digest: str) -> str:
    """Hash of all that the fits of a study depend on.

    Args:
        params: of the fits.
        seed: of the study.
        latents_digest: hash that the stage of the latents left.
    """
    plain = dataclasses.asdict(params)
    content = {"hmm": plain, "seed": seed, "latents": latents_digest, "version": __version__}
    return digest(content)[:32]


def remove_journal(paths: RunPaths) -> None:
    """Remove what is no longer needed: the stage's outputs are complete."""
    with suppress(OSError):  # it is not needed, and does no harm
        remove_folder(journal_folder(paths))


class Journal:
    """The entries of one key and kind of task.

    Args:
        folder: of the journals; those of another key in it are removed.
        key: as `journal_key` gives it.
        console: told of broken files.
        kind: of the tasks whose results it holds.
    """

    def __init__(self, folder: Path, key: str, console: Console, kind: str = "searches"):
        self._root = kept_for(folder, key) / kind
        self._console = console
        make_folder(self._root)

    def save(self, bird_age: BirdAge, searched: Searched) -> None:
        """Write an entry; it counts once this has come back."""
        bird, age = bird_age
        has_model = searched.model is not None
        content = {"bird": bird, "age": age, "fits": searched.fits, "selected": searched.selected,
                   "has_model": has_model}  # fmt: skip
        # As text: json is twice as fast on one line.
        record = {"entry": json.dumps(content, allow_nan=False)}
        if searched.model is None:
            write_json(self._path(bird_age), record)
        else:
            save_song_model(self._root, bird, age, searched.model, record)

    def load(self, bird_age: BirdAge) -> Searched | None:
        """The entry of a bird and age; None where there is none.

        A broken one is named, removed, and counts as not there: its search is done again.

        Raises:
            OSError: the disk does not give it; the error names it, and nothing is removed.
        """
        path = self._path(bird_age)
        if not path.exists():
            return None
        try:
            return self._read(path, bird_age)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
                raise
            self._console.note(f"{path} is broken: what it held is done again ({error})")
            path.unlink(missing_ok=True)  # first: it says that the entry is there
            path.with_name(f"{bird_age[1]}.npz").unlink(missing_ok=True)
            return None

    def read(self, bird_age: BirdAge) -> Searched:
        """An entry that was there before.

        Raises:
            BrokenFileError: it is not there any more, or broken.
        """
        searched = self.load(bird_age)
        if searched is None:
            raise BrokenFileError(
                f"{self._path(bird_age)} was removed or broken while the study ran. Run the "
                "same command again: what it held is done anew, all else is kept."
            )
        return searched

    def _read(self, path: Path, bird_age: BirdAge) -> Searched:
        record = read_json(path)
        if record is None:
            raise FileNotFoundError("it is gone")
        content = json.loads(record["entry"])
        if (content["bird"], content["age"]) != bird_age:
            raise ValueError(f"it is of {content['bird']} at {content['age']}")
        model = load_song_model(self._root, *bird_age)[0] if content["has_model"] else None
        return Searched(content["fits"], content["selected"], model)

    def _path(self, bird_age: BirdAge) -> Path:
        bird, age = bird_age
        return self._root / bird / f"{age}.json"
