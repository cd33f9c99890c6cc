"""``analyze(clip, recognizer, settings) -> Analysis``: the one thing that page, command line and report show."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import io
import json
import platform
import zipfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from models.clip import Clip
from models.errors import EarwitnessError, SettingsError
from models.prediction import Prediction, predict
from models.recognizer import Recognizer
from saliency.attribution import Attribution, attribute
from saliency.cells import cells_of
from saliency.reconstruction import KeepSettings, SalientAudio, keep, salient_audio
from workbench import __version__
from workbench.checks import Checks, check
from workbench.plain import pack, unpack

if TYPE_CHECKING:
    from saliency.graph import GraphExplanation
    from saliency.listening import Listening

Progress = Callable[[str, float], None]
View = Literal["listening", "graph"]
NO_PICTURE = "This model also looks at the picture; the clip has none, so it saw plain grey."

# Longer clips are explained around the moment the class is most likely, unless a part is asked for.
EXPLAINED_SECONDS = 60.0
_LIBRARIES = ("torch", "captum", "numpy", "scipy", "soxr")


class AnalysisSettings(BaseModel):
    """Everything that decides what an analysis of a clip gives.

    Attributes
    ----------
    target
        Class to explain; None: the most likely one.
    method, parameters
        Attribution method and what differs from its defaults.
    keep
        How much of the clip the explanation keeps.
    explain
        Start and end in seconds of the part to explain; None: all, or the most telling minute of a longer clip.
    views
        What to add: ``listening`` (passes of a model that listens again, and courses over time), ``graph``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: str | None = None
    method: str = "integrated_gradients"
    parameters: dict[str, Any] = Field(default_factory=dict)
    keep: KeepSettings = Field(default_factory=KeepSettings)
    explain: tuple[float, float] | None = None
    views: tuple[View, ...] = ()


@dataclass(frozen=True)
class ClipInfo:
    """What an analysis remembers of its clip."""

    name: str
    content_hash: str
    duration: float
    sample_rate: int
    n_channels: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelInfo:
    """What an analysis remembers of its model."""

    name: str
    title: str
    family: str
    content_hash: str
    task: str
    sample_rate: int
    frame_seconds: float


