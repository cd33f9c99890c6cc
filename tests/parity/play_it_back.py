"""Parity cases of Play It Back: encoder, slots, decoder, replay, whole model, front end, losses, metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.families.play_it_back import PlayItBack, PlayItBackConfig
from models.frontends.play_it_back import (
    SCHEDULES,
    PlayItBackMel,
    PlayItBackMelConfig,
    take_apart,
    taken_lengths,
)
from models.layers.mvit import MViT
from models.layers.replay import pairwise_segments, published_profile, published_replay
from models.layers.slot_attention import SaliencySlots, SlotAttention
from models.layers.tempr import TemPr
from models.training.metrics import average_precision
from models.training.multiview import action_accuracy, crop_view, ranking_figures, top_accuracy
from models.training.playback_published import (
    learning_rate,
    mixed_target,
    published_loss,
    rank_loss,
    sample_average_precision,
)
from models.training.sgd import LearningRatePolicy
from tests.parity.cases import Case, Comparison, largest_error
from tests.parity.fill import fill_input

Values = dict[str, Any]
AUDIOSET_SHIFT = 1


def filled(name: str, shape: Any, case: Case) -> Tensor:
    """An input of a case."""
    return fill_input(name, tuple(shape), case.spec["seed"])


def run_encoder(case: Case) -> Values:
    """The encoder alone."""
    settings = PlayItBackConfig.from_published(case.config)
    encoder = MViT(settings.encoder, settings.heads).eval()
    encoder.load_state_dict(case.state_dict())
    x = (case.inputs()["x"] * case.config.get("x_scale", 1.0)).requires_grad_()
    values: Values = {}
    for index, block in enumerate(encoder.blocks):
        block.register_forward_hook(lambda _m, _i, out, index=index: values.update({f"block.{index}": out[0]}))
    encoder.patch_embed.register_forward_hook(lambda _m, _i, out: values.update(patch_embed=out[0]))
    feats, _ = encoder(x)
    logits = encoder.classify(encoder.pool(feats))
    values["feats"] = feats
    values |= per_group("logits", logits, settings) | per_group("probs", activated(logits, case), settings)
    if case.config.get("grad_class") is not None:
        values["grad_x"] = torch.autograd.grad(logits[0][0, case.config["grad_class"]], x)[0]
    return values


def activated(logits: list[Tensor], case: Case) -> list[Tensor]:
    """What the published evaluation mode gives for the encoder's logits."""
    sigmoid = case.config.get("MODEL", {}).get("HEAD_ACT", "softmax") == "sigmoid"
    return [x.sigmoid() if sigmoid else x.softmax(dim=-1) for x in logits]


def per_group(name: str, parts: list[Tensor], settings: PlayItBackConfig) -> Values:
    """``name``, or ``name.0``, ``name.1`` for several groups of classes."""
    if not settings.groups:
        return {name: parts[0]}
    return {f"{name}.{index}": part for index, part in enumerate(parts)}


def run_slot_core(case: Case) -> Values:
    """Slot attention on given tokens."""
    config = case.config
    module = SlotAttention(
        config["dim"], config["dim"], config["num_slots"], config["iters"], config["hidden_dim"], eps=config["eps"]
    )
    module.load_state_dict(case.state_dict())
    inputs = case.inputs()
    result = module(inputs["x"] * config.get("x_scale", 1.0), inputs["slot_noise.0"])
    return {"slots": result.slots, "attn": result.attention}


def run_slot_module(case: Case) -> Values:
    """The published slot module of one pass."""
    config = case.config
    module = SaliencySlots(
        config["channels"], config["resolution"], config["num_slots"], config["iters"], config["eps"]
    )
    module.load_state_dict(case.state_dict())
    inputs = case.inputs()
    result = module(inputs["x"], inputs["slot_noise.0"])
    return {"after_upsample": module.at_resolution(inputs["x"]), "slots": result.slots, "attn": result.attention}


def run_decoder(case: Case) -> Values:
    """The decoder on given grids ``[passes, batch, D, W, H]``."""
    settings = PlayItBackConfig.from_published(case.config)
    x = case.inputs()["x"]
    decoder = TemPr(settings.decoder, x.shape[2], x.shape[0], settings.heads).eval()
    decoder.load_state_dict(case.state_dict())
    return decode(decoder, [decoder.context(grid.permute(0, 2, 3, 1)) for grid in x], settings)


