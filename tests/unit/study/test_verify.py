"""The check of a whole run folder: every altered file is named, and nothing is written."""

import errno
import io
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest

from data_io.files import write_json
from data_io.store import partition, write_table
from models.mdgan.checkpoints import save_decoder
from study.base.console import Console
from study.base.hashes import hashes_of
from study.base.ledger import FolderInUseError, Ledger, StageResult, locked
from study.base.paths import RunPaths
from study.config.reader import load_config
from study.run_tune import main
from study.search.trial_folder import TrialFolder, TrialSpec
from study.tracked import write_study_json
from study.tracking.sent import Sent
from study.verify import NoStudyError, UnreadableFolderError, verify
from tests.helpers.tiny_mdgan import build

ENDED = {
    "reports": [{"report": 1, "reason": ""}], "reason": "", "may_go_on": False,
    "ended_at": 1.0, "node": "a", "n_retries": 0, "mlflow_run_id": None,
}  # fmt: skip


def write_latents(paths):
    write_table(partition(paths.latents, "b1", "45"), pa.table({"z": np.arange(99.0)}))
    write_json(paths.whitening, {"mean": [0.5], "std": [1.5]})
    return StageResult([paths.latents], "latents")


def write_songs(paths):
    (paths.songs / "b1" / "45").mkdir(parents=True)
    (paths.songs / "b1" / "45" / "real.wav").write_bytes(bytes(range(256)))
    return StageResult([paths.songs], "songs")


def write_report(paths):
    paths.report.write_text("<p>report")
    return StageResult([paths.report], "report")


def write_trial(folder):
    def fill(checkpoint):
        hashes = save_decoder(build(), checkpoint, {})
        write_json(checkpoint / "by_bird_age.json", {"report": 1, "rows": []})
        return hashes

    trial = TrialFolder(folder)
    trial.begin(TrialSpec("trial-000", 0, 1, {"lr": 0.001}))
    trial.own()
    trial.save(1, [{"report": 1}], fill)
    trial.end(ENDED)


def write_how_much(paths):
    paths.how_much.mkdir()
    advice = paths.how_much / "advice.txt"
    advice.write_text("b1 at 45: enough.")
    write_json(paths.how_much_files, hashes_of(paths.root, [advice]))
    write_json(paths.how_much / ".fits" / "abc.json", {"n_states": 3})


STAGES = {"latents": write_latents, "songs": write_songs, "report": write_report}


@contextmanager
def start(paths):
    """A start of the study, which writes study.json at its end, as `study.pipeline` does it."""
    ledger = Ledger(paths.root, paths.stages, Console(io.StringIO()), len(STAGES))
    tracker = SimpleNamespace(
        uri="none", experiment_id="1", study_run_id="2",
        lineage={"git_commit": "abc", "code_hash": "def"},
    )  # fmt: skip
    study = SimpleNamespace(
        config=load_config("smoke", None, []), paths=paths, data_dir=paths.root, tracker=tracker,
        ledger=ledger,
    )  # fmt: skip
    try:
        yield ledger
    finally:
        write_study_json(study, list(STAGES))


def stopped():
    raise KeyboardInterrupt


@pytest.fixture
def paths(tmp_path):
    """A run folder with files of every kind, each as small as may be."""
    paths = RunPaths(tmp_path / "run")
    paths.root.mkdir()
    write_trial(paths.search / "trial-000")
    with start(paths) as ledger:
        for name, work in STAGES.items():
            ledger.run(name, {}, lambda work=work: work(paths))
    write_json(paths.tracking / "0123.json", {"runs": {"a": "b"}})
    write_how_much(paths)
    with locked(paths.root):
        pass
    return paths


def run(paths):
    """Verify; (whether all is whole, what was printed)."""
    text = io.StringIO()
    is_whole = verify(paths.root, Console(text))
    return is_whole, " ".join(text.getvalue().split())


def files(paths):
    return {
        path.relative_to(paths.root).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(paths.root.rglob("*"))
        if path.is_file()
    }


def test_a_finished_folder_is_whole_and_nothing_in_it_is_written(paths):
    before = files(paths)
    is_whole, text = run(paths)
    assert is_whole
    assert text.endswith("The study is finished, and every file is as it was written.")
    assert "left over" not in text
    assert files(paths) == before


