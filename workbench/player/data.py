"""What the player shows, checked before it goes to the browser. The same shape is in ``src/types.ts``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from models.errors import SettingsError

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Hertz = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Level = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Track(_Model):
    """One sound. All tracks of a clip have the same length and the same gain.

    ``gain_db`` is the gain in dB that would make a very quiet track audible without clipping; the player offers it as
    a switch and shows it, and never applies it by itself.
    """

    id: str
    label: str
    url: str
    gain_db: Level | None = None


class SpectrogramImage(_Model):
    """An 8-bit grey picture: first row = highest frequency, 0 = ``db_min``, 255 = ``db_max``; its edges in s."""

    url: str
    start: Seconds
    end: Seconds
    db_min: Level
    db_max: Level


class Overlay(_Model):
    """8-bit grey pictures over the area of the spectrogram, of any size.

    ``supports_url`` and ``opposes_url`` say how strongly each place counts (0 = not at all, 255 = most); the player
    colours them. ``kept_outline`` is a mask of what is kept; a thin line is drawn where it passes half of the range.
    """

    supports_url: str | None = None
    opposes_url: str | None = None
    kept_outline: str | None = None


class FrequencyTick(_Model):
    """A mark at ``position`` (0 = bottom, 1 = top); without ``label`` the player writes the frequency and its unit."""

    position: Share
    hz: Hertz
    label: str | None = None


class FrequencyAxis(_Model):
    """Ticks, and the frequencies in Hz of the lower and upper edge (found from the ticks where they are missing)."""

    scale: Literal["mel", "linear", "log"]
    ticks: list[FrequencyTick]
    f_min: Hertz | None = None
    f_max: Hertz | None = None


class Segment(_Model):
    """A time span that is played when it is clicked. ``kind`` "kept"/"supports"/"opposes" give it that colour."""

    start: Seconds
    end: Seconds
    label: str
    kind: str | None = None


class Curve(_Model):
    """Values from 0 to 1 at ``times`` in s, rising; usually the probability of a class over time."""

    label: str
    times: list[Seconds]
    values: list[Share]

    @model_validator(mode="after")
    def _same_length(self) -> Curve:
        if len(self.times) != len(self.values):
            raise ValueError(f"{len(self.times)} times, but {len(self.values)} values")
        return self


class Lane(_Model):
    """A course over time below the spectrogram, with segments of its own that are played when they are clicked.

    As many times as values are the places of a line; one time more are the borders of steps. `low` and `high` are the
    values at the lower and upper edge, and what is written there; what is above 0 has the colour of "supports", what is
    below that of "opposes". A thin line is drawn at 0 and at `mark`.
    """

    label: str
    note: str | None = None
    times: list[Seconds]
    values: list[Level]
    low: Level = 0.0
    high: Level = 1.0
    low_label: str | None = None
    high_label: str | None = None
    mark: Level | None = None
    segments: list[Segment] | None = None

    @model_validator(mode="after")
    def _fitting(self) -> Lane:
        if len(self.times) - len(self.values) not in (0, 1):
            raise ValueError(f"{len(self.times)} times, but {len(self.values)} values")
        if self.high <= self.low:
            raise ValueError("the upper edge lies below the lower one")
        return self


class Waveform(_Model):
    """Lowest and highest sample (-1 to 1) in equal parts of the whole clip."""

    min: list[Level]
    max: list[Level]


class Video(_Model):
    """Pictures that follow the player's clock; their own sound stays off."""

    url: str
    label: str | None = None


class Filmstrip(_Model):
    """Small pictures of a video side by side in one image, from the middles of `count` equal parts of the clip."""

    url: str
    count: Annotated[int, Field(ge=1)]


class Initial(_Model):
    """What is set when a clip is first shown."""

    track: str | None = None
    overlay_opacity: Share | None = None
    supports: bool | None = None
    opposes: bool | None = None


class PlayerData(_Model):
    """Everything the player needs for one clip. Sound and pictures are given by URL (in a report: data URLs).

    Parameters
    ----------
    duration
        Length of the clip in s.
    clip_id
        While it stays the same, position, zoom and loop are kept when anything else changes.
    lanes
        One under the other below the spectrogram, on its time axis.
    height
        Height of the spectrogram in CSS pixels.
    compact
        Without zoom, loop and selection: for a sound that is only listened to.
    strings
        Replacements for single texts of the player, by name (see ``src/strings.ts``).
    """

    duration: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    tracks: Annotated[list[Track], Field(min_length=1)]
    spectrogram: SpectrogramImage
    frequency_axis: FrequencyAxis
    overlay: Overlay | None = None
    segments: list[Segment] | None = None
    lanes: list[Lane] | None = None
    curve: Curve | None = None
    waveform: Waveform | None = None
    video: Video | None = None
    filmstrip: Filmstrip | None = None
    initial: Initial | None = None
    strings: dict[str, str] | None = None
    clip_id: str | None = None
    height: Annotated[int, Field(ge=80, le=1200)] | None = None
    compact: bool | None = None
    title: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The data as the browser reads it: camelCase names, nothing for what is not given."""
        return self.model_dump(by_alias=True, exclude_none=True)


class Selection(_Model):
    """A box in time (s) and frequency (Hz) that was drawn on the spectrogram."""

    model_config = ConfigDict(extra="forbid", frozen=True)  # the browser uses these very names

    start: Seconds
    end: Seconds
    f_low: Hertz
    f_high: Hertz

    @model_validator(mode="after")
    def _rising(self) -> Selection:
        if self.end <= self.start or self.f_high < self.f_low:
            raise ValueError("the end lies before the start")
        return self


class ClickedSegment(Segment):
    """A segment that was clicked, with its place in the list that was given, and that of its lane if it has one."""

    index: Annotated[int, Field(ge=0)]
    lane: Annotated[int, Field(ge=0)] | None = None


def checked(data: PlayerData | dict[str, Any]) -> PlayerData:
    """The data as a model.

    Raises
    ------
    SettingsError
        If something is missing, misspelt or out of range; the message names the first such field.
    """
    if isinstance(data, PlayerData):
        return data
    try:
        return PlayerData.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "data"
        raise SettingsError(f"The player cannot show this: {where}: {first['msg']}.", "Correct the field.") from error