def decode(decoder: TemPr, contexts: list[Tensor], settings: PlayItBackConfig) -> Values:
    """All outputs of the decoder."""
    for attention in decoder.cross_attentions:
        attention.keep_attention = True
    values: Values = {}
    means = decoder.listen(contexts)
    for index, attention in enumerate(decoder.cross_attentions):
        assert attention.attention is not None
        values[f"cross_attn.{index}"] = attention.attention.flatten(0, 1)
    summaries = decoder.summarize(means)
    fused = decoder.fuse(summaries)
    values |= {"latent_means": means.transpose(0, 1), "embedding": fused}
    values |= per_group("pred", decoder.predict(fused), settings)
    values |= per_group("playback_preds", [x.transpose(0, 1) for x in decoder.scores(summaries)], settings)
    return values


def run_segments(case: Case) -> Values:
    """Masks to segments."""
    return {f"segments.{row}": pairwise_segments(mask) for row, mask in enumerate(case.arrays["in.mask"])}


def run_replay(case: Case) -> Values:
    """Slots to masks, segments and the source of every replayed frame."""
    lengths = case.config["level_lengths"]
    values: Values = {}
    previous: list[np.ndarray] = []
    for step in range(case.config["passes"]):
        slots = torch.from_numpy(case.arrays[f"in.slots.{step}"])
        given = filled(f"slots.{step}", case.spec["inputs"][f"slots.{step}"], case)
        if case.config.get("smooth"):
            given = given.cumsum(dim=-1) / 10
        assert torch.allclose(slots, given, atol=1e-5), "the stored slots are not the filled ones"
        if step == 0:
            plain = (np.zeros(lengths[0], dtype=np.int64), np.arange(lengths[0]))
            sources = [plain] * slots.shape[0]
        else:
            sources = [published_replay(found, step, lengths) for found in previous]
        values[f"source_level.{step}"] = np.stack([s[0] for s in sources])
        values[f"source_frame.{step}"] = np.stack([s[1] for s in sources])
        _, _, saliency, mask = published_profile(slots, over_batch=True)
        previous = [pairwise_segments(row) for row in mask.numpy()]
        values |= {f"saliency.{step}": saliency, f"mask.{step}": mask.long()}
        values |= {f"segments.{step}.{item}": found for item, found in enumerate(previous)}
    return values


def run_model(case: Case) -> Values:
    """The whole model on stacked levels."""
    x = case.inputs()["x"].requires_grad_()
    return model_outputs(case, take_apart(x), x)


def model_outputs(case: Case, features: Tensor, x: Tensor | None = None) -> Values:
    """All outputs of the whole model; `x` is what the gradient is asked for."""
    # The cases' batches went through the published code together.
    settings = PlayItBackConfig.from_published(case.config).model_copy(update={"minimum_over_batch": True})
    network = PlayItBack(settings).eval()
    network.load_state_dict(case.state_dict())
    inputs = case.inputs()
    noise = [inputs[f"slot_noise.{step}"] for step in range(settings.playbacks + 1)]
    passes = network.listen(features, noise=noise, explain=True)
    values = decode(network.decoder, network.contexts(passes), settings)
    positive: list[list[Tensor]] = []
    negative: list[list[Tensor]] = []
    for step, heard in enumerate(passes):
        assert heard.mask is not None and heard.positive is not None and heard.negative is not None
        values |= {
            f"encoder_input.{step}": heard.inputs.unsqueeze(1), f"feats.{step}": heard.tokens,
            f"slots.{step}": heard.slots, f"slot_attn.{step}": heard.slot_attention,
            f"saliency.{step}": heard.saliency, f"mask.{step}": heard.mask.long(),
            f"source_level.{step}": heard.source_level, f"source_frame.{step}": heard.source_frame,
        }  # fmt: skip
        values |= {f"segments.{step}.{item}": found for item, found in enumerate(heard.segments or [])}
        for weights, found in ((heard.positive, positive), (heard.negative, negative)):
            found.append(activated(network.weighted_scores(heard.tokens, weights), case))
    for name, found in (("pos_preds", positive), ("neg_preds", negative)):
        values |= per_group(name, [torch.stack(part) for part in zip(*found, strict=True)], settings)
    if x is not None and case.config.get("grad_class") is not None:
        first = values["pred"] if "pred" in values else values["pred.0"]
        values["grad_x"] = torch.autograd.grad(first[0, case.config["grad_class"]], x)[0]
    return values


