"""Models that see remember what they were trained on, too: sound and picture together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoint import load_recognizer, save_checkpoint
from models.clip import open_clip
from models.data.scenes.__main__ import RENDER, main
from models.errors import DataError
from models.prediction import hop_samples, window_starts
from models.teaching import TeachingExample, TeachSettings, teach
from models.teaching.course import Course
from models.teaching.lesson import Lesson
from models.teaching.listening import changed, embed
from models.teaching.memory import load_memory
from models.teaching.remembering import remember_data
from tests.models.tiny_families import tiny_recognizer

SMALL = ["--test-scenes", "0", "--frame-rate", "5", "--height", "48", "--width", "64"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos") / "scenes"
    assert main([RENDER, "--output", str(folder), "--scenes", "4", "--classes", "bell", "drum", *SMALL]) == 0
    return folder


def saved(folder: Path, name: str) -> Path:
    recognizer = tiny_recognizer(name)
    labels = ["bell", "drum", *recognizer.labels[2:]]
    save_checkpoint(folder, recognizer.network, recognizer.card.model_copy(update={"labels": labels}))
    return folder


def test_a_model_that_sees_gets_a_memory_of_sound_and_picture(videos: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "base", "hetero_graph")
    told: list[tuple[int, int]] = []
    made = remember_data(
        folder, videos, "audio_visual_scenes", [6], "scenes", lambda done, total: told.append((done, total))
    )
    assert told[-1] == (4, 4) and len(made) == 8
    recognizer = load_recognizer(folder, "cpu")
    memory = load_memory(recognizer)
    assert memory is not None and memory.targets[:, :2].tolist() == [[1, 0], [0, 1]] * 4
    assert memory.groups.tolist() == [0, 1, 2, 3] * 2 and not memory.targets[:, 2:].any()
    # What is remembered is answered as the clip is, seen and heard, and its sound alone; these answers differ.
    answers = recognizer.network.forward_head(memory.values())
    for row, path in enumerate(sorted((videos / "clips").iterdir())):
        clip = open_clip(path)
        length = recognizer.window_samples or 5 * recognizer.sample_rate
        sound = clip.at(recognizer.sample_rate)
        starts = window_starts(len(sound), length, hop_samples(recognizer))
        start = max(starts, key=lambda s: float(np.mean(sound[s : s + length] ** 2)))
        window = torch.from_numpy(sound[None, start : start + length])
        seen, unseen = (
            recognizer(
                recognizer.features(window),
                recognizer.frames(video, start / recognizer.sample_rate, length / recognizer.sample_rate),
            ).numpy()
            for video in (clip.video, None)
        )
        np.testing.assert_allclose(answers[row].numpy(), seen.reshape(-1), atol=0.01, rtol=0.01)
        np.testing.assert_allclose(answers[4 + row].numpy(), unseen.reshape(-1), atol=0.01, rtol=0.01)
        assert np.abs(seen - unseen).max() > 0.02


def test_what_is_remembered_is_rehearsed_with_videos(videos: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "base", "hetero_graph")
    remember_data(folder, videos, "audio_visual_scenes", [6], "scenes")
    examples = [TeachingExample(p.name, p, ("gong",)) for p in sorted((videos / "clips").iterdir())[:2]]
    examples += [TeachingExample(p.name, p, ("tabla",)) for p in sorted((videos / "clips").iterdir())[2:]]
    settings = TeachSettings(train="head", epochs=2, views=1, held_out_share=0.0)
    result = teach(folder, examples, settings, tmp_path, name="taught")
    assert "4 remembered clips are rehearsed (scenes)" in result.rehearsal
    assert result.new_labels == ("gong", "tabla")


def test_what_videos_teach_is_heard_without_them_too(videos: Path, tmp_path: Path) -> None:
    """Every second changed copy that is learned from is a sound alone."""
    base = load_recognizer(saved(tmp_path / "base", "hetero_graph"), "cpu")
    paths = sorted((videos / "clips").iterdir())
    examples = [TeachingExample(path.name, path, ("gong" if row < 2 else "tabla",)) for row, path in enumerate(paths)]
    settings = TeachSettings(train="head", views=4, held_out_share=0.0)
    lesson = Lesson(base, examples, settings, Course(None))
    waveforms, pictures, _ = lesson.windows(lesson.learned)
    learned = lesson._head_data().hidden[: 5 * len(waveforms)].split(len(waveforms))
    unseen = base.network.encode_frames(base.frames(None))
    for view, hidden in enumerate(learned[1:]):
        copies = [changed(waveform, settings.seed, row, view) for row, waveform in enumerate(waveforms)]
        seen, alone = (torch.cat(list(embed(base, copies, part))) for part in (pictures, [unseen] * len(copies)))
        torch.testing.assert_close(hidden, seen if view % 2 else alone)
        assert not torch.allclose(seen, alone, atol=1e-3)


def test_a_clip_that_cannot_be_opened_is_named(videos: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "base", "hetero_graph")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(b"not a video")
    (tmp_path / "meta.csv").write_text("filename,fold,category,origin,kind\na.mp4,6,bell,generated,alone\n")
    with pytest.raises(DataError, match=r"a\.mp4 cannot be used"):
        remember_data(folder, tmp_path, "audio_visual_scenes", [6], "scenes")
    assert load_memory(load_recognizer(folder, "cpu")) is None
    assert main([RENDER, "--output", str(tmp_path / "cow"), "--classes", "cow"]) == 1
