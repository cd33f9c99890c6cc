"""Annotation tables from .csv files and from pickles that are read without running them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.data.restricted_pickle import read_pickled_table
from models.errors import DataError

# Far more rows than any of these data sets has; a table that never ends must not fill the memory.
MAX_ROWS = 5_000_000


def read_rows(path: Path, needed: Sequence[str] = (), header: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Rows of a ``.csv`` or ``.pkl`` table as dictionaries.

    A pickled table's row names are the column named by the first of `needed` if it has no such column.

    Parameters
    ----------
    needed
        Columns that have to be there.
    header
        Column names of a .csv file that has none.

    Raises
    ------
    DataError
        If the file cannot be read as a table, or a column is missing.
    """
    if path.suffix.lower() == ".pkl":
        table = read_pickled_table(path)
        rows = table.rows()
        if needed and needed[0] not in table.columns:
            rows = [{needed[0]: name, **row} for name, row in zip(table.index, rows, strict=True)]
    else:
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = []
                for row in csv.DictReader(file, fieldnames=header, restkey="", restval=""):
                    rows.append(dict(row))
                    if len(rows) > MAX_ROWS:
                        raise DataError(f"{path.name} has more than {MAX_ROWS} rows.")
        except OSError as error:
            raise DataError(f"{path.name} cannot be read: {error.strerror}.") from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path.name} is not a table of comma-separated text ({error}).") from error
    missing = [column for column in needed if not rows or column not in rows[0]]
    if missing:
        what = "is empty" if not rows else f"has no column {', '.join(missing)}"
        raise DataError(f"{path.name} {what}.", f"It needs the columns {', '.join(needed)}.")
    return rows


def first_file(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of `names` that is a file in a folder."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def whole_number(row: dict[str, Any], column: str, where: str) -> int:
    """A cell as an integer.

    Raises
    ------
    DataError
        Naming the row if it is none.
    """
    try:
        return int(row[column])
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {column} is {str(row[column])[:40]!r}, not a whole number.") from error
