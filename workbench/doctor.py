"""What ``earwitness doctor`` looks at."""

from __future__ import annotations

import importlib.metadata
import io
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

LIBRARIES = (
    "torch", "torchaudio", "streamlit", "captum", "plotly", "librosa", "soundfile", "av", "networkx", "safetensors",
    "pydantic", "numpy", "scipy", "accelerate",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `advice` says how to mend it if it is not fine."""

    name: str
    fine: bool
    detail: str
    advice: str = ""


def examine() -> Iterator[Finding]:
    """Look at Python, libraries, device, codecs, memory, disk, and the shipped models."""
    version = sys.version_info
    yield Finding(
        "Python", (3, 11) <= version[:2] <= (3, 13), f"{version.major}.{version.minor}.{version.micro}",
        "Install Python 3.11, 3.12 or 3.13 and run 'make clean app'.",
    )  # fmt: skip
    for library in LIBRARIES:
        try:
            yield Finding(library, True, importlib.metadata.version(library))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(library, False, "is not installed", "Run 'pip install -e .' in the project's folder.")
    for name, look in (
        ("Device", _device),
        ("Codecs", _codecs),
        ("Memory", _memory),
        ("Disk", _disk),
        ("Models", _models),
    ):
        yield _guarded(name, look)


def _guarded(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Exception as error:  # a doctor reports whatever goes wrong instead of failing with it
        return Finding(name, False, f"{type(error).__name__}: {error}", "Reinstall with 'pip install -e .'.")


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return Finding(
            "Device", True, f"{torch.cuda.get_device_name()}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        )
    return Finding(
        "Device", True, f"CPU with {torch.get_num_threads()} threads (no GPU found; everything works, slower)"
    )


def _codecs() -> Finding:
    import numpy as np

    from models.clip import encode_flac, encode_wav, open_clip

    tone = np.sin(np.arange(8000, dtype=np.float32) / 10)[None] * 0.5
    working, broken = [], []
    for name, make in (("wav", encode_wav), ("flac", encode_flac)):
        open_clip(make(tone, 16000), name=f"tone.{name}")
        working.append(name)
    for name, container, codec in (("mp3", "mp3", "libmp3lame"), ("aac", "mp4", "aac"), ("opus", "webm", "libopus")):
        try:
            open_clip(_encode(tone, container, codec), name=f"tone.{name}")
            working.append(name)
        except Exception:  # any failure means the same here: this codec does not work
            broken.append(name)
    detail = f"{', '.join(working)} work" + (f"; {', '.join(broken)} do not" if broken else "")
    return Finding("Codecs", not broken, detail, "Reinstall PyAV: 'pip install --force-reinstall av'.")


def _encode(tone: object, container: str, codec: str) -> bytes:
    import av as pyav
    import numpy as np

    buffer = io.BytesIO()
    with pyav.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=48000)
        assert isinstance(stream, pyav.AudioStream)
        frame = pyav.AudioFrame.from_ndarray(np.asarray(tone, dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        resampler = pyav.AudioResampler(stream.format.name, "mono", 48000, frame_size=stream.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    return Finding(
        "Memory", memory.available > 2 * 2**30, f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free",
        "At least 2 GiB should be free; close other programs.",
    )  # fmt: skip


def _disk() -> Finding:
    free = shutil.disk_usage(Path(tempfile.gettempdir())).free
    return Finding("Disk", free > 2**30, f"{free / 2**30:.1f} GiB free for temporary files", "Free at least 1 GiB.")


def _models() -> Finding:
    from models.catalog import checkpoint_folders
    from models.checkpoint import load_recognizer

    names = list(checkpoint_folders())
    for name in names:
        load_recognizer(name, "cpu")
    return Finding("Models", bool(names), ", ".join(names) or "none", "Check out assets/checkpoints again.")
