"""Measuring a recognizer on a data set, and writing the figures into its card."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from models.catalog import read_card
from models.checkpoint import load_recognizer, save_checkpoint
from models.clip import open_clip
from models.errors import CheckpointError, DataError, SettingsError
from models.prediction import predict
from models.recognizer import Recognizer
from models.training.averaging import average_checkpoints
from models.training.evaluation import Evaluation, evaluate, figures_of, store_in_card
from models.training.multiview import score_views
from tests.conftest import make_recognizer
from tests.models.test_metrics import area_by_definition, precision_by_thresholds
from workbench.cli import app

CLASSES = ("dog", "rain", "clock")


def data_set(root: Path, labels: tuple[str, ...] = CLASSES, each: int = 2) -> Path:
    (root / "audio").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["filename,fold,category"]
    for number in range(each * len(labels)):
        soundfile.write(root / "audio" / f"{number}.wav", 0.1 * rng.standard_normal(6000 + 900 * number), 16000)
        lines.append(f"{number}.wav,{1 + number // len(labels)},{labels[number % len(labels)]}")
    (root / "meta.csv").write_text("\n".join(lines), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def model() -> Recognizer:
    return make_recognizer("resnet_attention")


def test_figures_are_those_of_every_clip_opened_by_itself(model: Recognizer, tmp_path: Path) -> None:
    root = data_set(tmp_path / "sounds")
    seen: list[tuple[int, int]] = []
    result = evaluate(model, root, progress=lambda done, total: seen.append((done, total)))
    scores = np.stack([predict(model, open_clip(root / "audio" / f"{n}.wav").at(16000)).scores for n in range(6)])
    truth = np.arange(6) % 3
    guesses = scores.argmax(axis=1)
    assert result.clips == 6 and result.accuracy == pytest.approx((guesses == truth).mean())
    expected = np.zeros((3, 3), dtype=int)
    for true, guess in zip(truth, guesses, strict=True):
        expected[true, guess] += 1
    assert result.confusion == expected.tolist()
    for c, label in enumerate(CLASSES):
        hits = (truth == c)[np.argsort(-scores[:, c])]
        precision = np.mean([hits[: i + 1].mean() for i in np.flatnonzero(hits)])
        assert result.per_class[label] == pytest.approx(precision)
    assert result.mean_average_precision == pytest.approx(np.mean(list(result.per_class.values())))
    assert seen == [(n, 6) for n in range(1, 7)] and result.skipped == [] and result.data == "sounds"
    assert result.as_dict()["labels"] == list(CLASSES)
    assert "6 clips" in result.table() and "accuracy" in result.table()


def test_only_some_folds(model: Recognizer, tmp_path: Path) -> None:
    result = evaluate(model, data_set(tmp_path / "sounds"), folds=[2])
    assert result.clips == 3 and result.data == "sounds, fold 2"


def test_multi_label_models_have_no_accuracy(tmp_path: Path) -> None:
    result = evaluate(make_recognizer("resnet_attention", task="multi-label"), data_set(tmp_path / "sounds"))
    assert result.accuracy is None and "accuracy" not in result.table() and 0 < result.mean_average_precision <= 1


def test_what_cannot_be_used_is_skipped_and_said(model: Recognizer, tmp_path: Path) -> None:
    root = data_set(tmp_path / "sounds")
    (root / "audio" / "1.wav").unlink()
    (root / "audio" / "2.wav").write_bytes(b"not a sound")
    result = evaluate(model, root)
    assert result.clips == 4 and len(result.skipped) == 2
    assert result.skipped[0] == "1.wav is missing" and result.skipped[1].startswith("2.wav: ")
    assert all(f"skipped: {reason}" in result.table() for reason in result.skipped)


def test_classes_that_the_model_does_not_know_are_left_out(model: Recognizer, tmp_path: Path) -> None:
    result = evaluate(model, data_set(tmp_path / "sounds", ("dog", "violin", "clock")))
    assert result.clips == 4 and set(result.per_class) == {"dog", "clock"} and result.labels == list(CLASSES)


def test_impossible_evaluations_are_refused(model: Recognizer, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no data format named 'tape'"):
        evaluate(model, tmp_path, "tape")
    with pytest.raises(DataError, match="None of the clips has a class"):
        evaluate(model, data_set(tmp_path / "other", ("violin", "drum")))
    with pytest.raises(DataError, match="None of the clips"):
        evaluate(model, data_set(tmp_path / "sounds"), folds=[9])
    for path in (tmp_path / "sounds" / "audio").iterdir():
        path.write_bytes(b"not a sound")
    with pytest.raises(DataError, match="No clip of this data set could be opened"):
        evaluate(model, tmp_path / "sounds")


def test_figures_replace_those_of_the_same_data_in_the_card(model: Recognizer, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "tiny", model.network, model.card)
    loaded = load_recognizer(tmp_path / "tiny", "cpu")

    def figures(data: str, accuracy: float | None, precision: float) -> Evaluation:
        return Evaluation("tiny", data, 2, accuracy, None, precision, None, None, [], [], [], [])

    first = figures("A", 0.5, 0.61237)
    store_in_card(loaded, first, "command 1")
    store_in_card(loaded, figures("B", None, 0.9), "command 2")
    store_in_card(loaded, figures("A", 0.75, 0.7), "command 3")
    written = [(m.name, m.value, m.data, m.command) for m in read_card(tmp_path / "tiny").metrics]
    assert sorted(written) == [
        ("accuracy", 0.75, "A", "command 3"), ("mean average precision", 0.7, "A", "command 3"),
        ("mean average precision", 0.9, "B", "command 2"),
    ]  # fmt: skip
    assert loaded.card == read_card(tmp_path / "tiny") == load_recognizer(tmp_path / "tiny", "cpu").card
    with pytest.raises(SettingsError, match="no folder"):
        store_in_card(make_recognizer("resnet_attention"), first, "command")


# --- figures ----------------------------------------------------------------------------------------------------------


def test_every_figure_by_its_definition() -> None:
    """Scores with ties, a class without a clip, two groups of classes (verbs and nouns)."""
    rng = np.random.default_rng(4)
    scores = rng.random((60, 9)).round(1)
    targets = np.zeros((60, 9))
    targets[np.arange(60), rng.integers(0, 2, 60)] = 1
    targets[np.arange(60), 3 + rng.integers(0, 5, 60)] = 1
    labels = [f"class {c}" for c in range(9)]
    found = figures_of(scores, targets, labels, single_label=True, groups=(3, 6))
    present = [c for c in range(9) if targets[:, c].any()]
    assert [one.label for one in found["classes"]] == [labels[c] for c in present] and len(present) == 7
    for one, c in zip(found["classes"], present, strict=True):
        assert one.clips == targets[:, c].sum()
        assert one.average_precision == pytest.approx(precision_by_thresholds(scores[:, c], targets[:, c]))
        assert one.auc == pytest.approx(area_by_definition(scores[:, c], targets[:, c]))
        group = slice(0, 3) if c < 3 else slice(3, 9)
        mine = targets[:, c] > 0
        guessed = scores[:, group].argmax(axis=1) == targets[:, group].argmax(axis=1)
        assert one.accuracy == pytest.approx(guessed[mine].mean())
    areas = [one.auc for one in found["classes"]]
    assert found["mean_auc"] == pytest.approx(np.mean(areas))
    assert found["d_prime"] == pytest.approx(2**0.5 * NormalDist().inv_cdf(float(np.mean(areas))))
    assert found["mean_average_precision"] == pytest.approx(
        np.mean([one.average_precision for one in found["classes"]])
    )
    both, five = [], []
    for score, target in zip(scores, targets, strict=True):
        verb, noun = int(target[:3].argmax()), 3 + int(target[3:].argmax())
        # How many of its group stand before the true class; of equals the earlier class does.
        before = [
            sum((score[c], -c) > (score[true], -true) for c in group)
            for true, group in ((verb, range(3)), (noun, range(3, 9)))
        ]
        both.append(max(before) < 1)
        five.append(max(before) < 5)
    assert found["accuracy"] == pytest.approx(np.mean(both))
    assert found["top_5_accuracy"] == pytest.approx(np.mean(five))


def test_figures_that_mean_nothing_are_left_out() -> None:
    scores, targets = np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    found = Evaluation("m", "d", 2, skipped=[], **figures_of(scores, targets, ["a", "b"], single_label=False))
    assert found.mean_auc is None and found.d_prime is None and found.accuracy is None
    assert set(found.figures) == {"mean average precision"}
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["classes"][0]["auc"] is None
    perfect = figures_of(np.eye(2), np.eye(2), ["a", "b"], single_label=True)
    assert perfect["mean_auc"] == 1.0 and perfect["d_prime"] is None  # it would be infinite


def test_a_table_of_classes_can_be_opened_in_a_spreadsheet() -> None:
    labels = ["=cmd()", 'say "a, b"']
    found = Evaluation("m", "d", 2, skipped=[], **figures_of(np.eye(2), np.eye(2), labels, single_label=True))
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert [row["class"] for row in rows] == ["'=cmd()", 'say "a, b"']
    assert rows[0]["average_precision"] == "1.0" and rows[0]["clips"] == "1"


# --- several models, several views ------------------------------------------------------------------------------------


def other_model(seed: int, **changes: object) -> Recognizer:
    """A recognizer like the fixture's with other weights."""
    recognizer = make_recognizer("resnet_attention")
    generator = torch.Generator().manual_seed(seed)
    for parameter in recognizer.network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    card = recognizer.card.model_copy(update={"name": f"model {seed}", **changes})
    return Recognizer(recognizer.network, recognizer.frontend, card)


