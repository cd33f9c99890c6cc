"""EquiAV's published interface, part two: learn from one clip at a time, and add classes."""

from __future__ import annotations

import dataclasses
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from models.data.equiav_json import read_class_table, read_metadata, resolve_path, split_labels
from models.equiav_inference import choose_device, format_label_data, format_model_input, read_class_labels
from models.errors import CheckpointError, SettingsError
from models.families.equiav import EquiAV, EquiAVConfig
from models.training.equiav import OnlineSettings, OnlineTrainer, WarmupCosine
from models.training.equiav_weights import (
    LoadReport,
    checkpoint_kind,
    copy_matching,
    extend_classes,
    read_published,
    write_published,
)


def _flag(value: Any) -> bool:
    """A switch from a command line or a dictionary: "False", "no" and "0" are off."""
    return value.strip().lower() in ("1", "true", "yes", "on") if isinstance(value, str) else bool(value)


class EquiAV_ft(nn.Module):
    """The fine-tuning model as the published scripts build it; options that have no meaning here are ignored.

    Parameters
    ----------
    options
        Published names: label_dim, ftmode, head_type, head_dim, inter_linear, drop_path, drop_out, target_length,
        num_mel_bins, embed_dim, modality_specific_depth, num_heads, proj_hidden_dim, proj_out_dim, img_size, mlp_ratio,
        tr_pos.
    """

    NAMES: Mapping[str, str] = {
        "label_dim": "n_classes", "ftmode": "mode", "head_type": "head_type", "head_dim": "head_hidden",
        "inter_linear": "inter_linear", "drop_path": "drop_path", "drop_out": "drop_out",
        "target_length": "target_length", "num_mel_bins": "n_mels", "embed_dim": "width",
        "modality_specific_depth": "depth", "num_heads": "n_heads", "proj_hidden_dim": "projection_hidden",
        "proj_out_dim": "projection_size", "img_size": "image_size", "mlp_ratio": "mlp_ratio",
        "tr_pos": "learn_positions",
    }  # fmt: skip

    def __init__(self, **options: Any) -> None:
        super().__init__()
        values = {self.NAMES[name]: value for name, value in options.items() if name in self.NAMES}
        if "n_classes" not in values:
            raise SettingsError("The number of classes is missing.", "Give label_dim.")
        for switch in ("inter_linear", "learn_positions"):
            if switch in values:
                values[switch] = _flag(values[switch])
        try:
            config = EquiAVConfig.model_validate(values)
        except ValidationError as error:
            problem = error.errors()[0]
            raise SettingsError(f"The option {problem['loc'][0]} cannot be used: {problem['msg']}.") from error
        self.add_module("__M__", EquiAV(config))

    @property
    def network(self) -> EquiAV:
        """The network itself."""
        network = self.get_submodule("__M__")
        assert isinstance(network, EquiAV)
        return network

    def forward(self, audio: Tensor | None, frames: Tensor | None = None) -> Tensor:
        """Logits ``[batch, label_dim]``."""
        return self.network(audio, frames)