def waveform(case: Case) -> Tensor:
    """The test signal of the front-end cases, ``[1, samples]``."""
    config = case.config
    n, rate = config["num_samples"], config["sampling_rate"]
    time = np.arange(n) / rate
    signal = sum((a * np.sin(2 * np.pi * f * time) for f, a in config["sines"]), np.zeros(n))
    signal = signal + config["noise"] * filled("noise", (n,), case).numpy()
    return torch.from_numpy(signal.astype(np.float32)).unsqueeze(0)


def frontend(case: Case, n_levels: int) -> PlayItBackMel:
    """The front end of a case."""
    config = case.config
    schedule = SCHEDULES[config["dataset"]].model_dump() | {
        "sample_rate": config["sampling_rate"], "clip_seconds": config["clip_secs"], "num_frames": config["num_frames"],
        "window_ms": config.get("window_ms", 20),
        "crop_frames": config["crop_frames"] if "crop_frames" in config else config["crop_size"][0],
    }  # fmt: skip
    if "hop_factor" in config:
        schedule["hop_factor"] = config["hop_factor"]
    n_mels = config.get("n_mels") or config["crop_size"][1]
    return PlayItBackMel(
        PlayItBackMelConfig(
            sample_rate=config["sampling_rate"],
            n_mels=n_mels,
            n_levels=n_levels,
            schedule=schedule,  # type: ignore[arg-type]
        )
    )


def clip_of(case: Case, front: PlayItBackMel) -> Tensor:
    """The case's view of its waveform."""
    wave, (view, n_views) = waveform(case), case.config["view"]
    return torch.from_numpy(crop_view(wave[0].numpy(), front.schedule.clip_samples, n_views, view)).unsqueeze(0)


def run_log_mel(case: Case) -> Values:
    """One level of a clip, before AudioSet's levels are squeezed."""
    level = case.config["level"] - 1
    front = frontend(case, max(level + 1, 2))
    front.config = front.config.model_copy(update={"schedule": front.schedule.model_copy(update={"squeeze": False})})
    log_mel = front.level_log_mel(clip_of(case, front), level)[0]
    return {"logmel": log_mel[:: case.config.get("frame_stride", 1)], "num_frames": np.int64(log_mel.shape[0])}


def run_stack(case: Case) -> Values:
    """All levels of a clip, stacked and taken apart."""
    front = frontend(case, max(case.config["playback"], 1) + 1)
    clip = clip_of(case, front)
    stacked = front.stack(clip)
    lengths = taken_lengths(stacked.shape[2], stacked.shape[1])
    values: Values = {
        "stacked": stacked[0, :, :: case.config.get("frame_stride", 1)],
        "stacked_shape": np.array(stacked.shape[1:]), "level_lengths": np.array(lengths),
    }  # fmt: skip
    features = front(clip)[0]
    for level, part in enumerate(features.split(lengths)):
        values |= {f"level_first_frame.{level}": part[0], f"level_last_frame.{level}": part[-1]}
    # Published AudioSet targets are shifted by one class.
    values["label_nonzero"] = np.sort((np.array([3, 0, 526]) - AUDIOSET_SHIFT) % 527)
    return values


def run_wave(case: Case) -> Values:
    """From the waveform to the prediction."""
    front = frontend(case, case.config["playback"] + 1)
    return model_outputs(case, front(clip_of(case, front)))


