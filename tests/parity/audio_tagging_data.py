"""Parity of the audio-tagging features, augmentations, metrics, sampling weights and training runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.families.ast import AST, ASTConfig
from models.families.crnn import CRNN, CRNNConfig
from models.frontends import FrontEnd
from models.frontends.kaldi import KaldiFbank, KaldiFbankConfig
from models.frontends.slaney import SlaneyDb, SlaneyDbConfig
from models.layers.talnet import without_duplicates
from models.network import Network
from models.training import metrics
from models.training.published import PublishedRecipe, train_published
from models.training.published_augment import (
    MaskDraws,
    add_noise_and_roll,
    mask_spectrogram,
    mix_targets,
    mix_waveforms,
    mono_without_mean,
)
from models.training.sampling import sampling_weights
from tests.parity.cases import Case, Comparison, largest_error
from tests.parity.fill import fill_input
from tests.parity.wavegen import wave

_FEATURE_TOLERANCE = 2e-4
_CLASSES = ["/m/a", "/m/b", "/m/c", "/m/d", "/m/e"]
# The comparison's code takes these statistics for these data sets, whatever its options say.
_FIXED_STATISTICS = {"esc50": (-6.6268077, 5.358466), "speechcommands": (-6.845978, 5.5654526)}


def frontend_of(case: Case) -> FrontEnd:
    """The front end that a preprocessing case describes."""
    config, upstream = case.config, str(case.spec.get("upstream", "")).lower()
    mean, deviation = config["mean"], config["std"]
    of_comparison = "audiotaggingdoneright" in upstream
    if of_comparison:
        mean, deviation = _FIXED_STATISTICS.get(config.get("dataset", ""), (mean, deviation))
    values = {
        "n_mels": config["num_mel_bins"], "target_length": config["target_length"], "padding": "zero", "mean": mean,
        "std_scale": deviation if "/psla@" in upstream else 2 * deviation,
    }  # fmt: skip
    if of_comparison and config["num_mel_bins"] <= 100:
        return SlaneyDb(SlaneyDbConfig.model_validate(values))
    return KaldiFbank(KaldiFbankConfig.model_validate(values))


def _waves(config: dict[str, Any]) -> list[Tensor]:
    given = config["wave"]
    return [torch.from_numpy(wave(**item)) for item in (given if isinstance(given, list) else [given])]


def _multi_hot(labels: str) -> Tensor:
    present = labels.split(",")
    return torch.tensor([float(name in present) for name in _CLASSES])


def _preprocess(case: Case) -> list[Comparison]:
    config, frontend = case.config, frontend_of(case)
    waves = _waves(config)
    label = _multi_hot("/m/a,/m/c")
    if "mix_lambda" in config:
        weight = config["mix_lambda"]
        waveform = mix_waveforms(waves[0], waves[1], weight)
        label = mix_targets(_multi_hot(config["labels"][0]), _multi_hot(config["labels"][1]), weight)
    else:
        waveform = mono_without_mean(torch.stack(waves))
    raw = frontend.log_mel(waveform.unsqueeze(0))
    log_mel = frontend.fit_length(raw)[0]
    masked = log_mel
    if config.get("freqm") or config.get("timem"):
        masked = mask_spectrogram(log_mel, config["freqm"], config["timem"], _mask_draws(config))
    features = frontend.normalize(masked)
    if config.get("noise"):
        draws = config["draws"]
        match = re.search(r"default_rng\((\d+)\)\.random\(\((\d+), *(\d+)\)\)", draws["matrix"])
        assert match is not None, draws
        seed, height, width = (int(number) for number in match.groups())
        noise = torch.from_numpy(np.random.default_rng(seed).random((height, width)).astype(np.float32))
        features = add_noise_and_roll(features, noise, draws["amplitude"], draws["shift"])
    # The extractor of transformers does not subtract the waveform's mean; the front end alone does not either.
    plain = frontend(torch.stack(waves)[:1])[0] if case.family == "preprocess_hf" else features
    found: dict[str, Callable[[], Tensor | np.ndarray]] = {
        "features": lambda: features,
        "features_original_dataset": lambda: features,
        "features_hf_torchaudio": lambda: plain,
        "features_hf_numpy": lambda: plain,
        "features_every8": lambda: features[::8],
        "features_last70": lambda: features[-70:],
        "unnormalised_first20": lambda: log_mel[:20],
        "label": lambda: label,
        "mel_banks": lambda: frontend.filterbank[:, :-1],
        "mel_filters": lambda: frontend.filterbank.T,
        "mel_center_freqs": lambda: frontend.frequencies[:, None],
        "window": lambda: frontend.get_buffer("window"),
        "frame0_power": lambda: _kaldi(frontend).power(waveform.unsqueeze(0))[0, 0],
        "mel_power_first6": lambda: _slaney(frontend).mel_power(waveform.unsqueeze(0))[0, :6].T,
    }
    rows = []
    for name, reference in case.arrays.items():
        absolute = name.startswith("features") or name == "label"
        tolerance = _FEATURE_TOLERANCE * (1.0 if absolute else float(np.abs(reference).max()))
        rows.append(Comparison(case.path.stem, name, largest_error(found[name](), reference), tolerance))
    return rows


def _mask_draws(config: dict[str, Any]) -> MaskDraws:
    """Two draws for every mask that is on."""
    draws = list(config["draws"])
    if len(draws) == 2:
        draws = [*draws, 0.0, 0.0] if config["freqm"] else [0.0, 0.0, *draws]
    return MaskDraws(*draws)


def _kaldi(frontend: FrontEnd) -> KaldiFbank:
    assert isinstance(frontend, KaldiFbank)
    return frontend


def _slaney(frontend: FrontEnd) -> SlaneyDb:
    assert isinstance(frontend, SlaneyDb)
    return frontend


def _metrics(case: Case) -> list[Comparison]:
    scores, targets = case.arrays["output"], case.arrays["target"]
    precisions, areas = metrics.average_precision(scores, targets), metrics.roc_auc(scores, targets)
    separation = metrics.d_prime(float(areas.mean()))
    precision, recall = metrics.middle_precision_recall(scores, targets)
    found: dict[str, Any] = {
        "AP": precisions, "AUC": areas, "mAP": precisions.mean(), "mAUC": areas.mean(), "d_prime": separation,
        "acc": metrics.accuracy(scores, targets), "middle_precision": precision, "middle_recall": recall,
        "gas_ap_auc_per_class": np.stack([precisions, areas], axis=1),
        "gas_mean_ap_auc_dprime": np.array([precisions.mean(), areas.mean(), separation]),
    }  # fmt: skip
    return [
        Comparison(case.path.stem, name, largest_error(np.asarray(found[name]), reference), 1e-6)
        for name, reference in case.arrays.items()
        if name not in ("output", "target")
    ]


def _sampling_weights(case: Case) -> list[Comparison]:
    weights = sampling_weights([item["labels"].split(",") for item in case.config["items"]])
    reference = case.arrays["weights"]
    error = largest_error(weights, reference) / float(np.abs(reference).max())
    return [Comparison(case.path.stem, "weights", error, 1e-9, "relative")]


def recipe_of(config: dict[str, Any]) -> PublishedRecipe:
    """The recipe that the options of a published training run mean."""
    epochs, rate = config["n_epochs"], config["lr"]
    if config.get("model") == "ast" and "loss" in config:
        start, step = config.get("lrscheduler_start", 2), config.get("lrscheduler_step", 1)
        return PublishedRecipe(
            rate, epochs,
            loss="cross_entropy" if config["loss"] == "CE" else "bce",
            metric="accuracy" if config.get("metrics") == "acc" else "mAP",
            warmup=bool(config.get("warmup")), milestones=tuple(range(start, 1000, step)),
            decay=config.get("lrscheduler_decay", 0.5),
            average=(config.get("wa_start", 1), config.get("wa_end", 5)) if config.get("wa") else None,
        )  # fmt: skip
    # In the comparison's code everything hangs on the data set; these sets are smaller than 200 000 clips.
    dataset, probabilities = config.get("dataset", "audioset"), config.get("model") != "ast"
    if dataset.startswith("audioset"):
        return PublishedRecipe(rate, epochs, warmup=True, milestones=(10, 15, 20, 25), average=(6, 25))
    return PublishedRecipe(
        rate, epochs, loss="cross_entropy" if dataset == "esc50" else "bce", metric="accuracy",
        milestones=tuple(range(5, 26)), decay=0.85, probabilities_as_logits=probabilities,
    )  # fmt: skip


def _training_network(case: Case) -> Network:
    weights = case.state_dict("model_state_dict")
    if "gru.weight_ih_l0" in weights:
        weights = without_duplicates(weights)
        shapes = re.search(r"train_x \[\d+, \d+, (\d+)\]", case.spec["notes"])
        assert shapes is not None
        network: Network = CRNN(CRNN.infer_config(weights, {"n_mels": int(shapes[1])} | _pooling(case, weights)))
        assert isinstance(network.config, CRNNConfig)
    else:
        shape = re.search(r"train_x \[\d+, (\d+), (\d+)\]", case.spec["notes"])
        assert shape is not None
        network = AST(
            ASTConfig(
                model_size="tiny224", frequency_stride=16, time_stride=16, target_length=int(shape[1]),
                n_mels=int(shape[2]), n_classes=weights["mlp_head.1.weight"].shape[0],
            )
        )  # fmt: skip
        weights = AST.convert_state_dict(weights, network.config)
    network.load_state_dict(weights)
    return network


def _pooling(case: Case, weights: dict[str, Tensor]) -> dict[str, Any]:
    if "fc_att.weight" in weights:
        return {}
    return {"pooling": case.config.get("pooling", "lin")}


def _targets(case: Case, train: int, validation: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Multi-label or single-label targets, whichever the stored columns show."""
    generator = np.random.default_rng(case.spec["seed"])
    first = (generator.random((train, classes)) < 0.3).astype(np.float32)
    second = (generator.random((validation, classes)) < 0.4).astype(np.float32)
    second[0], second[1] = 1.0, 0.0
    stored = case.arrays["train_y"]
    if np.array_equal(first[:, : stored.shape[1]], stored):
        return first, second
    generator = np.random.default_rng(case.spec["seed"])
    first = np.eye(classes, dtype=np.float32)[generator.integers(0, classes, train)]
    return first, np.tile(np.eye(classes, dtype=np.float32), (validation // classes, 1))


def _training(case: Case) -> list[Comparison]:
    notes, seed = case.spec["notes"], case.spec["seed"]
    shapes = [
        [int(number) for number in match.split(",")] for match in re.findall(r"(?:train_x|val_x) \[([\d, ]+)\]", notes)
    ]
    sizes = re.search(r"batch size (\d+), validation batch (\d+)", notes)
    assert len(shapes) == 2 and sizes is not None, notes
    network = _training_network(case)
    train_x, validation_x = (
        fill_input(name, tuple(s), seed) for name, s in zip(("train_x", "val_x"), shapes, strict=True)
    )
    train_y, validation_y = _targets(case, shapes[0][0], shapes[1][0], network.config.n_classes)

    def batches(features: Tensor, targets: np.ndarray, size: int) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
        parts = torch.from_numpy(targets)
        return lambda: zip(features.split(size), parts.split(size), strict=True)

    run = train_published(
        network, batches(train_x, train_y, int(sizes[1])), batches(validation_x, validation_y, int(sizes[2])),
        recipe_of(case.config),
    )  # fmt: skip
    found: dict[str, np.ndarray] = {
        "loss": np.array(run.losses), "lr": np.array(run.learning_rates), "result_csv": np.array(run.rows),
        "val_predictions_last_epoch": run.predictions, "train_y": train_y, "val_y": validation_y,
    }  # fmt: skip
    if run.averaged is not None and run.averaged_predictions is not None:
        found |= {"val_predictions_wa": run.averaged_predictions, "wa_result": np.array(run.averaged)}
    rows = []
    for name, reference in case.arrays.items():
        value = found[name]
        if name.startswith("val_predictions") or name.endswith("_y"):
            value = value[:, : reference.shape[1]]
        if name == "result_csv" and value.shape == reference.shape:
            ranks, losses = [0, 1, 2, 3, 4, 7, 8], [5, 6]
            rows += [
                _row(case, "result_csv figures", value[:, ranks], reference[:, ranks], 2e-3),
                _row(case, "result_csv losses", value[:, losses], reference[:, losses], 1e-3, relative=True),
                _row(case, "result_csv lr", value[:, 9], reference[:, 9], 1e-12, relative=True),
            ]
        elif name == "loss":
            rows.append(_row(case, name, value, reference, 1e-3, relative=True))
        elif name == "lr":
            rows.append(_row(case, name, value, reference, 1e-12, relative=True))
        else:
            tolerance = 2e-3 if name == "wa_result" else 1e-3 if name.startswith("val_predictions") else 0.0
            rows.append(_row(case, name, value, reference, tolerance))
    return rows


def _row(
    case: Case, name: str, value: np.ndarray, reference: np.ndarray, tolerance: float, relative: bool = False
) -> Comparison:
    if relative and value.shape == reference.shape:
        scale = np.where(reference == 0, 1.0, np.abs(reference))
        return Comparison(case.path.stem, name, largest_error(value / scale, reference / scale), tolerance, "relative")
    return Comparison(case.path.stem, name, largest_error(value, reference), tolerance)


RUNNERS: dict[str, Callable[[Case], list[Comparison]]] = {
    "preprocess": _preprocess,
    "preprocess_hf": _preprocess,
    "preprocess_mixup": _preprocess,
    "preprocess_noise": _preprocess,
    "preprocess_specaug": _preprocess,
    "metrics": _metrics,
    "sampling_weights": _sampling_weights,
    "training": _training,
}