def test_an_ensemble_is_the_mean_of_probabilities(tmp_path: Path) -> None:
    root, models = data_set(tmp_path / "sounds"), [other_model(1), other_model(2)]
    result = evaluate(models, root)
    mean = np.mean(
        [
            [predict(m, open_clip(root / "audio" / f"{n}.wav").at(16000)).scores for n in range(6)]
            for m in models
        ],
        axis=0,
    )  # fmt: skip
    targets = np.eye(3)[np.arange(6) % 3]
    assert result.model == "model 1 + model 2"
    assert result.figures == pytest.approx(
        Evaluation("", "", 6, skipped=[], **figures_of(mean, targets, CLASSES, single_label=True)).figures
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["dog", "rain", "cat"]}, r"other classes than model 1 \(such as cat, clock\)"),
        ({"labels": ["rain", "dog", "clock"]}, "in another order"),
        ({"task": "multi-label"}, "multi-label model, model 1 a single-label one"),
    ],
)
def test_models_that_do_not_go_together_are_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        evaluate([other_model(1), other_model(2, **changes)], data_set(tmp_path / "sounds"))


@pytest.mark.parametrize("combine", ["sum", "max"])
def test_several_views(model: Recognizer, combine: str, tmp_path: Path) -> None:
    root = data_set(tmp_path / "sounds", each=3)
    result = evaluate(model, root, views=3, combine=combine)  # type: ignore[arg-type]
    scores = np.stack([
        score_views(model, open_clip(root / "audio" / f"{n}.wav").at(16000), 3, combine).combined  # type: ignore[arg-type]
        for n in range(9)
    ])  # fmt: skip
    assert result.accuracy == pytest.approx((scores.argmax(axis=1) == np.arange(9) % 3).mean())
    assert result.data == "sounds, 3 views" and result.mean_average_precision == pytest.approx(
        np.mean([precision_by_thresholds(scores[:, c], (np.arange(9) % 3 == c).astype(float)) for c in range(3)])
    )


