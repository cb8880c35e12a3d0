"""Decoders of birds, or birds and ages: who is served by which, chains of ages, whitening apart."""

import dataclasses
import json
import random
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient

from data_io.latents import read_latents
from data_io.recordings.table import Recording, Recordings
from data_io.snippets import FramePool
from data_io.store import read_table
from models.mdgan.checkpoints import load_decoder, save_decoder
from models.mdgan.model import Mdgan
from models.mdgan.params import MdganParams
from models.mdgan.training import Evaluation
from models.metrics.reference import Reference, fit_reference
from study import songs
from study.base.console import Console
from study.base.ledger import Ledger, StageRecord
from study.base.paths import RunPaths, Where
from study.base.seeds import bird_age_seed
from study.cluster.connection import connected
from study.cluster.tasks import TaskRunner
from study.config.reader import ConfigError, load_config
from study.config.tree import DecodersConfig, SearchConfig, StudyConfig
from study.context import Study
from study.decoders import fan_out as decoder_fan_out
from study.decoders.fan_out import DECODERS, decoder_params, train_decoders
from study.decoders.one_decoder import (
    DecoderPlan,
    Trained,
    load_data,
    start_from,
    train_decoder,
)
from study.decoders.scope import (
    ALL_AGES,
    caution,
    chains,
    decoder_of,
    recordings_of,
    whitening_file,
    without_decoder,
)
from study.encode import LATENTS
from study.hmms.stage import HMMS
from study.tracked import allowed_params, with_begin
from study.tracking.tracker import Tracker
from study.training import train
from study.training.data import TrialData
from tests.helpers.stored import write_levelled

SCOPES = ("all", "bird", "bird_and_age", "chained")
N_FRAMES = 16
TINY = MdganParams(
    latent_dim=2, dense_width=8, n_components=8, disc_width=2, batch_size=8, n_snippets=64,
    n_reports=2, ema_decay=0.9,
)  # fmt: skip


def recording(bird, age, i, split="training", n_frames=160, status="ok"):
    dph = int(age) if age.isdigit() else None
    path = f"{bird}/{age}/songs/{i}.wav"
    return Recording(bird, age, dph, None, path, status=status, n_frames=n_frames, split=split)


def listed(*bird_ages, n=3):
    """The last recording of a bird and age is held out."""
    return [recording(*bird_age, i, "selection" if i == n - 1 else "training")
            for bird_age in bird_ages for i in range(n)]  # fmt: skip


def config_of(scope, **others):
    search = SearchConfig(n_eval_snippets=100, space={})  # TINY is too small for the default
    return StudyConfig(decoders=DecodersConfig(scope), mdgan=TINY, search=search, **others)


def sound(bird, age, i, n_frames):
    """Loud and faint stretches of a band that tells bird and age, so that little is to be learned.

    Values of an age lie far from those of others: their latents do as well.
    """
    rng = np.random.default_rng([ord(bird), int(age), i])
    spectrogram = np.zeros((129, n_frames), np.float32)
    loudness = rng.uniform(0, 4, n_frames // 8 + 1).repeat(8)[:n_frames]
    low = 10 + int(age)
    spectrogram[low : low + 40] = loudness
    return spectrogram


def write_study(root, recordings, params=TINY):
    """Spectrograms, reference and best trial of a study, as the stages before leave them."""
    paths = RunPaths(root)
    sounds = []
    for bird_age in sorted({(r.bird, r.age) for r in recordings}):
        mine = [(r.path, sound(*bird_age, i, r.n_frames)) for i, r in enumerate(recordings)
                if (r.bird, r.age) == bird_age]  # fmt: skip
        write_levelled(paths.spectrograms, *bird_age, mine)
        sounds.append([spectrogram for _, spectrogram in mine])
    n = min(r.n_frames for r in recordings) - N_FRAMES
    cut = [s[:, i : i + N_FRAMES] for mine in sounds for s in mine for i in range(0, n, 2)]
    snippets = torch.from_numpy(np.stack(cut)[:, None])
    fit_reference(snippets, (), 0).save(paths.reference)
    paths.best.mkdir()
    save_decoder(Mdgan(params, N_FRAMES, 0), paths.best, {"params": dataclasses.asdict(params)})
    return paths


def plan_of(recordings, bird, age, n_snippets=20, n_held_out=20):
    mine = recordings_of((bird, age), Recordings.from_rows(recordings))
    return DecoderPlan((bird, age), mine, n_snippets, n_held_out)


def weights(model):
    states = {name: net.state_dict() for name, net in model.nets.items()}
    states |= {f"averaged {name}": net.state_dict() for name, net in model.averaged.items()}
    return {f"{name}.{k}": v.clone() for name, state in states.items() for k, v in state.items()}


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[key], second[key]) for key in first)


