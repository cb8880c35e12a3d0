"""The command line: words in any place, nothing twice, and every wrong word named."""

import sys
from pathlib import Path

import pytest

from study.config.options import parse
from study.config.reader import PRESETS, ConfigError, load_config


def refused(*words):
    with pytest.raises(ConfigError) as error:
        parse(list(words))
    return str(error.value)


@pytest.mark.parametrize(
    "words",
    [
        "seed=3 hmm.n_iter=9 --preset smoke --dry-run",
        "seed=3 --preset smoke hmm.n_iter=9 --dry-run",
        "--preset smoke --dry-run seed=3 hmm.n_iter=9",
        "--preset=smoke seed=3 --dry-run hmm.n_iter=9",
        "--preset smoke --dry-run -- seed=3 hmm.n_iter=9",
        "seed=3 --preset smoke --dry-run -- hmm.n_iter=9",
        "seed=3 --dry-run --preset smoke -- hmm.n_iter=9",
    ],
)
def test_settings_stand_wherever_a_person_puts_them(words):
    options = parse(words.split())
    assert options.overrides == ["seed=3", "hmm.n_iter=9"]
    assert (options.preset, options.dry_run, options.doctor) == ("smoke", True, False)


def test_what_is_left_out_has_its_default():
    options = parse([])
    assert (options.preset, options.config, options.data, options.out) == ("demo", None, None, None)
    assert (options.address, options.tracking_uri, options.overrides) == (None, None, [])


@pytest.mark.parametrize(
    ("words", "twice"),
    [
        (["seed=1", "seed=2"], "seed is given twice, by seed=1 and by seed=2"),
        (["seed=1", "--dry-run", "seed=1"], "seed is given twice"),
        (["seed=1", "--", "seed=2"], "seed is given twice"),
        (["hmm={n_iter: 3}", "hmm.n_iter=4"], "hmm.n_iter is given twice"),
        (["hmm.n_iter=4", "hmm={n_iter: 3, tol: 1}"], "hmm.n_iter is given twice"),
        (["hmm=3", "hmm.n_iter=4"], "hmm.n_iter is given twice, by hmm=3 and by hmm.n_iter=4"),
        (["hmm={n_iter: 3}", "hmm={n_iter: 4}"], "hmm.n_iter is given twice"),
        (["search.space.lr=null", "search.space.lr.choice=[1]"], "search.space.lr.choice is given"),
        (["--data", "x", "data.dir=y"], "data.dir is given twice, by --data and by data.dir=y"),
        (["data.dir=y", "--data", "x"], "data.dir is given twice, by --data"),
        (["--data", "x", "data={dir: y}"], "data.dir is given twice, by --data"),
        (["--preset", "smoke", "--preset", "demo"], "--preset is given twice, smoke and demo"),
        (["--preset", "smoke", "--preset=smoke"], "--preset is given twice"),
        (["--config", "a", "seed=1", "--config", "b"], "--config is given twice, a and b"),
        (["--data", "a", "--data", "b"], "--data is given twice"),
        (["--out", "a", "--out", "b"], "--out is given twice"),
        (["--address", "a", "--address", "b"], "--address is given twice"),
        (["--tracking-uri", "a", "--tracking-uri", "b"], "--tracking-uri is given twice"),
    ],
)
def test_what_is_given_twice_is_refused_by_name(words, twice):
    message = refused(*words)
    assert twice in message
    assert message.endswith("give it once.")


def test_other_keys_of_one_group_are_not_twice():
    words = ["hmm={n_iter: 3}", "hmm.tol=1", "data.simulation.n_birds=2", "mdgan.lr=1e-3"]
    assert parse([*words, "mdgan.lr_warmup=0"]).overrides == [*words, "mdgan.lr_warmup=0"]
    config = load_config("smoke", None, words)
    assert (config.hmm.n_iter, config.hmm.tol) == (3, 1.0)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("doctor", "Did you mean --doctor?"),
        ("dry_run", "Did you mean --dry-run?"),
        ("plan", "Did you mean --dry-run?"),
        ("help", "Did you mean --help?"),
        ("smoke", "Did you mean --preset smoke?"),
        ("seed", "Did you mean seed=VALUE, without spaces"),
        ("hmm.n_iter:", "Did you mean hmm.n_iter=VALUE"),
        ("songs in here", "Did you mean --data 'songs in here'?"),
        ("far/away", "Did you mean --data far/away?"),
        ("finished", "Did you mean --out finished?"),
        ("mine.yaml", "Did you mean --config mine.yaml?"),
        ("http://lab:5000", "Did you mean --tracking-uri http://lab:5000?"),
        ("sqlite:///x.db", "Did you mean --tracking-uri sqlite:///x.db?"),
        ("=5", "settings are written key=value"),
        ("8", "settings are written key=value"),
        ("", "settings are written key=value"),
        ("two words=5", "A value with spaces wants quotes around the whole word"),
        (" seed=5", "settings are written key=value"),
        ("seed =5", "settings are written key=value"),
    ],
)
def test_a_word_without_a_key_is_named_with_what_it_probably_was_to_be(
    word, hint, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "songs in here").mkdir()
    (tmp_path / "finished").mkdir()
    (tmp_path / "finished" / "study.json").write_text("{}")
    for words in ([word, "--dry-run"], ["--dry-run", word], ["--", word]):
        message = refused(*words)
        assert repr(word) in message
        assert hint in message


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("--o", "Did you mean --out?"),
        ("--pre=smoke", "Did you mean --preset?"),
        ("--dry", "Did you mean --dry-run?"),
        ("--tracking_uri", "Did you mean --tracking-uri?"),
        ("--zzz", "There are --preset"),
        ("--seed=3", "Write seed=3."),
        ("-hmm.n_iter=3", "Write hmm.n_iter=3."),
        ("-d", "Did you mean --data?"),
        ("-x", "--data=-x"),
        ("-my songs", "--data='-my songs'"),
    ],
)
def test_what_is_no_option_is_named_and_no_beginning_of_one_is_taken(word, hint):
    message = refused("--preset", "smoke", word)
    assert f"{word} is no option" in message
    assert hint in message


