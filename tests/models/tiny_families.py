"""One tiny configuration of every registered family, and recognizers, published files and clips made with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.card import Card
from models.frontends import build_frontend
from models.network import Network
from models.recognizer import Recognizer
from models.registry import family
from tests.models.test_audio_tagging_families import TINY as TAGGING
from tests.models.test_equiav import TINY as EQUIAV
from tests.models.test_equiav_pretraining import TINY as EQUIAV_PRETRAINING
from tests.models.test_hetero_graph import TINY as HETERO_GRAPH
from tests.models.test_play_it_back import tiny_config
from tests.models.test_slowfast import TINY as SLOWFAST

# family: settings of a tiny network
CONFIGS: dict[str, dict[str, Any]] = {
    "ast": TAGGING["ast"][1] | {"n_classes": 5},
    "cnn_transformer": TAGGING["cnn_transformer"][1] | {"n_classes": 5},
    "crnn": TAGGING["crnn att"][1] | {"n_classes": 5},
    "equiav": EQUIAV,
    "equiav_pretraining": EQUIAV_PRETRAINING,
    "ffnet": TAGGING["ffnet"][1] | {"n_classes": 5},
    "fnet": TAGGING["fnet"][1] | {"n_classes": 5},
    "hetero_graph": HETERO_GRAPH | {"batch_independent": True},
    "linear": TAGGING["linear"][1] | {"n_classes": 5},
    "mobilenet": {"n_classes": 5},
    "play_it_back": tiny_config(playbacks=1).model_dump(mode="json"),
    "psla": TAGGING["psla"][1] | {"n_classes": 5},
    "resnet_attention": TAGGING["resnet"][1] | {"n_classes": 5},
    "slowfast": SLOWFAST["slowfast"] | {"label_embedding_size": 0, "zero_init_final_bn": False},
    "transformer": TAGGING["transformer"][1] | {"n_classes": 5},
}
# What differs from the family's front end: fewer frames than the published 1056, for families that read any number.
FRONT_ENDS: dict[str, dict[str, Any]] = {
    name: {"target_length": 128} for name in ("mobilenet", "psla", "resnet_attention", "transformer")
} | {name: {"target_length": 64} for name in ("crnn", "cnn_transformer", "linear", "fnet", "ffnet")}  # fmt: skip
# What an importer has to be told because no file of the family says it.
HINTS: dict[str, dict[str, Any]] = {
    "ast": {key: CONFIGS["ast"][key] for key in ("n_mels", "target_length")} | {"n_heads": 2, "frequency_stride": 10},
    "cnn_transformer": {"n_trans_layers": 2},
    "equiav": {"n_heads": 2},
    "equiav_pretraining": {"n_heads": 2, "n_centroid": 3},
    "hetero_graph": {
        key: HETERO_GRAPH[key]
        for key in ("audio_segment_ms", "video_segment_ms", "sample_rate", "clip_seconds", "audio_span", "conv_layers")
    },
    "play_it_back": {
        key: CONFIGS["play_it_back"][key] for key in ("schedule", "n_mels", "encoder", "decoder", "playbacks")
    },
    "slowfast": {"n_frames": 32},
    "transformer": {"pooling": "exp"},
}  # fmt: skip


def tiny_network(name: str, **changes: Any) -> Network:
    """A network with random weights and random batch statistics, the same in every run."""
    torch.manual_seed(0)
    cls = family(name)
    network = cls(cls.Config.model_validate(CONFIGS[name] | changes))
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval().requires_grad_(False)


def tiny_recognizer(name: str) -> Recognizer:
    """A recognizer of that network with the family's front end."""
    network = tiny_network(name)
    frontend = network.default_frontend(network.config).model_dump(mode="json") | FRONT_ENDS.get(name, {})
    labels = [f"class {i}" for i in range(network.config.n_classes)]
    card = Card(
        name=f"tiny-{name}", family=name, config=network.config.model_dump(mode="json"), frontend=frontend, labels=labels,
        task="single-label",
    )  # fmt: skip
    return Recognizer(network, build_frontend(frontend), card).requires_grad_(False)


def write_published(path: Path, name: str, prefix: str = "", wrapper: str = "", **beside: Any) -> Network:
    """Save a tiny network as its training program would, and give it back."""
    network = tiny_network(name)
    weights = {f"{prefix}{key}": value for key, value in network.state_dict().items()}
    torch.save({wrapper: weights} | beside if wrapper else weights, path)
    return network


def sound(seconds: float = 0.6, sample_rate: int = 16000) -> np.ndarray:
    """A rising tone between silences with a little noise, float32 ``[samples]``."""
    rng = np.random.default_rng(0)
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    tone = 0.4 * np.sin(2 * np.pi * (400 * t + 900 * t**2)) * (t > 0.25 * seconds) * (t < 0.75 * seconds)
    return (tone + 0.001 * rng.standard_normal(len(t))).astype(np.float32)