def test_a_model_that_looks_is_shown_the_picture(tmp_path: Path) -> None:
    from models.card import Card
    from models.families.equiav import EquiAV
    from models.frontends import build_frontend
    from tests.models.test_equiav import TINY
    from tests.models.training_data import write_videos

    root = write_videos(tmp_path / "videos")
    torch.manual_seed(0)
    network = EquiAV(EquiAV.Config(**TINY | {"mode": "multimodal", "n_classes": 2})).eval()
    frontend = {"kind": "kaldi_fbank", "n_mels": 128, "target_length": 64, "padding": "zero"}
    card = Card(name="watcher", family="equiav", config=network.config.model_dump(mode="json"), frontend=frontend,
                labels=["high", "low"], task="single-label")  # fmt: skip
    watcher = Recognizer(network, build_frontend(frontend), card)
    seen = []
    read = network.read_frames

    def noticed(*arguments: object) -> torch.Tensor:
        seen.append(arguments[0])
        return read(*arguments)  # type: ignore[arg-type]

    network.read_frames = noticed  # type: ignore[method-assign, assignment]
    assert evaluate(watcher, root, folds=[2]).clips == 2
    assert len(seen) >= 2 and all(video is not None for video in seen)
    with pytest.raises(SettingsError, match="only listen"):
        evaluate(watcher, root, folds=[2], views=2)


