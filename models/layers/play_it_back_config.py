"""Settings of Play It Back, and how they are read from what published checkpoints carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor

from models.errors import CheckpointError, SettingsError
from models.frontends.play_it_back import SCHEDULES, LevelSchedule
from models.layers.mvit import MViTConfig
from models.layers.tempr import TemPrConfig
from models.network import NetworkConfig


class TimeSlotConfig(BaseModel):
    """How corrected models select what to replay.

    Attributes
    ----------
    slot_dim, iterations
        Of the slot attention.
    budget
        Largest share of the clip that is replayed.
    min_seconds, max_gap_seconds
        Shortest segment (None: half a token) and the gap that is closed (None: half of that).
    stand_out
        Least range of the profile, in log odds, for anything to be selected.
    temperature
        Of the soft mask in training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    slot_dim: int = Field(default=128, ge=1)
    iterations: int = Field(default=3, ge=1)
    budget: float = Field(default=0.25, gt=0.0, lt=1.0)
    min_seconds: float | None = Field(default=None, gt=0.0)
    max_gap_seconds: float | None = Field(default=None, ge=0.0)
    stand_out: float = Field(default=0.693, ge=0.0)
    temperature: float = Field(default=1.0, gt=0.0)


class PlayItBackConfig(NetworkConfig):
    """Settings of Play It Back; the defaults are the published X1 with encoder B for VGG-Sound.

    Attributes
    ----------
    groups
        Sizes of consecutive groups of classes among which one is right (verbs and nouns); empty for one group.
    playbacks
        How often the clip is listened to again; 0: the encoder alone, as it is trained first.
    encoder
        Settings, or the name of a published size (T, S, B).
    schedule
        Hops and clip length, or the name of a published data set (vggsound, audioset, epickitchens); its `corrected`
        decides the mode of the network.
    slots
        Of corrected models.
    slot_resolution
        Steps of the published slots.
    noise_seed
        The published slots start from noise even in evaluation; it is drawn once, from this seed.
    minimum_over_batch
        The published code lets a clip's selection depend on the other clips of its batch. Off, every clip gives what it
        gives alone.
    """

    n_classes: int = 309
    groups: tuple[int, ...] = ()
    playbacks: int = Field(default=1, ge=0, le=7)
    n_mels: int = Field(default=128, ge=1)
    encoder: MViTConfig = MViTConfig()
    decoder: TemPrConfig = TemPrConfig()
    schedule: LevelSchedule = LevelSchedule()
    slots: TimeSlotConfig = TimeSlotConfig()
    slot_resolution: int = Field(default=400, ge=1)
    noise_seed: int = 0
    minimum_over_batch: bool = False

    @field_validator("encoder", mode="before")
    @classmethod
    def _named_size(cls, value: Any) -> Any:
        return MViTConfig.of_size(value) if value in ("T", "S", "B") else value

    @field_validator("schedule", mode="before")
    @classmethod
    def _named_schedule(cls, value: Any) -> Any:
        return SCHEDULES[value] if isinstance(value, str) and value in SCHEDULES else value

    @model_validator(mode="after")
    def _check(self) -> PlayItBackConfig:
        if self.groups and sum(self.groups) != self.n_classes:
            raise ValueError(f"groups {self.groups} must add up to n_classes ({self.n_classes})")
        if len(self.groups) > 1 and self.decoder.fusion_of == "predictions":
            raise ValueError("several groups of classes need fusion_of: features")
        return self

    @property
    def corrected(self) -> bool:
        """Whether selection and replay follow the corrected design."""
        return self.schedule.corrected

    @property
    def heads(self) -> tuple[int, ...]:
        """Classes of every head."""
        return self.groups or (self.n_classes,)

    @classmethod
    def from_published(cls, published: Mapping[str, Any]) -> PlayItBackConfig:
        """Settings of a published config (nested groups with upper-case keys)."""
        model = published.get("MODEL", {})
        audio = published.get("AUDIO_DATA", {})
        data_set = published.get("TRAIN", {}).get("DATASET", "vggsound")
        crop = published.get("DATA_LOADER", {}).get("TEST_CROP_SIZE", (400, 128))
        schedule = SCHEDULES.get(data_set, SCHEDULES["vggsound"]).model_dump()
        names = {
            "sample_rate": "SAMPLING_RATE", "clip_seconds": "CLIP_SECS", "num_frames": "NUM_FRAMES",
            "window_ms": "WINDOW_LENGTH",
        }  # fmt: skip
        schedule |= {ours: audio[theirs] for ours, theirs in names.items() if theirs in audio}
        corrected = model.get("CORRECTED", False)
        schedule |= {"crop_frames": crop[0], "corrected": corrected, "squeeze": schedule["squeeze"] and not corrected}
        groups = tuple(model["MULTITASK_CLASSES"]) if model.get("MULTITASK") else ()
        slot_names = {
            "slot_dim": "SLOT_DIM", "iterations": "ITERS", "budget": "BUDGET", "min_seconds": "MIN_SECS",
            "max_gap_seconds": "MAX_GAP_SECS", "stand_out": "STAND_OUT", "temperature": "TEMPERATURE",
        }  # fmt: skip
        slots = published.get("CORRECTED", {})
        return cls(
            n_classes=sum(groups) if groups else model.get("NUM_CLASSES", 400),
            groups=groups,
            playbacks=0 if model.get("IGNORE_DECODER") else model.get("PLAYBACK", 3),
            n_mels=crop[1],
            encoder=MViTConfig.from_published(
                published.get("ENCODER", {}), model.get("DROPOUT_RATE", 0.5), (crop[0], crop[1])
            ),
            decoder=TemPrConfig.from_published(published.get("DECODER", {})),
            schedule=LevelSchedule.model_validate(schedule),
            slots=TimeSlotConfig.model_validate({o: slots[t] for o, t in slot_names.items() if t in slots}),
        )


