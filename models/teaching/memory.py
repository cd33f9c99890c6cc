"""A checkpoint's memory: embeddings of some of the clips that it was trained on, so that teaching it more forgets little.

It lies in ``memory.safetensors`` beside the weights. It holds what the head reads of a clip, not the clip: a few hundred
numbers that only this very network's head can use.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.recognizer import Recognizer
from models.teaching.listening import changed, embed, no_picture

MEMORY = "memory.safetensors"
LIMIT = 4_000_000  # bytes of a memory
_MOST_VIEWS = 4
_MOST_BYTES = 64_000_000  # of a file that is read: one from elsewhere may be anything
_SEED = 20_130_601


@dataclass(frozen=True, eq=False)
class Memory:
    """Embeddings of known clips.

    Attributes
    ----------
    hidden
        ``[n, ...]``, what `Network.forward_head` reads; float16, or uint8 with a `scale` for every channel.
    targets
        ``[n, n_classes]`` uint8: the classes of every clip.
    groups
        ``[n]``: embeddings of the same clip have the same number.
    source
        What the clips were, in words.
    scale
        ``[channels]``, empty for float16: value of the largest uint8.
    """

    hidden: Tensor
    targets: Tensor
    groups: Tensor
    source: str
    scale: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def n_bytes(self) -> int:
        """Of the embeddings."""
        return self.hidden.numel() * self.hidden.element_size()

    def values(self) -> Tensor:
        """The embeddings as float32."""
        values = self.hidden.float()
        if self.scale.numel():
            values = values * (self.scale / 255.0).view(1, -1, *[1] * (values.ndim - 2))
        return values

    def first_copies(self) -> list[int]:
        """One row of every clip."""
        rows: dict[int, int] = {}
        for row, group in enumerate(self.groups.tolist()):
            rows.setdefault(group, row)
        return list(rows.values())

    def turns(self, rounds: int) -> Tensor:
        """In which round every row ``[n]`` is left out: copies of a clip together, of every class about as many in each."""
        turn: dict[int, int] = {}
        counts: dict[int, int] = {}
        groups, labels = self.groups.tolist(), self.targets.argmax(dim=1).tolist()
        for group, label in zip(groups, labels, strict=True):
            if group not in turn:
                turn[group] = counts.get(label, 0) % rounds
                counts[label] = counts.get(label, 0) + 1
        return torch.tensor([turn[group] for group in groups])

    def chosen(self, rows: Sequence[int] | Tensor) -> Memory:
        """Some of it."""
        index = torch.as_tensor(rows, dtype=torch.long)
        return Memory(self.hidden[index], self.targets[index], self.groups[index], self.source, self.scale)


def _as_bytes(hidden: Tensor) -> bool:
    """Whether a byte is enough for a value: only where none is negative."""
    return hidden.ndim > 1 and bool((hidden >= 0).all())


def pack(hidden: Tensor, targets: Tensor, groups: Tensor, source: str, limit: int = LIMIT) -> Memory:
    """Embeddings in as few bytes as they need; of too many, every clip loses the last of its copies first.

    Values that are never negative are stored as a byte each where float16 would not do.
    """
    per_row = hidden[0].numel()
    scale = torch.zeros(0)
    if len(hidden) * per_row * 2 > limit and _as_bytes(hidden):
        scale = hidden.float().amax(dim=[d for d in range(hidden.ndim) if d != 1]).clamp(min=1e-6)
        packed = (hidden / scale.view(1, -1, *[1] * (hidden.ndim - 2)) * 255.0).round().to(torch.uint8)
    else:
        packed = hidden.half()
    most = max(1, limit // (per_row * packed.element_size()))
    memory = Memory(packed.contiguous(), targets.to(torch.uint8), groups.long(), source, scale)
    return memory if len(hidden) <= most else memory.chosen(_balanced(memory, most))


def _balanced(memory: Memory, most: int) -> list[int]:
    """Rows to keep: first copies before second ones, and of every class as many as of the others."""
    copies: dict[int, int] = {}
    counts: dict[tuple[int, int], int] = {}
    ranked = []
    for row, group in enumerate(memory.groups.tolist()):
        copy = copies[group] = copies.get(group, -1) + 1
        label = int(memory.targets[row].argmax())
        place = counts[copy, label] = counts.get((copy, label), -1) + 1
        ranked.append((copy, place, label, row))
    return sorted(row for *_, row in sorted(ranked)[:most])


def save_memory(folder: Path, memory: Memory, content_hash: str) -> None:
    """Write ``memory.safetensors`` for the weights with a hash (to a temporary name first).

    Raises
    ------
    OSError
        If it cannot be written.
    """
    about = {"content_hash": content_hash, "source": memory.source}
    tensors = {
        "hidden": memory.hidden.contiguous(), "targets": memory.targets.contiguous(),
        "groups": memory.groups.contiguous(), "scale": memory.scale.contiguous(),
    }  # fmt: skip
    temporary = folder / f".{MEMORY}.tmp"
    try:
        save_file(tensors, temporary, metadata={"memory": json.dumps(about)})
        temporary.chmod(0o644)
        temporary.replace(folder / MEMORY)
    finally:
        temporary.unlink(missing_ok=True)


def load_memory(recognizer: Recognizer) -> Memory | None:
    """The memory of a checkpoint; None if it has none, or one that belongs to other weights or is damaged."""
    path = recognizer.folder / MEMORY if recognizer.folder else None
    if path is None or not path.is_file() or path.stat().st_size > _MOST_BYTES:
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("memory", "{}"))
            tensors = {name: file.get_tensor(name) for name in ("hidden", "targets", "groups", "scale")}
    except (SafetensorError, OSError, ValueError):
        return None
    memory = Memory(
        tensors["hidden"], tensors["targets"], tensors["groups"], str(about.get("source", "")), tensors["scale"]
    )
    return memory if about.get("content_hash") == recognizer.card.content_hash and _fits(memory, recognizer) else None


@torch.no_grad()
def _fits(memory: Memory, recognizer: Recognizer) -> bool:
    """Whether a memory can be what it claims to be."""
    n = len(memory)
    if n == 0 or memory.hidden.ndim < 2 or len(memory.hidden) != n or memory.groups.shape != (n,):
        return False
    if memory.targets.shape != (n, len(recognizer.labels)):
        return False
    if memory.hidden.dtype not in (torch.float16, torch.uint8) or memory.scale.numel() not in (
        0,
        memory.hidden.shape[1],
    ):
        return False
    try:
        logits = recognizer.network.forward_head(memory.chosen([0]).values().to(recognizer.device))
    except (RuntimeError, ValueError, IndexError):
        return False
    return bool(memory.values().isfinite().all()) and logits.shape == (1, len(recognizer.labels))


def remember(
    recognizer: Recognizer,
    waveforms: Tensor,
    targets: Tensor,
    source: str,
    limit: int = LIMIT,
    pictures: Sequence[Tensor | None] | None = None,
) -> Memory:
    """Make the memory of a model from clips that it was trained on.

    Parameters
    ----------
    waveforms, targets
        ``[n, samples]`` at the model's rate, and ``[n, n_classes]``.
    source
        What the clips are, with their licence.
    limit
        Bytes. As many changed copies of every clip are embedded as fit, besides the clip itself. Of a clip with a picture the
        other copy is its sound alone: a changed sound would not belong to the moments of the picture.
    pictures
        Of every clip what `Network.encode_frames` gives (a batch of one), or None.
    """
    sounds, groups = list(waveforms), list(range(len(waveforms)))
    parts = [torch.cat(list(embed(recognizer, sounds, pictures or [None] * len(sounds)))).cpu()]
    if pictures is not None:
        # Else a lesson of sounds would teach that what has no picture is of a new class.
        parts.append(torch.cat(list(embed(recognizer, sounds, [no_picture(recognizer)] * len(sounds)))).cpu())
    else:
        size = parts[0][0].numel() * (1 if _as_bytes(parts[0]) else 2)
        for view in range(1, min(_MOST_VIEWS, limit // size // max(1, len(sounds)))):
            copies = [changed(waveform, _SEED, row, view) for row, waveform in enumerate(waveforms)]
            parts.append(torch.cat(list(embed(recognizer, copies, [None] * len(copies)))).cpu())
    groups *= len(parts)
    return pack(torch.cat(parts), targets.repeat(len(parts), 1), torch.tensor(groups), source, limit)