def test_one_flipped_bit_in_any_file_is_named_with_its_kind(paths):
    checked = set(files(paths)) - {".lock"}
    assert len(checked) == 19
    for name in sorted(checked):
        path = paths.root / name
        good = path.read_bytes()
        for share in (0.3, 0.6, 0.99):
            altered = bytearray(good)
            altered[int(share * len(good)) - 1] ^= 2
            path.write_bytes(altered)
            is_whole, text = run(paths)
            assert not is_whole, (name, share)
            assert name in text, (name, share)
            path.write_bytes(good)
    assert run(paths)[0]


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("latents/bird=b1/age=45/part-0.parquet", "the stage latents runs again"),
        ("songs/b1/45/real.wav", "the stage songs runs again"),
        ("search/trial-000/decoder/encoder.safetensors", "Remove the folder"),
        ("search/trial-000/decoder/model.json", "Remove the folder"),
        ("search/trial-000/trial.json", "Remove the folder"),
        ("how_much_song/advice.txt", "Give the command how much song again"),
    ],
)
def test_a_missing_file_is_named_with_its_remedy(paths, name, remedy):
    (paths.root / name).unlink()
    is_whole, text = run(paths)
    assert not is_whole
    assert f"{name} is missing" in text
    assert remedy in text


def test_the_table_counts_whole_altered_and_missing_files_of_each_kind(paths):
    (paths.latents / "bird=b1" / "age=45" / "part-0.parquet").unlink()
    paths.whitening.write_text("{}")
    text = run(paths)[1]
    assert "kind files MB whole altered missing" in text
    assert "latents 2 0 0 1 1" in text
    assert "songs 1 0 1 0 0" in text
    assert "records 4 0 4 0 0" in text


def test_files_that_no_record_names_are_left_over_and_no_fault(paths):
    (paths.root / "notes.txt").write_text("mine")
    (paths.latents / "bird=b2").mkdir()
    (paths.latents / "bird=b2" / "old.parquet").write_text("x")
    is_whole, text = run(paths)
    assert is_whole
    assert "2 files are left over" in text
    assert "latents/bird=b2/old.parquet" in text and "notes.txt" in text


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ([".stages/report.json"], "no record of report ("),
        ([".stages/songs.json"], "no record of songs ("),
        ([".stages/latents.json", ".stages/songs.json", ".stages/report.json"],
         "no record of latents, songs, report (records are in .stages/, a hidden folder"),
    ],
)  # fmt: skip
def test_a_folder_that_is_not_finished_says_so(paths, gone, named):
    for name in gone:
        (paths.root / name).unlink()
    is_whole, text = run(paths)
    assert not is_whole
    assert f"The study is not finished: there is {named}" in text


def test_a_study_that_was_stopped_on_its_way_to_other_settings_is_not_finished(paths):
    with pytest.raises(KeyboardInterrupt), start(paths) as ledger:
        ledger.run("latents", {"seed": 2}, lambda: write_latents(paths))
        ledger.run("songs", {"seed": 2}, stopped)
    is_whole, text = run(paths)
    assert not is_whole
    assert "there is no record of songs (" in text
    assert "what there is of report is of another start than the one that study.json" in text


def test_a_study_that_was_killed_on_its_way_to_other_settings_is_not_finished(paths):
    ledger = Ledger(paths.root, paths.stages, Console(io.StringIO()), len(STAGES))
    ledger.run("latents", {"seed": 2}, lambda: write_latents(paths))
    is_whole, text = run(paths)  # study.json is of the start before
    assert not is_whole
    assert "finished: what there is of latents is of another start" in text


def test_without_study_json_a_study_is_not_finished(paths):
    paths.study.unlink()
    is_whole, text = run(paths)
    assert not is_whole
    assert "study.json is missing" in text
    assert "The study is finished" not in text


def test_a_broken_record_is_an_altered_file_and_its_own_files_are_not_called_missing(paths):
    path = paths.stages / "songs.json"
    path.write_text(path.read_text().replace("songs", "sings", 1))
    is_whole, text = run(paths)
    assert not is_whole
    assert ".stages/songs.json was altered" in text
    assert "not finished" not in text and "is missing" not in text


@pytest.mark.parametrize("content", [{"wanted": {}}, None])
def test_a_record_of_no_stage_of_the_study_is_to_be_deleted(paths, content):
    path = paths.stages / "decoders.json"
    write_json(path, content or {}) if content else path.write_text("{")
    is_whole, text = run(paths)
    assert not is_whole
    assert "records of others: The study has no stage of that name. Nothing uses it: delete" in text
    assert ".stages/decoders.json was altered" in text and "runs again" not in text
    path.unlink()
    assert run(paths)[0]


