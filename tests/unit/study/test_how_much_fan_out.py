"""The fits of a finished study: what is fitted, what is held out, what is done before."""

from io import StringIO
from types import SimpleNamespace

import numpy as np
import pytest

from data_io.files import read_json, write_json
from data_io.latents import read_latents
from data_io.store import write_recordings
from study.base.console import Console
from study.how_much import fan_out, fit
from study.how_much.answer import answer
from study.how_much.fan_out import FanOut, songs_of
from study.how_much.finished import NotFinishedError, open_study
from tests.helpers.finished_study import B1, B2, finished
from tests.helpers.inline_ray import inline_ray


class Here:
    """The tasks in this process.

    Attributes:
        calls: (fitted, held_out, params, seed, truth) of each task.
    """

    def __init__(self, monkeypatch):
        self.calls = []
        monkeypatch.setattr(fan_out, "fit_task", SimpleNamespace(remote=self._submitted))

    def _submitted(self, *arguments):
        self.calls.append(arguments)
        return fit.fit_task._function(*arguments)

    def run(self, submit, work, on_result, describe):
        for one in work:
            assert describe(one).endswith(",")
            on_result(one, submit(one))


@pytest.fixture
def here(monkeypatch):
    return Here(monkeypatch)


def run(paths, here, subsamples=(0, 1)):
    """Fit; (rows, tasks that ran, what was printed)."""
    here.calls.clear()
    study, text = open_study(paths.root), StringIO()
    songs, left_out = songs_of(study)
    assert not left_out
    rows = FanOut(study, paths.root / "kept", here, Console(text)).run(songs, list(subsamples))
    return rows, list(here.calls), text.getvalue()


def as_fitted(rows):
    """The rows in the order in which their tasks ran: the largest amounts first."""
    return sorted(rows, key=lambda row: (row["bird"], row["halvings"]))


def test_rows_go_from_the_smallest_amount_to_all(tmp_path, here):
    rows, _, _ = run(finished(tmp_path), here)
    told = [(row["bird"], row["halvings"], row["subsample"]) for row in rows]
    of_bird = [(1, 0), (1, 1), (0, 0), (0, 1)]
    assert told == [(bird, *one) for bird in ("b1", "b2") for one in of_bird]


def test_held_out_recordings_are_never_fitted(tmp_path, here):
    paths = finished(tmp_path)
    rows, calls, _ = run(paths, here)
    assert len(rows) == len(calls) == 2 * 2 * 2  # birds, subsamples, amounts
    latents = {bird: read_latents(paths.latents, *bird) for bird in (B1, B2)}
    names = {z.tobytes(): (bird, int(path.split("/")[-1].removesuffix(".wav")))
             for bird, of_bird in latents.items() for path, z in of_bird.items()}  # fmt: skip

    def told(arrays):
        return [names[z.astype(np.float32).tobytes()] for z in arrays]

    for row, (fitted, held_out, _, _, _, truth) in zip(as_fitted(rows), calls, strict=True):
        bird_age = row["bird"], row["age"]
        assert told(held_out) == [(bird_age, 6), (bird_age, 7)]
        assert set(told(fitted)) <= {(bird_age, i) for i in range(5)}
        assert len(told(fitted)) == len(set(told(fitted))) == row["n_recordings"]
        assert row["n_snippets"] == sum(map(len, fitted))
        assert row["sound_minutes"] == pytest.approx(3 * len(fitted) / 60)
        assert row["recorded_minutes"] == pytest.approx(4 * len(fitted) / 60)
        assert row["held_out_snippets"] == [60, 60]
        assert sum(row["held_out_nats"]) / 120 == pytest.approx(row["held_out_log_likelihood"])
        assert truth is None


def test_the_amounts_of_a_subsample_share_their_seed_and_others_have_their_own(tmp_path, here):
    rows, calls, _ = run(finished(tmp_path), here)
    seeds = {}
    for row, call in zip(as_fitted(rows), calls, strict=True):
        seeds.setdefault((row["bird"], row["subsample"]), set()).add(call[3])
    assert all(len(of_subsample) == 1 for of_subsample in seeds.values())
    assert len(set.union(*seeds.values())) == 4


def test_what_was_fitted_before_is_not_fitted_again_and_more_subsamples_are_added(tmp_path, here):
    paths = finished(tmp_path)
    rows, _, _ = run(paths, here)
    again, calls, text = run(paths, here)
    assert calls == []
    assert again == rows
    assert "8 of 8 fits were done before" in text
    more, calls, _ = run(paths, here, (0, 1, 2))
    assert len(calls) == 4
    assert [row for row in more if row["subsample"] < 2] == rows


