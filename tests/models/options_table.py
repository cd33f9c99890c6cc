"""The table of all settings of a recipe in docs/training.md; `python -m tests.models.options_table` prints it anew."""

from __future__ import annotations

import inspect
import json
import re
import typing

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from models.card import TrainingData
from models.training.config import TrainConfig
from models.training.event_graph_loop import EventGraphLoop
from models.training.loops import OnlineLoop
from models.training.playback_stages import PlaybackStages
from models.training.pretraining_loop import PretrainingLoop

LOOPS: dict[str, type[BaseModel]] = {
    "loop (playback_stages)": PlaybackStages,
    "loop (event_graph)": EventGraphLoop,
    "loop (online)": OnlineLoop,
    "loop (pretraining)": PretrainingLoop,
}


def descriptions(cls: type[BaseModel]) -> dict[str, str]:
    """What the docstring says about every attribute."""
    text = inspect.cleandoc(cls.__doc__ or "")
    _, _, attributes = text.partition("Attributes\n----------\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in attributes.splitlines():
        if re.fullmatch(r"[a-z_]+(, [a-z_]+)*", line):
            names = line.split(", ")
            found |= dict.fromkeys(names, "")
        elif line.startswith("    "):
            for name in names:
                found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def default_of(cls: type[BaseModel], name: str) -> str:
    field = cls.model_fields[name]
    if field.default is PydanticUndefined and field.default_factory is None:
        return "required"
    value = field.get_default(call_default_factory=True)
    if value == "":
        return "empty"
    return "`" + json.dumps(value, default=str).replace('"', "").replace("null", "none") + "`"


def sections() -> dict[str, type[BaseModel]]:
    """Name of every section and the model of its settings; the recipe itself has no name."""
    found: dict[str, type[BaseModel]] = {"": TrainConfig}
    for name, hint in typing.get_type_hints(TrainConfig).items():
        candidates = [hint, *typing.get_args(hint)]
        nested = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if nested is not None and nested is not TrainingData:
            found[name] = nested
    return found | LOOPS


def options_table() -> str:
    """All settings with default and meaning, a table for every section."""
    parts, known = [], sections()
    for section, cls in known.items():
        meaning = descriptions(cls)
        rows = [
            f"### {section or 'The recipe'}",
            "",
            "| setting | default | meaning |",
            "|---|---|---|",
        ]
        for name in cls.model_fields:
            if not section and name in known:
                continue
            text = meaning.get(name, "").replace("``", "`").replace("|", "\\|")
            rows.append(f"| `{name}` | {default_of(cls, name)} | {text} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


if __name__ == "__main__":
    print(options_table())
