"""The picture of a trial: the right snippets, of the right birds, and one for each decoder."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from sklearn.decomposition import PCA

from data_io.files import write_json
from data_io.recordings.table import Recording, Recordings
from data_io.spectrogram import SpectrogramParams
from data_io.store import write_rows
from models.mdgan.checkpoints import decoder_nets, save_decoder
from models.mdgan.losses import sample_prior
from models.metrics.reference import fit_reference
from study.base.console import Console
from study.base.errors import StudyError
from study.base.ledger import Ledger
from study.base.paths import RunPaths, Where
from study.config.reader import load_config
from study.context import Study
from study.report import trial_figures
from study.report.decoder_figures import decoder_figure
from study.report.trial_figures import (
    choose_to_show,
    draw_trials,
    kept_decoder,
    map_latents,
    view_decoder,
)
from study.search.pictures import BEGUN
from study.search.tables import _schema
from study.search.trial_folder import BrokenRecordError
from study.tracked import with_begin
from study.training import data as trial_data
from study.training.data import HeldOutSnippets, load_held_out
from tests.helpers.reference_snippets import SONGS, TRAIN, VALID
from tests.helpers.stored import write_levelled
from tests.helpers.tasks import InTurn
from tests.helpers.tiny_mdgan import build, steps

REFERENCE = fit_reference(TRAIN, SONGS, 0)
PIECES = [("b1", "45"), ("b1", "90"), ("b2", "45"), ("b2", "adult")]
HELD_OUT = HeldOutSnippets(VALID.numpy(), [PIECES[i % 4] for i in range(len(VALID))])
SHOWN = np.array([3, 150, 7])


def recorded(folder, split=("training", "selection"), n_frames=400):
    """Recordings whose spectrograms hold their own number, written out of order; by number."""
    found = []
    for i, (bird, age) in enumerate(5 * PIECES):
        path = f"{bird}/{age}/songs/{i}.wav"
        side = split[(i // 4) % len(split)]
        found.append(Recording(bird, age, None, None, path, n_frames=n_frames + i, split=side))
    for bird, age in PIECES:
        noise = np.random.default_rng(0)
        songs = [
            (r.path, (i + noise.random((129, r.n_frames)) / 2).astype(np.float32))
            for i, r in enumerate(found)
            if (r.bird, r.age) == (bird, age)
        ]
        write_levelled(folder, bird, age, songs)
    return found


def nets(kind="both", n_steps=0, **changes):
    """Encoder, generator and model.json of a tiny MDGAN."""
    model = build(kind, **changes)
    steps(model, n_steps)
    encoder, generator = decoder_nets(model)
    encoder.eval(), generator.eval()
    params = {"prior": model.params.prior, "prior_scale": model.params.prior_scale}
    return encoder, generator, {"params": params}


def view_of(latent_dim=3, held_out=HELD_OUT):
    return view_decoder(*nets(latent_dim=latent_dim), REFERENCE, held_out, SHOWN, seed=0)


def drawn(view, reports=()):
    return decoder_figure(view, reports, SpectrogramParams(), "trial-000: completed")


# Where snippets are from.


def test_held_out_snippets_are_those_that_trials_are_measured_on(tmp_path, monkeypatch):
    monkeypatch.setattr(trial_data, "N_REFERENCE_SNIPPETS", 100)
    few = ["search.n_eval_snippets=150", "search.objective=valid/recon_l1"]  # too few for songs
    config = load_config("smoke", None, [*few, "seed=3"])
    paths = RunPaths(tmp_path)
    recordings = recorded(paths.spectrograms)
    held_out = load_held_out(config, Recordings.from_rows(recordings), paths)
    data = trial_data.load_trial_data(config, Recordings.from_rows(recordings), paths)
    np.testing.assert_array_equal(
        held_out.snippets, np.concatenate([s.held_out for s in data.songs])
    )
    numbers = held_out.snippets[:, 0, 0, 0].astype(int)
    assert held_out.birds_and_ages == [(recordings[i].bird, recordings[i].age) for i in numbers]
    assert {recordings[i].split for i in numbers} == {"selection"}


def test_snippets_to_show_come_from_all_birds_and_ages_and_are_loud():
    shown = choose_to_show(HELD_OUT, 8)
    from_pieces = [HELD_OUT.birds_and_ages[i] for i in shown]
    assert from_pieces == [piece for piece in PIECES for _ in range(2)]
    assert len(set(shown)) == 8
    loudness = HELD_OUT.snippets.mean((1, 2, 3))
    for i, piece in zip(shown, from_pieces, strict=True):
        others = [x for x, p in zip(loudness, HELD_OUT.birds_and_ages, strict=True) if p == piece]
        assert loudness[i] >= np.quantile(others, 0.75)


def test_more_birds_than_places_are_thinned_evenly():
    many = [(f"b{i:02}", "45") for i in range(16)]
    held_out = HeldOutSnippets(VALID[:64].numpy(), 4 * many)
    shown = choose_to_show(held_out, 8)
    assert [held_out.birds_and_ages[i] for i in shown] == many[::2]


@pytest.mark.parametrize("metric", ["valid/objective", "valid/frechet_song_worst"])
def test_recordings_too_short_for_windows_of_song_end_a_study_that_ranks_by_them(
    tmp_path, monkeypatch, metric
):
    monkeypatch.setattr(trial_data, "N_REFERENCE_SNIPPETS", 100)
    paths = RunPaths(tmp_path)
    short = Recordings.from_rows(recorded(paths.spectrograms, n_frames=40))
    config = load_config("smoke", None, [f"search.objective={metric}"])
    with pytest.raises(StudyError, match=f"None of 4 birds and ages has 20.*{metric} needs.*Give"):
        trial_data.load_trial_data(config, short, paths)
    config = load_config("smoke", None, ["search.objective=valid/recon_l1"])
    data = trial_data.load_trial_data(config, short, paths)
    assert not any(songs.has_song for songs in data.songs)


# What is shown.


def test_rows_are_the_real_snippets_and_their_own_reconstructions():
    encoder, generator, facts = nets("both", n_steps=2)
    view = view_decoder(encoder, generator, facts, REFERENCE, HELD_OUT, SHOWN, 0)
    np.testing.assert_array_equal(view.rows["real"], HELD_OUT.snippets[SHOWN, 0])
    for i, row in zip(SHOWN, view.rows["reconstructed"], strict=True):
        with torch.no_grad():
            one = generator(encoder(VALID[i : i + 1]))
        np.testing.assert_allclose(row, one[0, 0], atol=1e-5)
    assert view.shown_from == [HELD_OUT.birds_and_ages[i] for i in SHOWN]


def test_row_of_pca_is_that_of_scikit_learn_with_as_many_dimensions():
    view = view_of(latent_dim=3)
    flat = TRAIN.flatten(1).double().numpy()
    pca = PCA(3, svd_solver="full").fit(flat)
    expected = pca.inverse_transform(pca.transform(VALID[SHOWN].flatten(1).double().numpy()))
    assert expected.min() < 0
    row = view.rows["PCA, 3 dim."]
    np.testing.assert_allclose(row.reshape(3, -1), expected.clip(min=0), atol=1e-4)


def test_samples_are_of_the_prior_and_decoded_as_such():
    encoder, generator, facts = nets("convolutions", n_steps=3, normalisation="batch")
    facts["params"] = {"prior": "uniform", "prior_scale": 2.0}
    view = view_decoder(encoder, generator, facts, REFERENCE, HELD_OUT, SHOWN, seed=5)
    z = sample_prior(3, 3, "uniform", 2.0, torch.Generator().manual_seed(5))
    with torch.no_grad():
        as_prior, as_encoded = (generator(z, s)[:, 0].numpy() for s in ("prior", "encoded"))
    np.testing.assert_allclose(view.rows["sampled"], as_prior, atol=1e-6)
    assert np.abs(as_prior - as_encoded).max() > 1e-3


def test_samples_of_pca_spread_as_the_training_snippets_do():
    many = np.arange(200)
    view = view_decoder(*nets(latent_dim=2), REFERENCE, HELD_OUT, many, seed=0)
    scores = REFERENCE.pca_scores(torch.from_numpy(view.rows["sampled, PCA"])[:, None], 2)
    real = REFERENCE.pca_scores(TRAIN, 2)
    # Clipping at 0 takes some of the spread away.
    assert 0.6 < (scores.std(0) / real.std(0)).min() <= (scores.std(0) / real.std(0)).max() < 1.15


def test_two_latents_are_shown_as_they_are_and_one_keeps_its_value():
    z = np.random.default_rng(0).standard_normal((50, 2)).astype("f4")
    np.testing.assert_array_equal(map_latents(z, 0)[0], z)
    one, words = map_latents(z[:, :1], 0)
    np.testing.assert_array_equal(one[:, 0], z[:, 0])
    assert one.shape == (50, 2)
    assert words == "the latent, at random heights"


def test_without_umap_latents_are_shown_by_two_principal_components(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)  # as if it were not installed
    z = (np.random.default_rng(0).standard_normal((50, 6)) * np.arange(1, 7)).astype("f4")
    plane, words = map_latents(z, 0)
    expected = PCA(2).fit_transform(z.astype(np.float64))
    np.testing.assert_allclose(np.abs(plane), np.abs(expected), atol=1e-5)
    assert words == "first two principal components of 6 latents"


def test_where_umap_is_installed_it_is_used_and_named(monkeypatch):
    asked = {}

    class Umap:
        def __init__(self, **settings):
            asked.update(settings)

        def fit_transform(self, z):
            return z[:, :2] + 100

    stand_in = ModuleType("umap")
    stand_in.UMAP = Umap
    monkeypatch.setitem(sys.modules, "umap", stand_in)
    z = np.random.default_rng(0).standard_normal((50, 6)).astype("f4")
    plane, words = map_latents(z, 7)
    np.testing.assert_array_equal(plane, z[:, :2] + 100)
    assert words == "UMAP of 6 latents"
    assert asked == {"random_state": 7, "n_jobs": 1}


# How it is drawn.


REPORTS = [
    {"snippets_seen": 100, "train/reconstruction": 0.5, "train/latent_cycle": 1.0,
     "train/monitor_disc": None, "valid/recon_l1_vs_pca": 1.5, "valid/frechet_sample": 0.9},
    {"snippets_seen": 200, "train/reconstruction": 0.1, "train/latent_cycle": None,
     "train/monitor_disc": None, "valid/recon_l1_vs_pca": 0.9, "valid/frechet_sample": 0.4},
]  # fmt: skip


def test_every_kind_of_snippet_has_its_row_in_one_grey_scale():
    view = view_of()
    snippets, _ = drawn(view).subfigs
    images = [ax.images[0] for ax in snippets.axes]
    expected = np.concatenate(list(view.rows.values()))
    np.testing.assert_array_equal([image.get_array() for image in images], expected)
    assert {image.get_clim() for image in images} == {(0, np.quantile(view.rows["real"], 0.999))}
    assert [ax.get_ylabel() for ax in snippets.axes[::3]] == list(view.rows)
    assert [ax.get_title() for ax in snippets.axes[:3]] == ["b2\nadult", "b2\n45", "b2\nadult"]
    assert tuple(images[0].get_extent()) == (0, 64, 0, 8)


def test_curves_show_what_was_reported_and_leave_out_what_was_not():
    losses, held_out, *_ = drawn(view_of(), REPORTS).subfigs[1].axes
    curves = {line.get_label(): line.get_xydata().tolist() for line in losses.lines}
    assert curves == {
        "reconstruction": [[100, 0.5], [200, 0.1]],
        "latent cycle": [[100, 1.0]],
    }
    curves = {line.get_label(): line.get_xydata().tolist() for line in held_out.lines}
    assert curves["L1 / PCA-16"] == [[100, 1.5], [200, 0.9]]
    assert curves["Frechet, prior samples"] == [[100, 0.9], [200, 0.4]]
    assert "L2 / PCA-16" not in curves


def test_the_title_says_how_the_trial_ended():
    shape = {"latent_dim": 4, "width": 8, "dense_width": 0, "normalisation": "layer"}
    row = {"trial_id": "trial-007", "status": "stopped", "reason": "stopped early at report 1"}
    title = trial_figures._title(row, {"shape": shape, "snippets_seen": 2000})
    assert title == (
        "trial-007, stopped: stopped early at report 1\n"
        "4 latents, width 8, dense width 0, norm layer; the decoder after 2,000 snippets"
    )


def test_colours_of_the_map_are_those_of_bird_and_age():
    by_bird, by_age = drawn(view_of()).subfigs[1].axes[2:4]
    legend = by_bird.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["b1", "b2"]
    colours = by_bird.collections[0].get_facecolor()[:, :3]
    named = {
        text.get_text(): handle.get_facecolor()[0, :3]
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }
    expected = [named[bird] for bird, _ in HELD_OUT.birds_and_ages]
    np.testing.assert_allclose(colours, expected)
    assert not np.allclose(named["b1"], named["b2"])
    order = {"45": 0, "90": 1, "adult": 2}
    ages = by_age.collections[0].get_array().tolist()
    assert ages == [order[age] for _, age in HELD_OUT.birds_and_ages]


def test_ages_in_days_are_coloured_by_days():
    days = [(bird, str(45 + 10 * (i % 3))) for i, (bird, _) in enumerate(HELD_OUT.birds_and_ages)]
    view = view_of(held_out=HeldOutSnippets(HELD_OUT.snippets, days))
    *_, by_age, bar = drawn(view).subfigs[1].axes
    assert by_age.collections[0].get_array().tolist() == [float(age) for _, age in days]
    assert [tick.get_text() for tick in bar.get_xticklabels()] == ["45", "55", "65"]
    assert bar.get_xlabel() == "age (dph)"


@pytest.mark.parametrize("latent_dim", [1, 2, 6])
def test_any_number_of_latents_and_a_single_bird_can_be_drawn(tmp_path, monkeypatch, latent_dim):
    monkeypatch.setitem(sys.modules, "umap", None)
    one_bird = HeldOutSnippets(HELD_OUT.snippets, [("b1", "60")] * len(VALID))
    view = view_of(latent_dim, one_bird)
    drawn(view, REPORTS).savefig(tmp_path / "one.png")
    assert f"PCA, {latent_dim} dim." in view.rows
    assert view.latent_map.shape == (len(VALID), 2)
    assert imread(tmp_path / "one.png").shape[:2] == (900, 1700)


def test_many_birds_are_counted_instead_of_named():
    many = HeldOutSnippets(HELD_OUT.snippets, [(f"b{i % 30}", f"2019-05-{i % 28 + 1:02}")
                                               for i in range(len(VALID))])  # fmt: skip
    by_bird, _, bar = drawn(view_of(held_out=many)).subfigs[1].axes[2:]
    assert by_bird.get_legend() is None
    assert by_bird.get_title().endswith("by bird (30)")
    assert len(bar.get_xticks()) == 7
    assert bar.get_xticklabels()[1].get_text() == "2019-05-05"


# One for each trial.


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A run folder with a completed, a collapsed and a failed trial; the last left no decoder.

    Tasks run one after the other in this process.
    """

    in_process = SimpleNamespace(remote=trial_figures._draw_trial._function)
    monkeypatch.setattr(trial_figures, "_draw_trial", in_process)
    monkeypatch.setattr(trial_figures.ray, "put", lambda shared: shared)
    monkeypatch.setitem(sys.modules, "umap", None)
    paths = RunPaths(tmp_path)
    recordings = Recordings.from_rows(recorded(paths.spectrograms))
    REFERENCE.save(paths.reference)
    sound, collapsed = build("both"), build("both", seed=1)
    with torch.no_grad():
        for net in collapsed.nets.values():
            for parameter in net.parameters():
                parameter.zero_()
    for name, model in (("trial-000", sound), ("trial-001", collapsed)):
        folder = paths.search / name / "decoder"
        folder.mkdir(parents=True)
        params = {"prior": "normal", "prior_scale": 1.0}
        save_decoder(model, folder, {"snippets_seen": 200, "params": params})
    (paths.search / "trial-002").mkdir()
    states = ("completed", "collapsed", "failed")
    rows = [
        {"trial_id": f"trial-00{i}", "number": i, "status": status, "reason": i * "no use ",
         "mlflow_run_id": f"run{i}"}
        for i, status in enumerate(states)
    ]  # fmt: skip
    write_rows(paths.trials, rows, _schema(rows))
    reports = [{"trial_id": f"trial-00{i}", **REPORTS[0], "train/monitor_disc": 1.0}
               for i in range(2)]  # fmt: skip
    write_rows(paths.trial_reports, reports, _schema(reports))
    config = load_config("smoke", None, ["search.n_eval_snippets=100"])
    return config, recordings, paths