# Who is served by which


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("all", []),
        ("bird", [[("a", ALL_AGES)], [("b", ALL_AGES)]]),
        (
            "bird_and_age",
            [[("a", "9")], [("a", "45")], [("a", "100")], [("a", "2012-04-19")], [("a", "adult")],
             [("b", "45")]],
        ),
        (
            "chained",
            [[("a", "9"), ("a", "45"), ("a", "100"), ("a", "2012-04-19"), ("a", "adult")],
             [("b", "45")]],
        ),
    ],
)  # fmt: skip
def test_ages_are_in_order_however_recordings_are_listed(scope, expected):
    ages = ("9", "45", "100", "2012-04-19", "adult")
    recordings = listed(*(("a", age) for age in ages), ("b", "45"))
    recordings.append(recording("c", "45", 0, split="", status="skipped"))
    for seed in range(5):
        random.Random(seed).shuffle(recordings)
        assert chains(scope, Recordings.from_rows(recordings)) == expected


def test_a_decoder_is_trained_on_the_used_recordings_of_what_it_serves():
    recordings = listed(("a", "45"), ("a", "90"), ("b", "45"), n=2)
    recordings.append(recording("a", "45", 9, split="", status="skipped"))
    recordings = Recordings.from_rows(recordings)
    paths = {r.path for r in recordings_of(("a", ALL_AGES), recordings)}
    assert paths == {f"a/{age}/songs/{i}.wav" for age in ("45", "90") for i in (0, 1)}
    assert {r.path for r in recordings_of(("a", "45"), recordings)} == {
        "a/45/songs/0.wav", "a/45/songs/1.wav",
    }  # fmt: skip


def test_each_bird_and_age_has_the_folder_of_its_decoder_and_whitening():
    paths = RunPaths(Path("run"))
    folders = {s: decoder_of(config_of(s), paths, "a", "45").as_posix() for s in SCOPES}
    assert folders == {
        "all": "run/best", "bird": "run/decoders/a", "bird_and_age": "run/decoders/a/45",
        "chained": "run/decoders/a/45",
    }  # fmt: skip
    files = {s: whitening_file(paths.latents, s, "a", "45").as_posix() for s in SCOPES}
    assert files == {
        "all": paths.whitening.as_posix(),
        "bird": "run/latents/bird=a/_whitening.json",
        "bird_and_age": "run/latents/bird=a/age=45/_whitening.json",
        "chained": "run/latents/bird=a/age=45/_whitening.json",
    }


def test_songs_are_decoded_by_the_decoder_of_their_bird_and_age(monkeypatch, tmp_path):
    class StopError(Exception):
        pass

    def stop(folder):
        raise StopError(folder.as_posix())

    monkeypatch.setattr(songs, "load_decoder", stop)
    for scope, folder in (("all", "run/best"), ("bird", "run/decoders/a")):
        with pytest.raises(StopError, match=folder):
            songs._songs_of._function(
                config_of(scope), recording("a", "45", 0), Path("data"), RunPaths(Path("run")),
                tmp_path / scope,
            )  # fmt: skip


def test_models_are_not_chained_over_latent_spaces_and_few_snippets_are_refused():
    load_config("smoke", None, ["decoders.scope=bird", "hmm.is_chained=true"])
    for scope in ("bird_and_age", "chained"):
        with pytest.raises(ConfigError, match=f"scope is {scope} and hmm.is_chained is true"):
            load_config("smoke", None, [f"decoders.scope={scope}", "hmm.is_chained=true"])
    with pytest.raises(ConfigError, match="decoders.n_snippets is 5: too few for 2 reports"):
        load_config("smoke", None, ["decoders.n_snippets=5"])
    assert caution("all") == ""
    assert "compare log L and BIC within one decoder only" in caution("bird")