def read_published(published: Any) -> PlayItBackConfig:
    """Settings of the config in a published container, YAML text or mapping.

    Raises
    ------
    CheckpointError
        If it is neither.
    """
    if isinstance(published, str):
        try:
            published = yaml.safe_load(published)
        except yaml.YAMLError as error:
            raise CheckpointError(f"The config inside the checkpoint is not valid YAML: {error}") from error
    if not isinstance(published, Mapping):
        raise CheckpointError("The config inside the checkpoint is not a list of settings.")
    return PlayItBackConfig.from_published(published)


def infer_from_shapes(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings that the entries of a published file tell; the number of classes tells the data set."""
    entries = with_prefix(state_dict)

    def part(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in entries.items() if key.startswith(prefix)}

    encoder, decoder = part("encoder."), part("decoder.")
    settings = MViTConfig.of_state_dict(encoder)
    heads = {k: v.shape[0] for k, v in (decoder or encoder).items() if k.endswith(".bias") and is_output(k)}
    groups = tuple(size for _, size in sorted(heads.items())) if len(heads) > 1 else ()
    n_classes = sum(heads.values())
    names = {309: "vggsound", 527: "audioset", 397: "epickitchens"}
    values: dict[str, Any] = {
        "n_classes": n_classes, "groups": groups, "encoder": settings, "playbacks": 0,
        "schedule": SCHEDULES[names.get(n_classes, "vggsound")],
    }  # fmt: skip
    if decoder:
        values["playbacks"] = len({key.split(".")[1] for key in decoder if key.startswith("layers.")}) - 1
        values["decoder"] = TemPrConfig.of_state_dict(decoder, settings.width)
    mu = entries.get("saliency_slots.0.3.slots_mu")
    if mu is not None:
        values["slot_resolution"] = mu.shape[-1]
    if "time_slots.to_q.weight" in entries:
        values["slots"] = TimeSlotConfig(slot_dim=entries["time_slots.to_q.weight"].shape[0])
    return values


def with_prefix(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries of a whole model; those of a bare encoder get its prefix."""
    bare = "patch_embed.proj.weight" in state_dict
    return {f"encoder.{key}" if bare else key: value for key, value in state_dict.items()}


def is_output(key: str) -> bool:
    """Whether an entry belongs to a classifier (``head`` of the encoder, ``fc`` of the decoder)."""
    return key.split(".")[0] in ("head", "fc")


def values_schedule(value: Any) -> LevelSchedule:
    """A schedule given as itself, by name, or as its settings."""
    if isinstance(value, LevelSchedule):
        return value
    if isinstance(value, str):
        if value not in SCHEDULES:
            raise SettingsError(f"There is no schedule named {value!r}.", f"Known are: {', '.join(SCHEDULES)}.")
        return SCHEDULES[value]
    return LevelSchedule.model_validate(value)
