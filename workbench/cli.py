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

from models.errors import EarwitnessError, SettingsError
from workbench import cli_jobs, cli_models, cli_teach, cli_training, cli_views

if TYPE_CHECKING:
    from models.clip import Clip

app = typer.Typer(
    help="See, hear and test why a model recognised a sound.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip
app.add_typer(cli_models.app, name="models")
app.add_typer(cli_jobs.app, name="jobs")
cli_views.register(app)
cli_training.register(app)
cli_teach.register(app)

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


def listed_in(metadata: Path) -> list[tuple[str, Path]]:
    """Id and path of every clip of a metadata file; clips without a path are left out."""
    from models.data.equiav_json import read_metadata, resolve_path

    items = read_metadata(metadata)
    return [
        (str(item.get("video_id") or item["wav"]), resolve_path(str(item["wav"]), metadata.parent))
        for item in items
        if item.get("wav")
    ]


@app.command()
def predict(
    clips: Annotated[list[Path] | None, typer.Argument(help="Sound or video files.")] = None,
    model: ModelOption = "resnet-esc10",
    metadata: Annotated[
        Path | None, typer.Option("--metadata", help='JSON with {"data": [{"video_id": ..., "wav": ...}, ...]}.')
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="File for the lines video_id,predicted_label (joined by '; ').")
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(help="Multi-label models: score from which a class is written to the CSV.", min=0.0, max=1.0),
    ] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list on standard output, nothing else.")] = False,
    top: Annotated[int, typer.Option(help="Classes to print per clip (the JSON holds all).")] = 5,
) -> None:
    """Say what is heard in clips."""
    from models.checkpoint import load_recognizer
    from models.equiav_inference import write_predictions
    from models.prediction import predict as predict_clip
    from workbench.verdict import percent

    named = [(path.name, path) for path in clips or []] + (listed_in(metadata) if metadata else [])
    if not named:
        raise SettingsError("There is no clip to listen to.", "Name sound files, or give --metadata.")
    recognizer = load_recognizer(model)
    results: list[dict[str, Any]] = []
    decided: dict[str, list[str]] = {}
    failed = 0
    for name, path in named:
        try:
            clip = open_named(path)
            with progress_line() as show:
                prediction = predict_clip(
                    recognizer, clip.at(recognizer.sample_rate), video=clip.video,
                    progress=partial(windows_heard, show, name),
                )  # fmt: skip
        except EarwitnessError as error:
            failed += 1
            typer.echo(f"Error: {error}", err=True)
            continue
        ranking = prediction.ranking()
        scores = [{"label": label, "score": score} for label, score in ranking]
        decided[name] = [ranking[0][0]]
        if recognizer.card.task == "multi-label":
            decided[name] = [prediction.labels[i] for i, score in enumerate(prediction.scores) if score > threshold]
        results.append({"name": name, "model": recognizer.name, "scores": scores})
        if not as_json:
            best = ", ".join(f"{label} {percent(score)}" for label, score in ranking[:top])
            typer.echo(f"{name}: {best}")
    if csv is not None:
        write_predictions(csv, decided)
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
    from saliency.reconstruction import KeepSettings
    from workbench.analysis import AnalysisSettings, analyze_with_sound, own_views
    from workbench.picture import picture_png
    from workbench.report import report_html
    from workbench.verdict import percent, verdict

    parameters = {}
    for item in set_ or []:
        key, separator, value = item.partition("=")
        if not separator:
            raise SettingsError(f"{item!r} is not of the form KEY=VALUE.", "For example: --set steps=64.")
        parameters[key] = yaml.safe_load(value)
    clip = open_named(clip_path)
    recognizer = load_recognizer(model)
    settings = AnalysisSettings(
        target=target, method=method, parameters=parameters, keep=KeepSettings(fraction=fraction),
        views=own_views(recognizer.network.views),
    )  # fmt: skip
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
