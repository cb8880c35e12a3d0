"""One trial, as its process runs it: what it reports, keeps, and goes on from."""

import dataclasses
import errno

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from data_io.snippets import FramePool
from data_io.store import read_table
from models.mdgan import tensor_files, training
from models.mdgan.checkpoints import load_decoder
from models.mdgan.params import MdganParams
from models.mdgan.training import Evaluation
from models.metrics.reference import fit_reference
from models.metrics.songs import gather_songs
from study.base.paths import RunPaths
from study.config.space import NOT_SEARCHED
from study.search import trial
from study.search.rungs import Rungs
from study.search.state import SearchState, TrialState
from study.search.tables import write_tables
from study.search.trial import TrialJob, run_trial
from study.search.trial_folder import TrialFolder, TrialSpec, read_reports
from study.training import train
from study.training.data import TrialData

BASE = MdganParams(
    latent_dim=2, dense_width=4, n_components=3, disc_width=2, n_snippets=96, n_reports=3,
    batch_size=16, adversarial_from=0.0, collapse_after=0, lr=0.01, label_noise=0.2,
)  # fmt: skip
# Another value of every parameter that may be searched.
CHANGED = {
    "latent_dim": 3, "width": 2, "dense_width": 8, "disc_width": 3, "normalisation": "batch",
    "is_residual": True, "has_head": True, "initialisation": "normal", "prior": "uniform",
    "prior_scale": 2.0, "distance": "l2", "pool_weight": 1.0, "mse_weight": 1.0,
    "lambda_recon": 100.0, "lambda_latent": 3.0, "lambda_prior": 3.0, "adversarial_from": 0.5,
    "order": "alternating", "label_noise": 0.4, "lr": 0.003, "disc_lr_ratio": 1.0,
    "lr_schedule": "linear", "lr_warmup": 0.5, "beta1": 0.9, "max_grad_norm": 1e-3,
    "ema_decay": 0.9, "batch_size": 8, "minibatch": "uniform", "silent_share": 0.1,
    "lambda_silence": 3.0, "gan_loss": "relativistic", "r1_r2": 3.0,
    "is_disc_lr_constant": True,
}  # fmt: skip
# These change nothing by themselves: they steer the convolutions.
WITH_CONVOLUTIONS = ("normalisation", "is_residual", "has_head", "initialisation")
WITH_RELATIVISTIC = ("r1_r2",)
UNSTEADY = ("time/", "system/", "reported_at")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    has_sound = np.arange(200) >= 80
    pool = FramePool(rng.random((200, 129), "f4"), np.arange(180), 16, has_sound=has_sound)
    held_out = {("b1", "45"): [rng.random((640, 129), "f4")]}
    songs = gather_songs({("b1", "45"): [pool.frames]}, held_out, 16, 40, 0)
    reference = fit_reference(torch.from_numpy(pool.crops(np.arange(180))), songs, 0)
    return TrialData(pool, songs, reference, "hash")


class Runner:
    """Runs trials in this process; ``reported`` is what Ray would be told."""

    def __init__(self, data, tmp_path, monkeypatch):
        self.data, self.root, self.reported = data, tmp_path, []
        self.stop_after = None
        monkeypatch.setattr(trial.tune, "report", self._report)

    def _report(self, metrics):
        self.reported.append(metrics)
        if self.stop_after is not None and metrics["report"] >= self.stop_after:
            raise KeyboardInterrupt  # as sudden as a kill

    def run(self, name="trial-000", base=BASE, objective="valid/objective", seed=0, **params):
        spec = TrialSpec(name, 0, seed, params)
        self.folder = TrialFolder(self.root / name)
        self.folder.begin(spec)
        self.reported.clear()
        job = TrialJob(base, objective, self.root, 1, 0.0)
        run_trial({"spec": dataclasses.asdict(spec)}, self.data, job)
        return steady(self.reported)


def steady(reports):
    return [
        {k: v for k, v in report.items() if not k.startswith(UNSTEADY) and k != "note"}
        for report in reports
    ]


@pytest.fixture
def runner(data, tmp_path, monkeypatch):
    return Runner(data, tmp_path, monkeypatch)


