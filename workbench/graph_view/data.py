"""What the event graph in the browser shows. The same shape is in ``workbench/player/src/graph/types.ts``."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from models.clip import Clip, encode_wav
from models.errors import MediaError
from saliency.graph import MEASURES, GraphExplanation
from workbench.figures import ROWS, display_top, grey_png, level_range, moving_picture, spectrogram_db
from workbench.graph_view.words import edge_words, span_words
from workbench.labels import spoken

Publish = Callable[[bytes, str], str]
Finite = Annotated[float, Field(allow_inf_nan=False)]
THUMBNAIL = (96, 128)  # height and width of a picture's node in the strip


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Strip(_Model):
    """The pictures of all video nodes side by side, and how many there are."""

    url: str
    count: int


class Node(_Model):
    """A piece of sound or of picture; times in s of the clip. ``present`` is False for what follows the clip's end."""

    kind: Literal["audio", "video"]
    start: Finite
    end: Finite
    span: str
    contribution: Finite
    present: bool


class Edge(_Model):
    """A link. ``importance`` is None where the measure says nothing about it."""

    source: int
    target: int
    importance: Finite | None
    weight: Finite
    words: str


class LeftOut(_Model):
    """What is left out at present."""

    nodes: list[int]
    edges: list[int]


class GraphViewData(_Model):
    """Everything that the component needs for one graph.

    Parameters
    ----------
    graph_id
        While it stays the same, layout, threshold and selection are kept when anything else changes.
    start, end
        The window in seconds of the clip; `duration` is where the clip ends.
    sound
        URL of the sound of the window, as WAV.
    spectrogram
        URL of an 8-bit grey picture of the window's sound, highest frequency first.
    video, strip
        The clip's own video, where browsers can show it, and the pictures of the nodes; None without a picture.
    signed
        Whether importances have a sign: colours mean supports and opposes only then.
    """

    graph_id: str
    start: Finite
    end: Finite
    duration: Finite
    sound: str
    spectrogram: str
    video: str | None
    strip: Strip | None
    nodes: list[Node]
    edges: list[Edge]
    target: str
    measure: str
    signed: bool
    left_out: LeftOut
    editable: bool = True

    def as_json(self) -> dict[str, Any]:
        """The data as the browser reads it."""
        return self.model_dump(by_alias=True)


class Selection(_Model):
    """Nodes and edges that the visitor asked to leave out."""

    nodes: Annotated[list[int], Field(max_length=10_000)]
    edges: Annotated[list[int], Field(max_length=100_000)]


def selection_of(value: Any, explanation: GraphExplanation) -> Selection | None:
    """An answer of the browser, or None if it is not what the component sends or names what is not there."""
    try:
        chosen = Selection.model_validate(value)
    except ValidationError:
        return None
    there = all(0 <= node < explanation.n_nodes for node in chosen.nodes)
    there = there and all(0 <= edge < explanation.n_edges for edge in chosen.edges)
    return chosen if there and (chosen.nodes or chosen.edges) else None


def window_sound(clip: Clip, explanation: GraphExplanation) -> np.ndarray:
    """The clip's sound within the window, float32 ``[channels, samples]``, at least one sample."""
    start, end = explanation.windows[explanation.window]
    first = min(round(float(start) * clip.sample_rate), clip.n_samples - 1)
    return clip.waveform[:, first : max(first + 1, round(float(end) * clip.sample_rate))]


