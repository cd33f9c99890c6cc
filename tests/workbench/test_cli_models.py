"""``earwitness models``: listing, importing and exporting from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from models.checkpoint import save_checkpoint
from models.hugging_face import load_hugging_face
from tests.models.tiny_families import HINTS, tiny_recognizer, write_published


def run(*arguments: str, checkpoints: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"EARWITNESS_CHECKPOINTS": str(checkpoints)} if checkpoints else {})
    command = [sys.executable, "-m", "workbench.cli", "models", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_import_and_list(tmp_path: Path) -> None:
    write_published(tmp_path / "w.pth", "cnn_transformer", "module.")
    (tmp_path / "settings.yaml").write_text(
        yaml.safe_dump(HINTS["cnn_transformer"] | {"frontend": {"target_length": 64}})
    )
    (tmp_path / "names.txt").write_text("\n".join("abcde"))
    done = run(
        "import", str(tmp_path / "w.pth"), "--family", "cnn_transformer", "--config", str(tmp_path / "settings.yaml"),
        "--labels", str(tmp_path / "names.txt"), "--output", str(tmp_path / "models" / "mine"), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["card"]["labels"] == list("abcde") and report["labels_from"] == "names.txt"
    listed = json.loads(run("--json", checkpoints=tmp_path / "models").stdout)
    assert {"mine", "resnet-esc10"} <= {card["name"] for card in listed}


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    write_published(tmp_path / "w.pth", "cnn_transformer")
    done = run("import", str(tmp_path / "w.pth"), "--output", str(tmp_path / "new"))
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert done.stderr.startswith("Error: w.pth") and "n_trans_layers" in done.stderr
    assert not (tmp_path / "new").exists()


def test_export_for_hugging_face(tmp_path: Path) -> None:
    recognizer = tiny_recognizer("ast")
    save_checkpoint(tmp_path / "mine", recognizer.network, recognizer.card)
    done = run("export", str(tmp_path / "mine"), "--output", str(tmp_path / "hub"))
    assert done.returncode == 0, done.stderr
    assert load_hugging_face(tmp_path / "hub").labels == recognizer.labels
    again = run("export", str(tmp_path / "mine"), "--output", str(tmp_path / "hub"))
    assert again.returncode == 2 and "exists already" in again.stderr
    other = run("export", "resnet-esc10", "--format", "huggingface", "--output", str(tmp_path / "other"))
    assert other.returncode == 2 and "only AST" in other.stderr and not (tmp_path / "other").exists()
