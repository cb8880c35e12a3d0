"""What lies in the run folder in the place of a result: a link, a folder, a file."""

import shutil

import pytest

from data_io.files import read_json, write_json
from study.base.paths import RunPaths
from study.run_tune import main
from tests.helpers.same_results import same_results
from tests.helpers.tiny_study import TinyStudy, skipped

pytestmark = pytest.mark.integration

FOLDERS = ("spectrograms", "latents", "hmm", "best", "search")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    study = TinyStudy(tmp_path_factory.mktemp("places") / "first")
    code, text = study.command()
    assert code == 0, text
    return study


@pytest.fixture
def study(finished, tmp_path):
    """The finished study; what a test puts into its run folder goes again."""
    shutil.copytree(finished.out, tmp_path / "before")
    yield finished
    shutil.rmtree(finished.out)
    shutil.copytree(tmp_path / "before", finished.out)


def test_results_behind_links_are_made_anew_where_they_lie(study, tmp_path):
    big = tmp_path / "big"
    big.mkdir()
    for name in FOLDERS:
        (study.out / name).rename(big / name)
        (study.out / name).symlink_to(big / name)
    code, text = study.command()
    assert code == 0, text
    assert len(skipped(text)) == 9
    for name in ("recordings", "trials", "latents", "hmm"):
        (study.out / ".stages" / f"{name}.json").unlink()
    (big / ".latents.0123abcd.tmp").mkdir()
    code, text = study.command()
    assert code == 0, text
    assert all((study.out / name).is_symlink() for name in FOLDERS)
    assert sorted(path.name for path in big.iterdir()) == sorted(FOLDERS)
    assert same_results(study.out, tmp_path / "before") == []


def test_each_file_of_a_stage_is_known_by_its_name(finished):
    paths = RunPaths(finished.out)
    for record in paths.stages.glob("*.json"):
        for name in read_json(record)["files"]:
            assert paths.stage_of[name.split("/")[0]] == record.stem


def test_a_trial_of_another_study_is_named_by_verify_though_its_stage_is_skipped(study, capsys):
    paths = RunPaths(study.out)
    assert main(["verify", str(paths.root)]) == 0
    for path in (paths.search / "search.json", paths.search / "trial-001" / "trial.json"):
        content = read_json(path)
        write_json(path, {**content, **({"search": "b"} if "search" in content else {"seed": 9})})
        capsys.readouterr()
        assert main(["verify", str(paths.root)]) == 1
        name = path.relative_to(paths.root)
        assert f"{name} is of another search than the study's" in capsys.readouterr().out


@pytest.mark.parametrize("name", FOLDERS)
def test_a_link_whose_target_is_away_is_named_and_nothing_is_made_anew(study, tmp_path, name):
    (study.out / name).rename(tmp_path / "big")
    (study.out / name).symlink_to(tmp_path / "unmounted")
    code, text = study.command()
    assert code == 1, text
    assert "which is not there)" in " ".join(text.split())
    assert (study.out / name).is_symlink() and not (tmp_path / "unmounted").exists()


@pytest.mark.parametrize(
    "name",
    ["report.html", "hmm_selected.parquet", "selection.json", "study.json", ".stages/hmm.json",
     "search/search.json", ".lock"],
)  # fmt: skip
def test_a_folder_where_a_file_should_be_is_to_be_moved_away(study, tmp_path, name):
    (study.out / name).unlink()
    (study.out / name).mkdir()
    (study.out / ".stages" / "trials.json").unlink()  # the search is looked at, too
    code, text = study.command()
    text = " ".join(text.split())
    assert code == 1, text
    assert f"{name} is a folder where a file should be: move it away, then give the same" in text
    (study.out / name).rmdir()
    assert study.command()[0] == 0
    assert same_results(study.out, tmp_path / "before") == []


@pytest.mark.parametrize("name", [".stages", "search", ".tracking", "latents", "hmm"])
def test_a_file_where_a_folder_should_be_is_to_be_moved_away(study, name):
    shutil.rmtree(study.out / name)
    (study.out / name).write_text("mine")
    code, text = study.command()
    assert code == 1, text
    assert f"{name} is a file where a folder should be: move it away, then" in " ".join(
        text.split()
    )
