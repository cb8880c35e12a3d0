"""All file names of a study, in one place."""

import re
from dataclasses import dataclass
from pathlib import Path

from data_io.files import found

ROOT = Path(__file__).resolve().parent.parent.parent
WHITENING = "_whitening.json"
REPEATS = "repeats"  # in the folder of a search
SEARCH_BEFORE = "search-before-"  # and a number
_SQLITE = "sqlite:///"


@dataclass(frozen=True)
class Where:
    """The places where a study runs and writes; they change no number.

    Attributes:
        out: run folder.
        address: of a Ray cluster; None starts Ray on this machine.
        tracking_uri: of MLflow.
    """

    out: Path
    address: str | None
    tracking_uri: str


@dataclass(frozen=True)
class RunPaths:
    """The run folder of one study."""

    root: Path

    @property
    def simulated_birds(self) -> Path:
        """Recordings of simulated birds, in the input layout."""
        return self.root / "simulated_birds"

    @property
    def recordings(self) -> Path:
        """Table of recordings, one row per file found."""
        return self.root / "recordings.parquet"

    @property
    def labels(self) -> Path:
        """Labels that people gave to the recordings, one row each."""
        return self.root / "labels.parquet"

    @property
    def label_problems(self) -> Path:
        """Files beside the recordings whose labels could not be read, or not all; and why."""
        return self.root / "label_problems.parquet"

    @property
    def reading(self) -> Path:
        """Birds and ages that were read, while others are still to be."""
        return self.root / ".reading"

    @property
    def spectrograms(self) -> Path:
        """One Parquet file per bird and age."""
        return self.root / "spectrograms"

    @property
    def reference(self) -> Path:
        """The reference that measures all trials."""
        return self.root / "reference.npz"

    @property
    def search(self) -> Path:
        """One folder per trial: checkpoints to go on from after a kill, and the decoder."""
        return self.root / "search"

    @property
    def searches_before(self) -> list[Path]:
        """Folders of searches of other settings that were set aside, by number."""
        every = found(self.root, f"{SEARCH_BEFORE}*")
        numbers = {path: path.name.removeprefix(SEARCH_BEFORE) for path in every}
        return sorted((path for path, n in numbers.items() if n.isdecimal() and path.is_dir()),
                      key=lambda path: int(numbers[path]))  # fmt: skip

    @property
    def repeats_folder(self) -> Path:
        """The same folders for trials that were trained again with fresh seeds."""
        return self.search / REPEATS

    @property
    def trials(self) -> Path:
        """Table of trials, one row per trial."""
        return self.root / "trials.parquet"

    @property
    def trial_reports(self) -> Path:
        """Table of reports, one row per report of a trial."""
        return self.root / "trial_reports.parquet"

    @property
    def trial_by_bird_age(self) -> Path:
        """Table of held-out metrics by trial, bird and age, at the report of the kept decoder."""
        return self.root / "trial_by_bird_age.parquet"

    @property
    def repeats(self) -> Path:
        """Table of repeats, one row per seed of each candidate for the best trial."""
        return self.root / "repeats.parquet"

    @property
    def selection(self) -> Path:
        """Record of the choice of the best trial."""
        return self.root / "selection.json"

    @property
    def best_held_out(self) -> Path:
        """Figures of the best decoder on both held-out sides of the split."""
        return self.root / "best_held_out.json"

    @property
    def best_by_bird_age(self) -> Path:
        """The same figures for each bird and age, one row for each and side."""
        return self.root / "best_by_bird_age.parquet"

    @property
    def best(self) -> Path:
        """Encoder and generator of the best trial."""
        return self.root / "best"

    @property
    def decoders(self) -> Path:
        """Encoders and generators of birds, or birds and ages, that have their own."""
        return self.root / "decoders"

    @property
    def decoder_table(self) -> Path:
        """Table of decoders, one row each; it includes decoders that could not be trained."""
        return self.root / "decoders.parquet"

    @property
    def decoder_reports(self) -> Path:
        """One row per report of a training in ``decoder_table``."""
        return self.root / "decoder_reports.parquet"

    @property
    def trial_figures(self) -> Path:
        """One picture per trial that left a decoder."""
        return self.root / "trials"

    def trial_figure(self, trial_id: str) -> Path:
        """The picture of one trial."""
        return self.trial_figures / f"{trial_id}.png"

    @property
    def latents(self) -> Path:
        """One Parquet file per bird and age."""
        return self.root / "latents"

    @property
    def whitening(self) -> Path:
        """Mean and spread of the latents; the underscore hides it from readers of the folder.

        If there are several decoders, each has a file of this name: study/decoders/scope.py.
        """
        return self.latents / WHITENING

    @property
    def hmm_grid(self) -> Path:
        """Table of HMM fits, one row each."""
        return self.root / "hmm_grid.parquet"

    @property
    def hmm_selected(self) -> Path:
        """Table of selected HMMs, one row per bird and age."""
        return self.root / "hmm_selected.parquet"

    @property
    def hmm_ages(self) -> Path:
        """What can be compared between the ages of a bird, one row per bird and age."""
        return self.root / "hmm_ages.parquet"

    @property
    def hmm_shared(self) -> Path:
        """States that the ages of a bird share beside those of each alone, one row per bird."""
        return self.root / "hmm_shared.parquet"

    @property
    def hmm(self) -> Path:
        """The selected HMMs (song models)."""
        return self.root / "hmm"

    @property
    def hmm_checks(self) -> Path:
        """Table of checks of the song models, one row per bird, age and check."""
        return self.root / "hmm_checks.parquet"

    @property
    def hmm_check_quantiles(self) -> Path:
        """What of real, reconstructed and sampled songs was compared, as quantiles."""
        return self.root / "hmm_check_quantiles.parquet"

    @property
    def songs(self) -> Path:
        """Songs to see and hear: real, inverted, reconstructed and sampled."""
        return self.root / "songs"

    @property
    def report(self) -> Path:
        """The page to read."""
        return self.root / "report.html"

    @property
    def how_much(self) -> Path:
        """How much song each bird and age needs: another command makes it, of a finished study."""
        return self.root / "how_much_song"

    @property
    def how_much_files(self) -> Path:
        """Record of the files of that answer."""
        return self.how_much / ".files.json"

    @property
    def study(self) -> Path:
        """Configuration, versions and hashes that made the study's results."""
        return self.root / "study.json"

    @property
    def stage_of(self) -> dict[str, str]:
        """The stage that writes a file or folder, by its name in the run folder."""
        of = {
            "simulated birds": [self.simulated_birds],
            "recordings": [self.recordings, self.spectrograms],
            "labels": [self.labels, self.label_problems],
            "trials": [
                self.reference, self.trials, self.trial_reports, self.trial_by_bird_age,
                self.repeats, self.selection, self.best, self.best_held_out, self.best_by_bird_age,
            ],
            "trial figures": [self.trial_figures],
            "decoders": [self.decoders, self.decoder_table, self.decoder_reports],
            "latents": [self.latents],
            "hmm": [self.hmm_grid, self.hmm_selected, self.hmm_ages, self.hmm_shared, self.hmm],
            "checks": [self.hmm_checks, self.hmm_check_quantiles],
            "songs": [self.songs],
            "report": [self.report],
        }  # fmt: skip
        return {path.name: stage for stage, written in of.items() for path in written}

    @property
    def tracking(self) -> Path:
        """The list of all that was sent: one small file for each MLflow and experiment."""
        return self.root / ".tracking"

    @property
    def stages(self) -> Path:
        """Records of the stages that are done."""
        return self.root / ".stages"


