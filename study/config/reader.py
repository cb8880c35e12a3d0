"""Reader of configurations: from preset, file and key=value to a checked, typed tree.

Order of precedence: defaults < preset < file < key=value < --data.
"""

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, Literal

import yaml

from study.base.errors import REFUSED, StudyError
from study.base.paths import ROOT
from study.config.space import DEFAULT_SPACE, SpaceEntry
from study.config.tree import StudyConfig

PRESETS_DIR = ROOT / "study" / "presets"
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
    layers += [_parse_override(override) for override in overrides]
    if data is not None:
        layers.append({"data": {"dir": str(data.absolute())}})
    for layer in layers:
        _fix_searched(tree, layer)
        tree = _merged(tree, layer)
    config: StudyConfig = _build(StudyConfig, tree, "")
    return config


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}: write 'key: value' lines.")
    return content


def _parse_override(override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"{override!r} is not understood: overrides are written key=value, for instance "
            "mdgan.latent_dim=16 or 'hmm.n_states=[5,10,20]'."
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
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
    known = {f.name for f in dataclasses.fields(cls)}
    values = {}
    for key, value in tree.items():
        full_key = f"{path}.{key}" if path else str(key)
        if key not in known:
            raise ConfigError(_unknown_key(full_key, str(key), known))
        if full_key == "search.space":
            values[key] = _build_space(value)
        else:
            values[key] = _convert(hints[key], value, full_key)
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path + '.' if path else ''}{error}") from error


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
        # YAML reads 2e-4 as text
        return float(value) if isinstance(value, str) and _is_number(value) else value
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, key)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        # A number or a word, such as auto: a text that is not a number is the word.
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
    if origin is Literal:
        if value in args:
            return value
        raise ConfigError(f"{key} is {value!r}: choose one of {', '.join(map(str, args))}.")
    if origin is dict:
        if isinstance(value, dict):
            return {str(name): _convert(args[1], item, key) for name, item in value.items()}
        raise ConfigError(f"{key} holds {value!r}: write 'name: value' pairs.")
    if origin is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(_convert(args[0], item, key) for item in items)
    if hint is float and isinstance(value, str):
        try:
            return float(value)  # YAML reads 2e-4 as text
        except ValueError:
            pass
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and key == "name" and isinstance(value, int | float):
        return str(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{key} is {value!r} ({type(value).__name__}): {_type_name(hint)} is wanted.")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _type_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(hint, str(hint))
