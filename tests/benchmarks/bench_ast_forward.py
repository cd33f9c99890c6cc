"""AST-base against Hugging Face transformers with the same weights, one forward pass.

``python tests/benchmarks/bench_ast_forward.py``
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from side_by_side import fastest, milliseconds, table
from torch import Tensor

from models.card import Card
from models.families.ast import AST, ASTConfig
from models.frontends import build_frontend
from models.hugging_face import load_hugging_face, save_hugging_face
from models.recognizer import Recognizer

BATCHES = (1, 2)


def random_ast() -> Recognizer:
    """AST-base as published for AudioSet (10/10 strides, 1024 frames), with random weights."""
    torch.manual_seed(0)
    config = ASTConfig()
    frontend = AST.default_frontend(config)
    card = Card(
        name="ast-base", family="ast", config=config.model_dump(mode="json"), frontend=frontend.model_dump(mode="json"),
        labels=[f"class {index}" for index in range(config.n_classes)], task="multi-label",
    )  # fmt: skip
    return Recognizer(AST(config), build_frontend(frontend), card)


def hugging_face(folder: Path) -> Callable[[Tensor], Tensor]:
    """The same weights in `ASTForAudioClassification`."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import ASTForAudioClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = ASTForAudioClassification.from_pretrained(folder, dtype=torch.float32).eval()
    return lambda features: model(features).logits


@torch.inference_mode()
def main() -> None:
    """Print one row per batch size."""
    with tempfile.TemporaryDirectory() as folder:
        save_hugging_face(random_ast(), Path(folder))
        ours = load_hugging_face(Path(folder), name="ast-base")
        theirs = None
        if importlib.util.find_spec("transformers") is None:
            print("transformers is not installed (pip install transformers): there is no baseline to compare with.")
        else:
            theirs = hugging_face(Path(folder))
    count = sum(parameter.numel() for parameter in ours.network.parameters())
    print(f"AST-base, {count / 1e6:.1f} M parameters, float32, {torch.get_num_threads()} thread(s)\n")
    rows = []
    for batch in BATCHES:
        features = torch.randn(batch, 1024, 128)
        candidates: dict[str, Callable[[], Tensor]] = {"ours": lambda features=features: ours(features)}
        difference = "-"
        if theirs is not None:
            candidates["theirs"] = lambda features=features: theirs(features)
            expected, found = theirs(features), ours(features)
            difference = f"{((found - expected).abs().max() / expected.abs().max()).item():.1e}"
        times = fastest(candidates, rounds=5, seconds=20.0, warm_up=theirs is None)
        baseline = times.get("theirs")
        rows.append([
            str(batch), milliseconds(times["ours"]), milliseconds(baseline) if baseline else "-",
            f"{times['ours'] / baseline:.2f}" if baseline else "-", difference,
        ])  # fmt: skip
    print(table(["batch", "Earwitness", "transformers", "ratio", "relative difference of logits"], rows))


if __name__ == "__main__":
    sys.exit(main())
