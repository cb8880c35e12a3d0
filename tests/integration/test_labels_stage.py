"""The stage of the labels: what the terminal says, and what makes it run again."""

import dataclasses
from io import StringIO
from pathlib import Path

from data_io.labels.table import read_label_problems, read_labels
from data_io.recordings.table import Recording, Recordings
from study.base.console import Console
from study.base.ledger import Ledger, StageRecord
from study.base.paths import RunPaths, Where
from study.cluster.connection import connected
from study.cluster.tasks import TaskRunner
from study.config.tree import StudyConfig
from study.context import Study
from study.labels import LABELS
from tests.helpers.inline_ray import inline_ray

TRACK = "0.5\t0.6\ta\n1.0\t1.25\tb\n"
N_RECORDINGS = 3


def recordings_of(bird):
    listed = [
        Recording(bird, "45", 45, None, f"{bird}/45/{i}.wav", seconds=10.0)
        for i in range(N_RECORDINGS)
    ]
    return [*listed, Recording(bird, "45", 45, None, f"{bird}/45/silent.wav").skipped("silent")]


def run_stage(root):
    """The stage in a run folder that is used again; (record, lines of the terminal)."""
    text = StringIO()
    console = Console(text)
    paths = RunPaths(root / "run")
    paths.root.mkdir(exist_ok=True)
    config = StudyConfig()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, dir=str(root)))
    ledger = Ledger(paths.root, paths.stages, console, 2)
    ledger.done["recordings"] = StageRecord("recordings", {}, 0.0, False, "")
    study = Study(
        config, Where(paths.root, None, ""), paths, console, TaskRunner(), None, ledger, 0.0, None,
        Recordings.from_rows([*recordings_of("b1"), *recordings_of("b2")]),
    )  # fmt: skip
    assert LABELS.is_wanted(config)
    LABELS.do(study)
    return ledger.done["labels"], text.getvalue()


def test_labels_are_gathered_and_a_new_label_file_alone_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr("study.labels.FILES_PER_TASK", 2)
    for bird in ("b1", "b2"):
        folder = tmp_path / bird / "45"
        folder.mkdir(parents=True)
        for i in range(N_RECORDINGS):
            (folder / f"{i}.wav").write_bytes(b"")
            (folder / f"{i}.txt").write_text(TRACK)
    (tmp_path / "b2" / "45" / "0.txt").write_text("0.5\t0.6\ta\nlate\t1.25\tb\n")
    (tmp_path / "b2" / "45" / "silent.txt").write_text(TRACK)
    paths = RunPaths(tmp_path / "run")
    with connected(None):
        first, text = run_stage(tmp_path)
        assert "10 labels of 5 recordings of 2 birds\n" in text
        assert "b2/45/0.txt: cannot be read: 'late' is no time in seconds\n" in text
        rows = read_labels(paths.labels).to_pylist()
        order = [f"b1/45/{i}.wav" for i in range(3)] + [f"b2/45/{i}.wav" for i in (1, 2)]
        assert [row["recording"] for row in rows] == [name for name in order for _ in range(2)]
        assert {row["label"] for row in rows} == {"a", "b"}
        assert [file for file, _ in read_label_problems(paths.label_problems)] == [
            "b2/45/0.txt", "b2/45/silent.txt",
        ]  # fmt: skip
        assert not first.was_skipped

        (tmp_path / "b1" / "45" / "weather.doc").write_text("sunny")
        (tmp_path / "b1" / "45" / "0.wav").write_bytes(b"other")
        again, text = run_stage(tmp_path)
        assert again.was_skipped
        assert "10 labels of 5 recordings of 2 birds\n" in text
        assert "b2/45/0.txt: cannot be read" in text

        (tmp_path / "b2" / "45" / "0.txt").write_text(TRACK)
        mended, text = run_stage(tmp_path)
        assert not mended.was_skipped
        assert "12 labels of 6 recordings of 2 birds\n" in text
        assert "cannot be read" not in text


def test_labels_that_the_system_does_not_give_are_tried_again(tmp_path, monkeypatch):
    for bird in ("b1", "b2"):
        (tmp_path / bird / "45").mkdir(parents=True)
    path = tmp_path / "b1" / "45" / "0.txt"
    path.write_text(TRACK)
    real = Path.open

    def guarded(file, *args, **kwargs):
        if file == path:
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *args, **kwargs)

    with inline_ray():
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", guarded)
            for _ in range(2):
                done, text = run_stage(tmp_path)
                assert not done.was_skipped
                assert "b1/45/0.txt: cannot be read for now: Permission denied\n" in text
        done, text = run_stage(tmp_path)
        assert not done.was_skipped
        assert "2 labels of 1 recording of 1 bird\n" in text
        assert run_stage(tmp_path)[0].was_skipped


def test_a_folder_without_labels_has_an_empty_table(tmp_path):
    for bird in ("b1", "b2"):
        (tmp_path / bird / "45").mkdir(parents=True)
    _, text = run_stage(tmp_path)  # no task, so no Ray
    assert "no labels beside the recordings\n" in text
    assert read_labels(RunPaths(tmp_path / "run").labels).num_rows == 0
