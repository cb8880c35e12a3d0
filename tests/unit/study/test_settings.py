"""Every setting of every stage: what cannot work is refused by its name before anything starts."""

import dataclasses
import typing

import pytest

from study.config.reader import ConfigError, load_config, settings

HUGE = 10**30
MANY = f"{{choice: {list(range(1, 60))}, role: scientific}}"
# By kind of number: those that no setting of this kind may take, whatever it means.
NEVER = {
    int: ("1.5", ".nan", ".inf", "-.inf", "true", "abc", "'1.5'", "[]", "2018-09-19", "1:30"),
    float: (".nan", ".inf", "-.inf", "nan", "inf", "true", "abc", "{}", "1e999", str(10**400)),
}


def kind_of(hint):
    """int or float for a number, in a list or not, or None; None for other settings."""
    kinds = {hint, *typing.get_args(hint)}
    return float if float in kinds else int if int in kinds else None


NUMBERS = {key: kind_of(hint) for key, hint in settings().items() if kind_of(hint)}
# Values that are of use at the ends, and known to work: 0 to leave something out, or the smallest
# that there is. All others of -1, 0 and a huge number are refused.
ZERO_WORKS = {
    "seed",
    "mdgan.width",
    "mdgan.pool_weight",
    "mdgan.mse_weight",
    "mdgan.lambda_recon",
    "mdgan.lambda_latent",
    "mdgan.lambda_prior",
    "mdgan.lambda_silence",
    "mdgan.silent_share",
    "mdgan.r1_r2",
    "mdgan.adversarial_from",
    "mdgan.label_noise",
    "mdgan.lr_warmup",
    "mdgan.beta1",
    "mdgan.max_grad_norm",
    "mdgan.ema_decay",
    "mdgan.collapse_after",
    "search.max_retries",
    "hmm.max_repairs",
    "hmm.held_out_fraction",
    "resources.gpus_per_trial",
    "resources.gpus_per_encode",
    "songs.n_in_report",
    "spectrogram.highpass_hz",
    *(
        f"data.simulation.{name}"
        for name in (
            "noise_db",
            "hum_db",
            "cage_noises_per_minute",
            "calls_share",
            "gain_day_sd_db",
            "gain_step_db",
            "noise_step_db",
            "copied_share",
            "branching",
            "morning_lag_days",
            "untutored_adult",
            "sound.adult",
            "timing.adult",
            "order.adult",
        )
    ),
}  # fmt: skip
# Of either sign.
DECIBELS = {"noise_db", "hum_db", "gain_db", "gain_step_db", "noise_step_db"}


def refused(*overrides, preset="smoke"):
    """The message of a refused configuration; "" where it is taken."""
    try:
        load_config(preset, None, list(overrides))
    except ConfigError as error:
        return str(error)
    return ""


def named(message, key):
    """Whether a message names the setting, by its whole key or its last words."""
    return key in message or key.rpartition(".")[2] in message


def test_the_table_holds_the_numbers_of_every_stage():
    groups = {key.split(".")[0] for key in NUMBERS}
    assert groups == {"seed", "data", "spectrogram", "snippets", "mdgan", "search", "decoders",
                      "hmm", "checks", "resources", "songs"}  # fmt: skip
    assert len(NUMBERS) > 60
    assert {"search.selection.n_seeds", "data.simulation.ages_dph"} <= set(NUMBERS)


@pytest.mark.parametrize("key", NUMBERS)
def test_what_is_no_number_of_its_kind_is_refused_by_name(key):
    for value in NEVER[NUMBERS[key]]:
        message = refused(f"{key}={value}")
        assert named(message, key), f"{key}={value}: {message!r}"


@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_below_zero_and_beyond_all_sense_are_refused_by_name(key):
    below = (-1e30,) if key.rpartition(".")[2] in DECIBELS else (-1, -0.5)
    for value in (*below, HUGE, 1e30):
        message = refused(f"{key}={value}")
        assert named(message, key), f"{key}={value}: {message!r}"


@pytest.mark.parametrize("key", NUMBERS)
def test_zero_is_refused_by_name_unless_it_means_something(key):
    message = refused(f"{key}=0")
    if key in ZERO_WORKS:
        assert message == ""
    else:
        assert named(message, key), f"{key}=0: {message!r}"


@pytest.mark.parametrize("key", NUMBERS)
def test_the_resolved_value_is_taken_again(key):
    value = load_config("smoke", None, []).to_dict()
    for part in key.split("."):
        value = value[part]
    assert refused(f"{key}={'null' if value is None else value}") == ""


@pytest.mark.parametrize("seed", [-1, 2**32, 20180919123456, -(10**20)])
def test_seeds_that_a_stage_would_refuse_are_refused_with_the_remedy(seed):
    message = refused(f"seed={seed}")
    assert f"seed is {seed}: " in message
    assert "from 0 to 4294967295" in message