@dataclass(frozen=True, eq=False)
class Analysis:
    """What a model made of a clip, and why; plain data.

    `attribution` and what follows are None until that step is done, or where the model does not offer it or nobody asked.
    """

    clip: ClipInfo
    model: ModelInfo
    settings: AnalysisSettings
    target: str
    prediction: Prediction
    attribution: Attribution | None = None
    mask: np.ndarray | None = None
    energy_share: float | None = None
    checks: Checks | None = None
    versions: dict[str, str] = field(default_factory=dict)
    listening: Listening | None = None
    graph: GraphExplanation | None = None

    def to_zip(self) -> bytes:
        """The whole analysis as one file; `Analysis.load` reads it."""
        meta, arrays = self._split()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("analysis.json", meta)
            for name, array in arrays.items():
                part = io.BytesIO()
                np.save(part, array, allow_pickle=False)
                archive.writestr(f"{name}.npy", part.getvalue())
        return buffer.getvalue()

    def save(self, path: Path) -> None:
        """Write `to_zip` to a file."""
        path.write_bytes(self.to_zip())

    def summary(self) -> dict[str, Any]:
        """Everything but the arrays, for people and scripts."""
        return json.loads(self._split()[0])

    def _split(self) -> tuple[str, dict[str, np.ndarray]]:
        arrays = {
            "scores": self.prediction.scores, "logits": self.prediction.logits,
            "windows": self.prediction.windows, "window_scores": self.prediction.window_scores,
        }  # fmt: skip
        meta: dict[str, Any] = {
            "format": "earwitness-analysis", "format_version": 1,
            "clip": dataclasses.asdict(self.clip), "model": dataclasses.asdict(self.model),
            "settings": self.settings.model_dump(mode="json"), "target": self.target,
            "labels": list(self.prediction.labels),
            "ranking": [{"label": label, "score": score} for label, score in self.prediction.ranking()],
            "energy_share": self.energy_share,
            "checks": dataclasses.asdict(self.checks) if self.checks else None, "versions": self.versions,
        }  # fmt: skip
        if self.attribution is not None:
            meta["attribution"] = {
                f.name: getattr(self.attribution, f.name)
                for f in dataclasses.fields(self.attribution)
                if not isinstance(getattr(self.attribution, f.name), np.ndarray)
            }
            arrays |= {
                "attribution": self.attribution.values, "times": self.attribution.times,
                "frequencies": self.attribution.frequencies,
            }  # fmt: skip
        if self.mask is not None:
            arrays["mask"] = self.mask
        for view in VIEWS:
            if getattr(self, view) is not None:
                meta[view] = pack(getattr(self, view), arrays, view)
        return json.dumps(meta, indent=1, ensure_ascii=False), arrays

    @classmethod
    def load(cls, source: Path | bytes) -> Analysis:
        """Read what `to_zip` or `save` wrote.

        Raises
        ------
        EarwitnessError
            If it is not an analysis, or damaged.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > 2**30:
                    raise EarwitnessError("This analysis unpacks to more than 1 GiB.", "It was not made by Earwitness.")
                meta = json.loads(archive.read("analysis.json"))
                arrays = {
                    name[:-4]: np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
                    for name in archive.namelist()
                    if name.endswith(".npy")
                }
            prediction = Prediction(
                tuple(meta["labels"]), arrays["scores"], arrays["logits"], arrays["windows"], arrays["window_scores"]
            )
            attribution = None
            if "attribution" in meta:
                stored = dict(meta["attribution"])
                stored["explained"] = tuple(stored["explained"])
                attribution = Attribution(
                    values=arrays["attribution"], times=arrays["times"], frequencies=arrays["frequencies"], **stored
                )
            return cls(
                ClipInfo(**{**meta["clip"], "notes": tuple(meta["clip"]["notes"])}), ModelInfo(**meta["model"]),
                AnalysisSettings.model_validate(meta["settings"]), meta["target"], prediction, attribution,
                arrays.get("mask"), meta["energy_share"], Checks(**meta["checks"]) if meta["checks"] else None,
                meta["versions"], **_stored_views(meta, arrays),
            )  # fmt: skip
        except (zipfile.BadZipFile, KeyError, TypeError, ValueError, OSError) as error:
            if isinstance(error, EarwitnessError):
                raise
            raise EarwitnessError(
                "This file is not an analysis, or it is damaged.", "Choose a file that was downloaded as 'Analysis'."
            ) from error


def _stored_views(meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "listening" in meta:
        from saliency.listening import Listening

        found["listening"] = unpack(Listening, meta["listening"], arrays)
    if "graph" in meta:
        from saliency.graph import GraphExplanation

        found["graph"] = unpack(GraphExplanation, meta["graph"], arrays)
    return found


def describe_versions() -> dict[str, str]:
    """Versions of the program, Python and the libraries that decide the numbers."""
    found = {"earwitness": __version__, "python": platform.python_version()}
    for library in _LIBRARIES:
        found[library] = importlib.metadata.version(library)
    return found


def most_telling_part(prediction: Prediction, target: str, duration: float) -> tuple[float, float] | None:
    """The minute around the window with the highest score of the class; None if the clip is no longer than that."""
    if duration <= EXPLAINED_SECONDS:
        return None
    column = prediction.window_scores[:, prediction.labels.index(target)]
    start, end = prediction.windows[int(column.argmax())]
    middle = float(np.clip((start + end) / 2, EXPLAINED_SECONDS / 2, duration - EXPLAINED_SECONDS / 2))
    return middle - EXPLAINED_SECONDS / 2, middle + EXPLAINED_SECONDS / 2


@dataclass(frozen=True)
class Steps:
    """The steps of an analysis; the engine puts remembering ones in their place."""

    predict: Callable[..., Prediction] = predict
    attribute: Callable[..., Attribution] = attribute
    keep: Callable[..., tuple[np.ndarray, SalientAudio]] = keep


def analyze(
    clip: Clip, recognizer: Recognizer, settings: AnalysisSettings | None = None, *, progress: Progress | None = None
) -> Analysis:
    """Predict, explain, split the sound and check.

    Parameters
    ----------
    progress
        Called with what is being done and the share of it, 0 to 1. May raise, to cancel.

    Raises
    ------
    EarwitnessError
        If the class or the method does not exist for this model.
    """
    return analyze_with_sound(clip, recognizer, settings, progress=progress)[0]


def analyze_with_sound(
    clip: Clip,
    recognizer: Recognizer,
    settings: AnalysisSettings | None = None,
    *,
    progress: Progress | None = None,
    partial: Callable[[Analysis, SalientAudio | None], None] | None = None,
    steps: Steps | None = None,
) -> tuple[Analysis, SalientAudio | None]:
    """`analyze`, which also returns the split sound, and hands on what there is after every step to `partial`.

    The sound is None where the model's scores cannot be attributed to what it hears (one that looks at the picture alone).
    """
    settings, steps = settings or AnalysisSettings(), steps or Steps()

    def tell(stage: str, share: float) -> None:
        if progress is not None:
            progress(stage, share)

    tell("Listening", 0.0)
    waveform = clip.at(recognizer.sample_rate)
    prediction = steps.predict(
        recognizer, waveform, video=clip.video, progress=lambda done, total: tell("Listening", done / total)
    )
    target = settings.target if settings.target is not None else prediction.ranking()[0][0]
    recognizer.target_index(target)
    frontend, card = recognizer.frontend, recognizer.card
    analysis = Analysis(
        ClipInfo(
            clip.name, clip.content_hash, clip.duration, clip.sample_rate, clip.n_channels,
            clip.notes + ((NO_PICTURE,) if recognizer.reads_video and clip.video is None else ()),
        ),
        ModelInfo(
            card.name, card.title or card.name, card.family, card.content_hash, card.task, recognizer.sample_rate,
            cells_of(frontend).seconds,
        ),
        settings, target, prediction, versions=describe_versions(),
    )  # fmt: skip
    if partial is not None:
        partial(analysis, None)

    if not recognizer.supports("attribution"):
        return with_views(clip, recognizer, analysis, tell), None
    explain = settings.explain or most_telling_part(prediction, target, clip.duration)
    attribution = steps.attribute(
        recognizer, waveform, target, settings.method, settings.parameters, explain=explain, video=clip.video,
        progress=lambda share: tell("Explaining", share),
    )  # fmt: skip
    tell("Splitting the sound", 0.0)
    mask, sound = steps.keep(clip, attribution, frontend, settings.keep)
    analysis = dataclasses.replace(analysis, attribution=attribution, mask=mask, energy_share=sound.energy_share)
    if partial is not None:
        partial(analysis, sound)
    tell("Checking", 0.0)
    checks = check(clip, recognizer, prediction, attribution, mask, sound, lambda share: tell("Checking", share))
    analysis = dataclasses.replace(analysis, checks=checks)
    return with_views(clip, recognizer, analysis, tell), sound


def with_views(clip: Clip, recognizer: Recognizer, analysis: Analysis, tell: Progress) -> Analysis:
    """The analysis with the views that its settings ask for.

    Raises
    ------
    SettingsError
        If the model does not offer one of them.
    """
    for view in analysis.settings.views:
        found = VIEWS[view](recognizer, clip, analysis.target, tell)
        analysis = dataclasses.replace(analysis, **{view: found})
    return analysis


def _listening(recognizer: Recognizer, clip: Clip, target: str, tell: Progress) -> Listening:
    from saliency.listening import listen

    return listen(clip, recognizer, target, progress=tell)


def _graph(recognizer: Recognizer, clip: Clip, target: str, tell: Progress) -> GraphExplanation:
    from saliency.graph import explain_graph

    return explain_graph(recognizer, clip.at(recognizer.sample_rate), clip.video, target, progress=tell)


VIEWS: dict[View, Callable[[Recognizer, Clip, str, Progress], Any]] = {"listening": _listening, "graph": _graph}


def own_views(offered: Collection[str]) -> tuple[View, ...]:
    """What belongs to every analysis of a model that offers this (see `models.registry.VIEWS`)."""
    return (*(("listening",) if "playback" in offered else ()), *(("graph",) if "graph" in offered else ()))


def sound_of(clip: Clip, recognizer: Recognizer, analysis: Analysis) -> SalientAudio:
    """The kept and the removed sound of an analysis.

    Raises
    ------
    SettingsError
        If the clip or the model is not the one of the analysis, or it has no explanation yet.
    """
    if analysis.mask is None or analysis.attribution is None:
        raise SettingsError("This analysis holds a prediction only.", "Explain it first.")
    if clip.content_hash != analysis.clip.content_hash:
        raise SettingsError("This clip is not the one that was analysed.", "Open the clip of the analysis.")
    return salient_audio(
        clip, analysis.mask, analysis.attribution.times, recognizer.frontend, analysis.settings.keep.floor_db
    )