def test_every_trial_with_a_decoder_gets_a_picture_also_a_collapsed_one(finished, capsys):
    config, recordings, paths = finished
    drawn_trials = draw_trials(config, recordings, paths, InTurn(), Console())
    assert drawn_trials == ["trial-000", "trial-001"]
    pictures = sorted(path.name for path in paths.trial_figures.iterdir())
    assert pictures == ["trial-000.png", "trial-001.png"]
    for name in pictures:
        picture = imread(paths.trial_figures / name)
        assert picture.shape[:2] == (900, 1700)
        assert picture.std() > 0.04
    text = capsys.readouterr().out
    assert "1 of 3 trials left no decoder" in text
    assert "2 trials drawn" in text


@pytest.mark.parametrize("name", ["model.json", "encoder.safetensors", "generator.safetensors"])
def test_an_altered_decoder_is_named_and_not_drawn(finished, name):
    config, recordings, paths = finished
    path = paths.search / "trial-001" / "decoder" / name
    whole = path.read_bytes()
    content = bytearray(whole)
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    try:
        with pytest.raises(BrokenRecordError) as caught:
            draw_trials(config, recordings, paths, InTurn(), Console())
    finally:
        path.write_bytes(whole)
    assert str(path) in str(caught.value)
    assert f"Without the folder {path.parent} the trial has no picture" in str(caught.value)


