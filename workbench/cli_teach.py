"""``earwitness teach``: teach a model from a folder or a table of examples; ``earwitness remember``: make a model's memory."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.errors import DataError, SettingsError

if TYPE_CHECKING:
    from models.teaching.contract import Scores, TeachingExample, TeachProgress, TeachResult

MOST_EXAMPLES = 20_000
LAYOUT = (
    "Give a folder with a sub-folder of sounds for every class, or a CSV file with the columns file and label (and, if you "
    "like, held_out)."
)
_TRUE = ("1", "true", "yes", "x")


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.command()(teach)
    app.command()(remember)


def read_examples(source: Path) -> list[TeachingExample]:
    """Examples of a folder with a sub-folder a class, or of a table with the columns ``file`` and ``label``.

    Several classes of one file are separated by ``|``. Files are relative to the table, and may not lie above it.

    Raises
    ------
    DataError
        If it is neither, or holds no example.
    """
    examples = _from_folder(source) if source.is_dir() else _from_table(source)
    if not examples:
        raise DataError(f"There are no examples in {source.name}.", LAYOUT)
    if len(examples) > MOST_EXAMPLES:
        raise DataError(f"{source.name} holds {len(examples)} examples.", f"Give at most {MOST_EXAMPLES}.")
    return examples


def _from_folder(folder: Path) -> list[TeachingExample]:
    from models.teaching.contract import TeachingExample

    return [
        TeachingExample(path.name, path, (sub.name,))
        for sub in sorted(folder.iterdir())
        if sub.is_dir() and not sub.name.startswith(".")
        for path in sorted(sub.iterdir())
        if path.is_file() and not path.name.startswith(".")
    ]


def _from_table(table: Path) -> list[TeachingExample]:
    from models.data.tables import read_rows
    from models.teaching.contract import TeachingExample

    if not table.is_file():
        raise DataError(f"There is no folder or table {table.name}.", LAYOUT)
    try:
        rows = read_rows(table, ("file", "label"))
    except (DataError, csv.Error) as error:
        raise DataError(f"{table.name} cannot be used: {error}", LAYOUT) from error
    examples, root = [], table.parent.resolve()
    for row in rows:
        path = (root / str(row["file"])).resolve()
        if not path.is_relative_to(root):
            raise DataError(f"{table.name} names a file outside of its folder.", "Put the table beside the sounds.")
        labels = tuple(label.strip() for label in str(row["label"]).split("|") if label.strip())
        held_out = str(row.get("held_out") or "").strip().lower() in _TRUE
        examples.append(TeachingExample(path.name, path, labels, held_out))
    return examples


def _show(progress: TeachProgress) -> None:
    if not sys.stderr.isatty():
        return
    parts = [f"{progress.stage} {progress.step}/{progress.steps}"]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.validation_accuracy is not None:
        parts.append(f"held out {100 * progress.validation_accuracy:.0f} %")
    if progress.seconds_left is not None:
        parts.append(f"{progress.seconds_left:.0f} s left")
    sys.stderr.write("\r\033[K" + ", ".join(parts))
    sys.stderr.flush()


def _compared(what: str, before: Scores | None, after: Scores | None) -> str:
    if before is None or after is None:
        return f"{what}: not measured"
    return f"{what}: {100 * before.accuracy:.1f} % before, {100 * after.accuracy:.1f} % after ({after.clips} clips)"


def _text(result: TeachResult) -> str:
    lines = [
        f"Taught {', '.join(result.new_labels) or 'known classes'} in {result.seconds:.1f} s "
        f"({result.trained}, {result.trained_parameters} numbers).",
        _compared("Held-out examples", result.before, result.after),
        _compared("Old classes", result.old_before, result.old_after),
        f"  {result.old_how}",
        f"  {result.rehearsal}",
    ]
    if result.left_out is not None:
        found = result.left_out
        lines.insert(1, f"Learned examples, each left out once: {found.recognised} of {found.examples} recognised")
    if result.after is not None:
        lines += [f"    {label:20s} {100 * value:5.1f} %" for label, value in result.after.per_class.items()]
    return "\n".join(lines)


def teach(
    model: Annotated[str, typer.Argument(help="Name or folder of the model to teach; it stays as it is.")],
    examples: Annotated[Path, typer.Option("--examples", help="Folder with a sub-folder for each class, or CSV file.")],
    name: Annotated[str, typer.Option("--name", help="Name of the new model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder in which the new model's folder is made.")],
    title: Annotated[str, typer.Option("--title", help="Title of the new model, for people.")] = "",
    train: Annotated[str, typer.Option("--train", help="auto, head, last_blocks, low_rank or everything.")] = "auto",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Further setting, KEY=VALUE.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted teaching stopped.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")] = False,
) -> None:
    """Teach a model new sounds, or known ones better, from a few examples."""
    import yaml
    from pydantic import ValidationError

    from models.teaching import TeachSettings
    from models.teaching import teach as run_teaching

    values: dict[str, object] = {"train": train}
    for item in set_ or []:
        key, separator, value = item.partition("=")
        if not separator:
            raise SettingsError(f"{item!r} is not of the form KEY=VALUE.", "For example: --set held_out_share=0.2.")
        values[key] = yaml.safe_load(value)
    try:
        settings = TeachSettings.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise SettingsError(f"The setting {where} cannot be used: {problem['msg']}.") from error
    result = run_teaching(
        model, read_examples(examples), settings, output, name=name, title=title, report=_show, resume=resume
    )
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    for finding in result.findings:
        typer.echo(f"Note: {finding.message} {finding.advice}", err=True)
    if as_json:
        typer.echo(json.dumps(result.as_dict(), indent=1, ensure_ascii=False))
        return
    typer.echo(_text(result))
    typer.echo(f"Use it with: earwitness predict CLIP --model {result.folder}")


def remember(
    model: Annotated[str, typer.Argument(help="Name or folder of the model that gets a memory.")],
    data: Annotated[Path, typer.Option("--data", help="Folder of the data set that it was trained on.")],
    source: Annotated[str, typer.Option("--source", help="What these clips are, with their licence.")],
    data_format: Annotated[str, typer.Option("--format", help="Annotation format.")] = "esc",
    folds: Annotated[str, typer.Option(help="Folds that it was trained on, comma-separated.")] = "1,2,3,4",
) -> None:
    """Put embeddings of training clips beside a model's weights, so that teaching it forgets little."""
    from models.teaching.remembering import remember_data

    chosen = [int(fold) for fold in folds.split(",") if fold.strip()]

    def told(done: int, total: int) -> None:
        if sys.stderr.isatty() and (done % 20 == 0 or done == total):
            print(f"\rreading {done} of {total} clips", end="\n" if done == total else "", file=sys.stderr, flush=True)

    memory = remember_data(model, data, data_format, chosen, source, told)
    clips = len(set(memory.groups.tolist()))
    typer.echo(f"{len(memory)} embeddings of {clips} clips, {memory.n_bytes / 1000:.0f} kB.")