def test_the_table_of_changes_holds_every_parameter_that_may_be_searched():
    known = {field.name for field in dataclasses.fields(MdganParams)}
    assert set(CHANGED) == known - set(NOT_SEARCHED)


def losses(reports):
    return {k: v for k, v in reports[-1].items() if k.startswith(("train/", "valid/"))}


@pytest.fixture(scope="module")
def unchanged():
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGED)
def test_every_value_sampled_reaches_the_training(runner, unchanged, name):
    base = dataclasses.replace(BASE, n_reports=1)
    if name in WITH_CONVOLUTIONS:
        base = dataclasses.replace(base, width=2)
    if name in WITH_RELATIVISTIC:
        base = dataclasses.replace(base, gan_loss="relativistic")
    key = base.width, base.gan_loss
    if key not in unchanged:
        unchanged[key] = losses(runner.run("plain", base))
        assert unchanged[key] == losses(runner.run("plain-again", base))
    assert losses(runner.run("changed", base, **{name: CHANGED[name]})) != unchanged[key]


def test_the_same_parameters_and_seed_give_the_same_reports_and_another_seed_others(runner):
    first = runner.run("trial-000", lr=0.003)
    assert runner.run("trial-007", lr=0.003) == first
    assert runner.run("trial-008", lr=0.003, seed=1) != first


def test_every_report_is_on_disk_before_it_is_told(runner):
    runner.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    checkpoint, _ = runner.folder.newest_checkpoint()
    assert [r["report"] for r in read_reports(checkpoint)] == [1, 2]
    load_decoder(checkpoint)


@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_a_trial_that_was_killed_goes_on_to_the_very_same_numbers(runner, killed_after):
    whole = runner.run("whole")
    runner.stop_after = killed_after
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    runner.stop_after = None
    assert runner.run() == whole  # the first ones told again, the rest trained
    kept = [
        TrialFolder(runner.root / name).newest_checkpoint()[0] for name in ("whole", "trial-000")
    ]
    weights = [(path / "encoder.safetensors").read_bytes() for path in kept]
    assert weights[0] == weights[1]


def test_the_time_of_all_processes_is_added_up(runner):
    runner.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    before = runner.reported[-1]["time/seconds"]
    runner.stop_after = None
    runner.run()
    seconds = [report["time/seconds"] for report in runner.reported]
    assert seconds[1] == before
    assert seconds == sorted(seconds)


def test_a_broken_checkpoint_is_named_and_the_one_before_gives_the_same_numbers(runner):
    whole = runner.run("whole")
    runner.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    runner.stop_after = None
    newest, _ = runner.folder.newest_checkpoint()
    (newest / "training.safetensors").write_bytes(b"cut short")
    assert runner.run() == whole
    assert "checkpoint-0002 is broken (training.safetensors" in runner.reported[0]["note"]
    assert not any(report["note"] for report in runner.reported[1:])


def test_the_note_on_a_broken_first_checkpoint_comes_with_the_first_report(runner):
    runner.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    runner.stop_after = None
    (runner.folder.path / "checkpoint-0001" / "reports.json").unlink()
    reported = runner.run()
    assert [r["report"] for r in reported] == [1, 2, 3]
    assert "checkpoint-0001 is broken (reports.json is missing)" in runner.reported[0]["note"]


def test_a_collapsed_decoder_is_ranked_last_whatever_the_objective(runner, monkeypatch):
    metrics = {"valid/collapsed": 1.0, "valid/recon_l1": 0.1, "valid/objective": 1000.0}
    monkeypatch.setattr(train, "evaluate", lambda *_: Evaluation(dict(metrics)))
    reported = runner.run(objective="valid/recon_l1")
    assert reported[0]["objective"] == 1000.0
    assert reported[0]["valid/recon_l1"] == 0.1  # what was measured stays
    metrics["valid/collapsed"] = 0.0
    assert runner.run("trial-001", objective="valid/recon_l1")[0]["objective"] == 0.1


