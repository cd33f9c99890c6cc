"""Teaching: every way, old classes in their places, and a base that stays as it is whatever happens."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from models.checkpoint import load_recognizer, save_checkpoint
from models.errors import CheckpointError, DataError, EarwitnessError, SettingsError
from models.recognizer import Recognizer
from models.teaching import TeachingExample, TeachProgress, TeachSettings, examine, offered_ways, teach
from models.teaching.memory import MEMORY, load_memory, remember, save_memory
from tests.conftest import make_recognizer

RATE = 16000
PITCHES = {"beep": 500.0, "peep": 3000.0, "dog": 1200.0}
QUICK: dict[str, Any] = {"views": 1, "epochs": 30}
DEEP: dict[str, Any] = QUICK | {"epochs": 1}


def tone(label: str, number: int, seconds: float = 1.2) -> np.ndarray:
    """Pulses at a pitch of their class with their own timing and noise."""
    rng = np.random.default_rng([number, len(label), ord(label[0])])
    t = np.arange(round(seconds * RATE)) / RATE
    pitch = PITCHES[label] * rng.uniform(0.95, 1.05)
    pulses = np.sin(2 * np.pi * (2 + 3 * rng.random()) * t + 6 * rng.random()) > 0
    return (0.4 * pulses * np.sin(2 * np.pi * pitch * t) + 0.01 * rng.standard_normal(len(t))).astype(np.float32)


def write(folder: Path, label: str, number: int, sound: np.ndarray | None = None, **more: Any) -> TeachingExample:
    path = folder / f"{label}-{number}.wav"
    soundfile.write(path, tone(label, number) if sound is None else sound, RATE, subtype="FLOAT")
    return TeachingExample(path.name, path, more.pop("labels", (label,)), **more)


@pytest.fixture(autouse=True)
def _few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.teaching.rehearsal.SCENES_OF_A_CLASS", 1)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[TeachingExample]:
    """Six sounds of each of two new classes."""
    folder = tmp_path_factory.mktemp("sounds")
    return [write(folder, label, number) for label in ("beep", "peep") for number in range(6)]


def saved(folder: Path, family: str, *, memory: bool = True, task: str = "single-label") -> Path:
    """A checkpoint with random weights and, if wanted, a memory of noises that it never heard."""
    recognizer = make_recognizer(family, task=task)
    card = save_checkpoint(folder, recognizer.network, recognizer.card)
    if memory:
        torch.manual_seed(0)
        sounds = 0.1 * torch.randn(15, 8000) * torch.linspace(0.1, 3.0, 15)[:, None]
        targets = torch.eye(3).repeat(5, 1)
        loaded = load_recognizer(folder)
        save_memory(folder, remember(loaded, sounds, targets, "noises"), card.content_hash)
    return folder


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: saved(folder / name, name) for name in ("ast", "resnet_attention")}


@pytest.mark.parametrize(("family", "bytes_each"), [("resnet_attention", 1), ("ast", 2)])
def test_a_memory_holds_as_many_copies_as_fit(family: str, bytes_each: int) -> None:
    recognizer = make_recognizer(family)
    sounds = 0.1 * torch.randn(6, 8000, generator=torch.Generator().manual_seed(0))
    size = remember(recognizer, sounds, torch.eye(3).repeat(2, 1), "noises").hidden[0].numel()
    for copies in (1, 3):
        memory = remember(
            recognizer, sounds, torch.eye(3).repeat(2, 1), "noises", limit=6 * size * copies * bytes_each + 5
        )  # fmt: skip
        assert memory.groups.tolist() == [0, 1, 2, 3, 4, 5] * copies
        assert memory.n_bytes == 6 * size * copies * bytes_each


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def left_over(output: Path) -> list[str]:
    """Files that an ended teaching left behind, but for the state that it can go on from."""
    return [path.name for path in output.iterdir() if not path.name.endswith(".state")] if output.exists() else []


WAYS = [
    (family, way) for family in ("ast", "resnet_attention") for way in ("head", "last_blocks", "low_rank", "everything")
]


@pytest.mark.parametrize(("family", "way"), [pair for pair in WAYS if pair != ("resnet_attention", "low_rank")])
def test_every_way_gives_an_ordinary_checkpoint_and_leaves_the_base_alone(
    bases: dict[str, Path], examples: list[TeachingExample], tmp_path: Path, family: str, way: str
) -> None:
    before = files_of(bases[family])
    settings = TeachSettings(train=way, **(QUICK if way == "head" else DEEP))  # type: ignore[arg-type]
    stages: list[TeachProgress] = []
    result = teach(bases[family], examples, settings, tmp_path, name="taught", report=stages.append)
    assert files_of(bases[family]) == before
    assert left_over(tmp_path) == ["taught"] and not list(tmp_path.glob("*.state"))
    base, taught = load_recognizer(bases[family]), load_recognizer(result.folder)
    assert taught.labels == [*base.labels, "beep", "peep"] == list(result.labels)
    assert taught.card.parent == base.card.content_hash
    assert taught.network.config.n_classes == 5 and type(taught.network) is type(base.network)
    assert result.trained == way and result.trained_parameters > 0
    # What is not trained is the base's, bit for bit.
    old, new = base.network.state_dict(), taught.network.state_dict()
    same = {key for key in old if old[key].shape == new[key].shape and torch.equal(old[key], new[key])}
    assert set(old) == set(new)
    if way == "head":
        assert not any(key.startswith(("v.", "model.")) for key in set(old) - same)
    elif way == "everything":
        assert "v.patch_embed.proj.weight" not in same and "model.conv1.weight" not in same
    else:
        first = "v.blocks.0.mlp.fc1.weight" if family == "ast" else "model.layer1.0.conv1.weight"
        assert (first in same) == (way == "last_blocks")
    assert all(key in same for key in old if "running_" in key or "num_batches" in key)
    assert {point.stage for point in stages} >= {"listening", "training", "testing", "saving"}
    assert any(point.loss is not None and point.validation_accuracy is not None for point in result.curve)
    values = json.loads((result.folder / "result.json").read_text())
    assert values["labels"] == list(result.labels) and values["after"]["clips"] == result.after.clips == 4  # type: ignore[union-attr]
    assert "training" in yaml_of(result.folder) and str(tmp_path) not in json.dumps(values)


def yaml_of(folder: Path) -> str:
    return (folder / "card.yaml").read_text()


def test_the_head_learns_the_new_sounds_and_keeps_the_old(
    bases: dict[str, Path], examples: list[TeachingExample], tmp_path: Path
) -> None:
    result = teach(bases["resnet_attention"], examples, TeachSettings(views=2, epochs=80), tmp_path, name="taught")
    assert result.before is not None and result.before.accuracy == 0.0
    assert result.after is not None and result.after.accuracy == 1.0
    assert result.after.per_class == {"beep": 1.0, "peep": 1.0}
    assert sum(map(sum, result.after.confusion)) == result.after.clips == len(result.held_out)
    assert {h.after for h in result.held_out} == {"beep", "peep"} and not {h.before for h in result.held_out} & {"beep"}
    assert (
        result.old_before is not None
        and result.old_before.clips == 15
        and "a quarter of them left out at a time" in result.old_how
    )
    losses = [point.loss for point in result.curve if point.loss is not None]
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("way", ["head", "low_rank"])
def test_the_same_seed_gives_the_same_weights(
    bases: dict[str, Path], examples: list[TeachingExample], tmp_path: Path, way: str
) -> None:
    settings = TeachSettings(train=way, **(QUICK if way == "head" else DEEP))  # type: ignore[arg-type]
    hashes = [
        load_recognizer(teach(bases["ast"], examples, settings, tmp_path, name=name).folder).card.content_hash
        for name in ("one", "two")
    ]
    assert hashes[0] == hashes[1]


class StoppedError(Exception):
    """What a person's click on "cancel" raises."""


