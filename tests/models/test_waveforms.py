"""Loading examples: whole files and annotated parts of them; every annotation format has a name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

import numpy as np
import pytest

import models.data
from models.clip import encode_wav
from models.data import READERS, Example, ExampleSet
from models.errors import DataError
from models.training.waveforms import load_waveforms
from tests.models.tiny_families import sound


def test_every_reader_has_a_name() -> None:
    written = set()
    for module in pkgutil.iter_modules(models.data.__path__):
        members = vars(importlib.import_module(f"models.data.{module.name}")).items()
        written |= {
            value
            for name, value in members
            if name.startswith("read_") and inspect.isfunction(value)
            if str(inspect.signature(value).return_annotation) == "ExampleSet"
        }
    assert written == set(READERS.values()) and len(READERS) == len(written)


def test_annotated_parts_are_cut_out(tmp_path: Path) -> None:
    samples = sound(1.0)
    (tmp_path / "a.wav").write_bytes(encode_wav(samples, 16000, "FLOAT"))
    parts = [(None, None), (0.25, 0.5), (0.5, None), (None, 0.25)]
    examples = tuple(Example(tmp_path / "a.wav", ("x",), start=start, stop=stop) for start, stop in parts)
    waveforms, targets = load_waveforms(ExampleSet(examples, ("x", "y")), 16000, 16000)
    expected = [samples, samples[4000:8000], samples[8000:], samples[:4000]]
    for row, part in zip(waveforms.numpy(), expected, strict=True):
        np.testing.assert_allclose(row[: len(part)], part, atol=1e-7)
        assert not row[len(part) :].any()
    assert targets.tolist() == [[1.0, 0.0]] * 4
    beyond = ExampleSet((Example(tmp_path / "a.wav", ("x",), start=2.0, stop=3.0),), ("x",))
    with pytest.raises(DataError, match=r"a\.wav.*no sound between"):
        load_waveforms(beyond, 16000, 16000)
