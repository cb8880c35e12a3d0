"""The options of the command line."""

import argparse
import dataclasses
import difflib
import functools
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from study.config.reader import PRESETS, ConfigError, leaves, parse_override, settings


@dataclass(frozen=True)
class Options:
    """The options of one command; None for options that were left out.

    Attributes:
        preset: name of the configuration to start from.
        config: file with the values that differ from the preset.
        data: folder of recordings.
        out: run folder.
        address: of a Ray cluster.
        tracking_uri: of MLflow.
        dry_run: print the plan and start nothing.
        doctor: check what a study needs and start nothing.
        check: read and check the recordings alone.
        verify: compare every file of the run folder with its hash and start nothing.
        overrides: "key=value" texts.
    """

    preset: str
    config: Path | None
    data: Path | None
    out: Path | None
    address: str | None
    tracking_uri: str | None
    dry_run: bool
    doctor: bool
    check: bool
    verify: bool
    overrides: list[str]


def parse(words: list[str]) -> Options:
    """Read the command line; what argparse itself finds wrong ends the process with code 2.

    Words key=value may stand anywhere among the options, and after ``--``.

    Raises:
        ConfigError: a word is not understood, or something is given twice; it names the word.
    """
    for word, option in (("check", "--data"), ("verify", "--out")):
        if words[:1] == [word]:
            folder = words[1:2] if words[1:] and not words[1].startswith("--") else []
            given = [f"{option}={folder[0]}"] if folder else []
            words = [f"--{word}", *given, *words[1 + len(folder) :]]
    parser = _parser()
    at = words.index("--") if "--" in words else len(words)
    for word in words[:at]:
        # argparse would take -hmm.n_iter=9 for -h.
        if re.match(r"-[^-\d.]", word) and word != "-h":
            raise ConfigError(_unknown_option(word))
    # Words that argparse does not know are ours: it takes positional words in one place alone, and
    # its parse_intermixed_args loses what stands after "--".
    found, rest = parser.parse_known_args(words[:at])
    for word in rest:
        if word.startswith("--"):
            raise ConfigError(_unknown_option(word))
    overrides = rest + words[at + 1 :]
    for word in overrides:
        if not re.match(r"[^\W\d][\w.]*=", word):
            raise ConfigError(_not_a_setting(word))
    options = {name: _once(name, value) for name, value in vars(found).items()}
    _refuse_twice(overrides, has_data=options["data"] is not None)
    for name in ("config", "data", "out"):
        options[name] = options[name] and Path(options[name])
    return Options(**{**options, "preset": options["preset"] or "demo", "overrides": overrides})


def _once(name: str, given: Any) -> Any:
    """The one value of an option; None where it is left out."""
    if not isinstance(given, list):
        return given
    option = f"--{name.replace('_', '-')}"
    if len(given) > 1:
        raise ConfigError(f"{option} is given twice, {' and '.join(given)}: give it once.")
    if not given[0].strip():
        raise ConfigError(f"{option} is {given[0]!r}, which names nothing.")
    return given[0]


def _refuse_twice(overrides: list[str], has_data: bool) -> None:
    """Refuse a setting that two words give, one perhaps inside of a mapping."""
    given: dict[tuple[str, ...], str] = {("data", "dir"): "--data"} if has_data else {}
    for word in overrides:
        keys = leaves(parse_override(word))
        for key in keys:
            for other, earlier in given.items():
                n = min(len(key), len(other))
                if key[:n] == other[:n]:
                    twice = ".".join(key if len(key) > len(other) else other)
                    raise ConfigError(
                        f"{twice} is given twice, by {earlier} and by {word}: give it once."
                    )
        given |= dict.fromkeys(keys, word)


def _unknown_option(word: str) -> str:
    name, equals, _ = word.partition("=")
    key = name.lstrip("-")
    if equals and key in settings():
        return f"{word} is no option: a setting has no dashes. Write {word.lstrip('-')}."
    known = _options()
    # Nor is the beginning of an option taken for it: another version may have two of that kind.
    near = [one for one in known if one.startswith(f"--{key}")]
    near = near or difflib.get_close_matches(f"--{key}", known, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(known)}."
    return (
        f"{word} is no option. {hint} A value that begins with '-' is written behind an equals "
        f"sign, as in --data={shlex.quote(word)}."
    )


