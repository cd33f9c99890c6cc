"""Commands of the command line that show what only some models can show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ClipArgument = Annotated[Path, typer.Argument(metavar="CLIP", help="Sound or video file.")]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results; made if missing.")]
TargetOption = Annotated[str | None, typer.Option("--target", help="Class to explain; default: the most likely.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(graph)
    app.command()(playback)


def graph(
    clip_path: ClipArgument,
    output: OutputOption,
    model: Annotated[str, typer.Option("--model", "-m", help="A model with an event graph.")] = "event-graph-scenes",
    target: TargetOption = None,
    measure: Annotated[str, typer.Option(help="Importance of a link: gradient, ablation or attention.")] = "gradient",
    window: Annotated[int | None, typer.Option(help="Window of a long clip, from 0; default: the surest.")] = None,
    draws: Annotated[int, typer.Option(help="Random orders that the deletion curve is compared with.", min=1)] = 20,
) -> None:
    """Say which sounds and pictures were linked: writes the graph (GraphML, JSON, PNG), its check and a report."""
    from models.checkpoint import load_recognizer
    from saliency.graph import explain_graph
    from saliency.graph_ablation import deletion_curve
    from workbench.cli import open_named, progress_line
    from workbench.graph_view.exports import deletion_json, graph_json, graphml
    from workbench.graph_view.picture import graph_png
    from workbench.graph_view.report import graph_report
    from workbench.graph_view.words import curve_in_words, headline, missing_in_words, window_in_words

    clip = open_named(clip_path)
    recognizer = load_recognizer(model)
    with progress_line() as show:
        explanation = explain_graph(
            recognizer, clip.at(recognizer.sample_rate), clip.video, target, measure, window=window, progress=show
        )
        curve = deletion_curve(recognizer, explanation, draws=draws, progress=show)
    files = {
        "report.html": graph_report(clip, explanation, curve, recognizer.card).encode(),
        "graph.graphml": graphml(explanation),
        "graph.json": graph_json(explanation),
        "graph.png": graph_png(clip, explanation),
        "deletion.json": deletion_json(curve),
    }
    output.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (output / name).write_bytes(data)
    silent = not clip.waveform.any()
    typer.echo(headline(explanation))
    for sentence in (window_in_words(explanation), missing_in_words(explanation, silent), curve_in_words(curve)):
        if sentence:
            typer.echo(sentence)
    for name in files:
        typer.echo(f"  {output / name}")


def playback(
    clip_path: ClipArgument,
    output: OutputOption,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Best a model that listens again.")
    ] = "play-it-back-esc10",
    target: TargetOption = None,
) -> None:
    """Say what was heard again and what it changed: writes the passes as sound, numbers, a picture and a report.

    For models that hear a clip once: what they make of every moment.
    """
    import json

    from models.checkpoint import load_recognizer
    from models.clip import encode_wav
    from saliency.listen_through import listen_through, replayed_sound
    from saliency.listening import listen
    from saliency.playback import pass_title
    from workbench.cli import open_named, progress_line
    from workbench.playback_picture import listening_png
    from workbench.playback_report import listening_report
    from workbench.playback_view import as_json, cautions, headline
    from workbench.verdict import percent

    clip = open_named(clip_path)
    recognizer = load_recognizer(model)
    with progress_line() as show:
        found = listen(clip, recognizer, target, progress=show)
    files = {
        "report.html": listening_report(clip, found, recognizer.card.title or recognizer.name).encode(),
        "playback.json": json.dumps(as_json(found), indent=1, ensure_ascii=False).encode(),
        "picture.png": listening_png(clip, found),
    }
    typer.echo(f"{found.target}: {percent(found.probability)}. {headline(found)}")
    if found.playback is not None:
        through = listen_through(clip.waveform, clip.sample_rate, found.playback)
        files["listen-through.wav"] = encode_wav(through.waveform, clip.sample_rate, "FLOAT")
        index = found.playback.labels.index(found.target)
        for one in found.playback.passes:
            typer.echo(f"  {pass_title(one)}. After it: {percent(float(one.probabilities[index]))}")
            sound = replayed_sound(clip.waveform, clip.sample_rate, one)
            if sound.shape[1]:
                files[f"pass-{one.number}.wav"] = encode_wav(sound, clip.sample_rate, "FLOAT")
    for note in cautions(found)[:1]:
        typer.echo(note)
    output.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (output / name).write_bytes(data)
        typer.echo(f"  {output / name}")
