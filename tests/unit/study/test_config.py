"""The configuration: order of precedence, types, and errors that a person can act on."""

import dataclasses
import subprocess
import sys

import pytest
import yaml

from models.mdgan.model import MdganParams
from study.base.paths import ROOT
from study.config.reader import PRESETS, ConfigError, load_config
from study.config.space import DEFAULT_SPACE, SpaceEntry, check_space
from study.training.train import trial_params


def load(*overrides, preset="smoke", file=None):
    return load_config(preset, file, list(overrides))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_load_and_name_themselves(preset):
    assert load(preset=preset).name == preset


def test_the_papers_recipe_holds_nothing_that_the_paper_has_not():
    config = load(preset="paper")
    m = config.mdgan
    assert (m.dense_width, m.adversarial_from, m.order) == (0, 0.0, "alternating")
    assert m.lambda_prior == m.mse_weight == 0
    assert not {"lambda_prior", "mse_weight", "order"} & set(config.search.space)


def test_override_beats_file_beats_preset_beats_default(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("mdgan: {width: 12, disc_width: 6}\n")
    config = load("mdgan.disc_width=7", file=file)
    assert config.mdgan.disc_width == 7
    assert config.mdgan.width == 12
    assert config.mdgan.n_snippets == 6400  # preset
    assert config.mdgan.beta1 == 0.5  # default


def test_the_resolved_configuration_can_be_given_back(tmp_path):
    config = load("seed=3", "hmm.n_states=[100,5,20]", "mdgan.latent_dim=8")
    file = tmp_path / "resolved.yaml"
    file.write_text(yaml.safe_dump(config.to_dict()))
    again = load_config("full", file, [])
    assert again == config
    assert again.sha256 == config.sha256 != load("seed=4").sha256


def test_numbers_that_yaml_reads_as_text():
    assert load("mdgan.lr=2e-4").mdgan.lr == 2e-4
    assert load("hmm.tol=1").hmm.tol == 1.0


def test_numbers_of_states_are_sorted_as_numbers():
    assert load("hmm.n_states=[100,5,20,5]").hmm.n_states == (5, 20, 100)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("mdgan.laten_dim=16", "unknown key 'mdgan.laten_dim'; did you mean 'mdgan.latent_dim'?"),
        ("colour=red", "unknown key 'colour'; known here: checks, data, decoders, hmm"),
        ("mdgan.latent_dim=big", "mdgan.latent_dim is 'big' (str): a whole number is wanted"),
        ("mdgan.latent_dim=1.5", "mdgan.latent_dim is 1.5 (float): a whole number is wanted"),
        ("mdgan.monitor=1", "mdgan.monitor is 1 (int): true or false is wanted"),
        ("search.n_trials=0", "search.n_trials is 0: it must be 1 or more"),
        ("mdgan.normalisation=lair", "choose one of layer, batch, batch_no_affine"),
        ("search.objective=train/reconstruction", "A training loss holds the very weights"),
        ("mdgan=3", "mdgan is 3: it holds keys"),
        ("latent_dim", "overrides are written key=value"),
        ("mdgan.label_noise=0.5", "label_noise is 0.5"),
        ("hmm.n_states=[]", "give at least one number of states"),
        ("resources.gpus_per_trial=1.5", "give 0, a fraction up to 1, or a whole number"),
        ("search.space.lr={uniform: [2, 1]}", "low < high"),
        ("search.space.lr={uniform: [1, 2], choice: [1]}", "2 of choice, uniform"),
        ("search.space.latent_dim={choice: [8.5]}", "a whole number is wanted"),
        ("search.space.n_snippets={choice: [10]}", "cannot be searched"),
        ("search.space.normalisation={choice: [lair]}", "normalisation is 'lair'"),
        ("name=a/b", "it names a folder"),
        ("snippets.n_frames=12", "snippets of 8 or 16 frames"),
    ],
)
def test_errors_name_value_cause_and_remedy(override, words):
    with pytest.raises(ConfigError) as error:
        load(override)
    assert words in str(error.value)


def test_a_file_that_is_missing_or_no_yaml_is_named(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load(file=tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load(file=bad)


def test_a_value_fixes_a_searched_parameter():
    config = load("mdgan.latent_dim=16")
    assert config.mdgan.latent_dim == 16
    assert "latent_dim" not in config.search.space
    assert "lr" in config.search.space


def test_a_later_entry_takes_the_place_of_an_earlier_one():
    config = load("mdgan.lr=1e-3", "search.space.lr={choice: [1.0e-3, 2.0e-3]}")
    assert config.search.space["lr"] == SpaceEntry(choice=(1e-3, 2e-3))


def test_null_takes_an_entry_out_of_the_space():
    assert "lr" not in load("search.space.lr=null").search.space


def test_the_default_space_is_sound():
    check_space(DEFAULT_SPACE)
    assert set(DEFAULT_SPACE) == {"latent_dim", "lambda_recon", "lambda_prior", "lr"}


def test_every_sampled_value_reaches_the_trial():
    sampled = {"latent_dim": 3, "lambda_recon": 7.0, "lambda_latent": 0.3, "lr": 0.02,
               "normalisation": "none"}  # fmt: skip
    params = dataclasses.asdict(trial_params(MdganParams(), sampled))
    assert {k: params[k] for k in sampled} == {k: v for k, v in sampled.items()}


@pytest.mark.parametrize(
    "name", ["it's", 'a "b"', """both ' and \"""", "back\\slash", "[5]", "null"]
)
def test_a_folder_of_any_name_is_the_one_that_was_given(tmp_path, name):
    config = load_config("smoke", None, ["seed=3"], tmp_path / name)
    assert config.data.dir == str(tmp_path / name)


def test_the_plan_loads_neither_matplotlib_nor_optuna_nor_ray():
    code = (
        "import sys; from study.run_tune import main; "
        "main(['--preset', 'smoke', '--dry-run']); "
        "print([m for m in ('matplotlib', 'optuna', 'ray', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("objectives", ["valid/recon_l1", "valid/recon_l1, valid/recon_l1"])
def test_one_objective_is_set_where_it_is_used(objectives):
    with pytest.raises(ConfigError, match="give two or more different metrics"):
        load_config("smoke", None, [f"search.objectives=[{objectives}]"])