def run_losses(case: Case) -> Values:
    """Training losses."""
    config, inputs = case.config, case.inputs()
    passes, margin = config["passes"], config["margin"]
    labels, multi_hot = (torch.from_numpy(case.arrays[name]) for name in ("in.labels", "in.multi_hot"))
    positive = [inputs[f"slot_preds.{i}"].softmax(dim=-1) for i in range(passes)]
    negative = [inputs[f"neg_preds.{i}"].softmax(dim=-1) for i in range(passes)]
    single, multi = rank_loss(positive, labels, margin), rank_loss(positive, multi_hot, margin)
    pred, by_pass, n_classes = inputs["pred"], inputs["playback_preds"], inputs["pred"].shape[1]
    mixed = mixed_target(labels, n_classes, config["mixup_lam"], config["label_smoothing"])
    return {
        "rank_single": single.mean(), "rank_single_none": single, "rank_multi": multi.mean(), "rank_multi_none": multi,
        "total_ce": published_loss(pred, by_pass, labels, positive, negative, labels),
        "total_bce": published_loss(pred, by_pass, multi_hot, positive, negative, multi_hot, multi_label=True),
        "mixup_target": mixed, "ce_mixup": published_loss(pred, by_pass[:0], mixed),
    }  # fmt: skip


def run_schedule(case: Case) -> Values:
    """Learning rate at the case's epochs."""
    solver = case.config["SOLVER"]
    epochs = case.arrays["epochs"]
    if solver["LR_POLICY"] == "cosine":
        rates = [
            learning_rate(
                float(e), solver["BASE_LR"], solver["COSINE_END_LR"], solver["MAX_EPOCH"], solver["WARMUP_EPOCHS"],
                solver["WARMUP_START_LR"], solver["COSINE_AFTER_WARMUP"],
            )
            for e in epochs
        ]  # fmt: skip
    else:
        policy = LearningRatePolicy(solver["BASE_LR"], "steps", solver["STEPS"], solver["LRS"], solver["MAX_EPOCH"])
        rates = [policy.at(float(e)) for e in epochs]
    return {"epochs": epochs, "lr_x1e4": 1e4 * np.array(rates)}


def run_metrics(case: Case) -> Values:
    """Figures of merit."""
    given = {name.removeprefix("in."): case.arrays[name] for name in case.arrays if name.startswith("in.")}
    scores, labels = given["preds"], given["labels"]
    other, second = given["preds2"], given["labels2"]
    figures = ranking_figures(scores, labels)
    return {
        "top1_top5": 100 * np.array([top_accuracy(scores, labels, k) for k in (1, 5)]),
        "multitask_top1_top5": 100 * np.array([action_accuracy(scores, other, labels, second, k) for k in (1, 5)]),
        "map_multi": np.nanmean(average_precision(scores, given["multi_hot"])),
        "vgg_map": np.float64(figures.mean_average_precision), "vgg_auc": np.float64(figures.mean_auc),
        "vgg_dprime": np.float64(figures.d_prime),
        "samplewise_ap": np.float64(sample_average_precision(scores, given["multi_hot"])),
    }  # fmt: skip


RUNNERS: dict[str, Callable[[Case], Values]] = {
    "encoder": run_encoder, "slot attention core": run_slot_core, "decoder": run_decoder,
    "mask to segments": run_segments, "segment selection and replay": run_replay, "model": run_model,
    "log-mel": run_log_mel, "clip to stacked levels": run_stack, "wave to prediction": run_wave,
    "losses": run_losses, "lr schedule": run_schedule, "metrics": run_metrics,
}  # fmt: skip
EXACT = ("mask", "segments", "source_level", "source_frame", "stacked_shape", "level_lengths", "label_nonzero",
         "num_frames")  # fmt: skip


def tolerance(case: Case, output: str) -> float:
    """Of the specification, relative to ``max(1, largest value)``; whole numbers must agree."""
    if output.split(".")[0] in EXACT:
        return 0.0
    relative = {"log-mel": 1e-4, "clip to stacked levels": 1e-4, "wave to prediction": 1e-3}
    reference = case.arrays[output]
    return relative.get(case.config["part"], 1e-5) * max(1.0, float(np.abs(reference).max(initial=0.0)))


def run(case: Case) -> list[Comparison]:
    """Compare all outputs of a case."""
    part = case.config["part"]
    runner = run_slot_module if part.startswith("saliency_slots") else RUNNERS[part]
    values = runner(case)
    rows = []
    for output in case.spec["outputs"]:
        if output.startswith("in."):
            continue
        error = largest_error(values[output], case.arrays[output]) if output in values else float("inf")
        rows.append(Comparison(case.path.stem, output, error, tolerance(case, output)))
    return rows
