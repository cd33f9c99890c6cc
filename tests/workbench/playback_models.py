"""A tiny model that listens again, with random weights, as a checkpoint for pages and commands."""

from __future__ import annotations

from pathlib import Path

import torch

from models.card import Card
from models.checkpoint import save_checkpoint
from models.families.play_it_back import PlayItBack, PlayItBackConfig
from tests.models.test_play_it_back import TINY_DECODER, TINY_ENCODER

LABELS = ["dog", "rooster", "<b>rain</b>", "sea_waves", "clock_tick"]
NAME = "tiny-play-it-back"


def write_checkpoint(root: Path) -> Path:
    """Write it below a folder; for 5 s clips, every clip has segments."""
    torch.manual_seed(3)
    config = PlayItBackConfig.model_validate(
        {
            "n_classes": len(LABELS), "playbacks": 2, "n_mels": 32, "encoder": TINY_ENCODER, "decoder": TINY_DECODER,
            "schedule": {"corrected": True, "num_frames": 250}, "slots": {"slot_dim": 16, "stand_out": 0.0, "min_seconds": 0.3},
        }
    )  # fmt: skip
    network = PlayItBack(config).eval()
    frontend = network.default_frontend(config).model_dump(mode="json")
    card = Card(
        name=NAME, title="Tiny <i>Play It Back</i>", family="play_it_back", config=config.model_dump(mode="json"),
        frontend=frontend, labels=LABELS, task="single-label",
    )  # fmt: skip
    save_checkpoint(root / NAME, network, card)
    return root / NAME