def test_an_average_of_weights(tmp_path: Path) -> None:
    folders = []
    for seed in (1, 2, 3):
        one = other_model(seed)
        folders.append(tmp_path / str(seed))
        save_checkpoint(folders[-1], one.network, one.card)
    averaged = average_checkpoints(folders, "mean", "cpu")
    stored = [load_file(folder / "model.safetensors") for folder in folders]
    for key, value in averaged.network.state_dict().items():
        if value.is_floating_point():
            expected = torch.stack([one[key].double() for one in stored]).mean(dim=0)
            torch.testing.assert_close(value.double(), expected, atol=1e-6, rtol=1e-6)
    assert averaged.name == "mean" and not averaged.card.metrics
    assert [one["name"] for one in averaged.card.training["average_of"]] == ["model 1", "model 2", "model 3"]
    root = data_set(tmp_path / "sounds")
    command = ["evaluate", "--data", str(root), "--folds", "", "--output", str(tmp_path / "mean"), "--write-card"]
    command += [part for folder in folders for part in ("--average", str(folder))]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and "d-prime" in done.output, done.output
    written = load_recognizer(tmp_path / "mean", "cpu")
    assert written.card.content_hash == averaged.card.content_hash
    assert {m.name: m.value for m in written.card.metrics}["mean AUC"] == pytest.approx(
        evaluate(averaged, root).mean_auc, abs=1e-4
    )
    assert written.card.metrics[0].command == "earwitness evaluate --model mean --data sounds --folds ''"


def test_only_checkpoints_that_are_alike_are_averaged(tmp_path: Path) -> None:
    one, other = other_model(1), make_recognizer("ast")
    for name, recognizer in (("one", one), ("other", other)):
        save_checkpoint(tmp_path / name, recognizer.network, recognizer.card)
    louder = one.card.model_copy(update={"frontend": one.card.frontend | {"mean": -3.0}})
    save_checkpoint(tmp_path / "louder", one.network, louder)
    with pytest.raises(CheckpointError, match="differ in their architecture"):
        average_checkpoints([tmp_path / "one", tmp_path / "other"])
    with pytest.raises(CheckpointError, match="differ in their front end"):
        average_checkpoints([tmp_path / "one", tmp_path / "louder"])
    with pytest.raises(SettingsError, match="at least two"):
        average_checkpoints([tmp_path / "one"])


def test_the_command_line_writes_tables_and_refuses_what_makes_no_sense(tmp_path: Path) -> None:
    root, folders = data_set(tmp_path / "sounds"), []
    for seed in (1, 2):
        one = other_model(seed)
        folders.append(str(tmp_path / str(seed)))
        save_checkpoint(tmp_path / str(seed), one.network, one.card)
    base = ["evaluate", "--data", str(root), "--folds", "1,2"]
    done = CliRunner().invoke(
        app, [*base, "--model", folders[0], "--model", folders[1], "--json", "--csv", str(tmp_path / "t.csv")]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["model"] == "model 1 + model 2"
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 4
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for more, message in (
        ([], "no model to measure"), (["--model", folders[0], "--average", folders[1]], "or too many"),
        (["--model", folders[0], "--output", str(tmp_path / "x")], "Only an average"),
        (["--average", folders[0], "--average", folders[1], "--output", str(tmp_path / "full")], "not empty"),
        (["--model", folders[0], "--model", folders[1], "--write-card"], "no one card"),
        (["--model", folders[0], "--option", "colour"], "KEY=VALUE"),
        (["--model", folders[0], "--option", "colour=red"], "colour"),
        (["--model", folders[0], "--folds", "all"], "not a list of folds"),
    ):  # fmt: skip
        refused = CliRunner().invoke(app, [*base, *more])
        assert isinstance(refused.exception, SettingsError) and message in str(refused.exception), refused.output