def test_a_decoder_has_the_best_trials_parameters_and_its_own_number_of_snippets(tmp_path):
    params = dataclasses.replace(TINY, lr=3e-3, lambda_recon=77.0)
    paths = write_study(tmp_path, listed(("a", "45")), params)
    assert decoder_params(config_of("bird"), paths) == params
    config = StudyConfig(decoders=DecodersConfig("bird", n_snippets=9000))
    assert decoder_params(config, paths) == dataclasses.replace(params, n_snippets=9000)


# Chains


def test_the_weights_go_on_and_nothing_else():
    x = torch.rand(8, 1, 129, 16, generator=torch.Generator().manual_seed(0))
    before, model, fresh = (Mdgan(TINY, N_FRAMES, seed) for seed in (0, 1, 1))
    for _ in range(3):
        before.train_step(x)
    learned = weights(before)
    start_from(model, before)
    assert same(weights(model), learned)
    assert model.snippets_seen == 0
    assert not any(optimizer.state for optimizer in model.optimizers.values())
    assert torch.equal(model.rng.get_state(), fresh.rng.get_state())
    model.train_step(x)
    assert not same(weights(model), learned)
    assert same(weights(before), learned)  # what was handed on was a copy


def chain_of(monkeypatch, tmp_path, statuses):
    """Train a chain; weights of each age before its first step and after its last."""
    ages = [str(10 * (i + 1)) for i in range(len(statuses))]
    recordings = listed(*(("a", age) for age in ages))
    paths = write_study(tmp_path, recordings)
    moments = []

    def short(model, data, plan, seed, gpus, started_from):
        first = weights(model)
        trained = train_decoder(model, data, plan, seed, 0.0, started_from)
        trained.row["status"] = statuses[len(moments)]
        moments.append((first, weights(model), seed))
        return trained

    monkeypatch.setattr(decoder_fan_out, "train_decoder", short)
    params = dataclasses.replace(TINY, n_snippets=16)
    chain = [plan_of(recordings, "a", age) for age in ages]
    results = decoder_fan_out._train_chain(
        config_of("chained"), params, paths, paths.decoders, chain, 0
    )
    return paths, moments, results


def test_each_age_starts_from_the_last_one_that_has_a_decoder(monkeypatch, tmp_path):
    statuses = ["ok", "ok", "collapsed", "ok"]
    paths, moments, results = chain_of(monkeypatch, tmp_path, statuses)
    (first, end_1, seed_1), (start_2, end_2, seed_2), (start_3, _, _), (start_4, _, _) = moments
    params = dataclasses.replace(TINY, n_snippets=16)
    pca = Reference.load(paths.reference).pca
    fresh = Mdgan(params, N_FRAMES, bird_age_seed(0, ("a", "10")), pca=pca)
    assert same(first, weights(fresh))
    assert same(start_2, end_1)
    assert not same(end_2, start_2)
    assert same(start_3, end_2)
    assert same(start_4, end_2)
    assert seed_1 != seed_2
    assert [r.row["started_from"] for r in results] == ["", "10", "20", "20"]
    # What is on disk is what the next age started from, and a collapsed decoder is not kept.
    encoder, _, facts = load_decoder(paths.decoders / "a" / "20")
    stored = {f"averaged encoder.module.{k}": v for k, v in encoder.state_dict().items()}
    kept = {key: value for key, value in end_2.items() if key in stored}
    assert same(stored, kept)
    assert (facts["started_from"], facts["scope"], facts["age"]) == ("10", "chained", "20")
    assert facts["params"]["n_snippets"] == 16
    assert {p.name for p in (paths.decoders / "a").iterdir()} == {"10", "20", "40"}


def test_held_out_snippets_are_of_the_same_bird_and_age(tmp_path):
    recordings = listed(("a", "20"), ("a", "60"), ("b", "20"))
    paths = write_study(tmp_path, recordings)
    reference = Reference.load(paths.reference)
    data = load_data(config_of("bird"), plan_of(recordings, "a", "60"), paths, reference)
    (songs,) = data.songs
    assert (songs.bird, songs.age, songs.held_out_lengths) == ("a", "60", (10,))
    # Bands begin at 10 + age and are 40 wide.
    assert set(np.flatnonzero(songs.held_out.sum((0, 1, 3)))) == set(range(70, 110))
    assert set(np.flatnonzero(data.pool.frames.sum(0))) == set(range(70, 110))
    assert len(data.pool.frames) == 2 * 160
    whole = load_data(config_of("bird"), plan_of(recordings, "a", ALL_AGES), paths, reference)
    assert len(whole.pool.frames) == 4 * 160


