"""Reader of configurations: from preset, file and key=value to a checked, typed tree.

Order of precedence: defaults < preset < file < key=value < --data.
"""

import dataclasses
import difflib
import math
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from study.base.errors import REFUSED, StudyError
from study.base.paths import ROOT
from study.config.plain_yaml import load_yaml
from study.config.space import DEFAULT_SPACE, SpaceEntry
from study.config.tree import StudyConfig

PRESETS_DIR = ROOT / "study" / "presets"
_SWITCHES = {"yes": True, "on": True, "no": False, "off": False}
PRESETS = ("smoke", "demo", "full", "paper")


class ConfigError(StudyError):
    """The configuration cannot be used; the message names key, value, cause and remedy."""

    exit_code = REFUSED


def load_config(
    preset: str, file: Path | None, overrides: list[str], data: Path | None = None
) -> StudyConfig:
    """Resolve a configuration.

    Args:
        preset: one of `PRESETS`.
        file: YAML with only the values that differ, or None.
        overrides: "key=value", keys with dots, values as in YAML.
        data: folder of recordings, or None; it wins over all others.

    Raises:
        ConfigError: unknown key, wrong type, value out of range, file that cannot be read.
    """
    tree = _read_yaml(PRESETS_DIR / f"{preset}.yaml")
    layers = [] if file is None else [_read_yaml(file)]
    layers += [parse_override(override) for override in overrides]
    if data is not None:
        layers.append({"data": {"dir": str(data)}})
    for layer in layers:
        _fix_searched(tree, layer)
        tree = _merged(tree, layer)
    config: StudyConfig = _build(StudyConfig, tree, "")
    if config.data.dir is not None:
        # Nodes of a cluster have other current folders.
        absolute = dataclasses.replace(config.data, dir=str(Path(config.data.dir).absolute()))
        config = dataclasses.replace(config, data=absolute)
    return config


def config_of(tree: dict[str, Any]) -> StudyConfig:
    """The configuration that `StudyConfig.to_dict` made plain, as study.json holds it.

    Raises:
        ConfigError: another version wrote it, with other keys or ranges.
    """
    config: StudyConfig = _build(StudyConfig, tree, "")
    return config


def settings() -> dict[str, Any]:
    """The type of every setting, by its key with dots; groups of settings are among them."""
    return dict(_settings(StudyConfig, ""))


def _settings(cls: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, hint in typing.get_type_hints(cls).items():
        yield f"{path}{name}", hint
        if dataclasses.is_dataclass(hint):
            yield from _settings(hint, f"{path}{name}.")


def leaves(tree: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every value in nested dictionaries."""
    if not isinstance(tree, dict) or not tree:
        return [path]
    return [leaf for key, item in tree.items() for leaf in leaves(item, (*path, str(key)))]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = load_yaml(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}: write 'key: value' lines.")
    return content


def parse_override(override: str) -> dict[str, Any]:
    """The nested dictionary that a word key=value stands for.

    Raises:
        ConfigError: it is none, or its value is not valid YAML.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"{override!r} is not understood: overrides are written key=value, for instance "
            "mdgan.latent_dim=16 or 'hmm.n_states=[5,10,20]'."
        )
    if not text.strip():
        raise ConfigError(f"{key} has no value: leave {override} out, or write {key}=null.")
    value: Any = text
    # Text is taken as it was typed; YAML would cut "take #2" short, and read 2019 as a number.
    if settings().get(key) not in (str, str | None) or text in ("null", "~") or text[0] in "'\"":
        try:
            value = load_yaml(text)
        except ValueError as error:
            raise ConfigError(f"{key}: {text!r} is not a valid value: {error}") from error
    tree: dict[str, Any] = {}
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        node[parent] = node = {}
    node[last] = value
    return tree


def _fix_searched(tree: dict[str, Any], layer: dict[str, Any]) -> None:
    """Stop searching a parameter that a later layer sets to a value.

    ``null`` removes an entry from the space (see `_merged`).
    """
    fixed = layer.get("mdgan")
    search = layer.get("search")
    searched = search.get("space") if isinstance(search, dict) else None
    if not isinstance(fixed, dict):
        return
    for name in fixed:
        if isinstance(searched, dict) and name in searched:
            continue
        space = tree.setdefault("search", {}).setdefault("space", {})
        if name in space or name in DEFAULT_SPACE:
            space[name] = None


def _merged(base: Any, layer: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(layer, dict)):
        return layer
    if _is_space_entry(base) and _is_space_entry(layer):
        return layer  # another kind of entry replaces the old one
    merged = dict(base)
    for key, value in layer.items():
        merged[key] = _merged(base[key], value) if key in base else value
    return merged


def _is_space_entry(node: dict[str, Any]) -> bool:
    return any(f.name in node for f in dataclasses.fields(SpaceEntry))


def _build(cls: Any, tree: Any, path: str) -> Any:
    """Make the dataclass ``cls`` from a dictionary; check keys and types."""
    if not isinstance(tree, dict):
        raise ConfigError(f"{path or 'the configuration'} is {tree!r}: it holds keys, not a value.")
    hints = typing.get_type_hints(cls)
    defaults = {f.name: f.default for f in dataclasses.fields(cls)}
    values = {}
    for key, value in tree.items():
        full_key = f"{path}.{key}" if path else str(key)
        if key not in defaults:
            raise ConfigError(_unknown_key(full_key, str(key), set(defaults)))
        if full_key == "search.space":
            values[key] = _build_space(value)
        else:
            values[key] = _convert(hints[key], _with_defaults(defaults[key], value), full_key)
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path + '.' if path else ''}{error}") from error


