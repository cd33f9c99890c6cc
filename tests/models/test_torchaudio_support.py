"""torchaudio beside the CPU build of torch: it imports, and its plain parts work with gradients."""

from __future__ import annotations

import importlib
import importlib.machinery
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models import torchaudio_support


def test_torchaudio_imports_and_its_spectrogram_has_a_gradient() -> None:
    """In a process of its own: nobody else's import may have prepared the ground."""
    code = """
import models, sys, torch
assert "torchaudio" not in sys.modules
import torchaudio
wave = torch.sin(torch.arange(8000) * 0.3).requires_grad_()
mel = torchaudio.transforms.MelSpectrogram(16000, n_fft=400, n_mels=40)(wave)
(slope,) = torch.autograd.grad(mel.sum(), wave)
direction = torch.randn(8000, generator=torch.Generator().manual_seed(0))
def total(t):
    return torchaudio.transforms.MelSpectrogram(16000, n_fft=400, n_mels=40)((wave + t * direction).detach()).double().sum()
print(tuple(mel.shape), bool(torch.isfinite(slope).all()), float((slope * direction).sum() / ((total(1e-2) - total(-1e-2)) / 2e-2)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shape, ratio = done.stdout.rsplit(" ", 1)
    assert shape == "(40, 41) True" and float(ratio) == pytest.approx(1.0, rel=1e-2)


def test_importing_models_imports_nothing_heavy() -> None:
    code = "import models, sys; print([m for m in ('torch', 'torchaudio', 'numpy', 'streamlit') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_installing_twice_leaves_one_finder() -> None:
    torchaudio_support.install()
    torchaudio_support.install()
    assert sum(isinstance(f, torchaudio_support._Finder) for f in sys.meta_path) == 1


@pytest.mark.parametrize(
    "failure", ["OSError('libcudart.so.13: no such file')", "RuntimeError('compiled for CUDA 13')"]
)
def test_a_library_that_does_not_load_counts_as_absent(
    failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load(tmp_path, f"raise {failure}\n")
    assert module["_IS_TORCHAUDIO_EXT_AVAILABLE"] is module["_IS_ALIGN_AVAILABLE"] is False

    @module["fail_if_no_align"]
    def forced_align() -> None:
        raise AssertionError("must not be called")

    with pytest.raises(
        RuntimeError, match=r"torchaudio\.forced_align needs the compiled extension \((libcudart|compiled)"
    ):
        forced_align()


def test_a_library_that_loads_is_left_alone_and_defects_show(tmp_path: Path) -> None:
    assert "fail_if_no_align" not in load(tmp_path, "_IS_TORCHAUDIO_EXT_AVAILABLE = True\n")
    with pytest.raises(ZeroDivisionError):
        load(tmp_path, "1 / 0\n")


def load(folder: Path, source: str) -> dict:
    """Globals of a module that is loaded as torchaudio's extension package would be."""
    path = folder / "extension_stand_in.py"
    path.write_text(source)
    loader = torchaudio_support._Loader(importlib.machinery.SourceFileLoader("extension_stand_in", str(path)))
    spec = importlib.machinery.ModuleSpec("extension_stand_in", loader, origin=str(path))
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return vars(module)


def test_only_the_extension_is_touched() -> None:
    finder = torchaudio_support._Finder()
    assert finder.find_spec("torch", None) is None and finder.find_spec("torchaudio", None) is None
    assert torch.__version__
