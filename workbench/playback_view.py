"""Views over time, ready to be shown: lanes for the player, the listen-through, the chart of what every pass changed, sentences."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from models.clip import Clip, encode_wav
from saliency.listen_through import ListenThrough, listen_through
from saliency.listening import Listening
from saliency.over_time import OverTime
from saliency.playback import PlaybackExplanation, hop_in_words, pass_title, spans_in_words
from workbench.figures import (
    display_top,
    frequency_axis,
    grey_png,
    level_range,
    player_data,
    spectrogram_db,
)
from workbench.labels import spoken
from workbench.player.data import Lane, PlayerData, Segment, SpectrogramImage, Track
from workbench.verdict import clock, percent

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Publish = Callable[[bytes, str], str]
MOST_MOMENTS, MOST_POINTS = 8, 1200
ROLES = ("target", "rival", "other")
TOGETHER = "All"


def strongest(course: OverTime, most: int = MOST_MOMENTS) -> np.ndarray:
    """Moments ``[n, 2]`` in seconds in which a course is at least half its highest value, the strongest `most` of them.

    Attention has to be a quarter above the even share, and a probability above 10 %. None where that is nearly all of the
    clip: then no moment stands out.
    """
    top = float(course.values.max(initial=0.0))
    if top <= (0.1 if course.unit == "probability" else 0.0):
        return np.zeros((0, 2))
    least = max(top / 2, 1.25) if course.unit == "share" else top / 2
    above = np.concatenate([[False], course.values >= least, [False]])
    firsts, lasts = np.flatnonzero(np.diff(above.astype(int)) > 0), np.flatnonzero(np.diff(above.astype(int)) < 0) - 1
    weights = [course.values[first : last + 1].sum() for first, last in zip(firsts, lasts, strict=True)]
    chosen = sorted(np.argsort(weights)[::-1][:most])
    found = np.array([[course.spans[firsts[i], 0], course.spans[lasts[i], 1]] for i in chosen]).reshape(-1, 2)
    everything = (found[:, 1] - found[:, 0]).sum() > 0.85 * (course.spans[-1, 1] - course.spans[0, 0])
    return np.zeros((0, 2)) if everything else found


def _boxes(spans: np.ndarray, duration: float, kind: str | None = "kept") -> list[Segment]:
    return [
        Segment(
            start=max(0.0, float(start)), end=min(duration, float(end)), kind=kind,
            label=f"{clock(float(start), duration)}–{clock(float(end), duration)}",
        )
        for start, end in spans
        if start < duration and min(duration, end) - max(0.0, start) > 1e-3
    ]  # fmt: skip


def pass_lanes(playback: PlaybackExplanation, duration: float) -> list[Lane]:
    """One lane a pass: attention over time, and what it selected."""
    lanes = []
    index = playback.labels.index(playback.target)
    for number, one in enumerate(playback.passes):
        following = playback.passes[number + 1] if number + 1 < len(playback.passes) else None
        boxes = _boxes(one.selected, duration, None if following is None else "kept")
        note = f"After it: {spoken(playback.target)} {percent(float(one.probabilities[index]))}."
        if boxes and following is None:
            note += " Boxes: what stood out last; it was not heard again."
        elif boxes and following is not None:
            note += f" Boxes: what stood out; the next pass hears it every {hop_in_words(following.hop_seconds)}."
        keep = np.unique(np.linspace(0, len(one.times) - 1, min(len(one.times), MOST_POINTS)).astype(int))
        lanes.append(
            Lane(
                label=pass_title(one), note=note,
                times=np.maximum(one.times[keep], 0.0).tolist(), values=one.attention[keep].round(4).tolist(),
                low=0.0, high=1.0, low_label="0", high_label="1", segments=boxes or None,
            )
        )  # fmt: skip
    return lanes


def course_lane(course: OverTime, duration: float) -> Lane:
    """A lane of its own for a course over time."""
    values = course.values.astype(float)
    low, high = min(0.0, float(values.min(initial=0.0))), max(0.0, float(values.max(initial=0.0)))
    low = low if -low > 0.02 * high else 0.0  # less than a pixel
    mark = None
    if course.unit == "probability":
        low, high, low_label, high_label = 0.0, 1.0, "0 %", "100 %"
    elif course.unit == "share":
        low, high, low_label, high_label, mark = 0.0, max(high, 1.2), "0", f"{max(high, 1.2):.1f}×", 1.0
    else:
        high = high if high > low else low + 1.0
        low_label, high_label = (f"{value:+.2g}".replace("-", "−") if value else "0" for value in (low, high))
    edges = np.append(course.spans[:, 0], course.spans[-1, 1])
    times = course.times if course.unit == "probability" else np.minimum(edges, duration)
    return Lane(
        label=course.title, note=course.zero, times=np.maximum(times, 0.0).tolist(), values=values.round(6).tolist(), low=low,
        high=high, low_label=low_label, high_label=high_label, mark=mark, segments=_boxes(strongest(course), duration) or None,
    )  # fmt: skip


def lanes_of(listening: Listening, duration: float) -> list[Lane]:
    """All lanes: passes first, then what else the model offers."""
    passes = pass_lanes(listening.playback, duration) if listening.playback is not None else []
    return passes + [course_lane(course, duration) for course in listening.courses]


def clip_player(clip: Clip, listening: Listening, publish: Publish) -> PlayerData:
    """The clip with its lanes on one time axis."""
    data = player_data(clip, None, None, publish)
    lanes = lanes_of(listening, data.duration)
    return data.model_copy(
        update={"lanes": lanes, "segments": None, "curve": None, "height": 150, "clip_id": f"{data.clip_id}-over-time"}
    )


def through_player(clip: Clip, listening: Listening, publish: Publish) -> tuple[PlayerData, ListenThrough] | None:
    """The listen-through with its chapters; None for models that hear a clip once."""
    if listening.playback is None:
        return None
    through = listen_through(clip.waveform, clip.sample_rate, listening.playback)
    duration = max(through.waveform.shape[1] / clip.sample_rate, 1e-3)
    gain = np.float32(min(1.0, 1.0 / max(1.0, float(np.abs(through.waveform).max(initial=0.0)))))
    f_max = display_top(clip.sample_rate, "mel")
    image = spectrogram_db(through.waveform, clip.sample_rate, "mel", f_max)
    bottom, top = level_range(image)
    grey = (255 * np.clip((image - bottom) / (top - bottom), 0, 1)).astype(np.uint8)
    url = publish(encode_wav(through.waveform * gain, clip.sample_rate), "audio/wav")
    chapters = []
    for number in sorted(
        {one.number for one in through.chapters}
    ):  # a box a pass: single moments are too narrow for a name
        parts = [one for one in through.chapters if one.number == number]
        label, kind = (parts[0].label, None) if number == 1 else (f"Pass {number}", "kept")
        chapters.append(Segment(start=parts[0].start, end=min(parts[-1].end, duration), label=label, kind=kind))
    data = PlayerData(
        duration=duration, clip_id=f"{clip.content_hash[:24]}-through-{listening.playback.target[:40]}", compact=True,
        tracks=[Track(id="through", label="Listen-through", url=url)], segments=chapters, height=90,
        frequency_axis=frequency_axis(f_max, "mel"), title="Listen-through", strings={"play": "Listen through"},
        spectrogram=SpectrogramImage(
            url=publish(grey_png(grey), "image/png"), start=0.0, end=duration, db_min=round(bottom, 1), db_max=round(top, 1)
        ),
    )  # fmt: skip
    return data, through


# --- in words ------------------------------------------------------------------------------------------------------


def headline(listening: Listening) -> str:
    """What there is to see, as one sentence."""
    if listening.playback is not None:
        return listening.playback.mind
    # What belongs to the class goes before attention, which belongs to none.
    for course in sorted(listening.courses, key=lambda one: not one.target):
        said = in_words(course)
        if said:
            return said
    return "This model offers nothing over time for this clip."


def in_words(course: OverTime) -> str:
    """The strongest moments of a course; empty where none stands out."""
    moments = strongest(course)
    where, name = spans_in_words(moments), spoken(course.target)
    if course.kind == "time_attention" and not where:
        return (
            f"No moment speaks for '{name}'."
            if course.values.max() <= 0
            else f"All of the clip speaks for '{name}' alike."
        )
    if course.kind == "time_attention":
        return f"Most of what speaks for '{name}' is read out at {where}."
    if course.kind == "token_attention":
        return f"Most attention flows to {where}." if where else "Attention flows to all of the clip alike."
    best = float(course.values.max())
    at = float(course.times[int(course.values.argmax())])
    return f"Of all moments heard alone, '{name}' is most probable around {at:.2f} s ({percent(best)})."


def cautions(listening: Listening) -> list[str]:
    """What has to stand beside the pictures."""
    said: list[str] = []
    if listening.playback is not None:
        said += [listening.playback.reliability.sentence, *listening.playback.notes]
    for course in listening.courses:
        said += [note for note in course.notes if note not in said]
    return said


# --- the chart -----------------------------------------------------------------------------------------------------


def chart_points(playback: PlaybackExplanation) -> tuple[list[str], list[tuple[str, list[float], str]]]:
    """Names of the stages, and of each class shown: name, probability at every stage, role (target, rival, other)."""
    stages = [f"Pass {one.number}" for one in playback.passes] + [TOGETHER]
    table = np.vstack([playback.by_pass(), playback.probabilities[None]])
    lines = [
        (spoken(playback.labels[index]), table[:, index].tolist(), ROLES[min(order, 2)])
        for order, index in enumerate(playback.shown_classes())
    ]
    return stages, lines


def spread_labels(values: list[float], gap: float) -> list[float]:
    """Heights for labels at these values (0..1) that are at least `gap` apart, moved as little as needed."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    placed: dict[int, float] = {}
    last = -gap
    for index in order:
        last = placed[index] = max(values[index], last + gap)
    last = 1.0 + gap
    for index in reversed(order):  # and down again from the top, where they went beyond it
        last = placed[index] = min(placed[index], last - gap)
    return [placed[index] for index in range(len(values))]


