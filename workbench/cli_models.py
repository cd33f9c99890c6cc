"""``earwitness models``: list the models that are there, bring published ones in, hand them on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from models.errors import EarwitnessError

app = typer.Typer(help="List, import and export models.", invoke_without_command=True)

JsonOption = Annotated[bool, typer.Option("--json", help="JSON on standard output, nothing else.")]


@app.callback()
def models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the models that are there; 'import' and 'export' bring them in and out."""
    if context.invoked_subcommand is None:
        list_models(as_json)


def list_models(as_json: bool) -> None:
    """Print the cards of all known checkpoints."""
    from models.catalog import checkpoint_folders, read_card

    cards = []
    for folder in checkpoint_folders().values():
        try:
            cards.append(read_card(folder))
        except EarwitnessError as error:
            typer.echo(f"Error: {error}", err=True)
    if as_json:
        typer.echo(json.dumps([card.model_dump(mode="json") for card in cards], indent=1, ensure_ascii=False))
        return
    for card in cards:
        figures = ", ".join(f"{m.name} {m.value:.3g} on {m.data}" for m in card.metrics[:2])
        typer.echo(f"{card.name:20s} {card.title} ({len(card.labels)} classes, {card.task}). {figures}")


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="File of weights, or Hugging Face folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new checkpoint; must not exist.")],
    family: Annotated[str | None, typer.Option("--family", help="Model family; default: told from the file.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file of settings the weights do not tell.")
    ] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="Class names: .txt, .csv or .json.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the new model; default: that of the folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring in a published checkpoint; nothing in it is run."""
    from models.importer import import_checkpoint

    report = import_checkpoint(path, family, config, labels, output=output, name=name)
    if not as_json:
        typer.echo(report.text())
        typer.echo(f"Use it with: earwitness predict CLIP --model {output}")
        return
    values = {
        "folder": str(report.folder), "card": report.card.model_dump(mode="json"), "epoch": report.epoch,
        "labels_from": report.labels_from, "missing": report.missing, "unexpected": report.unexpected,
        "mismatched": report.mismatched, "notes": report.notes,
    }  # fmt: skip
    typer.echo(json.dumps(values, indent=1, ensure_ascii=False))


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="Name or folder of a model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; must not exist, or be empty.")],
    format_: Annotated[str, typer.Option("--format", help="Format to write: huggingface (AST only).")] = "huggingface",
) -> None:
    """Hand a model on in another program's format."""
    from models.checkpoint import load_recognizer
    from models.errors import SettingsError
    from models.hugging_face import save_hugging_face

    if format_ != "huggingface":
        raise SettingsError(f"There is no format named {format_!r}.", "Known is: huggingface.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SettingsError(f"{output} exists already and is not empty.", "Give a new folder.")
    save_hugging_face(load_recognizer(name, "cpu"), output)
    typer.echo(str(output))