def window_spectrogram(clip: Clip, explanation: GraphExplanation) -> np.ndarray:
    """Level of the window's sound from 0 to 1, ``[ROWS, columns]`` with the highest frequency first, over the whole window.

    What lies behind the end of the clip is 0.
    """
    start, end = (float(time) for time in explanation.windows[explanation.window])
    sound = window_sound(clip, explanation)
    image = spectrogram_db(sound, clip.sample_rate, "mel", display_top(clip.sample_rate, "mel"))
    bottom, top = level_range(image)
    level = np.clip((image - bottom) / (top - bottom), 0, 1)
    seconds = sound.shape[1] / clip.sample_rate
    columns = max(level.shape[1], round(level.shape[1] * (end - start) / max(seconds, 1e-3)))
    columns = min(columns, 4000)
    shown = np.zeros((ROWS, columns), dtype=np.float32)
    filled = max(1, min(columns, round(columns * seconds / (end - start))))
    shown[:, :filled] = level[:, (np.arange(filled) * level.shape[1] // filled)]
    return shown


def thumbnails(clip: Clip, explanation: GraphExplanation) -> np.ndarray | None:
    """Pictures from the middles of the video nodes, uint8 ``[n, height, width, 3]``; None without a picture.

    Nodes behind the end of the video are grey, as the model sees them.
    """
    if clip.video is None or explanation.video_duration <= 0:
        return None
    seen = explanation.is_video
    middle = ((explanation.node_start + explanation.node_end) / 2)[seen]
    last = max(0.0, explanation.video_duration - 1e-3)
    try:
        pictures = clip.video.frames([min(float(time), last) for time in middle], THUMBNAIL)
    except MediaError:
        return None
    pictures[~explanation.present[seen]] = 110
    return pictures


def strip_of(clip: Clip, explanation: GraphExplanation, publish: Publish) -> Strip | None:
    """The pictures of the video nodes in one file."""
    pictures = thumbnails(clip, explanation)
    if pictures is None:
        return None
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(pictures), axis=1)).save(buffer, "JPEG", quality=82)
    return Strip(url=publish(buffer.getvalue(), "image/jpeg"), count=len(pictures))


def graph_view_data(
    clip: Clip,
    explanation: GraphExplanation,
    publish: Publish,
    *,
    without_nodes: tuple[int, ...] = (),
    without_edges: tuple[int, ...] = (),
    editable: bool = True,
) -> GraphViewData:
    """What the component shows of an explanation.

    Parameters
    ----------
    publish
        Makes bytes of a MIME type reachable and returns their URL (an own route in the app, a data URL in a report).
    without_nodes, without_edges
        What is left out at present.
    editable
        Whether there is a server that can leave something out.
    """
    start, end = (float(time) for time in explanation.windows[explanation.window])
    sound = window_sound(clip, explanation)
    gain = min(1.0, 1.0 / max(1.0, float(np.abs(sound).max(initial=0.0))))
    grey = (255 * window_spectrogram(clip, explanation)).astype(np.uint8)
    video = moving_picture(clip, publish)
    kinds = np.where(explanation.is_video, "video", "audio")
    present = explanation.present
    nodes = [
        Node(
            kind=str(kinds[node]), start=float(explanation.node_start[node]), end=float(explanation.node_end[node]),
            span=span_words(explanation, node), contribution=float(explanation.node_contribution[node]),
            present=bool(present[node]),
        )
        for node in range(explanation.n_nodes)
    ]  # fmt: skip
    edges = [
        Edge(
            source=int(explanation.edge_source[edge]), target=int(explanation.edge_target[edge]),
            importance=None if np.isnan(value) else float(value), weight=float(explanation.edge_weight[edge]),
            words=edge_words(explanation, edge),
        )
        for edge, value in enumerate(explanation.edge_importance)
    ]  # fmt: skip
    identity = (
        f"{clip.content_hash} {explanation.target} {explanation.window} {explanation.edge_importance.tobytes().hex()}"
    )
    measure = MEASURES[explanation.measure]
    return GraphViewData(
        graph_id=hashlib.sha256(identity.encode()).hexdigest()[:24], start=start, end=end,
        duration=explanation.duration, sound=publish(encode_wav(sound * np.float32(gain), clip.sample_rate), "audio/wav"),
        spectrogram=publish(grey_png(grey), "image/png"), video=None if video is None else video.url,
        strip=strip_of(clip, explanation, publish), nodes=nodes, edges=edges, target=spoken(explanation.target),
        measure=measure.title, signed=measure.signed, editable=editable,
        left_out=LeftOut(nodes=list(without_nodes), edges=list(without_edges)),
    )  # fmt: skip