def change_figure(playback: PlaybackExplanation, dark: bool = False) -> Figure:
    """Probability of the class and of its rivals after every pass, each line with its name at its end."""
    import plotly.graph_objects as go

    stages, lines = chart_points(playback)
    figure = go.Figure()
    heights = spread_labels([values[-1] for _, values, _ in lines], 0.085)
    inks = ("#ff9d5c", "#7db8ff", "#aab4c2") if dark else ("#b8480a", "#1f68be", "#5a6675")
    colours = {role: (ink, 4 if role == "target" else 2) for role, ink in zip(ROLES, inks, strict=True)}
    for (name, values, role), height in reversed(list(zip(lines, heights, strict=True))):
        colour, width = colours[role]
        figure.add_scatter(
            x=list(range(len(stages))), y=[100 * value for value in values], mode="lines+markers", name=name,
            line={"color": colour, "width": width}, marker={"size": 7 if role == "target" else 5}, showlegend=False,
            hovertemplate="%{text}: %{y:.1f} %<extra></extra>", text=[_no_markup(name)] * len(values),
        )  # fmt: skip
        figure.add_annotation(
            x=len(stages) - 1, y=100 * height, xanchor="left", xshift=8, showarrow=False, align="left",
            text=f"{_no_markup(_short(name))} {percent(values[-1])}", font={"color": colour, "size": 13},
        )  # fmt: skip
    figure.update_layout(
        height=260, margin={"l": 44, "r": 142, "t": 12, "b": 28}, hovermode="closest", dragmode=False,
        xaxis={"tickvals": list(range(len(stages))), "ticktext": stages, "fixedrange": True,
               "range": [-0.1, len(stages) - 0.95], "showgrid": False, "zeroline": False},
        yaxis={"range": [-3, 103], "tickvals": [0, 50, 100], "ticktext": ["0 %", "50 %", "100 %"],
               "fixedrange": True, "zeroline": False},
    )  # fmt: skip
    return figure