def test_the_last_seed_has_seeds_after_it():
    assert refused(f"seed={2**32 - 1}", "search.selection.n_seeds=5") == ""


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["songs.seconds=0.05"], "songs.seconds is 0.05: it is shorter than one snippet (0.064 s)"),
        (["songs.griffin_lim_iterations=0"], "griffin_lim_iterations is 0: it must be 1 or more"),
        (["spectrogram.hop_length=129"], "hop_length is 129: windows of 256 samples must overlap"),
        (["spectrogram.sample_rate_hz=3999"], "Choose a rate from 4000 to 192000"),
        (["data.simulation.minutes=0.1"], "give at least 0.25 minutes or shorter recording_s"),
        (["data.simulation.sound={adult: 2}"], "data.simulation.sound.adult is 2.0: variability"),
        (["mdgan.n_snippets=100", "mdgan.n_reports=4"], "too few for 4 reports"),
        (["decoders.n_snippets=10"], "decoders.n_snippets is 10"),
        (["mdgan.n_components=2065"], "has 2064 numbers and no more components"),
        (["snippets.n_frames=8", "mdgan.n_components=1033"], "has 1032 numbers"),
        (["search.space.latent_dim={choice: [8, 65]}"], "space holds latent_dim=65: latent_dim is"),
        (["search.space.latent_dim={choice: [8, 65]}", "search.space.dense_width={choice: [0, 8]}",
          "search.space.width={choice: [4, 8]}"], "latent_dim=65 with width=4 with dense_width=8"),
        (["search.space.dense_width={choice: [0, 8]}"], "with dense_width=0: width and"),
        (["search.space.batch_size={choice: [32, 6400]}"], "too few for 2 reports"),
        (["search.space.lr={choice: [1e-3, 1e-3]}"], "holds 0.001 twice"),
        (["search.space.lr={choice: [true]}"], "space.lr holds True: a finite number is wanted"),
        (["search.space.lr={choice: [.nan]}"], "space.lr holds nan: a finite number is wanted"),
        (["search.space.lr={uniform: [1e-3, .inf]}"], "search.space.lr.uniform"),
        (["search.space.lambda_recon={uniform: [1, 1e30]}"], "lambda_recon is 1e+30"),
        (["search.space.is_residual={uniform: [0, 1]}"], "space.is_residual is no number"),
        (["search.space.is_residual={choice: [1]}"], "true or false is wanted"),
        (["search.space.prior={choice: [3]}"], "one of normal, uniform, student_t is wanted"),
        (["search.space.latent_dim={choice: [[8]]}"], "a whole number is wanted"),
        (["search.first=[{latent_dim: 7}]"], "first[0] holds latent_dim=7, which lies outside"),
        (["search.first=[{lr: true}]"], "first[0] holds lr=True: a finite number is wanted"),
        (["search.first=[{lr: fast}]"], "first[0] holds lr='fast'"),
        (["search.first=[{lr: 1e-3}, {lr: .nan}]"], "first[1] holds lr=nan"),
        (["search.first=[3]"], "search.first holds 3"),
        (["search.sampler=grid", *(f"search.space.lambda_{name}={MANY}"
          for name in ("recon", "prior", "latent"))], "combine to 410,758 points"),
        (["name=" + "x" * 101], "with 101 characters"),
        (["hmm.n_states=[5, true]"], "hmm.n_states is True"),
        (["hmm.max_n_states=5"], "max_n_states is 5, below the highest of n_states"),
        (["data.simulation.ages_dph=[45, 45]"], "none twice"),
        (["resources.gpus_per_trial=.nan"], "resources.gpus_per_trial is nan"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused_by_name(overrides, words):
    assert words in refused(*overrides)


def test_a_larger_latent_may_be_searched_where_the_study_has_the_components():
    wide = ["search.space.latent_dim={choice: [8, 200]}", "mdgan.n_components=256"]
    config = load_config("smoke", None, wide)
    assert config.search.space["latent_dim"].choice == (8, 200)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("mdgan.lr=1e-3", 1e-3),
        ("mdgan.lr=1E-3", 1e-3),
        ("mdgan.lr=.001", 1e-3),
        ("mdgan.lr='1e-3'", 1e-3),
        ("mdgan.lr=1", 1.0),
        ("mdgan.n_snippets=1e6", 10**6),
        ("mdgan.n_snippets=200_000", 200_000),
        ("mdgan.compilation=off", "off"),
        ("mdgan.monitor=no", False),
        ("mdgan.monitor=TRUE", True),
        ("data.simulation.ages_dph=[045, 060]", (45, 60)),
        ("seed=007", 7),
        ("name=2019", "2019"),
        ("name=2019-05-08", "2019-05-08"),
        ("name=1e3", "1e3"),
        ("name=no", "no"),
        ("name=007", "007"),
    ],
)
def test_a_value_is_what_a_person_reads(override, value):
    found = load_config("smoke", None, [override])
    for part in override.partition("=")[0].split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "override",
    ["search.space.lr={choice: [1e-3], choice: [2e-3]}", "hmm={n_iter: 3, n_iter: 3}",
     "search.first=[{lr: 1e-3, lr: 1e-3}]"],
)  # fmt: skip
def test_a_key_that_is_given_twice_inside_of_a_value_is_refused(override):
    assert "is given twice: give it once" in refused(override)


def test_a_key_that_a_file_gives_twice_is_refused_with_its_line(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 1\nhmm: {n_iter: 3}\nseed: 2\n")
    with pytest.raises(ConfigError, match="(?s)'seed' is given twice: give it once.*line 3"):
        load_config("smoke", file, [])


def test_anchors_of_a_file_may_be_merged(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("hmm: &few {n_iter: 3}\ndecoders: {<<: {}, scope: bird}\n")
    config = load_config("smoke", file, [])
    assert (config.hmm.n_iter, config.decoders.scope) == (3, "bird")


def test_what_is_no_yaml_at_all_is_refused():
    for text in ("[1", "'a", "9" * 5000, "[" * 3000, "{a: b: c}", "!!python/object:os.system x"):
        assert "is not a valid value" in refused(f"mdgan.lr={text}"), text[:9]
    for override in ("seed=", "data.dir=", "data.dir=  ", "hmm.max_n_states="):
        assert "has no value" in refused(override)


def test_parameters_of_the_library_have_the_same_ranges():
    params = load_config("smoke", None, [])
    for part in (params.mdgan, params.hmm):
        for field in dataclasses.fields(part):
            if kind_of(field.type if not isinstance(field.type, str) else None):
                with pytest.raises((ValueError, TypeError)):
                    dataclasses.replace(part, **{field.name: float("inf")})
