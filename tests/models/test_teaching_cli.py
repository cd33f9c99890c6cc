"""``earwitness teach`` and ``earwitness remember`` from end to end with a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.checkpoint import load_recognizer, save_checkpoint
from models.errors import DataError, SettingsError
from models.teaching.memory import load_memory
from tests.conftest import make_recognizer
from tests.models.test_teaching import write
from workbench.cli import app
from workbench.cli_teach import read_examples


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A folder with two classes, and tables beside it."""
    for label in ("beep", "peep"):
        (tmp_path / "sounds" / label).mkdir(parents=True)
        for number in range(4):
            write(tmp_path / "sounds" / label, label, number)
    return tmp_path / "sounds"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    recognizer = make_recognizer("resnet_attention", labels=("beep", "peep"))
    save_checkpoint(tmp_path / "base", recognizer.network, recognizer.card)
    return tmp_path / "base"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_model_that_remembers_is_taught(base: Path, sounds: Path, tmp_path: Path) -> None:
    meta = ["filename,fold,category"]
    (tmp_path / "data" / "audio").mkdir(parents=True)
    for number in range(4):
        for label in ("beep", "peep"):
            write(tmp_path / "data" / "audio", label, 50 + number)
            meta.append(f"{label}-{50 + number}.wav,{1 + number},{label}")
    (tmp_path / "data" / "meta.csv").write_text("\n".join(meta))
    told = run("remember", str(base), "--data", str(tmp_path / "data"), "--source", "tones", "--folds", "1,2,3")
    assert "of 6 clips" in told
    recognizer = load_recognizer(base)
    memory = load_memory(recognizer)
    assert memory is not None and memory.source == "tones" and "6 training clips" in recognizer.card.training["memory"]
    (sounds / "beep").rename(sounds / "boop")
    told = run(
        "teach", str(base), "--examples", str(sounds), "--name", "mine", "--output", str(tmp_path / "out"),
        "--train", "head", "--set", "views=1", "--set", "epochs=60", "--json",
    )  # fmt: skip
    values = json.loads(told)
    assert values["labels"] == ["beep", "peep", "boop"] and values["folder"] == "mine"
    assert load_recognizer(tmp_path / "out" / "mine").labels == values["labels"]
    with pytest.raises(SettingsError, match="already"):
        run("teach", str(base), "--examples", str(sounds), "--name", "mine", "--output", str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("option", "what"), [("epochs=0", "epochs"), ("nonsense=1", "nonsense"), ("epochs", "KEY=VALUE")]
)
def test_settings_that_cannot_be(base: Path, sounds: Path, tmp_path: Path, option: str, what: str) -> None:
    with pytest.raises(SettingsError, match=what):
        run(
            "teach", str(base), "--examples", str(sounds), "--name", "mine", "--output", str(tmp_path), "--set", option
        )  # fmt: skip


def test_tables(sounds: Path) -> None:
    table = sounds / "examples.csv"
    table.write_text("file,label,held_out\nbeep/beep-0.wav,beep,\npeep/peep-1.wav,beep|peep,yes\n")
    found = read_examples(table)
    assert [(e.name, e.labels, e.held_out) for e in found] == [
        ("beep-0.wav", ("beep",), False),
        ("peep-1.wav", ("beep", "peep"), True),
    ]
    for text, what in (
        ("file,label\n", "cannot"),
        ("a,b\n1,2\n", "no column"),
        ("file,label\n../x.wav,a\n", "outside"),
    ):
        table.write_text(text)
        with pytest.raises(DataError, match=what):
            read_examples(table)
    with pytest.raises(DataError, match="no folder or table"):
        read_examples(sounds / "nothing")
    (sounds / "empty").mkdir()
    with pytest.raises(DataError, match="no examples"):
        read_examples(sounds / "empty")