def change_figure_html(playback: PlaybackExplanation) -> str:
    """The same chart as HTML that needs no script: lines that stretch with the page, names that keep their size."""
    stages, lines = chart_points(playback)
    last = len(stages) - 1
    heights = spread_labels([values[-1] for _, values, _ in lines], 0.1)
    colours = {
        "target": "var(--accent, #b8480a)",
        "rival": "light-dark(#1f68be, #7db8ff)",
        "other": "var(--muted, #5a6675)",
    }
    drawn, names = [], []
    for (name, values, role), height in reversed(list(zip(lines, heights, strict=True))):
        points = " ".join(f"{100 * index / last:.2f},{100 - 100 * value:.2f}" for index, value in enumerate(values))
        width = 3.5 if role == "target" else 1.8
        drawn.append(
            f'<polyline points="{points}" fill="none" stroke="{colours[role]}" stroke-width="{width}" '
            'vector-effect="non-scaling-stroke"/>'
        )
        text = html.escape(f"{_short(name)} {percent(values[-1])}")
        weight = 700 if role == "target" else 400
        names.append(
            f'<span style="position:absolute;left:8px;top:{100 - 100 * height:.1f}%;transform:translateY(-50%);white-space:nowrap;'
            f'font-weight:{weight};{"" if role == "other" else f"color:{colours[role]}"}">{text}</span>'
        )
    marks = "".join(
        f'<span style="position:absolute;left:{100 * index / last:.1f}%;transform:translateX(-{0 if index == 0 else 50}%);'
        f'white-space:nowrap">{"all" if index == last else index + 1}</span>'
        for index in range(len(stages))
    )
    return (
        '<div style="display:grid;grid-template-columns:3.4em minmax(0,1fr) 9.5em;font-size:.85rem;padding:.6em 0 1.6em">'
        '<div style="position:relative"><span style="position:absolute;top:-.8em;right:.5em;white-space:nowrap">100 %</span>'
        '<span style="position:absolute;bottom:-.8em;right:.5em">0 %</span></div>'
        '<div style="position:relative;height:200px"><svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true" '
        'style="width:100%;height:100%;overflow:visible"><path d="M0 0H100M0 50H100M0 100H100" stroke="currentColor" '
        f'stroke-opacity=".18" fill="none" vector-effect="non-scaling-stroke"/>{"".join(drawn)}</svg>'
        f'<div style="position:absolute;top:100%;left:0;right:0;padding-top:.3em;height:1.4em">{marks}</div></div>'
        f'<div style="position:relative">{"".join(names)}</div></div>'
    )


def _short(name: str, most: int = 14) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _no_markup(text: str) -> str:
    """Text for Plotly, which reads tags in it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# --- plain data ----------------------------------------------------------------------------------------------------


def as_json(value: Any) -> Any:
    """Dataclasses of numbers, texts and arrays as what `json.dumps` takes."""
    import dataclasses

    if isinstance(value, np.ndarray):
        return value.round(6).tolist()
    if isinstance(value, np.generic):
        return value.item()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [as_json(part) for part in value] if isinstance(value, tuple | list) else value
