"""Parity of EquiAV: preprocessing, augmentation, losses, schedule and online fine-tuning."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from models.equiav_api import format_label_data, format_model_input
from models.families.equiav import EquiAV
from models.training import equiav_augment as augment
from models.training.equiav import WarmupCosine, event_loss, inter_modal_loss, intra_modal_loss
from models.training.equiav_items import centered_channel, mix_waveforms, normalized_features, soft_labels
from models.video_frames import prepare_picture
from tests.parity.cases import Case, Comparison, largest_error
from tests.parity.equiav_helpers import close, compare, equal, from_case_image, from_case_waveform, published_trainer
from tests.parity.fill import fill_input


def run_preprocess(case: Case) -> list[Comparison]:
    """Inference features, training items, pictures."""
    config = case.config
    if "get_image" in case.spec["function"]:
        return compare(case, {"image": prepare_picture(from_case_image(case.spec["images"][0]), config["im_res"])})
    if "format_model_input" in case.spec["function"]:
        spec = case.spec["waveform"]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.wav"
            soundfile.write(path, from_case_waveform(spec).T, spec["sr"], subtype="FLOAT")
            result = format_model_input(
                path, config["target_length"], config["num_mel_bins"], config["norm_mean"], config["norm_std"]
            )
        rows = compare(case, {"features": result[0, 0]})
        same = bool((result[:, :1] == result).all())
        shape = (1, 3, config["target_length"], config["num_mel_bins"])
        return [*rows, equal(case, "three equal channels", (same, tuple(result.shape)), (True, shape))]
    return run_training_item(case)


def run_training_item(case: Case) -> list[Comparison]:
    """Features, labels and picture of one training item."""
    config, specs = case.config, case.spec["waveform"]
    # The household re-implementation averages the channels of training files, the original does not.
    mono = case.spec["upstream"].startswith("Chtun")
    waves = [centered_channel(from_case_waveform(spec), mono=mono) for spec in specs]
    index = {"/m/a": 0, "/m/b": 1, "/m/c": 2, "/m/d": 3}
    labels = [[index[mid] for mid in text.split(",")] for text in case.spec["labels"]]
    weight = config.get("mix_lambda")
    pictures = [prepare_picture(from_case_image(s), config["im_res"]) for s in case.spec.get("images", [])]
    if weight is None:
        waveform, target = waves[0], soft_labels(labels[0], len(index), config["label_smooth"])
        picture = pictures[0] if pictures else None
    else:
        waveform = mix_waveforms(waves[0], waves[1], weight)
        target = soft_labels(labels[0], len(index), config["label_smooth"], labels[1], weight)
        picture = weight * pictures[0] + (1 - weight) * pictures[1] if pictures else None
    features = normalized_features(
        waveform, specs[0]["sr"], config["target_length"], config["nmels"], config["mean"], config["std"]
    )
    outputs: dict[str, Tensor | np.ndarray] = {"features": features, "labels": target}
    if picture is not None:
        outputs["image"] = picture
    return compare(case, outputs)


def _jitter(item: dict[str, Any] | None) -> augment.Jitter | None:
    if item is None:
        return None
    return augment.Jitter(
        tuple(item["order"]), item["brightness"], item["contrast"], item["saturation"], item["hue"]
    )  # fmt: skip


def run_augment(case: Case) -> list[Comparison]:
    """Augmentations with given parameters, and their vectors."""
    config = case.config
    outputs: dict[str, Tensor | np.ndarray] = {}
    for number, item in enumerate(case.spec["items"]):
        jitter = _jitter(item.get("jitter"))
        if "aug_size_a" in config:
            fbank = case.inputs()["fbank"]
            mask = item.get("mask")
            masked = mask and augment.SpectrogramMask(tuple(mask["time"]), tuple(mask["freq"]), mask["roll_recorded"])
            crop = tuple(item["crop"]) if item.get("crop") is not None else None
            audio = augment.AudioAugmentation(masked, crop, jitter, item.get("blur_sigma"), bool(item.get("flip")))
            outputs[f"vector_{number}"] = augment.audio_vector(
                audio, fbank.shape[0], fbank.shape[1], config["aug_size_a"]
            )
            outputs[f"out_{number}"] = augment.augment_spectrogram(fbank.expand(3, -1, -1), audio)
            continue
        images = case.spec["images"]
        image = from_case_image(images[number if len(images) > number else 0])
        size = config["aug_size_v"]
        video = augment.VideoAugmentation(
            tuple(item["crop"]), jitter, item.get("blur_sigma"), bool(item.get("flip")), bool(item.get("gray"))
        )
        outputs[f"vector_{number}"] = augment.video_vector(video, image.height, image.width, size)
        outputs[f"out_{number}"] = augment.augment_picture(image, video, config["out"])[:, ::2, ::2]
    tolerance = case.spec.get("tolerance", {})
    rows = compare(case, outputs)
    if "fraction_above_0.02" not in tolerance:
        return rows
    vectors = [row for row in rows if row.output.startswith("vector_")]
    strict = [
        Comparison(r.case, r.output, largest_error(outputs[r.output], case.arrays[r.output]), 1e-6) for r in vectors
    ]
    return [row for row in rows if row not in vectors] + strict


def run_loss(case: Case) -> list[Comparison]:
    """Contrastive losses with gradients, and the two fine-tuning losses."""
    x, tau = case.inputs(), case.config["tau"]
    second = 0.7 * x["q"] + x["k"]
    outputs: dict[str, Tensor | np.ndarray] = {}
    for name, function in (("ntxent", inter_modal_loss), ("simclr", intra_modal_loss)):
        query = x["q"].clone().requires_grad_()
        result = function(query, second, tau)
        result.loss.backward()
        assert query.grad is not None
        outputs |= {
            name: result.loss.reshape(1), f"{name}_acc": result.accuracy.reshape(1), f"{name}_grad_q": query.grad
        }  # fmt: skip
    target = (x["target"] > 0.5).float()
    outputs["bce"] = event_loss("bceloss")(x["logit"], target).reshape(1)
    soft = target / target.sum(dim=1, keepdim=True).clamp(min=1.0)
    outputs["ce_soft"] = event_loss("celoss")(x["logit"], soft).reshape(1)
    return compare(case, outputs)


def run_schedule(case: Case) -> list[Comparison]:
    """Published learning rates, also past the end."""
    names = ("lr", "start_lr", "final_lr", "warmup_epoch", "max_epoch", "iteration_per_epoch")
    schedule = WarmupCosine(**{name: case.config[name] for name in names}, after_end="published")
    rates = np.array([1e4 * schedule(n) for n in range(len(case.arrays["lr_x1e4"]))], dtype=np.float32)
    return compare(case, {"lr_x1e4": rates})


def run_labels(case: Case) -> list[Comparison]:
    """Targets of label strings."""
    index = {mid: i for i, mid in case.spec["index"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [
            format_label_data(text, index, case.spec["classes_num"], case.spec["label_smooth"]).tolist()
            for text in case.spec["label_strings"]
        ]
    return [close(case, "labels", found, case.spec["expected"])]


def run_train(case: Case) -> list[Comparison]:
    """Online fine-tuning steps."""
    config, seed = case.config, case.spec["seed"]
    trainer = published_trainer(config)
    trainer.network.load_state_dict(EquiAV.convert_state_dict(case.state_dict(), trainer.network.config))
    trainable = [name for name, p in trainer.network.named_parameters() if p.requires_grad]
    losses, rates, weights, biases, corners = [], [], [], [], []
    last = trainer.network.mlp_head[-1]
    assert isinstance(last, nn.Linear)
    for step in range(case.spec["steps"]):
        audio = fill_input(f"a{step}", (1, 3, config["target_length"], 128), seed)
        target = (fill_input(f"y{step}", (config["label_dim"],), seed) > 0.3).float()
        losses.append(trainer.train_on_audio_only(audio, target))
        rates.append(1e4 * trainer.trainer.learning_rate)
        weights.append(last.weight.detach().clone())
        biases.append(last.bias.detach().clone())
        corners.append(trainer.network.get_parameter("blocks_a.0.attn.qkv.weight")[:4, :6].detach().clone())
    rows = compare(case, {
        "losses": np.array(losses, dtype=np.float32), "lr_x1e4": np.array(rates, dtype=np.float32),
        "head_weight": torch.stack(weights), "head_bias": torch.stack(biases), "qkv0_corner": torch.stack(corners),
    })  # fmt: skip
    if isinstance(case.spec.get("trainable"), list):
        rows.append(equal(case, "trainable", sorted(trainable), sorted(case.spec["trainable"])))
    elif case.spec.get("trainable") == "all except pos_embed_a":
        everything = [name for name, _ in trainer.network.named_parameters() if name != "pos_embed_a"]
        rows.append(equal(case, "trainable", sorted(trainable), sorted(everything)))
    return rows
