"""Sends to MLflow what a picture shows and MLflow has not: each piece once, in order."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from models.mdgan.tensor_files import file_sha256
from study.tracking.client import Mlflow
from study.tracking.errors import RefusedError, verdict
from study.tracking.model_registry import MODEL_TAG
from study.tracking.picture import (
    Measured,
    RunPicture,
    param_texts,
    tag_texts,
    to_ms,
)
from study.tracking.sent import Sent, SentRun


@dataclass(frozen=True)
class _Piece:
    """One call.

    Attributes:
        what: it sends, in words.
        send: does it; doing it twice is the same as doing it once.
        passed: notes that it need not be done again.
    """

    what: str
    send: Callable[[], None]
    passed: Callable[[], None]


class Differences:
    """Compares pictures with what was sent, and sends the rest.

    Args:
        mlflow: is called.
        sent: what was sent; kept up to date.
        say: shows one line.
    """

    def __init__(self, mlflow: Mlflow, sent: Sent, say: Callable[[str], None]):
        self._mlflow = mlflow
        self._sent = sent
        self._say = say
        self._said: set[str] = set()
        self._asked: set[str] = set()  # ids of runs whose last step is known for sure

    def send(self, picture: RunPicture, is_put_off: Callable[[], bool] = lambda: False) -> bool:
        """Send what of a picture MLflow has not.

        Args:
            picture: of a run.
            is_put_off: asked after each piece whether what is left may wait.

        Returns:
            Whether all of it was sent.

        Raises:
            AwayError: not now.
            RefusedError: a piece of it never.
        """
        for piece in self._pieces(picture):
            try:
                piece.send()
            except Exception as error:
                found = verdict(error)
                if isinstance(found, RefusedError):
                    found.pass_over = partial(self._pass_over, picture, piece)
                raise found from error
            with self._sent.lock:
                piece.passed()
                self._sent.changed()
            if is_put_off():
                return False
        return True

    def refuse(self, picture: RunPicture, error: RefusedError) -> str:
        """Leave the refused piece out from now on; give it in words."""
        with self._sent.lock:
            what = error.pass_over() if error.pass_over else "a piece"
        run = self._sent.run(picture.study_run_id, picture.identity)
        if run is not None:
            run.refused.append(f"{what}: {error}")
            with suppress(Exception):  # whether it is there is asked again at the next refusal
                run.is_gone = not self._mlflow.has_run(run.run_id)
        self._sent.changed()
        return f"{what} of {picture.identity.in_words()} (noted in {self._sent.path})"

    def note(self) -> None:
        """Write down what was sent, from time to time."""
        self._sent.write(at_once=False)

    def _pass_over(self, picture: RunPicture, piece: _Piece) -> str:
        piece.passed()
        if self._sent.run(picture.study_run_id, picture.identity) is None:  # it cannot be begun
            self._keep(picture, SentRun(is_gone=True))
        return piece.what

    def _pieces(self, picture: RunPicture) -> Iterator[_Piece]:
        """The calls that are to be made; each is looked for when those before it are done."""
        before = self._sent.run(picture.study_run_id, picture.identity)
        yield from self._beginning(picture)
        run = self._sent.run(picture.study_run_id, picture.identity)
        if run is None:
            return
        if before is None and picture.is_end and not run.is_gone:
            yield from _status(self._mlflow, picture, run)  # cut off, it would say RUNNING
        for pieces in (self._params, self._curve, self._files, self._model, _tags, _status):
            if run.is_gone:
                return
            yield from pieces(self._mlflow, picture, run)
            if self._sent.run(picture.study_run_id, picture.identity) is not run:
                yield from self._pieces(picture)  # it was put away: one is begun anew
                return

    def _beginning(self, picture: RunPicture) -> Iterator[_Piece]:
        is_begun = self._sent.run(picture.study_run_id, picture.identity) is not None
        if is_begun or not picture.name:
            return
        # Tags that it has not are "" here: a repeat of a trial is not the trial.
        found_by = {**vars(picture.identity), "study_run_id": picture.study_run_id}
        tags = {**picture.lineage, **picture.identity.tags(), "study_run_id": picture.study_run_id}
        time_ms = to_ms(time.time() if picture.began_at is None else picture.began_at)

        def begin() -> None:
            run_id = self._mlflow.begin_run(found_by, tag_texts(tags), picture.name, time_ms)
            self._keep(picture, SentRun(run_id))

        yield _Piece("the run", begin, lambda: None)

    def _keep(self, picture: RunPicture, run: SentRun) -> None:
        with self._sent.lock:
            self._sent.studies[picture.study_run_id].runs[picture.identity.key()] = run

    def _params(self, mlflow: Mlflow, picture: RunPicture, run: SentRun) -> Iterator[_Piece]:
        texts = param_texts(picture.params)
        is_other = any(run.params.get(name, text) != text for name, text in texts.items())
        new = {name: text for name, text in texts.items() if name not in run.params}

        def send() -> None:
            nonlocal is_other
            is_other = not mlflow.log_params(run.run_id, new)

        if new and not is_other:
            yield _Piece("parameters", send, lambda: None if is_other else run.params.update(new))
        if is_other:
            # Of a trial whose folder was removed: the one in its place may have other parameters.
            yield self._putting_away(picture, run, "was begun with other parameters")

    def _putting_away(self, picture: RunPicture, run: SentRun, why: str) -> _Piece:
        """Put a run away that is not the one of the picture: nothing in it can be taken back."""
        is_away = False

        def send() -> None:
            nonlocal is_away
            self._mlflow.put_away(run.run_id)
            is_away = True

        def passed() -> None:
            if not is_away:  # MLflow refused it: it would be found again
                run.is_gone = True
                return
            del self._sent.studies[picture.study_run_id].runs[picture.identity.key()]
            self._say(f"MLflow's run {run.run_id} of {picture.identity.in_words()} {why}: it is "
                      "deleted there, and one is begun anew")  # fmt: skip

        return _Piece("the deletion of the run of before", send, passed)

    def _curve(self, mlflow: Mlflow, picture: RunPicture, run: SentRun) -> Iterator[_Piece]:
        first = next(picture.batches(run.step), None)
        if first is not None and run.run_id not in self._asked:

            def ask() -> None:
                # A killed driver may have sent more than it noted. A report that was lost with its
                # checkpoint and made again has another time: to MLflow it would be another row.
                last = mlflow.last_step(run.run_id, first)
                if last is not None and (run.step is None or run.step < last):
                    run.step = last

            yield _Piece("its last step", ask, lambda: self._asked.add(run.run_id))
        if picture.last_step is not None and (run.step or 0) > picture.last_step and picture.name:
            yield self._putting_away(picture, run, "has reports that do not count any more")
            return
        for batch in picture.batches(run.step):
            # Where MLflow refuses one step of several, the others must still come through.
            yield from _steps(mlflow, run, batch)

    def _files(self, mlflow: Mlflow, picture: RunPicture, run: SentRun) -> Iterator[_Piece]:
        for path, folder in picture.files.items():
            try:
                sha256 = file_sha256(path)
            except (FileNotFoundError, PermissionError) as error:
                self._say_once(f"{path} cannot be sent to MLflow's run of "
                               f"{picture.identity.in_words()}: {error.strerror}")  # fmt: skip
                continue
            place = f"{folder}/{path.name}" if folder else path.name
            if run.files.get(place) != sha256:
                yield _Piece(
                    f"the file {place}",
                    partial(mlflow.log_file, run.run_id, path, folder),
                    partial(run.files.update, {place: sha256}),
                )

    def _model(self, mlflow: Mlflow, picture: RunPicture, run: SentRun) -> Iterator[_Piece]:
        model = picture.model
        if model is None or run.model == model.tags[MODEL_TAG]:
            return

        def register() -> None:
            if not mlflow.register(run.run_id, model):
                self._say_once(f"{model.folder} no longer holds the model of "
                               f"{picture.identity.in_words()}: it is not registered")  # fmt: skip

        def passed() -> None:
            # The registry names one version the best: that of another study run is so no more.
            for study in self._sent.studies.values():
                for other in study.runs.values():
                    other.model = ""
            run.model = model.tags[MODEL_TAG]

        yield _Piece("the model", register, passed)

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)


def _steps(mlflow: Mlflow, run: SentRun, batch: dict[int, Measured]) -> Iterator[_Piece]:
    """One call for all steps of a batch, or where that is refused, one for each."""
    is_refused = False

    def send() -> None:
        nonlocal is_refused
        try:
            mlflow.log_metrics(run.run_id, batch)
        except Exception as error:
            if len(batch) == 1 or not isinstance(verdict(error), RefusedError):
                raise
            is_refused = True

    def passed() -> None:
        if not is_refused:
            run.step = max(batch)

    yield _Piece(f"metrics of step {max(batch)}", send, passed)
    if is_refused:
        for step in sorted(batch):
            yield from _steps(mlflow, run, {step: batch[step]})


def _tags(mlflow: Mlflow, picture: RunPicture, run: SentRun) -> Iterator[_Piece]:
    texts = tag_texts(picture.tags)
    new = {name: value for name, value in texts.items() if run.tags.get(name) != value}
    if new:
        yield _Piece("tags", lambda: mlflow.set_tags(run.run_id, new), lambda: run.tags.update(new))


def _status(mlflow: Mlflow, picture: RunPicture, run: SentRun) -> Iterator[_Piece]:
    status = picture.status
    if status is None or run.status == status:
        return
    time_ms = to_ms(time.time() if picture.ended_at is None else picture.ended_at)
    yield _Piece(
        "the status",
        lambda: mlflow.set_status(run.run_id, status, time_ms),
        lambda: setattr(run, "status", status),
    )
