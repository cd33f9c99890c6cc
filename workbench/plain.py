"""Results as plain data: a dataclass of numbers, texts and arrays to JSON and arrays, and back by its type hints."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def pack(value: Any, arrays: dict[str, np.ndarray], name: str) -> Any:
    """`value` for JSON; its arrays go into `arrays` under names that begin with `name`.

    Parameters
    ----------
    value
        Dataclasses, tuples, lists, dicts with plain keys, arrays, numbers, texts and None, nested in any way.

    Raises
    ------
    TypeError
        If there is something else in it.
    """
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: pack(getattr(value, f.name), arrays, f"{name}.{f.name}") for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return [[key, pack(part, arrays, f"{name}.{key}")] for key, part in value.items()]
    if isinstance(value, (tuple, list)):
        return [pack(part, arrays, f"{name}.{index}") for index, part in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{name} holds a {type(value).__name__}, which is no plain data")


def unpack(hint: Any, data: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """What `pack` was given, from the type that it had.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the data are not of that type.
    """
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        if data is None:
            return None
        (hint,) = [part for part in typing.get_args(hint) if part is not type(None)]
    origin, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is np.ndarray:
        return arrays[data["array"]]
    if origin is typing.Literal:
        return data
    if dataclasses.is_dataclass(origin):
        hints = typing.get_type_hints(origin)
        names = [f.name for f in dataclasses.fields(origin)]
        return typing.cast(Any, origin)(**{n: unpack(hints[n], data[n], arrays) for n in names})
    if origin is tuple:
        inner = [parts[0]] * len(data) if len(parts) == 2 and parts[1] is Ellipsis else parts
        return tuple(unpack(part, item, arrays) for part, item in zip(inner, data, strict=True))
    if origin is list:
        return [unpack(parts[0], item, arrays) for item in data]
    if origin in (dict, Mapping):
        return {unpack(parts[0], key, arrays): unpack(parts[1], item, arrays) for key, item in data}
    if origin is Any:
        return data
    return None if data is None else typing.cast(type, origin)(data)