class WrappedModel(nn.Module):
    """The published wrapper: the model lies in `module`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module = model

    def forward(self, *inputs: Any) -> Tensor:
        """What the model gives."""
        return self.module(*inputs)


class ModelTrainer:
    """Online fine-tuning as the published scripts drive it.

    Parameters
    ----------
    wrapped_model
        `WrappedModel` around `EquiAV_ft` (or a bare `EquiAV`).
    options
        Published names: trainfunc_ft, optimizer, weight_decay, lr, head_lr, start_lr, final_lr, warmup_epoch, max_epoch,
        iteration_per_epoch, freeze_base, mixedprec, class_indices, old_class_indices. Added: lr_after_end ("final" or
        "published"), head_lr_mode ("absolute" or "published"), head_params ("head", "all new layers" or "published"),
        frozen_mode ("eval" or "published"), allow_shrink, seed. Others are ignored.
    """

    def __init__(self, wrapped_model: nn.Module, **options: Any) -> None:
        module = wrapped_model.module if isinstance(wrapped_model, WrappedModel) else wrapped_model
        network = module.network if isinstance(module, EquiAV_ft) else module
        if not isinstance(network, EquiAV):
            raise SettingsError("Only an EquiAV fine-tuning model can be trained.", "Wrap an EquiAV_ft.")
        self.network, self.options = network, dict(options)
        given = {n: options[n] for n in WarmupCosine.__dataclass_fields__ if options.get(n) is not None}
        if "lr_after_end" in options:
            given["after_end"] = options["lr_after_end"]
        chosen: dict[str, Any] = {"schedule": WarmupCosine(**given)}
        for name, published in {"loss": "trainfunc_ft", "mixed_precision": "mixedprec"}.items():
            if published in options:
                chosen[name] = options[published]
        for name in ("optimizer", "weight_decay", "head_lr", "head_lr_mode", "head_params", "frozen_mode", "seed"):
            if name in options:
                chosen[name] = options[name]
        chosen["freeze_base"] = _flag(options.get("freeze_base", False))
        self.trainer = OnlineTrainer(network, OnlineSettings(**chosen))

    def loadParameters(self, path: str | Path) -> LoadReport:
        """Load a published file: fine-tuned (with class extension) or pre-trained.

        Raises
        ------
        CheckpointError
            If it does not fit, or classes would be lost (option allow_shrink).
        DataError
            If the class tables of the options contradict each other.
        """
        state_dict = read_published(path)
        config, target = self.network.config, self.network.state_dict()
        kind = checkpoint_kind(state_dict)
        if kind == "mae":
            raise CheckpointError("An MAE transformer cannot be fine-tuned directly.", "Pre-train with it first.")
        converted = EquiAV.convert_state_dict(state_dict, config)
        if kind == "pre-training":
            report = copy_matching(converted, target)
        else:
            shrink = _flag(self.options.get("allow_shrink", False))
            self._check_tables(shrink)
            report = extend_classes(converted, target, allow_shrink=shrink)
            report = dataclasses.replace(report, ignored=tuple(key for key in state_dict if key not in converted))
            if report.unexpected:
                names = ", ".join(report.unexpected[:3])
                warnings.warn(f"{len(report.unexpected)} entries of the file were not used: {names}.", stacklevel=2)
        self.network.load_state_dict(report.merged)
        return report

    def _check_tables(self, allow_shrink: bool) -> None:
        new, old = self.options.get("class_indices"), self.options.get("old_class_indices")
        if not new or not old or old == "DEFAULT" or os.fspath(new) == os.fspath(old):
            return
        read_class_table(new).check_extends(read_class_table(old), allow_shrink=allow_shrink)

    def train_on_audio_only(self, audio: Tensor, labels: Tensor) -> float:
        """One update with a sound ``[batch, 3, frames, n_mels]`` and its target; the loss before it.

        Raises
        ------
        SettingsError
            If the model reads more than sound.
        """
        if self.network.config.mode != "audio_only":
            raise SettingsError(f"train_on_audio_only needs an audio_only model, not {self.network.config.mode}.")
        device = next(self.network.parameters()).device
        return self.trainer.step(lambda: self.network(audio.to(device)), labels)

    def train_on_single_pair(self, audio: Tensor, video: Tensor, labels: Tensor) -> float:
        """One update with a sound and its prepared picture ``[batch, 3, image_size, image_size]``; the loss before it."""
        device, network = next(self.network.parameters()).device, self.network
        return self.trainer.step(lambda: network.mlp_head(network.pool(audio.to(device), video.to(device))), labels)

    def saveParameters(self, path: str | Path) -> None:
        """Write the weights under published names."""
        write_published(path, self.network)


def fine_tune_online(
    metadata: str | Path,
    class_indices: str | Path,
    pretrained_model: str | Path,
    save_path: str | Path,
    old_class_indices: str | Path | None = None,
    device: str = "cpu",
    **options: Any,
) -> tuple[Path, list[float]]:
    """Learn from every clip of a metadata file once, in its order, and save: the published script, put right.

    Parameters
    ----------
    metadata
        JSON with the items; relative sound paths are relative to it.
    class_indices, old_class_indices
        Class table to go on with, and that of the weights if it is another.
    options
        As of `EquiAV_ft` and `ModelTrainer`; iteration_per_epoch defaults to the number of items over max_epoch, so that the
        schedule ends with the data. label_smooth, norm_mean and norm_std, too.

    Returns
    -------
    tuple
        The file written (``{save_path}/model/online_model-time_{unix time}.pth``) and the loss before each update.
    """
    read_class_labels(class_indices)  # a missing table is an error, not a message
    table = read_class_table(class_indices)
    items = [item for item in read_metadata(metadata) if item.get("wav") and split_labels(item.get("labels"))]
    if not items:
        raise SettingsError("No item of the metadata has both a sound file and labels.", "Check the metadata.")
    max_epoch = options.setdefault("max_epoch", 5)
    settings = {
        "ftmode": "audio_only", "freeze_base": True, "drop_path": 0.1,
        "iteration_per_epoch": max(1, round(len(items) / max_epoch)),
    } | options | {"label_dim": len(table), "class_indices": class_indices, "old_class_indices": old_class_indices}  # fmt: skip
    model = EquiAV_ft(**settings).to(choose_device(device))
    trainer = ModelTrainer(WrappedModel(model), **settings)
    trainer.loadParameters(pretrained_model)
    config, losses = model.network.config, []
    for item in items:
        audio = format_model_input(
            resolve_path(item["wav"], Path(metadata).parent), config.target_length, config.n_mels,
            settings.get("norm_mean", -4.346), settings.get("norm_std", 4.332),
            resample_to=settings.get("resample_to"),
        )  # fmt: skip
        target = format_label_data(item["labels"], table.index, len(table), settings.get("label_smooth", 0.0))
        losses.append(trainer.train_on_audio_only(audio, target))
    path = Path(save_path) / "model" / f"online_model-time_{time.time()}.pth"
    trainer.saveParameters(path)
    return path, losses
