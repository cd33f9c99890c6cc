"""Fixtures for all tests: tiny recognizers, and one thread so that timings and sums do not depend on the machine."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from models.card import Card
from models.frontends import build_frontend
from models.recognizer import Recognizer
from models.registry import family

TINY = {
    "resnet_attention": {"block": "basic", "layers": [1, 1, 1, 1], "width": 4, "corrected_head": True},
    "ast": {"model_size": "custom", "width": 32, "n_heads": 2, "depth": 2, "frequency_stride": 16, "time_stride": 16,
            "n_mels": 32, "target_length": 128},
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Jobs, lessons and taught models of the tests are none of the machine's own."""
    os.environ["EARWITNESS_HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def make_recognizer(
    name: str, labels: tuple[str, ...] = ("dog", "rain", "clock"), task: str = "single-label"
) -> Recognizer:
    """A recognizer with random weights, the same in every run."""
    torch.manual_seed(3)
    cls = family(name)
    network = cls(cls.Config.model_validate(TINY[name] | {"n_classes": len(labels)}))
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    frontend = {"kind": "kaldi_fbank", "n_mels": 32, "target_length": 128, "mean": -8.0, "std_scale": 8.0}
    card = Card(name=f"tiny-{name}", family=name, config=network.config.model_dump(mode="json"), frontend=frontend,
                labels=list(labels), task=task)  # fmt: skip
    return Recognizer(network, build_frontend(frontend), card).requires_grad_(False)


@pytest.fixture(params=sorted(TINY))
def recognizer(request: pytest.FixtureRequest) -> Recognizer:
    """Every tiny recognizer in turn."""
    return make_recognizer(request.param)


@pytest.fixture(scope="session")
def chirp() -> np.ndarray:
    """1.2 s at 16 kHz: silence, then a rising tone with a little noise; float32 ``[samples]``."""
    rng = np.random.default_rng(0)
    t = np.arange(19200) / 16000
    tone = 0.4 * np.sin(2 * np.pi * (400 * t + 900 * t**2)) * (t > 0.3) * (t < 0.9)
    return (tone + 0.001 * rng.standard_normal(len(t))).astype(np.float32)
