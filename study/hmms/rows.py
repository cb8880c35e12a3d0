"""Dataclasses as rows of a table: plain values for JSON, a schema for Parquet.

A field is a column where its type is str, int, float, bool, a choice of words (Literal), or one of
these or None. Fields of other types, as a fitted model, are no columns.
"""

import dataclasses
import functools
import math
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa

Row = dict[str, Any]
T = TypeVar("T")

_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def schema_of(cls: type) -> pa.Schema:
    """Arrow schema of a table whose rows are of the dataclass ``cls``, in its order of fields."""
    return pa.schema([(name, _ARROW[kind]) for name, (kind, _) in _columns(cls).items()])


def row_of(one: Any) -> Row:
    """A dataclass object as plain values; None for a number that is not finite."""
    return {name: _plain(getattr(one, name)) for name in _columns(one.__class__)}


def from_row(cls: type[T], row: Row) -> T:
    """The object of the dataclass ``cls`` that `row_of` made a row of; further columns are ignored.

    A number that was not finite comes back as NaN; a field that is no column has its default.
    """
    values = {}
    plain_class: type = cls
    for name, (kind, may_be_none) in _columns(plain_class).items():
        is_nan = row[name] is None and kind is float and not may_be_none
        values[name] = math.nan if is_nan else row[name]
    return cls(**values)


@functools.cache
def _columns(cls: type) -> dict[str, tuple[type, bool]]:
    """Type of each column, and whether it may be None."""
    hints = get_type_hints(cls)
    columns = {field.name: _plain_type(hints[field.name]) for field in dataclasses.fields(cls)}
    return {name: known for name, known in columns.items() if known[0] in _ARROW}


def _plain_type(hint: Any) -> tuple[Any, bool]:
    may_be_none = False
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not types.NoneType]
        hint, may_be_none = kinds[0] if len(kinds) == 1 else hint, True
    return str if get_origin(hint) is Literal else hint, may_be_none


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
