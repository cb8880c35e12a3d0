"""The whole way, by the command that a user types, on small simulated birds."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from hmmlearn.hmm import GaussianHMM

from data_io.store import read_recordings
from study.base.paths import ROOT, RunPaths
from study.config.reader import load_config
from study.training.data import load_trial_data
from study.training.train import new_mdgan, train_on, trial_params
from tests.helpers.report_figures import figures_with

# From one state to as many as may be tried: BIC leads to no more numbers of states than these.
N_TRIALS, N_STATES, N_RESTARTS = 3, (1, 2, 4), 2
TINY = [
    "data.simulation.n_birds=2", "data.simulation.ages_dph=[45,90]",
    "data.simulation.minutes=0.17", "data.simulation.recording_s=[1.8,2.2]",
    "mdgan.n_snippets=640", "mdgan.n_reports=2", f"search.n_trials={N_TRIALS}",
    "mdgan.dense_width=8", "search.n_eval_snippets=200", "search.grace_reports=1",
    "hmm.search=grid", f"hmm.n_states={list(N_STATES)}", f"hmm.max_n_states={max(N_STATES)}",
    f"hmm.n_restarts={N_RESTARTS}", "hmm.min_snippets=50", "hmm.covariance_type=diag",
    "hmm.memory=none",
    "songs.seconds=1.0", "songs.griffin_lim_iterations=4",
]  # fmt: skip

# What the machine had to do with.
UNSTEADY = {
    "mlflow_run_id", "seconds", "time/snippets_per_s", "time/seconds",
    "system/process_memory_megabytes", "system/process_cpu_percentage",
}  # fmt: skip

pytestmark = pytest.mark.integration


def run(cwd, out, *words, overrides=TINY):
    command = [sys.executable, str(ROOT / "study" / "run_tune.py"), "--preset", "smoke"]
    uri = f"sqlite:///{Path(cwd) / 'mlflow.db'}"
    command += ["--out", str(out), "--tracking-uri", uri, *words, *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env=environment, timeout=420
    )


def rows(path):
    with pq.ParquetFile(path) as file:
        return file.read().to_pylist()


def tree(folder):
    """Hash and time of every file below a folder."""
    return {
        p.relative_to(folder).as_posix(): (
            hashlib.sha256(p.read_bytes()).hexdigest(),
            p.stat().st_mtime_ns,
        )
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def mlflow_runs(cwd, stage=None):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{cwd / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("smoke")
    query = f"tags.stage = '{stage}'" if stage else ""
    return client, client.search_runs([experiment.experiment_id], query, max_results=1000)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study: (working directory, run folder, what it printed)."""
    cwd = tmp_path_factory.mktemp("study")
    done = run(cwd, cwd / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    return cwd, cwd / "run", done.stdout


def test_the_terminal_shows_plan_progress_and_tables_of_100_columns(study):
    _, _, text = study
    assert max(map(len, text.splitlines()[1:])) <= 160  # paths of pytest are long
    tables = text[text.index("Trials, best first") : text.index("Report    ")]
    assert max(map(len, tables.splitlines())) <= 100
    for words in ("[1/9] simulated birds", "[9/9] report", "3 numbers of states x 2 restarts",
                  "trial-002", "20 recordings found: 20 used"):  # fmt: skip
        assert words in text
    assert "sim2  455" in tables  # the tutor, a year older


def test_every_artefact_is_there_and_the_counts_agree(study):
    _, out, _ = study
    wavs = list((out / "simulated_birds").rglob("*.wav"))
    recordings = rows(out / "recordings.parquet")
    assert len(wavs) == len(recordings) == 20
    assert {r["age"] for r in recordings} == {"45", "90", "410", "455"}
    assert {r["split"] for r in recordings} == {"training", "selection", "report"}
    assert all(0 < r["sound_s"] <= r["seconds"] for r in recordings)
    expected = {r["path"]: 1 + -(-(r["n_frames"] - 16) // 4) for r in recordings}
    counted = dict.fromkeys(expected, 0)
    for path in (out / "latents").rglob("*.parquet"):
        for row in rows(path):
            assert row["index"] == counted[row["recording"]]
            assert row["start_s"] == pytest.approx(row["index"] * 0.016)
            assert 0 <= row["sound_share"] <= 1
            counted[row["recording"]] += 1
    assert counted == expected
    assert len(list((out / "spectrograms").rglob("*.parquet"))) == 4
    assert [r["trial_id"] for r in rows(out / "trials.parquet")] == [
        "trial-000", "trial-001", "trial-002",
    ]  # fmt: skip
    grid = rows(out / "hmm_grid.parquet")
    assert (
        len({(r["bird"], r["age"], r["n_states"], r["restart"]) for r in grid}) == len(grid) == 24
    )
    assert len(rows(out / "hmm_selected.parquet")) == len(list((out / "hmm").rglob("*.npz"))) == 4
    for name in ("encoder.safetensors", "generator.safetensors", "model.json"):
        assert (out / "best" / name).is_file()
    for kind in ("real", "inverted", "reconstruction", "sampled"):
        assert len(list((out / "songs").rglob(f"{kind}.png"))) == 4
        for path in (out / "songs").rglob(f"{kind}.wav"):
            sound, rate = soundfile.read(path)
            assert rate == 16_000
            assert 0.9 < len(sound) / rate < 1.1
            assert np.abs(sound).max() > 0.001
    assert not [p for p in out.rglob("*") if ".tmp" in p.name or p.name.endswith(".old")]
    assert not (out / ".hmm").exists()  # the journal is not needed any more


def test_the_report_holds_everything_inside(study):
    _, out, _ = study
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 17  # 16 of songs, the best trial's decoder
    assert page.count("data:audio/wav;base64,") == 16
    assert page.count("<td>sim1</td><td>45</td>") == 10  # final figures, HMM, ages, 7 checks
    assert page.count('href="trials/trial-') == len(list((out / "trials").glob("*.png"))) > 0
    for figure in ("snippets seen", "Candidates: ", "Trade-offs", "latent_dim"):
        assert len(figures_with(page, figure)) == 1, figure
    for figure in ("BIC above its lowest", "what order tells, bits", "gaps"):
        of_birds = figures_with(page, figure)
        assert [words & {"sim1", "sim2"} for words in of_birds] == [{"sim1"}, {"sim2"}], figure
    for outside in ("<link", "<script src", 'src="http', "@import"):
        assert outside not in page


def test_final_figures_of_every_bird_and_age_are_kept_and_those_of_all_stand_in_mlflow(study):
    cwd, out, _ = study
    kept = rows(out / "best_by_bird_age.parquet")
    bird_ages = sorted((r["bird"], r["age"]) for r in rows(out / "hmm_selected.parquet"))
    for side in ("selection", "report"):
        assert sorted((r["bird"], r["age"]) for r in kept if r["side"] == side) == bird_ages
    found = json.loads((out / "best_held_out.json").read_text())
    _, (run_,) = mlflow_runs(cwd, "study")
    for side, prefix in (("selection", "selection"), ("report", "final")):
        for name in ("recon_l1", "recon_l1_vs_own_pca_worst", "frechet_song"):
            value = found[side]["metrics"][f"valid/{name}"]
            assert run_.data.metrics[f"{prefix}/{name}"] == value


def test_study_json_says_what_made_it(study):
    cwd, out, _ = study
    record = json.loads((out / "study.json").read_text())
    assert record["config"]["mdgan"]["n_snippets"] == 640
    assert record["versions"]["torch"].startswith("2.13.0")
    assert set(record["stages"]) == {
        "simulated birds", "recordings", "trials", "trial figures", "latents", "hmm", "checks",
        "songs", "report",
    }  # fmt: skip
    _, runs = mlflow_runs(cwd, "study")
    assert record["mlflow"]["study_run_id"] == runs[0].info.run_id


def test_log_likelihood_and_bic_follow_from_the_files_with_plain_hmmlearn(study):
    _, out, _ = study
    for row in rows(out / "hmm_selected.parquet"):
        path = out / "hmm" / row["bird"] / f"{row['age']}.npz"
        facts = json.loads(path.with_suffix(".json").read_text())
        latents = rows(
            out / "latents" / f"bird={row['bird']}" / f"age={row['age']}" / "part-0.parquet"
        )
        lengths = [sum(r["recording"] == name for r in latents) for name in facts["recordings"]]
        z = np.concatenate(
            [[r["z"] for r in latents if r["recording"] == name] for name in facts["recordings"]]
        ).astype(np.float64)
        z = (z - facts["whitening"]["mean"]) / facts["whitening"]["std"]
        with np.load(path, allow_pickle=False) as arrays:
            model = GaussianHMM(len(arrays["means"]), facts["covariance_type"])
            model.startprob_ = arrays["start_probs"]
            model.transmat_ = arrays["transition_matrix"]
            model.means_ = arrays["means"]
            model.covars_ = arrays["covariances"]
        assert model.score(z, lengths) == pytest.approx(row["log_likelihood"], rel=1e-9)
        # A hop of 4 of 16 frames: N counts snippets that would lie side by side.
        assert (row["n_snippets"], row["n_observations"]) == (len(z), len(z) / 4)
        bic = model.bic(z, lengths) - row["n_free_params"] * np.log(4)
        assert bic == pytest.approx(row["bic"], rel=1e-9)


def test_selected_is_the_lowest_bic_of_the_grid(study):
    _, out, _ = study
    grid = rows(out / "hmm_grid.parquet")
    for row in rows(out / "hmm_selected.parquet"):
        mine = [r for r in grid if (r["bird"], r["age"]) == (row["bird"], row["age"])]
        best = min(mine, key=lambda r: r["bic"])
        assert (row["n_states"], row["restart"], row["bic"]) == (
            best["n_states"], best["restart"], best["bic"],
        )  # fmt: skip
        assert row["edge"] == (best["n_states"] == max(N_STATES))
        others = {r["n_states"]: r["bic"] for r in mine if r["n_states"] != row["n_states"]}
        assert row["runner_up_bic_distance"] >= 0
        assert row["runner_up_n_states"] in others


def test_mlflow_holds_one_finished_run_for_each_thing_done(study):
    cwd, out, _ = study
    _, runs = mlflow_runs(cwd)
    stages = [run.data.tags["stage"] for run in runs]
    n_repeats = len(rows(out / "repeats.parquet")) * 2 // 3  # two fresh seeds, beside the search's
    assert {s: stages.count(s) for s in set(stages)} == {
        "study": 1, "trial": N_TRIALS, "hmm": 4, "repeat": n_repeats,
    }  # fmt: skip
    status = {row["trial_id"]: row["status"] for row in rows(out / "trials.parquet")}
    for run_ in runs:
        trial = run_.data.tags.get("trial_id") if run_.data.tags["stage"] == "trial" else None
        is_sound = trial is None or status[trial] in ("completed", "stopped")
        assert run_.info.status == ("FINISHED" if is_sound else "FAILED")
    study_id = next(r.info.run_id for r in runs if r.data.tags["stage"] == "study")
    for run_ in runs:
        assert run_.data.tags["study_run_id"] == study_id
        assert {"study", "git_commit", "code_hash", "config_hash", "data_hash"} <= set(
            run_.data.tags
        )


def test_mlflow_and_the_tables_hold_the_same_numbers(study):
    cwd, out, _ = study
    client, trials = mlflow_runs(cwd, "trial")
    table = {row["trial_id"]: row for row in rows(out / "trials.parquet")}
    for run_ in trials:
        row = table[run_.data.tags["trial_id"]]
        assert run_.info.run_id == row["mlflow_run_id"]
        assert float(run_.data.params["lr"]) == row["lr"]
        assert int(run_.data.params["latent_dim"]) == row["latent_dim"]
        for name, value in run_.data.metrics.items():
            assert value == pytest.approx(row[name], rel=1e-12), name
        pictures = [a.path for a in client.list_artifacts(run_.info.run_id)]
        assert f"{row['trial_id']}.png" in pictures
    grid, selected = rows(out / "hmm_grid.parquet"), rows(out / "hmm_selected.parquet")
    checked = {(r["bird"], r["age"], r["check"]): r for r in rows(out / "hmm_checks.parquet")}
    assert len(checked) == 4 * 7
    for run_ in mlflow_runs(cwd, "hmm")[1]:
        tags = run_.data.tags
        mine = [r for r in grid if (r["bird"], r["age"]) == (tags["bird"], tags["age"])]
        best = {k: min((r for r in mine if r["n_states"] == k), key=lambda r: r["bic"])
                for k in N_STATES}  # fmt: skip
        for name in ("bic", "aic", "icl", "bic_effective", "log_likelihood",
                     "held_out_log_likelihood"):  # fmt: skip
            history = client.get_metric_history(run_.info.run_id, f"hmm/{name}")
            expected = {k: best[k][name] for k in N_STATES if best[k][name] is not None}
            assert {m.step: m.value for m in history} == expected
        (chosen,) = (r for r in selected if (r["bird"], r["age"]) == (tags["bird"], tags["age"]))
        assert run_.data.metrics["hmm/selected_n_states"] == chosen["n_states"]
        (age,) = (r for r in rows(out / "hmm_ages.parquet")
                  if (r["bird"], r["age"]) == (tags["bird"], tags["age"]))  # fmt: skip
        for name in ("matched_n_states", "states_in_use"):
            assert run_.data.metrics[f"ages/{name}"] == age[name]
        dwell = checked[tags["bird"], tags["age"], "dwell"]
        assert tags["checks.dwell"] == dwell["verdict"]
        assert run_.data.metrics.get("checks/dwell/distance") == dwell["distance"]
        names = {f.path for f in client.list_artifacts(run_.info.run_id, "songs")}
        assert {"songs/real.wav", "songs/sampled.png"} <= names


def test_the_best_trial_is_the_one_that_the_rule_of_the_configuration_picks(study):
    _, out, text = study
    table, repeats = rows(out / "trials.parquet"), rows(out / "repeats.parquet")
    best = [row for row in table if row["is_best"]]
    selection = json.loads((out / "selection.json").read_text())
    assert [row["trial_id"] for row in best] == [selection["chosen"]]
    assert best[0]["status"] == "completed"
    means = {
        name: np.mean([r["objective"] for r in repeats if r["trial_id"] == name and r["seed"]])
        for name in {row["trial_id"] for row in repeats}
    }
    assert means[selection["chosen"]] <= selection["limit"]
    assert selection["limit"] - min(means.values()) == pytest.approx(
        selection["standard_error"], rel=1e-9
    )
    assert selection["sentence"] in " ".join(text.split())
    assert {row["seed"] for row in repeats} == {0, 1, 2}
    model = json.loads((out / "best" / "model.json").read_text())
    assert model["trial_id"] == best[0]["trial_id"]
    assert model["params"]["lr"] == best[0]["lr"]


def test_the_best_model_is_registered_with_its_hash(study):
    cwd, out, _ = study
    client, _ = mlflow_runs(cwd)
    (version,) = client.search_model_versions("name='smoke-decoder'")
    model_json = (out / "best" / "model.json").read_bytes()
    assert version.tags["model_json_sha256"] == hashlib.sha256(model_json).hexdigest()
    assert version.tags["trial_id"] == json.loads(model_json)["trial_id"]


def test_the_same_command_again_does_no_stage_again(study):
    cwd, out, _ = study
    before = {k: v for k, v in tree(out).items() if k not in ("study.json", ".lock")}
    n_runs = len(mlflow_runs(cwd)[1])
    done = run(cwd, out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done before, its input has not changed: skipped") == 9
    after = {k: v for k, v in tree(out).items() if k not in ("study.json", ".lock")}
    changed = {k for k in before | after if before.get(k) != after.get(k)}
    assert all(name.startswith(".tracking/") for name in changed)
    assert len(mlflow_runs(cwd)[1]) == n_runs


def test_the_same_seed_gives_the_same_numbers_elsewhere(study, tmp_path):
    _, out, _ = study
    done = run(tmp_path, tmp_path / "again")
    assert done.returncode == 0, done.stderr
    for name, besides in (
        ("trials.parquet", UNSTEADY),
        ("trial_reports.parquet", UNSTEADY),
        ("repeats.parquet", UNSTEADY),
        ("hmm_grid.parquet", {"seconds"}),
        ("hmm_selected.parquet", set()),
        ("hmm_ages.parquet", set()),
        ("hmm_checks.parquet", set()),
        ("hmm_check_quantiles.parquet", set()),
    ):
        first, second = rows(out / name), rows(tmp_path / "again" / name)
        assert [{k: v for k, v in r.items() if k not in besides} for r in first] == [
            {k: v for k, v in r.items() if k not in besides} for r in second
        ], name
    for name in (
        "selection.json",
        "best/encoder.safetensors",
        "reference.npz",
        "songs/sim1/90/sampled.wav",
    ):
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_every_trial_gives_the_same_numbers_outside_of_ray(study, tmp_path):
    _, out, _ = study
    record = json.loads((out / "study.json").read_text())
    (tmp_path / "config.yaml").write_text(json.dumps(record["config"]))
    config = load_config("smoke", tmp_path / "config.yaml", [])
    assert config.sha256 == record["config_hash"]
    (tmp_path / "spectrograms").symlink_to(out / "spectrograms")
    recordings = read_recordings(out / "recordings.parquet")
    data = load_trial_data(config, recordings, RunPaths(tmp_path))
    table = rows(out / "trials.parquet") + rows(out / "repeats.parquet")
    compared = 0
    for row in {(r["trial_id"], r["seed"]): r for r in table}.values():
        if row["status"] not in ("completed", "stopped"):
            continue
        params = trial_params(config.mdgan, {name: row[name] for name in config.search.space})
        reported = []
        model = new_mdgan(params, data, row["seed"], "cpu")
        train_on(model, data, row["seed"], 0.0, reported.append)
        measured = reported[row["reports"] - 1].metrics
        assert measured == {name: row[name] for name in measured}
        compared += 1
    assert compared >= 4


def test_how_much_song_opens_a_finished_study_and_leaves_it_as_it_is(study):
    cwd, out, _ = study
    before = tree(out)
    command = [sys.executable, str(ROOT / "study" / "how_much_song.py"), "run"]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *answers, _ = (out / "how_much_song" / "advice.txt").read_text().splitlines()
    assert [one.split(": ")[0] for one in answers] == [
        "sim1 at 45",
        "sim1 at 90",
        "sim2 at 410",
        "sim2 at 455",
    ]
    assert all("cannot be halved" in one for one in answers)  # they are that small
    shutil.rmtree(out / "how_much_song")
    assert tree(out) == before


def test_a_folder_of_recordings_with_bad_files_and_another_seed(study, tmp_path):
    _, out, _ = study
    data = tmp_path / "data"
    shutil.copytree(out / "simulated_birds", data, ignore=shutil.ignore_patterns("*.parquet"))
    lone = data / "lone" / "2012-04-19"
    lone.mkdir(parents=True)
    original = next((data / "sim1" / "90" / "songs").glob("*.wav"))
    sound, rate = soundfile.read(original)
    soundfile.write(lone / "short.wav", sound[: rate // 2], rate)
    (lone / "broken.wav").write_bytes(b"RIFF\0\0")
    before = tree(data)
    overrides = {
        **dict(one.split("=", 1) for one in TINY), "seed": "1", "hmm.search": "merge",
        "search.selection": "{rule: lowest, n_seeds: 0}", "search.n_trials": "1",
    }  # fmt: skip
    words = [f"{name}={value}" for name, value in overrides.items()]
    done = run(tmp_path, tmp_path / "run", "--data", str(data), overrides=words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tree(data) == before
    status = {
        r["path"]: (r["status"], r["reason"]) for r in rows(tmp_path / "run/recordings.parquet")
    }
    assert len(status) == 22
    assert status["lone/2012-04-19/broken.wav"][0] == "skipped"
    assert "not a WAV, W64, AIFF or FLAC file" in status["lone/2012-04-19/broken.wav"][1]
    selected = {(r["bird"], r["age"]): r for r in rows(tmp_path / "run/hmm_selected.parquet")}
    assert len(selected) == 5
    assert selected["lone", "2012-04-19"]["status"] == "too_few_snippets"
    assert "side by side 7, 50 needed" in selected["lone", "2012-04-19"]["reason"]
    ours = {r["lr"] for r in rows(tmp_path / "run/trials.parquet")}
    assert not ours & {r["lr"] for r in rows(out / "trials.parquet")}
