"""Loading AST-base from a checkpoint folder, against ``torch.load`` into a freshly initialised module.

``python tests/benchmarks/bench_load.py``
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from side_by_side import fastest, milliseconds, table

from models.card import Card
from models.checkpoint import load_recognizer, save_checkpoint
from models.families.ast import AST, ASTConfig
from models.network import Network


def write_both(folder: Path, plain: Path, half: bool) -> None:
    """The same weights as a checkpoint folder and as PyTorch's file."""
    torch.manual_seed(0)
    config = ASTConfig()
    network = AST(config)
    card = Card(
        name=folder.name, family="ast", config=config.model_dump(mode="json"),
        frontend=AST.default_frontend(config).model_dump(mode="json"),
        labels=[f"class {index}" for index in range(config.n_classes)], task="multi-label",
    )  # fmt: skip
    save_checkpoint(folder, network, card, half=half)
    weights = network.state_dict()
    torch.save({key: value.half() for key, value in weights.items()} if half else weights, plain)


def from_plain_file(path: Path) -> Network:
    """What a plain PyTorch program does."""
    weights = torch.load(path, map_location="cpu", weights_only=True)
    network = AST(ASTConfig())
    network.load_state_dict(weights)
    return network.eval()


def main() -> None:
    """Print one row per type of the stored weights; both files come from the system's cache."""
    features = torch.zeros(1, 1024, 128)
    rows = []
    with tempfile.TemporaryDirectory() as root:
        for half in (False, True):
            folder, plain = Path(root) / f"ast-base-{half}", Path(root) / f"{half}.pt"
            write_both(folder, plain, half)
            with torch.inference_mode():
                found, expected = load_recognizer(folder, "cpu")(features), from_plain_file(plain)(features)
            difference = ((found - expected).abs().max() / expected.abs().max()).item()
            times = fastest(
                {"ours": lambda f=folder: load_recognizer(f, "cpu"), "plain": lambda p=plain: from_plain_file(p)},
                rounds=7,
                seconds=20.0,
            )
            rows.append([
                "float16" if half else "float32", f"{plain.stat().st_size / 1e6:.0f} MB", milliseconds(times["ours"]),
                milliseconds(times["plain"]), f"{times['ours'] / times['plain']:.2f}", f"{difference:.1e}",
            ])  # fmt: skip
    print(f"AST-base, 86.6 M parameters, {torch.get_num_threads()} thread(s)\n")
    print(table(["stored as", "size", "load_recognizer", "torch.load", "ratio", "relative difference of logits"], rows))


if __name__ == "__main__":
    main()