def test_what_the_last_report_measured_of_each_bird_and_age_stands_in_the_table(
    runner, monkeypatch
):
    def measured(model, *_):
        metrics = {"valid/collapsed": 0.0, "valid/objective": 0.5}
        row = {"bird": "b1", "recon_l1": float(model.snippets_seen), "frechet_song": None}
        return Evaluation(metrics, [{**row, "age": "45"}, {**row, "age": "60"}])

    monkeypatch.setattr(train, "evaluate", measured)
    paths = RunPaths(runner.root)
    runner.root = paths.search
    state = SearchState(Rungs([], 2), BASE.n_reports)
    for number in range(2):
        reported = runner.run(f"trial-{number:03d}")
        ended = {"reports": reported, "reason": "", "may_go_on": False, "ended_at": 1.0,
                 "node": "a", "n_retries": 0, "mlflow_run_id": None}  # fmt: skip
        runner.folder.end(ended)
        spec = TrialSpec(f"trial-{number:03d}", number, 0, {})
        state.add(TrialState(spec, {r["report"]: r for r in reported}, ended))
    write_tables(paths, [{"trial_id": "trial-000"}], [], state)
    assert read_table(paths.trial_by_bird_age).to_pylist() == [
        {"trial_id": f"trial-{number:03d}", "report": BASE.n_reports, "bird": "b1",
         "recon_l1": float(BASE.n_snippets), "frechet_song": None, "age": age}
        for number in range(2) for age in ("45", "60")
    ]  # fmt: skip


def test_a_training_that_diverges_is_reported_with_its_reason(runner):
    frames = np.full((64, 129), np.nan, "f4")
    runner.data = dataclasses.replace(runner.data, pool=FramePool(frames, np.arange(40), 16))
    (report,) = runner.run()
    assert report["objective"] == 1000.0
    assert "training has diverged" in report["reason"]
    assert (report["ended"], report["may_go_on"], report["report"]) == ("failed", False, 1)


def test_a_training_that_collapses_on_the_way_is_reported_as_collapsed(runner, monkeypatch):
    monkeypatch.setattr(training, "CHECK_EVERY", 1)
    # A decoder without a linear part, before it has learned anything, gives one snippet only.
    base = dataclasses.replace(
        BASE, width=2, dense_width=0, initialisation="normal", lr=1e-6, collapse_after=1
    )
    (report,) = runner.run(base=base)
    assert (report["objective"], report["ended"]) == (1000.0, "collapsed")
    assert "After 1 steps decoded snippets vary less than 0.05" in report["reason"]
    assert not report["may_go_on"]


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory"), MemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)  # fmt: skip
def test_a_trial_out_of_memory_says_so_and_may_go_on_later(runner, monkeypatch, error):
    monkeypatch.setattr(train, "evaluate", lambda *_: (_ for _ in ()).throw(error))
    (report,) = runner.run()
    assert (report["ended"], report["may_go_on"]) == ("failed", True)
    assert "out of memory" in report["reason"]
    assert "batch_size" in report["reason"]


def test_another_fault_of_torch_is_not_taken_for_want_of_memory(runner, monkeypatch):
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr(train, "evaluate", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        runner.run()


def test_a_gpu_that_torch_does_not_find_is_no_fault_of_the_trial(runner, monkeypatch):
    monkeypatch.setattr(trial, "wait_for_memory", lambda gpus: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    spec = TrialSpec("trial-000", 0, 0, {})
    job = TrialJob(BASE, "valid/objective", runner.root, 1, 0.5)
    TrialFolder(runner.root / "trial-000").begin(spec)
    run_trial({"spec": dataclasses.asdict(spec)}, runner.data, job)
    (report,) = runner.reported
    assert report["may_go_on"]
    assert "torch" in report["reason"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_the_search_and_not_the_trial(runner, monkeypatch, code):
    def full(*_):
        raise OSError(code, "No space left on device", "somewhere")

    monkeypatch.setattr(TrialFolder, "save", full)
    (report,) = runner.run()
    assert "No space left on device" in report["storage"]
    assert "reason" not in report


def test_a_disk_that_is_full_for_tensors_is_called_full_and_the_process_goes_on(
    runner, monkeypatch
):
    def full(*_):
        raise SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr(tensor_files, "save_file", full)
    (report,) = runner.run()
    assert "No space left on device" in report["storage"]
    assert "training.safetensors" in report["storage"]


def test_another_error_of_the_file_system_is_raised(runner, monkeypatch):
    def fails(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(TrialFolder, "save", fails)
    with pytest.raises(OSError, match="Input/output"):
        runner.run()
