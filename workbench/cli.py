"""The command line ``earwitness``: thin, every command calls the same functions as the page."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.errors import EarwitnessError
from workbench import cli_jobs, cli_models, cli_views

if TYPE_CHECKING:
    from models.clip import Clip

app = typer.Typer(
    help="See, hear and test why a model recognised a sound.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip
app.add_typer(cli_models.app, name="models")
app.add_typer(cli_jobs.app, name="jobs")
cli_views.register(app)

ModelOption = Annotated[str, typer.Option("--model", "-m", help="Name of a model (see 'earwitness models') or a path.")]


def main() -> None:
    """Entry point: errors that a person can mend end with their two sentences and status 2."""
    try:
        app(standalone_mode=True)
    except EarwitnessError as error:
        typer.echo(f"Error: {error.message}", err=True)
        if error.advice:
            typer.echo(f"       {error.advice}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        sys.exit(130)


@contextmanager
def progress_line() -> Iterator[Callable[[str, float], None]]:
    """One line on standard error that shows what is being done, if that is a terminal."""
    live = sys.stderr.isatty()

    def show(stage: str, share: float) -> None:
        if live:
            sys.stderr.write(f"\r\033[K{stage} {100 * share:.0f} %")
            sys.stderr.flush()

    yield show
    if live:
        sys.stderr.write("\r\033[K")


def windows_heard(show: Callable[[str, float], None], name: str, done: int, total: int) -> None:
    """Progress of a prediction on the progress line."""
    show(f"Listening to {name}", done / total)


def open_named(path: Path) -> Clip:
    """A clip from a path; errors name the file."""
    from models.clip import open_clip

    try:
        return open_clip(path, require_audio=False)
    except EarwitnessError as error:
        raise type(error)(f"{path.name}: {error.message}", error.advice) from error


@app.command()
def predict(
    clips: Annotated[list[Path], typer.Argument(help="Sound or video files.")],
    model: ModelOption = "resnet-esc10",
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list on standard output, nothing else.")] = False,
    top: Annotated[int, typer.Option(help="Classes to print per clip (the JSON holds all).")] = 5,
) -> None:
    """Say what is heard in clips."""
    from models.checkpoint import load_recognizer
    from models.prediction import predict as predict_clip
    from workbench.verdict import percent

    recognizer = load_recognizer(model)
    results: list[dict[str, Any]] = []
    failed = 0
    for path in clips:
        try:
            clip = open_named(path)
            with progress_line() as show:
                prediction = predict_clip(
                    recognizer, clip.at(recognizer.sample_rate), video=clip.video,
                    progress=partial(windows_heard, show, path.name),
                )  # fmt: skip
        except EarwitnessError as error:
            failed += 1
            typer.echo(f"Error: {error}", err=True)
            continue
        ranking = prediction.ranking()
        scores = [{"label": label, "score": score} for label, score in ranking]
        results.append({"name": path.name, "model": recognizer.name, "scores": scores})
        if not as_json:
            best = ", ".join(f"{label} {percent(score)}" for label, score in ranking[:top])
            typer.echo(f"{path.name}: {best}")
    if as_json:
        typer.echo(json.dumps(results, indent=1, ensure_ascii=False))
    if failed:
        raise typer.Exit(2)


@app.command()
def explain(
    clip_path: Annotated[Path, typer.Argument(metavar="CLIP", help="Sound or video file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results; made if missing.")],
    model: ModelOption = "resnet-esc10",
    method: Annotated[str, typer.Option("--method", help="Attribution method.")] = "integrated_gradients",
    target: Annotated[str | None, typer.Option("--target", help="Class to explain; default: the most likely.")] = None,
    fraction: Annotated[
        float, typer.Option(help="Share of the time-frequency cells to keep.", min=0.001, max=1.0)
    ] = 0.08,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Parameter of the method, KEY=VALUE.")] = None,
) -> None:
    """Say why: writes the analysis, kept.wav, removed.wav, a picture and a report that plays offline."""
    import yaml

    from models.checkpoint import load_recognizer
    from models.clip import encode_wav
    from models.errors import SettingsError
    from saliency.reconstruction import KeepSettings
    from workbench.analysis import AnalysisSettings, analyze_with_sound
    from workbench.picture import picture_png
    from workbench.report import report_html
    from workbench.verdict import percent, verdict

    parameters = {}
    for item in set_ or []:
        key, separator, value = item.partition("=")
        if not separator:
            raise SettingsError(f"{item!r} is not of the form KEY=VALUE.", "For example: --set steps=64.")
        parameters[key] = yaml.safe_load(value)
    settings = AnalysisSettings(
        target=target, method=method, parameters=parameters, keep=KeepSettings(fraction=fraction)
    )
    clip = open_named(clip_path)
    recognizer = load_recognizer(model)
    with progress_line() as show:
        analysis, sound = analyze_with_sound(clip, recognizer, settings, progress=show)
    if sound is None:
        raise SettingsError(f"{recognizer.name} only looks: no sound explains what it says.", "Choose another model.")
    output.mkdir(parents=True, exist_ok=True)
    analysis.save(output / "analysis.earwitness")
    (output / "analysis.json").write_text(
        json.dumps(analysis.summary(), indent=1, ensure_ascii=False), encoding="utf-8"
    )
    # Float samples: kept + removed is the clip, exactly; 16 bits would round each.
    (output / "kept.wav").write_bytes(encode_wav(sound.kept, clip.sample_rate, "FLOAT"))
    (output / "removed.wav").write_bytes(encode_wav(sound.removed, clip.sample_rate, "FLOAT"))
    (output / "picture.png").write_bytes(picture_png(clip, analysis))
    (output / "report.html").write_text(report_html(clip, analysis, sound), encoding="utf-8")
    score = float(analysis.prediction.scores[analysis.prediction.labels.index(analysis.target)])
    typer.echo(f"{analysis.target}: {percent(score)}. {verdict(analysis)}")
    for name in ("report.html", "kept.wav", "removed.wav", "picture.png", "analysis.json", "analysis.earwitness"):
        typer.echo(f"  {output / name}")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe (see models/recipes).")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changed settings.")] = None,
) -> None:
    """Train a model as a recipe says."""
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
    typer.echo(str(folder))


@app.command()
def evaluate(
    model: ModelOption,
    data: Annotated[Path, typer.Option("--data", help="Folder of the data set.")],
    data_format: Annotated[str, typer.Option("--format", help="Annotation format.")] = "esc",
    folds: Annotated[str, typer.Option(help="Folds to test on, comma-separated; empty: all.")] = "5",
    write_card: Annotated[bool, typer.Option("--write-card", help="Write the figures into the model's card.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Measure a model on a data set."""
    from models.checkpoint import load_recognizer
    from models.training.evaluation import evaluate as run_evaluation
    from models.training.evaluation import store_in_card

    recognizer = load_recognizer(model)
    chosen = [int(fold) for fold in folds.split(",") if fold.strip()]
    with progress_line() as show:
        result = run_evaluation(
            recognizer, data, data_format, chosen, progress=lambda done, total: show("Evaluating", done / total)
        )
    if write_card:
        command = f"earwitness evaluate --model {recognizer.name} --data {data.name} --folds {folds}"
        store_in_card(recognizer, result, command)
    if as_json:
        typer.echo(json.dumps(result.as_dict(), indent=1, ensure_ascii=False))
    else:
        typer.echo(result.table())


@app.command()
def doctor() -> None:
    """Check this machine: versions, device, codecs, memory, and how to mend what is wrong."""
    from workbench.doctor import examine

    problems = 0
    for finding in examine():
        typer.echo(f"{'ok  ' if finding.fine else 'BAD '} {finding.name}: {finding.detail}")
        if not finding.fine:
            problems += 1
            typer.echo(f"     {finding.advice}")
    if problems:
        raise typer.Exit(1)


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8501,
    address: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets the network in.")] = "127.0.0.1",
) -> None:
    """Start the workbench in the browser."""
    from workbench.server import run

    run(port=port, address=address)


if __name__ == "__main__":
    main()
