"""Annotation tables in pickles, read without running anything that is in them.

Published annotations (VGG-Sound, EPIC-KITCHENS, EPIC-SOUNDS) are pickled pandas tables, and a pickle can run any
program. Here, only the names that pandas and numpy write for plain tables are known, and each of them stands for an
inert record of this module: no pandas, numpy or other code of the file's choosing is called. All else is refused.
"""

from __future__ import annotations

import io
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import DataError

MAX_BYTES = 512 * 2**20
_DTYPE = re.compile(r"[<>=|]?([biuf][1248]|[US]\d{1,6}|bool|u?int(8|16|32|64)|float(16|32|64)|O8?|object)")
ADVICE = "Ask for the table as .csv, or convert it on a machine where its origin is trusted."


@dataclass(frozen=True)
class Table:
    """Columns of a table by name, each a list with an entry per row, and the row names."""

    columns: dict[str, list[Any]]
    index: list[Any] = field(default_factory=list)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), self.index))

    def rows(self) -> list[dict[str, Any]]:
        """The rows as dictionaries."""
        names = list(self.columns)
        return [dict(zip(names, row, strict=True)) for row in zip(*self.columns.values(), strict=True)]


class _Refused(Exception):
    """The pickle holds something that no plain table needs."""


class _Record:
    """What stands for an object of the file: the name of its class, its arguments and its state."""

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self.name, self.args = name, args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _type_name(module: str, name: str) -> str:
    """One name for a class that moved about between versions."""
    return {"Int64Index": "Index", "UInt64Index": "Index", "Float64Index": "Index"}.get(name, name)


_PANDAS_CLASSES = {
    "DataFrame", "BlockManager", "Index", "RangeIndex", "Int64Index", "UInt64Index", "Float64Index", "ArrowStringArray",
    "ArrowStringArrayNumpySemantics", "StringArray", "StringArrayNumpySemantics", "ObjectStringArray", "StringDtype",
}  # fmt: skip
_FUNCTIONS = {
    "_reconstruct", "_frombuffer", "_unpickle_block", "new_block", "_new_Index", "__pyx_unpickle_NDArrayBacked",
    "_restore_array", "chunked_array", "py_buffer", "type_for_alias",
}  # fmt: skip
_MODULES = re.compile(r"(numpy|pandas|pyarrow)(\.[A-Za-z_]\w*)*")


def _to_bytes(value: Any, *_: Any) -> bytes:
    """What stands for ``bytearray`` and ``_codecs.encode``: old protocols write bytes as Latin-1 text."""
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, str):
        return value.encode("latin-1")
    raise _Refused("bytes made from a number")


class _TableUnpickler(pickle.Unpickler):
    """Knows the names of tables only, and gives fresh stand-ins for them."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("builtins", "slice"), ("__builtin__", "slice")}:
            return _maker("slice")
        if (module, name) in {("builtins", "bytearray"), ("__builtin__", "bytearray"), ("_codecs", "encode")}:
            return lambda *args: _to_bytes(*args)
        if _MODULES.fullmatch(module):
            if module.startswith("pandas") and name in _PANDAS_CLASSES:
                return _maker(_type_name(module, name))
            if name in _FUNCTIONS or (module == "numpy" and name in {"ndarray", "dtype"}):
                return _maker(name)
        raise _Refused(f"the name {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("a persistent reference")


def _maker(name: str) -> type[_Record]:
    """A fresh class each time, so that a file cannot leave attributes behind on it."""

    def __init__(self: _Record, *args: Any) -> None:
        _Record.__init__(self, name, args)

    def __new__(cls: type[_Record], *args: Any) -> _Record:
        record = object.__new__(cls)
        _Record.__init__(record, name, args)
        return record

    return type(name, (_Record,), {"__init__": __init__, "__new__": __new__, "stands_for": name})


def read_pickled_table(path: Path) -> Table:
    """The table in a pickle file.

    Raises
    ------
    DataError
        If it cannot be read, holds anything but a plain table, or more than 512 MB.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(f"{path.name} is larger ({size // 2**20} MB) than annotation tables are.", ADVICE)
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror}.") from error
    try:
        return _table(_TableUnpickler(io.BytesIO(content)).load())
    except _Refused as error:
        raise DataError(
            f"{path.name} is not a plain table: it holds {str(error)[:100]}, which is not allowed.", ADVICE
        ) from error
    except Exception as error:  # a damaged or hostile pickle can fail in any way
        raise DataError(f"{path.name} is damaged or not a pickled table ({type(error).__name__}).", ADVICE) from error


def _name(value: Any) -> str:
    """What a record stands for, empty for anything else."""
    return value.name if isinstance(value, _Record) else ""