def _with_defaults(default: Any, value: Any) -> Any:
    """A dictionary with what it leaves out, where the field's default is an object of its own."""
    if dataclasses.is_dataclass(default) and isinstance(value, dict):
        return {**dataclasses.asdict(default), **value}  # type: ignore[arg-type]
    return value


def _build_space(tree: Any) -> dict[str, SpaceEntry]:
    if not isinstance(tree, dict):
        raise ConfigError(f"search.space is {tree!r}: it holds parameters, not a value.")
    trees = {**{name: None for name in DEFAULT_SPACE}, **tree}
    space = {}
    for name, entry in trees.items():
        if entry is not None:
            space[name] = _build(SpaceEntry, entry, f"search.space.{name}")
        elif name in DEFAULT_SPACE and name not in tree:
            space[name] = DEFAULT_SPACE[name]
    return space


def _unknown_key(full_key: str, key: str, known: set[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"known here: {', '.join(sorted(known))}."
    if near:
        hint = f"did you mean {full_key.removesuffix(key) + near[0]!r}?"
    return f"unknown key {full_key!r}; {hint}"


def _convert(hint: Any, value: Any, key: str) -> Any:
    """Convert ``value`` to the type ``hint``, or raise ConfigError."""
    if hint is Any:
        return _number(value) if isinstance(value, str) and _is_number(value) else value
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, key)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return None if value is None and type(None) in args else _convert_either(args, value, key)
    if origin is Literal:
        if isinstance(value, str) and value in args:
            return value
        raise ConfigError(f"{key} is {value!r}: choose one of {', '.join(map(str, args))}.")
    if origin is dict:
        if isinstance(value, dict):
            return {str(name): _convert(args[1], item, key) for name, item in value.items()}
        raise ConfigError(f"{key} holds {value!r}: write 'name: value' pairs.")
    if origin is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(_convert(args[0], item, key) for item in items)
    if hint is bool and isinstance(value, str) and value.lower() in _SWITCHES:
        return _SWITCHES[value.lower()]
    if hint in (int, float):
        number = _number(value)
        if hint is float and isinstance(number, int):
            number = float(number) if abs(number) < sys.float_info.max else math.inf
        if isinstance(number, float) and not math.isfinite(number):
            raise ConfigError(f"{key} is {value!r}: a finite number is wanted.")
        if hint is int and isinstance(number, float) and number.is_integer():
            number = int(number)  # 1e6
        if isinstance(number, hint):
            return number
    elif hint is str and key == "name" and type(value) is int:
        return str(value)
    elif isinstance(value, hint):
        return value
    quotes = "; put it in quotes" if hint is str else ""
    raise ConfigError(
        f"{key} is {value!r} ({type(value).__name__}): {_type_name(hint)} is wanted{quotes}."
    )


def _convert_either(args: tuple[Any, ...], value: Any, key: str) -> Any:
    """A number or a word, such as auto: a text that is not a number is the word."""
    kinds = [a for a in args if a is not type(None)]
    words = [w for kind in kinds if typing.get_origin(kind) is Literal
             for w in typing.get_args(kind)]  # fmt: skip
    if words and isinstance(value, str) and not _is_number(value):
        if value in words:
            return value
        numbers = [_type_name(kind) for kind in kinds if typing.get_origin(kind) is not Literal]
        wanted = " or ".join([*numbers, *words])
        raise ConfigError(f"{key} is {value!r}: {wanted} is wanted.")
    return _convert(kinds[0], value, key)


def _number(value: Any) -> Any:
    """The number that a text in quotes holds; other values as they are, and None for booleans."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and _is_number(value):
        return int(value) if value.isdecimal() and len(value) < 20 else float(value)
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _type_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(hint, str(hint))