# What cannot be trained


def test_what_cannot_be_trained_is_named_and_served_by_no_other(tmp_path):
    recordings = [*listed(("a", "45"), ("a", "90")), recording("b", "45", 0)]
    recordings += listed(("b", "90"), n=2)
    recordings[-2] = dataclasses.replace(recordings[-2], n_frames=40)
    paths = write_study(tmp_path, recordings)
    recordings = Recordings.from_rows(recordings)

    class Sound:
        """Every training is sound."""

        def run(self, submit, work, on_result, describe):
            for chain in work:
                keys = [p.bird_age for p in chain]
                found = [Trained({"bird": b, "age": a, "status": "ok"}) for b, a in keys]
                on_result(chain, found)

    tasks = Sound()
    config = config_of("bird_and_age")
    results = train_decoders(config, recordings, paths, tasks, Console(StringIO()), gpus=0)
    statuses = {(r.row["bird"], r.row["age"]): r.row["status"] for r in results}
    assert statuses == {
        ("a", "45"): "ok", ("a", "90"): "ok", ("b", "45"): "no_held_out",
        ("b", "90"): "too_few_snippets",
    }  # fmt: skip
    missing = without_decoder(config, paths, recordings)
    assert list(missing) == [("b", "45"), ("b", "90")]
    assert "one age needs 2 bouts" in missing["b", "45"]
    assert "2 snippets to train on, 8 needed (mdgan.batch_size)" in missing["b", "90"]
    # Together the two ages of b have enough.
    whole = config_of("bird")
    results = train_decoders(whole, recordings, paths, tasks, Console(StringIO()), gpus=0)
    assert [(r.row["bird"], r.row["age"]) for r in results] == [("a", ALL_AGES), ("b", ALL_AGES)]
    assert without_decoder(whole, paths, recordings) == {}
    # Where a bird has no decoder, none of its ages has.
    alone = Recordings.from_rows(
        [*listed(("a", "45")), recording("b", "45", 0), recording("b", "90", 0)]
    )
    train_decoders(whole, alone, paths, tasks, Console(StringIO()), gpus=0)
    assert list(without_decoder(whole, paths, alone)) == [("b", "45"), ("b", "90")]
    paths.decoder_table.unlink()
    assert without_decoder(config_of("all"), paths, recordings) == {}


@pytest.mark.parametrize(
    ("status", "value", "reason"),
    [("failed", np.nan, "training has diverged"), ("collapsed", 1.0, "snippets vary 0.010 times")],
)
def test_a_training_that_gives_nothing_gives_a_row_that_says_so(monkeypatch, status, value, reason):
    metrics = {"valid/collapsed": 1.0, "valid/spread": 0.01, "valid/odd": np.inf}
    monkeypatch.setattr(train, "evaluate", lambda *_: Evaluation(dict(metrics)))
    pool = FramePool(np.full((64, 129), value, "f4"), np.arange(40), N_FRAMES)
    plan = plan_of(listed(("a", "45")), "a", "45")
    model = Mdgan(dataclasses.replace(TINY, n_snippets=16), N_FRAMES, 0)
    data = TrialData(pool, np.zeros((2, 1, 129, 16), "f4"), None, "")
    trained = train_decoder(model, data, plan, 0, 0.0, "20")
    assert (trained.row["status"], trained.is_sound) == (status, False)
    assert reason in trained.row["reason"]
    assert trained.row["started_from"] == "20"
    if status == "collapsed":
        assert trained.row["valid/odd"] is None  # no finite number
        assert sorted(trained.reports) == [8, 16]


# The stages on Ray