def test_files_of_a_stage_that_the_study_does_not_want_any_more_have_that_remedy(paths):
    with start(paths) as ledger:
        (paths.root / "own").write_text("decoder")
        ledger.run("decoders", {}, lambda: StageResult([paths.root / "own"], "decoders"))
    with start(paths) as ledger:
        for name, work in STAGES.items():
            ledger.run(name, {}, lambda work=work: work(paths))
    assert run(paths)[0]
    (paths.root / "own").write_text("decadent")
    is_whole, text = run(paths)
    assert not is_whole
    assert "The study has no stage decoders. Nothing uses it: delete its record in .stages/" in text
    (paths.stages / "decoders.json").unlink()
    assert run(paths)[0]


@pytest.mark.parametrize("name", ["search-before-2", "search-before-10"])
def test_a_search_that_was_set_aside_is_checked_as_the_one_in_use(paths, name):
    aside = shutil.copytree(paths.search, paths.root / name)
    (aside / "optuna.log").write_text("log")
    is_whole, text = run(paths)
    assert is_whole
    assert "searches set aside 7 0 7 0 0" in text and "left over" not in text
    (aside / "trial-000" / "ended.json").write_text("{}")
    is_whole, text = run(paths)
    assert not is_whole
    assert f"{name}/trial-000/ended.json has no seal" in text
    assert f"Remove the folder {aside / 'trial-000'}" in text


FAILS = OSError(5, "Input/output error")
LATER = "Remove nothing: check again when the disk can be read."


@pytest.mark.parametrize("name", ["trial.json", "decoder/encoder.safetensors", ""])
def test_what_cannot_be_read_of_a_trial_is_in_the_table_and_nothing_is_to_be_removed(
    paths, monkeypatch, name
):
    place = paths.search / "trial-000" / name

    def failing(read):
        def reads(path, *words, **named):
            if path == place:
                raise FAILS
            return read(path, *words, **named)

        return reads

    for method in ("open", "iterdir"):
        monkeypatch.setattr(Path, method, failing(getattr(Path, method)))
    is_whole, text = run(paths)
    assert not is_whole
    named = place.relative_to(paths.root).as_posix()
    assert f"{LATER} {named} cannot be read (Input/output error)" in text
    assert "Remove the folder" not in text


@pytest.mark.parametrize(
    "name",
    [".tracking/0123.json", "latents/_whitening.json", "study.json", "how_much_song/advice.txt"],
)
def test_what_cannot_be_read_is_counted_by_itself_and_nothing_is_to_be_removed(
    paths, monkeypatch, name
):
    opened = Path.open

    def fails(path, *words, **named):
        if path == paths.root / name:
            raise FAILS
        return opened(path, *words, **named)

    monkeypatch.setattr(Path, "open", fails)
    is_whole, text = run(paths)
    assert not is_whole
    assert "kind files MB whole altered missing not read" in text
    assert "all 19 0 18 0 0 1" in text
    assert f"{LATER} {name} cannot be read (Input/output error)" in text
    assert "again: " not in text


@pytest.mark.parametrize(
    ("altered", "is_twice"),
    [(["folder.json"], False), (["0123.json"], False), (["folder.json", "0123.json"], True)],
)
def test_all_is_sent_twice_only_where_the_id_of_the_folder_is_lost(paths, altered, is_twice):
    (paths.tracking / "0123.json").unlink()
    sent = Sent(paths.tracking, "uri", "study")
    sent.begin_study("run", "same")
    sent.write()
    sent.path.rename(paths.tracking / "0123.json")
    for name in altered:
        (paths.tracking / name).write_text("{")
    is_whole, text = run(paths)
    assert not is_whole
    assert ("nothing is there twice" in text) != is_twice
    assert ("all is sent a second time" in text) == is_twice
    (paths.tracking / "0123.json").rename(sent.path)
    again = Sent(paths.tracking, "uri", "study")
    assert (again.folder_id != sent.folder_id) == is_twice


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC])
def test_a_fault_of_the_console_is_not_one_of_the_run_folder(paths, number):
    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(number, os.strerror(number))

    with pytest.raises(OSError, match=os.strerror(number)):
        verify(paths.root, Console(Gone()))


@contextmanager
def unlisted(*folders):
    """Folders that cannot be listed, while what is in them can be opened: their mode is 311."""
    listed, scanned = os.listdir, os.scandir

    def failing(lists):
        def fails(path="."):
            if Path(path) in folders:
                raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return lists(path)

        return fails

    with mock.patch("os.listdir", failing(listed)), mock.patch("os.scandir", failing(scanned)):
        yield