def test_an_option_behind_two_dashes_is_named():
    assert "It stands after '--'" in refused("--", "--dry-run")


@pytest.mark.parametrize("option", ["--preset", "--config", "--data", "--out", "--address"])
def test_an_option_without_a_value_says_how_a_dash_is_written(option, capsys):
    for words in ([option], [option, "--dry-run"], [option, "--", "seed=3"]):
        with pytest.raises(SystemExit) as ended:
            parse(words)
        assert ended.value.code == 2
        assert f"a value that begins with '-' is written {option}=-VALUE" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["config", "data", "out", "address", "tracking-uri"])
def test_an_empty_value_names_nothing(option):
    for value in ("", " ", "\t"):
        assert f"--{option} is {value!r}" in refused(f"--{option}", value)


def test_plan_and_doctor_exclude_each_other(capsys):
    with pytest.raises(SystemExit):
        parse(["--dry-run", "--doctor"])
    assert "not allowed with" in capsys.readouterr().err


NAMES = [
    "plain", "no\u00a0break", "narrow\u202fspace", "\u9332\u97f3\u30002020", "zero\u200bwidth",
    "back\\slash", "a'b\"c", "tab\tx", "new\nline", "trailing ", " leading", "-dash", "--out",
    "per%cent", "%20", "a%20b", "\U0001f426", "e\u0301", "\u00e9", "~", "~/songs", "$HOME",
    "${HOME}", "a?b=c", "a#b", "a;b&c|d", "*", "[5]", "{a: b}", "null", "yes", "2019", "007",
    "seed=3", "a:b", "take #2", "!!python", "&x", "x,y", "..", ".", "../up", "a/../b", "@b",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_the_one_that_was_typed(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", list(sys.path))  # the command puts the project's root first
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/nonexistent")
    from study import run_tune

    seen = {}
    monkeypatch.setattr(run_tune, "survey", lambda root, *_: seen.update(data=root))
    monkeypatch.setattr(run_tune, "show_plan", lambda config, where, *_: seen.update(where=where))
    file = Path(name) / "mine.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("seed: 77\n")
    words = [f"--data={name}", f"--out={name}", f"--config={file}", "--dry-run",
             "--tracking-uri", f"sqlite:///{name}/m.db"]  # fmt: skip
    assert run_tune.main(words) == 0, capsys.readouterr().err
    here = tmp_path / name
    assert (seen["data"], seen["where"].out) == (here, here)
    assert seen["where"].tracking_uri == f"sqlite:///{here / 'm.db'}"
    assert "seed: 77" in capsys.readouterr().out
    if name not in ("null", "~"):  # YAML's words for none, of a setting
        assert run_tune.main([f"data.dir={name}", "--dry-run"]) == 0, capsys.readouterr().err
        assert seen["data"] == here
        assert load_config("smoke", None, [f"data.dir={name}"]).data.dir == str(here)


def test_the_presets_are_those_of_the_options():
    assert [parse(["--preset", preset]).preset for preset in PRESETS] == list(PRESETS)


@pytest.mark.parametrize(
    ("words", "data"),
    [
        (["check", "season"], "season"),
        (["check", "--data", "season"], "season"),
        (["check", "a=b"], "a=b"),
        (["check", "season", "data.channel=2"], "season"),
        (["--check", "--data=season"], "season"),
    ],
)
def test_check_takes_the_folder_behind_it(words, data):
    options = parse(words)
    assert options.check
    assert options.data == Path(data)
    assert options.overrides == [word for word in words[2:] if word.startswith("data.")]