def test_a_trial_without_a_decoder_has_none_to_draw(tmp_path):
    paths = RunPaths(tmp_path)
    assert kept_decoder(paths, "trial-000") is None
    (paths.search / "trial-000" / "decoder").mkdir(parents=True)
    assert kept_decoder(paths, "trial-000") == paths.search / "trial-000" / "decoder"


def test_pictures_go_to_the_runs_of_their_trials_and_are_made_once(finished, tmp_path, monkeypatch):
    config, recordings, paths = finished

    def draw(config, recordings, paths, tasks, console):
        paths.trial_figures.mkdir(exist_ok=True)
        for i in range(2):
            paths.trial_figure(f"trial-00{i}").write_bytes(b"a picture")
        return ["trial-000", "trial-001"]

    monkeypatch.setattr(trial_figures, "draw_trials", draw)
    shown = []
    tracker = SimpleNamespace(
        stamp=lambda: {"study_run_id": "s", "began_at": 0.0}, show=lambda *them: shown.extend(them)
    )
    for i in range(2):
        write_json(paths.search / f"trial-00{i}" / BEGUN, tracker.stamp())
    console = Console()
    for again in range(3):
        ledger = Ledger(tmp_path, paths.stages, console, 3)
        for name in ("recordings", "trials"):
            ledger.done[name] = SimpleNamespace(digest=name)
        where = Where(tmp_path, None, "")
        study = Study(
            config, where, paths, console, InTurn(), tracker, ledger, 0.0, None, recordings
        )
        if again == 2:  # a picture that is lost is drawn again
            paths.trial_figure("trial-001").unlink()
        with_begin(trial_figures.TRIAL_FIGURES).do(study)
        assert ledger.done["trial figures"].was_skipped == (again == 1)
    assert [(one.identity.trial_id, *one.files) for one in shown] == 3 * [
        (f"trial-00{i}", paths.trial_figure(f"trial-00{i}")) for i in range(2)
    ]