def _table(frame: Any) -> Table:
    if _name(frame) != "DataFrame" or not isinstance(frame.state, dict):
        raise _Refused("something else than a table")
    manager: Any = frame.state.get("_mgr", frame.state.get("_data"))
    if _name(manager) != "BlockManager":
        raise _Refused("a table without columns")
    blocks: list[tuple[Any, Any]] = []
    if len(manager.args) >= 2:
        parts, axes = manager.args[:2]
        for block in parts:
            if _name(block) not in {"_unpickle_block", "new_block"}:
                raise _Refused("an unknown kind of column")
            blocks.append((block.args[0], block.args[1]))
    else:  # up to pandas 1.2
        inside = manager.state[-1]["0.14.1"]
        axes = inside["axes"]
        blocks = [(block["values"], block["mgr_locs"]) for block in inside["blocks"]]
    names, index = _index(axes[0]), _index(axes[1])
    columns: dict[int, list[Any]] = {}
    for values, places in blocks:
        positions = _positions(places, len(names))
        rows = _values(values)
        # An extension array is one column; numpy blocks hold a row of the array per column.
        if not _two_dimensional(values):
            rows = [rows]
        for position, row in zip(positions, rows, strict=True):
            columns[position] = row
    if sorted(columns) != list(range(len(names))) or any(len(column) != len(index) for column in columns.values()):
        raise _Refused("columns that do not fit together")
    return Table({str(name): columns[position] for position, name in enumerate(names)}, index)


def _positions(places: Any, count: int) -> list[int]:
    if _name(places) == "slice":
        return list(range(count))[slice(*places.args)]
    return [int(position) for position in _values(places)]


def _index(value: Any) -> list[Any]:
    if _name(value) != "_new_Index":
        raise _Refused("row or column names of an unknown kind")
    kind, state = value.args
    stands_for = getattr(kind, "stands_for", "")
    if stands_for == "RangeIndex":
        return list(range(int(state["start"]), int(state["stop"]), int(state["step"])))
    if stands_for == "Index":
        return _values(state["data"])
    raise _Refused("row or column names of an unknown kind")


def _two_dimensional(value: Any) -> bool:
    return _name(value) in {"_reconstruct", "_frombuffer"} and len(_array_parts(value)[1]) == 2


def _dtype(value: Any) -> np.dtype[Any]:
    if not (_name(value) == "dtype" and value.args and isinstance(value.args[0], str)):
        raise _Refused("an unknown number format")
    text = value.args[0]
    if not _DTYPE.fullmatch(text):
        raise _Refused(f"the number format {text[:20]}")
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "="
    dtype = np.dtype(text)
    return dtype.newbyteorder(">") if order == ">" else dtype


def _array_parts(value: _Record) -> tuple[Any, tuple[int, ...], np.dtype[Any], bool]:
    """Raw content, shape, type and whether columns come first, of an array."""
    if value.name == "_reconstruct":
        if not isinstance(value.state, tuple):
            raise _Refused("an array without content")
        _, shape, dtype, fortran, raw = value.state
    else:
        raw, dtype, shape, order = value.args[:4]
        fortran = order == "F"
    return raw, tuple(int(size) for size in shape), _dtype(dtype), bool(fortran)


def _values(value: Any) -> list[Any]:
    """An array of any kind as (nested) lists."""
    kind = _name(value)
    if kind in {"_reconstruct", "_frombuffer"}:
        raw, shape, dtype, fortran = _array_parts(value)
        if dtype.hasobject:
            flat = np.empty(len(raw), dtype=object)
            for position, item in enumerate(raw):
                flat[position] = _plain(item)
        else:
            flat = np.frombuffer(_to_bytes(raw), dtype=dtype)
        return flat.reshape(shape, order="F" if fortran else "C").tolist()
    if kind in {"ArrowStringArray", "ArrowStringArrayNumpySemantics"} and isinstance(value.state, dict):
        return _arrow_strings(value.state.get("_pa_array", value.state.get("_data")))
    if kind == "__pyx_unpickle_NDArrayBacked":
        state = value.state if value.state is not None else value.args[2]
        return _values(next(part for part in state if _name(part) in {"_reconstruct", "_frombuffer"}))
    raise _Refused("a column of an unknown kind")


def _plain(item: Any) -> Any:
    """A cell: plain Python, lists of it, or a small array."""
    if item is None or isinstance(item, str | int | float | bool):
        return item
    if isinstance(item, list | tuple):
        return [_plain(part) for part in item]
    return _values(item)


def _arrow_strings(value: Any) -> list[str | None]:
    """Text columns as current pandas writes them (Arrow's layout of offsets and bytes)."""
    if _name(value) == "chunked_array":
        return [text for chunk in value.args[0] for text in _arrow_strings(chunk)]
    if _name(value) != "_restore_array":
        raise _Refused("a text column of an unknown kind")
    kind, length, _, offset, buffers = value.args[0][:5]
    wide = {"large_string": np.int64, "large_utf8": np.int64, "string": np.int32, "utf8": np.int32}
    if _name(kind) != "type_for_alias" or kind.args[0] not in wide:
        raise _Refused("a text column of an unknown kind")
    valid, ends, text = (None if part is None else _to_bytes(part.args[0]) for part in buffers)
    if length == 0:
        return []
    if ends is None:
        raise _Refused("a text column without content")
    positions = np.frombuffer(ends, dtype=wide[kind.args[0]], count=offset + length + 1)[offset:].tolist()
    content = text or b""
    present = [True] * length
    if valid is not None:
        bits = np.unpackbits(np.frombuffer(valid, dtype=np.uint8), bitorder="little")
        present = bits[offset : offset + length].astype(bool).tolist()
    return [
        content[start:stop].decode("utf-8") if here else None
        for start, stop, here in zip(positions[:-1], positions[1:], present, strict=True)
    ]