def stages_run(tmp_path, config, recordings):
    """From the decoders to the HMMs, on a Ray of its own."""
    paths = write_study(tmp_path / "run", recordings)
    text = StringIO()
    console = Console(text)
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", "study", {"best_trial_id": "trial-0"},
        paths.tracking, allowed_params(config))  # fmt: skip
    tracker.start_study({}, "study", {})
    ledger = Ledger(paths.root, paths.stages, console, 8)
    where = Where(paths.root, None, tracker.uri)
    for name in ("recordings", "trials"):
        ledger.done[name] = StageRecord(name, {}, 0.0, False, "")
    study = Study(
        config, where, paths, console, TaskRunner(), tracker, ledger, 0.0, None,
        Recordings.from_rows(recordings),
    )  # fmt: skip
    with connected(None):
        for stage in (DECODERS, LATENTS, HMMS):
            with_begin(stage).do(study)
    assert tracker.close(60.0) == 0
    return study, text.getvalue()


@pytest.mark.integration
def test_from_decoders_to_models_each_by_its_own(tmp_path):
    scope = "chained"
    bird_ages = [("a", "20"), ("a", "60"), ("b", "20")]
    recordings = [*listed(*bird_ages), recording("c", "20", 0)]
    hmm = load_config("smoke", None, ["hmm.n_states=[1,2]", "hmm.min_snippets=20",
                                      "hmm.search=grid", "hmm.max_n_states=2"]).hmm  # fmt: skip
    config = config_of(scope, hmm=hmm)
    study, text = stages_run(tmp_path, config, recordings)
    paths = study.paths
    rows = {(r["bird"], r["age"]): r for r in read_table(paths.decoder_table).to_pylist()}
    assert {p: (r["status"], r["started_from"]) for p, r in rows.items()} == {
        ("a", "20"): ("ok", ""), ("a", "60"): ("ok", "20"), ("b", "20"): ("ok", ""),
        ("c", "20"): ("no_held_out", ""),
    }  # fmt: skip
    assert "c 20 has no decoder: no recording is held out" in text
    means = []
    for bird_age in bird_ages:
        facts = json.loads((decoder_of(config, paths, *bird_age) / "model.json").read_text())
        assert facts["sha256"]["encoder.safetensors"] == rows[bird_age]["encoder_sha256"]
        train = {r.path for r in recordings if r.split == "training"}
        latents = read_latents(paths.latents, *bird_age)
        z = np.concatenate([one for name, one in latents.items() if name in train])
        whitening = json.loads(whitening_file(paths.latents, scope, *bird_age).read_text())
        np.testing.assert_allclose(whitening["mean"], z.mean(0), atol=1e-4)
        np.testing.assert_allclose(whitening["std"], z.std(0), rtol=1e-3, atol=1e-5)
        model = json.loads((paths.hmm / bird_age[0] / f"{bird_age[1]}.json").read_text())
        assert model["whitening"]["mean"] == whitening["mean"]
        means.append(tuple(whitening["mean"]))
    assert len(set(means)) == 3
    assert not (paths.latents / "bird=c").exists()
    selected = {(r["bird"], r["age"]): r for r in read_table(paths.hmm_selected).to_pylist()}
    assert [selected[p]["status"] for p in bird_ages] == ["ok"] * 3
    assert selected["c", "20"]["status"] == "no_decoder"
    assert "no decoder (no_held_out: no recording" in selected["c", "20"]["reason"]
    client = MlflowClient(study.tracker.uri)
    runs = client.search_runs([study.tracker.experiment_id], "tags.stage='decoder'")
    assert {(r.data.tags["bird"], r.info.status) for r in runs} == {
        ("a", "FINISHED"), ("b", "FINISHED"), ("c", "FAILED"),
    }  # fmt: skip
    for run in runs:
        tags, metrics = run.data.tags, run.data.metrics
        row = rows[tags["bird"], tags["age"]]
        assert metrics.get("valid/recon_l1") == row["valid/recon_l1"]
        curve = client.get_metric_history(run.info.run_id, "valid/recon_l1")
        reports = [r for r in read_table(paths.decoder_reports).to_pylist()
                   if (r["bird"], r["age"]) == (tags["bird"], tags["age"])]  # fmt: skip
        assert [(m.step, m.value, m.timestamp) for m in curve] == [
            (r["snippets_seen"], r["valid/recon_l1"], round(1000 * r["reported_at"]))
            for r in reports
        ]