@pytest.mark.parametrize(
    "name",
    [".tracking", ".stages", "search", "search/repeats", "search/trial-000", "latents",
     "search/trial-000/decoder", "how_much_song/.fits", "how_much_song"],
)  # fmt: skip
def test_a_folder_that_cannot_be_listed_is_named_as_not_read(paths, name):
    write_json(paths.repeats_folder / "trial-000-seed7" / "trial.json", {"seed": 7})
    with unlisted(paths.root / name):
        is_whole, text = run(paths)
    assert not is_whole
    assert f"{LATER} {name} cannot be read (Permission denied)" in text
    assert text.count(f"{name} cannot be read") == (4 if name == ".stages" else 1)  # by 3 stages
    assert "again: " not in text
    assert "The study is" not in text and "is missing" not in text


def test_a_run_folder_that_cannot_be_listed_is_refused(paths):
    with unlisted(paths.root), pytest.raises(UnreadableFolderError, match="run cannot be read"):
        run(paths)


@pytest.mark.parametrize("content", [None, "{"])
def test_files_of_a_stage_whose_record_is_missing_or_altered_are_not_left_over(paths, content):
    record = paths.stages / "latents.json"
    record.unlink() if content is None else record.write_text(content)
    is_whole, text = run(paths)
    assert not is_whole
    what = "is missing" if content is None else "was altered"
    assert (
        f"2 files of the stage latents, by their names: its record .stages/latents.json {what}, so "
        "they cannot be compared. Give the study's command again: the stage runs again."
    ) in text
    assert "left over" not in text


def test_files_whose_stages_are_not_read_are_not_left_over(paths):
    with unlisted(paths.stages):
        text = run(paths)[1]
    assert "1 file of the stage report, by its name: its record .stages cannot be read" in text
    assert "4 files are left over" not in text


def test_files_of_a_trial_whose_record_is_altered_are_not_left_over(paths):
    (paths.search / "trial-000" / "decoder" / "model.json").write_text("{")
    (paths.search / "trial-001").mkdir()
    (paths.search / "trial-001" / "trial.json").write_bytes(bytes(9))  # cut off by a power cut
    (paths.search / "notes.txt").write_text("mine")
    is_whole, text = run(paths)
    assert not is_whole
    assert "3 files of trials, by their names: the record beside is missing or altered" in text
    assert "1 file is left over: no record names it, and no result is made of it: search/no" in text


@pytest.mark.parametrize("gone", [True, False])
def test_files_of_how_much_song_without_their_record_are_not_left_over(paths, gone):
    paths.how_much_files.unlink() if gone else paths.how_much_files.write_text("{")
    is_whole, text = run(paths)
    assert is_whole == gone
    assert "1 file of how much song, by its name: the record .files.json is missing" in text


@pytest.mark.parametrize(
    ("name", "is_folder"),
    [("report.html", True), ("study.json", True), (".stages/songs.json", True), (".stages", False),
     ("search/trial-000/trial.json", True), ("search", False), (".tracking", False),
     ("latents", False)],
)  # fmt: skip
def test_what_lies_in_the_place_of_a_file_or_folder_is_to_be_moved_away(paths, name, is_folder):
    path = paths.root / name
    if is_folder:
        path.unlink()
        path.mkdir()
    else:
        shutil.rmtree(path)
        path.write_text("mine")
    is_whole, text = run(paths)
    assert not is_whole
    words = ("folder", "file") if is_folder else ("file", "folder")
    assert f"{name} is a {words[0]} where a {words[1]} should be: move it away" in text


def test_what_lies_behind_a_link_to_a_disk_that_is_away_is_not_missing(paths):
    shutil.rmtree(paths.latents)
    paths.latents.symlink_to("away")
    is_whole, text = run(paths)
    assert not is_whole
    assert "latents/_whitening.json cannot be read (a link to" in text
    assert "is missing" not in text


def test_another_folder_and_one_in_use_are_refused(paths, tmp_path):
    with pytest.raises(NoStudyError, match="holds neither study.json nor .stages/"):
        verify(tmp_path, Console(io.StringIO()))
    in_use = r"in use by process .* Wait for it, then give the command again\.$"
    with locked(paths.root), pytest.raises(FolderInUseError, match=in_use):
        run(paths)


def test_the_command_ends_with_0_1_or_2(paths, tmp_path, capsys):
    assert main(["verify", str(paths.root)]) == 0
    assert main(["--out", str(paths.root), "--verify"]) == 0
    paths.report.write_text("<p>roport")
    assert main(["verify", str(paths.root)]) == 1
    assert main(["verify", str(tmp_path)]) == 2
    assert "is not the run folder of a study" in capsys.readouterr().err