def test_other_settings_other_latents_and_broken_files_are_fitted_again(tmp_path, here):
    paths = finished(tmp_path)
    rows, _, _ = run(paths, here)
    finished(tmp_path, n_states="[1,3]")
    assert len(run(paths, here)[1]) == 8
    write_json(paths.stages / "latents.json", {"digest": "others", "key": "key of latents"})
    assert len(run(paths, here)[1]) == 8
    finished(tmp_path)
    for file in (tmp_path / "kept").glob("*.json"):
        file.write_text('{"status": ')
    again, calls, text = run(paths, here)
    assert len(calls) == 8
    assert " ".join(text.split()).count("was altered: the fit is done again") == 8
    assert [row["n_states"] for row in again] == [row["n_states"] for row in rows]


def test_too_little_song_is_told_with_the_settings_that_ask_for_more(tmp_path):
    paths = finished(tmp_path, min_snippets=200)
    songs, left_out = songs_of(open_study(paths.root))
    assert songs == []
    assert left_out[B1] == (
        "300 snippets of 5 recordings of the training side cannot be halved, because a model takes "
        "200 snippets and 2 recordings (hmm.min_snippets, hmm.min_recordings)"
    )


def test_an_amount_without_a_model_is_told_with_its_part_of_the_song(tmp_path, monkeypatch):
    paths, text = finished(tmp_path, min_snippets=50), StringIO()
    search, n_all = fit.search_states, 5

    def lopsided(fitted, params, *args, **kwargs):
        """One recording of the half holds as much song as all others: it is half of it alone."""
        return search(fitted if len(fitted) == n_all else fitted[:1], params, *args, **kwargs)

    monkeypatch.setattr(fit, "search_states", lopsided)
    with inline_ray():
        answer(paths.root, [0, 1], None, Console(text))
    assert (
        "b1 at 45: no advice: 1/2 of the training side has no model: 1 recording, 2 needed "
        "(hmm.min_recordings)."
    ) in " ".join(text.getvalue().split())


def test_a_bird_and_age_with_nothing_held_out_or_no_sound_is_named(tmp_path):
    paths = finished(tmp_path)
    study = open_study(paths.root)
    sides = study.recordings.column("split").copy()
    sides[:8] = "training"
    sound_s = np.where(study.recordings.column("bird") == "b2", 0, 3).astype(np.float32)
    changed = study.recordings.with_column("split", sides.tolist()).with_column("sound_s", sound_s)
    write_recordings(paths.recordings, changed)
    songs, left_out = songs_of(open_study(paths.root))
    assert songs == []
    assert "no recording is held out" in left_out[B1]
    assert left_out[B2] == "no recording of the training side holds sound"


def test_a_folder_without_a_finished_study_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(NotFinishedError, match=r"is not the run folder of a study: it holds no"):
        open_study(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(NotFinishedError, match=r"is not the run folder of a study: it holds no"):
        open_study(tmp_path / "notes.txt")
    paths = finished(tmp_path)
    (paths.stages / "report.json").unlink()
    with pytest.raises(
        NotFinishedError, match=r"is not finished: report are not done.* Give its own command again"
    ):
        open_study(tmp_path)
    (paths.stages / "latents.json").unlink()
    with pytest.raises(NotFinishedError, match=r"has no latents. Give its own command again"):
        open_study(tmp_path)


@pytest.mark.parametrize("key", [None, "key of other settings"])
@pytest.mark.parametrize("stage", ["latents", "report"])
def test_a_study_that_was_stopped_on_its_way_to_other_settings_is_refused(tmp_path, stage, key):
    paths = finished(tmp_path)
    facts = read_json(paths.study)
    facts["wanted"][stage] = key
    write_json(paths.study, facts)
    with pytest.raises(NotFinishedError, match=f"finished: {stage} .* Give its own command again"):
        open_study(tmp_path)


def test_a_configuration_of_another_version_is_refused(tmp_path):
    paths = finished(tmp_path)
    facts = read_json(paths.study)
    facts["config"]["hmm"]["n_stats"] = 3
    write_json(paths.study, facts)
    with pytest.raises(NotFinishedError, match=r"Another version .*unknown key 'hmm.n_stats'"):
        open_study(tmp_path)


@pytest.mark.parametrize("name", ["study.json", ".stages/latents.json", ".stages/report.json"])
def test_an_altered_record_of_the_study_is_refused_by_name(tmp_path, name):
    path = finished(tmp_path).root / name
    path.write_text(path.read_text().replace("a", "b", 1))
    with pytest.raises(NotFinishedError, match=f"{name} .*altered.* study's command again"):
        open_study(tmp_path)