def _not_a_setting(word: str) -> str:
    """Say that a word is no key=value, and what it probably was to be."""
    flag = {"plan": "--dry-run"}.get(word, f"--{word.replace('_', '-')}")
    path = Path(word)
    if word.startswith("-"):
        hint = "It stands after '--', where settings alone stand: put options before."
    elif word in PRESETS:
        hint = f"Did you mean --preset {word}?"
    elif flag in _options():
        hint = f"Did you mean {flag}?"
    elif (key := word.strip("=: ")) in settings():
        hint = f"Did you mean {key}=VALUE, without spaces around the equals sign?"
    elif "://" in word:
        hint = f"Did you mean --tracking-uri {word}?"
    elif (path / "study.json").is_file():
        hint = f"Did you mean --out {shlex.quote(word)}?"
    elif path.suffix in (".yaml", ".yml"):
        hint = f"Did you mean --config {shlex.quote(word)}?"
    elif path.is_dir() or "/" in word:
        hint = f"Did you mean --data {shlex.quote(word)}?"
    else:
        hint = "A value with spaces wants quotes around the whole word."
    return (
        f"{word!r} is not understood: settings are written key=value, for instance "
        f"mdgan.latent_dim=16. {hint}"
    )


def _options() -> list[str]:
    names = [f.name.replace("_", "-") for f in dataclasses.fields(Options)]
    return [f"--{name}" for name in [*names, "help"] if name != "overrides"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if message.endswith("expected one argument"):
            option = message.split()[1].rstrip(":")
            message += f"; a value that begins with '-' is written {option}=-VALUE"
        super().error(message)


# Of these a command has one at most, and it starts no study.
_ALONE = {
    "--dry-run": "print plan and resolved configuration, start nothing",
    "--doctor": "look at cluster, folders, disk and MLflow, say what is wrong, start nothing",
    "--check": "read and check the recordings alone, and write a page about them; also: check DIR",
    "--verify": "compare every file of the run folder with its hash, name what was altered, start "
    "nothing; also: verify RUN",
}


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        usage="%(prog)s [check DIR | verify RUN] [options] [key=value ...]",
        description="Learn a generative model of developing song: search for the best MDGAN, then "
        "fit hidden Markov models per bird and age.",
        allow_abbrev=False,
    )
    # Each is collected, so that a second value is seen and not taken in silence.
    add = functools.partial(parser.add_argument, action="append")
    add(
        "--preset",
        choices=PRESETS,
        help="smoke: under 3 minutes on 2 cores; demo (default): under 10; full: for GPUs",
    )
    add("--config", metavar="FILE", help="YAML with only what differs from the preset")
    add(
        "--data",
        metavar="DIR",
        help="recordings, as <bird>/<age or date>/songs/*.wav or in another layout (README); "
        "left out: simulated birds",
    )
    add("--out", metavar="DIR", help="run folder, default runs/<study name>")
    add(
        "--address",
        metavar="ADDR",
        help="a running Ray cluster, or auto; left out: RAY_ADDRESS, else Ray on this machine",
    )
    add(
        "--tracking-uri",
        metavar="URI",
        help="MLflow; left out: MLFLOW_TRACKING_URI, else SQLite inside the project",
    )
    alone = parser.add_mutually_exclusive_group()
    for option, words in _ALONE.items():
        alone.add_argument(option, action="store_true", help=words)
    parser.epilog = (
        "Settings are words key=value anywhere among the options, for instance mdgan.latent_dim=16 "
        "search.n_trials=8 'hmm.n_states=[5,10,20]'; --dry-run prints them all. After a "
        "study, study/how_much_song.py RUN (installed: birdsong how-much RUN) tells how much song "
        "it needs."
    )
    return parser