def stop_at(stage: str, step: int) -> Callable[[TeachProgress], None]:
    def report(progress: TeachProgress) -> None:
        if progress.stage == stage and progress.step >= step:
            raise StoppedError(progress.step)

    return report


@pytest.mark.parametrize(
    ("stage", "step"), [("listening", 0), ("checking", 1), ("training", 1), ("testing", 0), ("saving", 0)]
)
def test_cancelling_leaves_nothing_but_a_state(
    bases: dict[str, Path], examples: list[TeachingExample], tmp_path: Path, stage: str, step: int
) -> None:
    before = files_of(bases["ast"])
    with pytest.raises(StoppedError):
        teach(bases["ast"], examples, TeachSettings(**QUICK), tmp_path, name="taught", report=stop_at(stage, step))
    assert files_of(bases["ast"]) == before and left_over(tmp_path) == []


@pytest.mark.parametrize("way", ["head", "last_blocks", "low_rank"])
def test_going_on_after_cancelling_equals_an_uninterrupted_teaching(
    bases: dict[str, Path], examples: list[TeachingExample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr("models.teaching.course._TOLD_EVERY", 0.0)
    more: dict[str, Any] = {"epochs": 20} if way == "head" else {"epochs": 3}
    settings = TeachSettings(train=way, **(QUICK | more))  # type: ignore[arg-type]
    whole = teach(bases["ast"], examples, settings, tmp_path, name="whole")
    with pytest.raises(StoppedError):
        teach(bases["ast"], examples, settings, tmp_path, name="again", report=stop_at("training", 3))
    assert (tmp_path / ".again.state").is_file()
    seen: list[TeachProgress] = []
    again = teach(bases["ast"], examples, settings, tmp_path, name="again", report=seen.append, resume=True)
    assert min(point.step for point in seen if point.stage == "training") == 4
    hashes = [load_recognizer(result.folder).card.content_hash for result in (whole, again)]
    assert hashes[0] == hashes[1]
    assert not (tmp_path / ".again.state").exists()


def test_a_state_of_other_settings_or_a_damaged_one_is_not_used(
    bases: dict[str, Path], examples: list[TeachingExample], tmp_path: Path
) -> None:
    settings = TeachSettings(**(QUICK | {"epochs": 10}))
    with pytest.raises(StoppedError):
        teach(bases["ast"], examples, settings, tmp_path, name="taught", report=stop_at("training", 1))
    for spoil in (lambda: None, lambda: (tmp_path / ".taught.state").write_bytes(b"no state")):
        spoil()
        other = settings.model_copy(update={"seed": 5})
        with pytest.raises(StoppedError) as stopped:
            teach(
                bases["ast"], examples, other, tmp_path, name="taught", resume=True, report=stop_at("training", 1)
            )  # fmt: skip
        assert stopped.value.args == (1,)


@pytest.mark.parametrize("way", ["head", "low_rank"])
def test_a_loss_that_is_not_a_number_ends_in_two_sentences(
    bases: dict[str, Path], examples: list[TeachingExample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    before = files_of(bases["ast"])
    for module in ("head", "deep"):
        monkeypatch.setattr(f"models.teaching.{module}.example_loss", lambda logits, *_: logits.sum() * math.nan)
    with pytest.raises(SettingsError, match="not a number") as caught:
        teach(bases["ast"], examples, TeachSettings(train=way, **QUICK), tmp_path, name="taught")  # type: ignore[arg-type]
    assert "learning rate" in caught.value.advice
    assert files_of(bases["ast"]) == before and left_over(tmp_path) == [] and not list(tmp_path.glob("*.state"))


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "place",
    ["models.checkpoint.save_file", "models.teaching.memory.save_file", "models.teaching.course.torch.save"],
)
def test_a_full_disk_ends_in_two_sentences(
    bases: dict[str, Path], examples: list[TeachingExample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    before = files_of(bases["ast"])
    monkeypatch.setattr(place, full)
    monkeypatch.setattr("models.teaching.course._SAVED_EVERY", 0.0)
    with pytest.raises(CheckpointError, match="disk is full") as caught:
        teach(bases["ast"], examples, TeachSettings(**(QUICK | {"epochs": 5})), tmp_path, name="taught")
    assert caught.value.advice
    assert files_of(bases["ast"]) == before and left_over(tmp_path) == []


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("x" * 500, "500 characters"),
        ("<b>cat</b>", "markup"),
        ("<script>alert(1)</script>", "markup"),
        ("a\nb", "invisible"),
        ("\u202egod", "invisible"),
        ("   ", "empty"),
        (" cat", "blank"),
    ],
)
def test_names_of_classes_that_cannot_be(
    bases: dict[str, Path], examples: list[TeachingExample], tmp_path: Path, label: str, why: str
) -> None:
    named = [replace(e, labels=(label,)) for e in examples]
    findings = examine(bases["ast"], named)
    assert [f.kind for f in findings] == ["bad_label"] and findings[0].stops and why in findings[0].message
    assert len(findings[0].message) < 200 and "<" not in findings[0].message.replace("(< or >)", "")
    with pytest.raises(DataError, match=why.split()[0]):
        teach(bases["ast"], named, TeachSettings(), tmp_path, name="taught")
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("name", ["", "../up", "A B", "x" * 200, "<b>", ".hidden", "a/b", "a\0b", "dot."])
def test_names_of_models_that_cannot_be(
    bases: dict[str, Path], examples: list[TeachingExample], tmp_path: Path, name: str
) -> None:
    with pytest.raises(SettingsError, match="cannot be named"):
        teach(bases["ast"], examples, TeachSettings(), tmp_path, name=name)
    assert left_over(tmp_path) == []


def test_a_model_that_is_there_is_not_replaced(
    bases: dict[str, Path], examples: list[TeachingExample], tmp_path: Path
) -> None:
    (tmp_path / "taught").mkdir()
    with pytest.raises(SettingsError, match="already"):
        teach(bases["ast"], examples, TeachSettings(), tmp_path, name="taught")


def kinds(findings: list[Any]) -> dict[str, bool]:
    return {f.kind: f.stops for f in findings}


def test_examples_that_cannot_teach_anything(bases: dict[str, Path], tmp_path: Path) -> None:
    silence = np.zeros(RATE, np.float32)
    one = [write(tmp_path, "beep", 0)]
    mute = [write(tmp_path, "peep", number, silence) for number in range(4)]
    broken = TeachingExample("broken.wav", tmp_path / "broken.wav", ("beep",))
    broken.path.write_bytes(b"not a sound")
    missing = TeachingExample("missing.wav", tmp_path / "missing.wav", ("beep",))
    cases: dict[str, list[TeachingExample]] = {
        "none": [], "too_few": one, "all_silent": mute, "no_label": [replace(one[0], labels=())],
        "several_labels": [replace(one[0], labels=("beep", "dog"))],
    }  # fmt: skip
    for kind, examples in cases.items():
        findings = examine(bases["ast"], examples)
        assert kinds(findings).get(kind) is True, kind
        assert all(f.message and f.advice for f in findings)
        with pytest.raises(DataError):
            teach(bases["ast"], examples, TeachSettings(), tmp_path / "out", name="taught")
    findings = examine(bases["ast"], [broken, missing])
    assert [f.examples for f in findings if f.kind == "unreadable"] == [(0,), (1,)] and kinds(findings)["none"]
    assert left_over(tmp_path / "out") == []


def test_odd_examples_are_pointed_out_and_left_out(bases: dict[str, Path], tmp_path: Path) -> None:
    beeps = [write(tmp_path, "beep", number) for number in range(15)]
    peeps = [write(tmp_path, "peep", number) for number in range(3)]
    copy = write(tmp_path, "beep", 90, 0.5 * tone("beep", 0), held_out=True)
    silent = write(tmp_path, "beep", 91, np.zeros(RATE, np.float32))
    findings = examine(bases["ast"], [*beeps, *peeps, copy, silent])
    by_kind = {f.kind: f for f in findings}
    assert by_kind["unbalanced"].examples == (15, 16, 17) and by_kind["too_few"].examples == (15, 16, 17)
    assert by_kind["duplicate"].examples == (0, 18) and "tested" in by_kind["duplicate"].advice
    assert by_kind["silent"].examples == (19,)
    assert not any(f.stops for f in findings)
    other = replace(copy, labels=("peep",))
    findings = examine(bases["ast"], [*beeps, *peeps, other])
    assert kinds(findings)["duplicate_labels"] is True


def test_a_sound_under_the_wrong_name_is_found(bases: dict[str, Path], tmp_path: Path) -> None:
    beeps = [write(tmp_path, "beep", number) for number in range(8)]
    peeps = [write(tmp_path, "peep", number) for number in range(8)]
    wrong = write(tmp_path, "beep", 99, labels=("peep",))
    found = [f for f in examine(bases["resnet_attention"], [*beeps, *peeps, wrong]) if f.kind == "looks_mislabelled"]
    assert [f.examples for f in found] == [(16,)] and "beep" in found[0].message and not found[0].stops
    fine = examine(bases["resnet_attention"], [*beeps, *peeps])
    assert not [f for f in fine if f.kind == "looks_mislabelled"]


def test_a_known_class_is_learned_from_its_own_examples(bases: dict[str, Path], tmp_path: Path) -> None:
    dogs = [write(tmp_path, "dog", number, held_out=number > 5) for number in range(8)]
    beeps = [write(tmp_path, "beep", number, held_out=number > 5) for number in range(8)]
    result = teach(
        bases["resnet_attention"], [*dogs, *beeps], TeachSettings(views=2, epochs=80), tmp_path, name="taught"
    )
    assert result.new_labels == ("beep",) and result.labels == ("dog", "rain", "clock", "beep")
    assert result.after is not None and result.after.per_class == {"dog": 1.0, "beep": 1.0}
    assert {h.example for h in result.held_out} == {6, 7, 14, 15}
    only = teach(bases["resnet_attention"], dogs, TeachSettings(**QUICK), tmp_path, name="only")
    assert only.new_labels == () and load_recognizer(only.folder).labels == ["dog", "rain", "clock"]


@pytest.mark.parametrize("task", ["multi-label", "single-label"])
def test_several_classes_in_one_clip(tmp_path: Path, task: str) -> None:
    base = saved(tmp_path / "base", "resnet_attention", task=task)
    sounds = {
        ("beep",): lambda n: tone("beep", n),
        ("peep",): lambda n: tone("peep", n),
        ("beep", "peep"): lambda n: 0.5 * (tone("beep", 20 + n) + tone("peep", 20 + n)),
    }
    examples = [
        write(tmp_path, labels[0], 100 * place + number, make(number), labels=labels)
        for place, (labels, make) in enumerate(sounds.items())
        for number in range(6)
    ]
    settings = TeachSettings(task="multi-label", views=2, epochs=120)
    result = teach(base, examples, settings, tmp_path, name="taught")
    taught = load_recognizer(result.folder)
    assert taught.card.task == "multi-label" and result.after is not None and result.after.accuracy > 0.9
    both = taught.probabilities(taught(taught.features(torch.from_numpy(sounds["beep", "peep"](50)))))[0]
    assert float(both[3:].sum()) > 1.0


def test_a_model_without_memory_says_what_it_does_instead(examples: list[TeachingExample], tmp_path: Path) -> None:
    base = saved(tmp_path / "base", "ast", memory=False)
    result = teach(base, examples, TeachSettings(**QUICK), tmp_path, name="taught")
    assert "generated" in result.rehearsal and "hint" in result.old_how
    assert result.old_before is not None and set(result.old_before.per_class) == {"dog", "rain"}
    # The taught model remembers its own examples, and nothing of the classes that it never heard.
    memory = load_memory(load_recognizer(result.folder))
    assert memory is not None and memory.targets.any(dim=0).tolist() == [False] * 3 + [True] * 2
    further = teach(result.folder, _dogs(tmp_path), TeachSettings(**QUICK), tmp_path, name="further")
    assert "remembered" in further.rehearsal and "generated" in further.rehearsal
    none = teach(base, examples, TeachSettings(keep_memory=False, **QUICK), tmp_path, name="none")
    assert not (none.folder / MEMORY).exists()


def _dogs(folder: Path) -> list[TeachingExample]:
    return [write(folder, "dog", number) for number in range(4)]


@pytest.mark.parametrize("damage", ["bytes", "hash", "shape", "nan"])
def test_a_memory_that_does_not_belong_here_is_not_used(tmp_path: Path, damage: str) -> None:
    folder = saved(tmp_path / "base", "ast")
    recognizer: Recognizer = load_recognizer(folder)
    memory = load_memory(recognizer)
    assert memory is not None and len(memory) == 60 and memory.n_bytes < 1_000_000
    own = recognizer.card.content_hash
    if damage == "bytes":
        (folder / MEMORY).write_bytes(b"\x00" * 100)
    elif damage == "hash":
        save_memory(folder, memory, "0" * 64)
    elif damage == "shape":
        save_memory(folder, replace(memory, hidden=memory.hidden[:, :-1]), own)
    else:
        save_memory(folder, replace(memory, hidden=memory.hidden * math.nan), own)
    assert load_memory(load_recognizer(folder)) is None


def test_offered_ways(recognizer: Recognizer) -> None:
    ways = offered_ways(recognizer)
    expected = ["head", "last_blocks", "low_rank", "everything"]
    assert list(ways) == [w for w in expected if w != "low_rank" or recognizer.card.family == "ast"]
    assert all(sentence.endswith(".") for sentence in ways.values())


def test_a_way_that_a_model_does_not_have(
    bases: dict[str, Path], examples: list[TeachingExample], tmp_path: Path
) -> None:
    with pytest.raises(EarwitnessError, match="low_rank"):
        teach(bases["resnet_attention"], examples, TeachSettings(train="low_rank"), tmp_path, name="taught")