def sqlite_file(uri: str) -> Path | None:
    """The SQLite file that a tracking URI names; None if it names a server."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def absolute_uri(uri: str) -> str:
    """The URI with an absolute path: a relative SQLite path means other files elsewhere."""
    path = sqlite_file(uri)
    return uri if path is None else f"{_SQLITE}{path.absolute()}"


def uri_for_mlflow(uri: str) -> str:
    """The URI as MLflow wants it: in a SQLite path it takes %20 for a space, and ? for an end."""
    path = sqlite_file(uri)
    if path is None or not {"%", "?"} & set(str(path)):
        return uri
    encoded = str(path).replace("%", "%25").replace("?", "%3F")
    # By its short name MLflow would also make a folder of the encoded name.
    return f"sqlite+pysqlite:///{encoded}"


def is_checkout() -> bool:
    """Whether the code lies in a checkout or a copy of one, not among installed packages.

    `ray up` copies requirements.txt with the packages; a wheel leaves it out.
    """
    return (ROOT / "requirements.txt").is_file()


def default_folder() -> Path:
    """Folder of runs/ and mlflow/ where none is given: the checkout; installed, the current one."""
    return ROOT if is_checkout() else Path.cwd()


def default_tracking_uri() -> str:
    """SQLite inside the project; installed, inside the current folder."""
    return f"{_SQLITE}{default_folder() / 'mlflow' / 'mlflow.db'}"


def artifact_location(uri: str, experiment: str) -> str | None:
    """Folder of an experiment's artefacts: artifacts/ beside the SQLite file.

    None for a server, which has its own place. For a file, MLflow would take the current folder.
    """
    path = sqlite_file(uri)
    return None if path is None else (path.parent / "artifacts" / experiment).as_uri()


def without_password(text: str) -> str:
    """A text without the names and passwords of its URIs, to be shown and stored."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)
