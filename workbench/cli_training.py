"""``earwitness train`` and ``earwitness evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(train)
    app.command()(evaluate)


def train(
    recipe: Annotated[
        Path, typer.Argument(help="YAML recipe (see models/recipes), or the card.yaml of a model, to train it again.")
    ],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changed settings.")] = None,
) -> None:
    """Train a model as a recipe says; on several GPUs or machines under torchrun (see docs/training.md)."""
    import torch.distributed

    from models.training.config import load_train_config
    from models.training.trainer import EpochReport
    from models.training.trainer import train as run_training

    config = load_train_config(recipe, overrides)

    def report(entry: EpochReport) -> None:
        left = entry.seconds / entry.epoch * (entry.epochs - entry.epoch)
        checked = "" if entry.validation_accuracy is None else f", validation {100 * entry.validation_accuracy:.1f} %"
        typer.echo(
            f"epoch {entry.epoch}/{entry.epochs}: loss {entry.loss:.4f}{checked}, {left / 60:.1f} min left", err=True
        )

    folder = run_training(config, report)
    first = True
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        first = torch.distributed.get_rank() == 0
        torch.distributed.destroy_process_group()
    if first:
        typer.echo(str(folder))


def evaluate(
    data: Annotated[Path, typer.Option("--data", help="Folder of the data set.")],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="A model, or several (--model A --model B): their answers are averaged."),
    ] = None,
    average: Annotated[
        list[str] | None,
        typer.Option(
            "--average", help="Checkpoints of one architecture (--average A --average B): weights are averaged."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to save the average of weights as a checkpoint; must not exist."),
    ] = None,
    data_format: Annotated[str, typer.Option("--format", help="Annotation format.")] = "esc",
    option: Annotated[list[str] | None, typer.Option("--option", help="Argument of the format, KEY=VALUE.")] = None,
    folds: Annotated[str, typer.Option(help="Folds to test on, comma-separated; empty: all.")] = "5",
    views: Annotated[
        int | None, typer.Option(help="Test views of every clip; default: overlapping windows.", min=1)
    ] = None,
    combine: Annotated[Literal["sum", "max"], typer.Option(help="How views are put together.")] = "sum",
    write_card: Annotated[bool, typer.Option("--write-card", help="Write the figures into the model's card.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="File for the figures of every class.")] = None,
) -> None:
    """Measure models on a data set: accuracy, mAP, AUC, d-prime, and every class."""
    from models.checkpoint import load_recognizer, save_checkpoint
    from models.errors import SettingsError
    from models.training.averaging import average_checkpoints
    from models.training.evaluation import evaluate as run_evaluation
    from models.training.evaluation import store_in_card
    from models.training.run_state import written
    from workbench.cli import progress_line

    if bool(model) == bool(average):
        raise SettingsError(
            "There is no model to measure, or too many.", "Say --model NAME, or --average twice or more."
        )
    if output is not None and not average:
        raise SettingsError("Only an average of weights is saved (--output).", "Name its checkpoints with --average.")
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SettingsError(f"{output} exists already and is not empty.", "Give a new folder.")
    options = _options(option or [])
    try:
        chosen = [int(fold) for fold in folds.split(",") if fold.strip()]
    except ValueError:
        raise SettingsError(f"{folds!r} is not a list of folds.", "For example: --folds 4,5.") from None
    if average:
        averaged = average_checkpoints(average, output.name if output else "average")
        recognizers = [averaged]
        if output is not None:
            with written(f"The checkpoint {output.name}"):
                averaged.card = save_checkpoint(output, averaged.network, averaged.card)
            averaged.folder = output
    else:
        recognizers = [load_recognizer(name) for name in model or []]
    if write_card and (len(recognizers) > 1 or recognizers[0].folder is None):
        raise SettingsError("There is no one card to write these figures to.", "Measure one model, or say --output.")
    with progress_line() as show:
        result = run_evaluation(
            recognizers, data, data_format, chosen, options, lambda done, total: show("Evaluating", done / total),
            views=views, combine=combine,
        )  # fmt: skip
    if write_card:
        store_in_card(
            recognizers[0], result, _command(recognizers[0].name, data, data_format, folds, option, views, combine)
        )
    if csv is not None:
        with written(f"The table {csv.name}"):
            csv.write_text(result.csv(), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(result.as_dict(), indent=1, ensure_ascii=False))
    else:
        typer.echo(result.table())


def _options(items: list[str]) -> dict[str, Any]:
    import yaml

    from models.errors import SettingsError

    options = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not separator:
            raise SettingsError(f"{item!r} is not of the form KEY=VALUE.", "For example: --option n_folds=4.")
        try:
            options[key] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:
            raise SettingsError(f"The value in {item!r} is not valid YAML.", "Put text in quotes.") from error
    return options


def _command(
    name: str, data: Path, data_format: str, folds: str, option: list[str] | None, views: int | None, combine: str
) -> str:
    """The command that measured, without the folders of this machine."""
    parts = [f"earwitness evaluate --model {name} --data {data.name}"]
    if data_format != "esc":
        parts.append(f"--format {data_format}")
    parts += [f"--option {item}" for item in option or []]
    parts.append(f"--folds {folds or repr('')}")
    if views is not None:
        parts.append(f"--views {views}" + (" --combine max" if combine == "max" else ""))
    return " ".join(parts)
