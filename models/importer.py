"""Bringing in published checkpoints: from the file somebody downloaded to a checkpoint folder with a card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from torch import Tensor

from models.card import Card
from models.catalog import CARD, WEIGHTS
from models.checkpoint import fill_network, save_checkpoint
from models.errors import CheckpointError, EarwitnessError, SettingsError
from models.frontends import build_frontend
from models.hugging_face import CONFIG, is_hugging_face_folder, load_hugging_face
from models.import_settings import (
    adapted_ast,
    frontend_values,
    label_groups_of,
    published_cfg,
    settings_hints,
    task_of,
)
from models.label_files import choose_labels
from models.layers.ast_names import is_hugging_face
from models.network import Network, NetworkConfig
from models.published_files import PublishedFile, read_json_table, read_published_file
from models.recognizer import Recognizer
from models.registry import families, family

# Of the config that is given with an import: what describes the checkpoint rather than its network.
_CARD_SETTINGS = ("title", "description", "license", "hop_seconds", "task", "frontend")
# Counters that old files lack and that evaluation does not read.
_HARMLESS = "num_batches_tracked"


@dataclass(frozen=True)
class ImportReport:
    """What was found in a published checkpoint and what became of it.

    Attributes
    ----------
    folder, card
        The new checkpoint.
    epoch
        Last finished epoch as the file counts it, None if it does not say.
    labels_from
        Where the class names come from.
    missing
        Entries that the file lacks and that do not matter (they are counters).
    unexpected
        Entries of the file that the network has no place for; they are left out.
    mismatched
        Entries that were adapted to another shape, in words.
    notes
        Sentences about what was assumed or is odd.
    """

    folder: Path
    card: Card
    epoch: int | None = None
    labels_from: str = ""
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """The report as lines for people."""
        card = self.card
        lines = [
            f"{card.name}: {families()[card.family].info.title}, {len(card.labels)} classes, {card.task}",
            f"  folder: {self.folder}",
            f"  labels: {self.labels_from} ({', '.join(card.labels[:3])}{', ...' if len(card.labels) > 3 else ''})",
            f"  front end: {card.frontend['kind']} at {card.frontend['sample_rate']} Hz",
        ]
        if self.epoch is not None:
            lines.append(f"  epoch: {self.epoch}")
        for what, entries in (
            ("filled in", self.missing), ("left out", self.unexpected), ("adapted", self.mismatched)
        ):  # fmt: skip
            if entries:
                shown = ", ".join(entries[:4]) + (", ..." if len(entries) > 4 else "")
                lines.append(f"  {what}: {len(entries)} entries ({shown})")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


@dataclass(eq=False)
class _Found:
    """What is gathered about a checkpoint before anything is written."""

    recognizer: Recognizer
    epoch: int | None = None
    labels_from: str = ""
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def import_checkpoint(
    path: Path | str,
    family: str | None = None,
    config: Mapping[str, Any] | Path | str | None = None,
    labels: Path | str | None = None,
    *,
    output: Path | str,
    name: str | None = None,
) -> ImportReport:
    """Make a checkpoint folder of a published checkpoint.

    Parameters
    ----------
    path
        ``.pth``, ``.pyth``, ``.pt``, ``.bin``, ``.ckpt`` or ``.safetensors`` file, or a Hugging Face AST folder. Nothing in
        it is run.
    family
        Registered family; default: the one whose entries it has.
    config
        Settings that the file does not tell, or a YAML file of them: the family's own, and ``task``, ``frontend`` (settings
        of the front end that differ), ``title``, ``description``, ``license``, ``hop_seconds``. The settings file of a
        published SlowFast or Play It Back run is understood, too.
    labels
        File of class names, see `models.label_files.read_labels`; default: the family's published list with as many classes.
    output
        Folder of the new checkpoint; must not exist, or be empty.
    name
        Name of the new checkpoint; default: that of the folder.

    Raises
    ------
    CheckpointError
        If the file is damaged, hostile, of another family, does not fit, or does not tell what has to be known; names the
        file, what was expected and what was found. Then nothing is written.
    """
    path, output = Path(path), Path(output)
    name = name or output.name
    if not re.fullmatch(r"[\w][\w .+-]{0,99}", name):
        raise CheckpointError(f"{name[:60]!r} cannot be the name of a checkpoint.", "Use letters, digits and dashes.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CheckpointError(f"{output} exists already and is not empty.", "Give a new folder.")
    given = _read_config(config)
    hugging_face = path if path.is_dir() else path.parent
    if (path.is_dir() or path.name in (WEIGHTS, CONFIG)) and (hugging_face / CONFIG).is_file():
        found = _from_hugging_face(hugging_face, family, given, labels)
    elif path.is_dir():
        known = (
            "It is a checkpoint of Earwitness already."
            if (path / CARD).is_file()
            else "Name the file of weights in it."
        )
        raise CheckpointError(f"{path.name} is a folder without a Hugging Face model ({CONFIG}).", known)
    else:
        found = _from_file(read_published_file(path), family, given, labels)
    recognizer = found.recognizer
    _try(found, path.name)
    card = recognizer.card.model_copy(update={"name": name, **{k: given[k] for k in _CARD_SETTINGS[:4] if k in given}})
    card = save_checkpoint(output, recognizer.network, Card.model_validate(card.model_dump()))
    return ImportReport(
        output,
        card,
        found.epoch,
        found.labels_from,
        found.missing,
        found.unexpected,
        found.mismatched,
        tuple(found.notes),
    )


def _read_config(config: Mapping[str, Any] | Path | str | None) -> dict[str, Any]:
    if config is None:
        return {}
    if isinstance(config, Mapping):
        return dict(config)
    path = Path(config)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"The settings file {path.name} cannot be read: {error.strerror}.", "Check the path."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"The settings file {path.name} is not valid YAML.", "Write KEY: VALUE lines.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"The settings file {path.name} is not a table of settings.", "Write KEY: VALUE lines.")
    return {str(key): value for key, value in values.items()}


def _from_hugging_face(folder: Path, wanted: str | None, given: dict[str, Any], labels: Path | str | None) -> _Found:
    if not is_hugging_face_folder(folder):
        kind = str(read_json_table(folder / CONFIG).get("model_type"))[:60]
        raise CheckpointError(
            f"{folder.name} is a Hugging Face model of the type {kind!r}; only AST can become a checkpoint.",
            "Audio classifiers of other types can be explained with models.hugging_face_any, see docs/add-a-model.md.",
        )
    if wanted not in (None, "ast"):
        raise CheckpointError(f"{folder.name} is a Hugging Face AST, not {wanted!r}.", "Leave the family out.")
    recognizer = load_hugging_face(folder, task=given.get("task"))
    found = _Found(recognizer, labels_from="config.json")
    hints = {key: value for key, value in given.items() if key not in _CARD_SETTINGS}
    card, network = recognizer.card, recognizer.network
    if hints:
        weights = dict(network.state_dict())
        settings, weights, changed = adapted_ast(weights, _checked(network.config, hints), network.config)
        network, _, _ = _build(type(network), settings, weights, folder.name)
        frontend = card.frontend | {"target_length": settings.target_length, "n_mels": settings.n_mels}
        card = card.model_copy(update={"config": settings.model_dump(mode="json"), "frontend": frontend})
        found.mismatched = changed
    if labels is not None:
        names, found.labels_from = choose_labels(labels, card.family, network.config, None, found.notes)
        card = card.model_copy(update={"labels": names})
    card = card.model_copy(update={"frontend": card.frontend | dict(given.get("frontend") or {})})
    found.recognizer = Recognizer(network, build_frontend(card.frontend), card)
    return found


def _checked(config: NetworkConfig, hints: Mapping[str, Any]) -> NetworkConfig:
    """A configuration with some settings changed.

    Raises
    ------
    CheckpointError
        Naming the setting that does not exist or has a value that cannot be.
    """
    try:
        return type(config).model_validate(config.model_dump() | dict(hints))
    except ValidationError as error:
        raise _invalid(error, type(config)) from error


def _invalid(error: ValidationError, config: type[NetworkConfig]) -> CheckpointError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "settings"
    return CheckpointError(
        f"The setting {where!r} is not valid: {first['msg']}.", f"Settings are: {', '.join(config.model_fields)}."
    )


def detect_family(published: PublishedFile, wanted: str | None) -> type[Network]:
    """The family whose entries a file has.

    Raises
    ------
    CheckpointError
        If it is none, several, or another one than `wanted`; names what was found.
    """
    state_dict = published.state_dict
    matching = [cls for cls in families().values() if cls.recognizes(state_dict)]
    titles = " or ".join(cls.info.title for cls in matching)
    first = ", ".join(list(state_dict)[:3])
    if wanted is not None:
        cls = family(wanted)
        if cls not in matching:
            looks = f"it looks like {titles}" if matching else f"its first entries are {first}"
            raise CheckpointError(
                f"{published.name} is not a checkpoint of {cls.info.title}: {looks}.",
                f"Expected are entries {cls.info.published_key or 'of that family'}.",
            )
        return cls
    if not matching:
        raise CheckpointError(
            f"{published.name} is of no known model family: its first entries are {first}.",
            f"Known families: {', '.join(families())}.",
        )
    if len(matching) > 1:
        raise CheckpointError(f"{published.name} could be {titles}.", "Say which with family.")
    return matching[0]


def _from_file(
    published: PublishedFile, wanted: str | None, given: dict[str, Any], labels: Path | str | None
) -> _Found:
    cls = detect_family(published, wanted)
    text = published_cfg(given) or published.container.get("cfg")
    hints = settings_hints(cls, text) | {
        key: value for key, value in given.items() if key not in _CARD_SETTINGS and not published_cfg(given)
    }
    state_dict, changed = published.state_dict, tuple[str, ...]()
    settings: NetworkConfig
    try:
        if cls.info.name == "ast":
            settings, state_dict, changed = adapted_ast(state_dict, hints)
        else:
            settings = cls.infer_config(state_dict, hints)
        converted = cls.convert_state_dict(state_dict, settings)
        network, missing, unexpected = _build(cls, settings, converted, published.name)
    except (CheckpointError, SettingsError) as error:
        raise CheckpointError(_naming(published.name, error.message), error.advice) from error
    except ValidationError as error:
        raise _invalid(error, cls.Config) from error
    except (KeyError, IndexError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise CheckpointError(
            f"{published.name} has entries of {cls.info.title}, but not all of them, or of other shapes ({error}).",
            "Use the complete file; give settings that differ from the published ones.",
        ) from error
    notes: list[str] = []
    names, labels_from = choose_labels(labels, cls.info.name, settings, text, notes)
    task = given.get("task") or task_of(cls.info.name, settings, notes)
    frontend = frontend_values(cls, settings, text, given.get("frontend"))
    card = Card(
        name="imported", family=cls.info.name, config=settings.model_dump(mode="json"),
        frontend=build_frontend(frontend).config.model_dump(mode="json"), labels=names,
        label_groups=label_groups_of(settings), task=task, citation=cls.info.citation,
        training={"imported_from": published.name, "sha256": published.sha256, "epoch": published.epoch},
    )  # fmt: skip
    # Entries that were only renamed are still the same tensors; Hugging Face's are put together anew.
    used = {id(value) for value in converted.values()}
    renamed = is_hugging_face(published.state_dict)
    lost = {k for k, v in published.state_dict.items() if not renamed and k not in converted and id(v) not in used}
    left_out = sorted({*published.dropped, *unexpected, *lost})
    recognizer = Recognizer(network, build_frontend(card.frontend), card)
    return _Found(recognizer, published.epoch, labels_from, missing, tuple(left_out), changed, notes)


def _naming(name: str, message: str) -> str:
    return message if name in message else f"{name}: {message}"


def _build(
    cls: type[Network], settings: NetworkConfig, converted: Mapping[str, Tensor], origin: str
) -> tuple[Network, tuple[str, ...], tuple[str, ...]]:
    """The filled network, entries it was given without the file's help, and entries without a place in it."""
    with torch.device("meta"):
        network = cls(settings)
    expected = network.state_dict()
    missing = tuple(key for key in expected if key not in converted and key.endswith(_HARMLESS))
    unexpected = tuple(key for key in converted if key not in expected)
    # Copies: mapped files must not stay open, and views of one table must not share memory.
    filled = {key: value.clone() for key, value in converted.items() if key in expected}
    fill_network(network, filled | {key: torch.zeros((), dtype=torch.long) for key in missing}, origin)
    return network.eval().requires_grad_(False), missing, unexpected


@torch.no_grad()
def _try(found: _Found, origin: str) -> None:
    """Let the new recognizer hear silence: front end and network have to fit.

    Raises
    ------
    CheckpointError
        If they do not.
    """
    recognizer = found.recognizer
    samples = recognizer.window_samples or recognizer.sample_rate
    try:
        logits = recognizer(recognizer.features(torch.zeros(1, samples)))
    except EarwitnessError as error:
        if "video" in recognizer.network.modalities:
            found.notes.append(f"It could not be tried without a picture: {error.message}")
            return
        raise CheckpointError(_naming(origin, error.message), error.advice) from error
    except RuntimeError as error:
        raise CheckpointError(
            f"{origin}: the network cannot read what its front end makes ({str(error).splitlines()[0]}).",
            "Give the front end's settings (frontend: n_mels, target_length, ...) that it was trained with.",
        ) from error
    if logits.shape != (1, len(recognizer.labels)) or not torch.isfinite(logits).all():
        raise CheckpointError(f"{origin}: the network answers with {list(logits.shape)} or not with numbers.")
