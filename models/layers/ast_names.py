"""The names of AST's weights in Hugging Face checkpoints, both ways."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

PREFIX = "audio_spectrogram_transformer."
# What `save_pretrained` writes and the Hub holds ("hub"), and the module names of transformers 5 ("modules").
Style = Literal["hub", "modules"]

_FIXED = {
    "v.cls_token": f"{PREFIX}embeddings.cls_token",
    "v.dist_token": f"{PREFIX}embeddings.distillation_token",
    "v.pos_embed": f"{PREFIX}embeddings.position_embeddings",
    "v.patch_embed.proj": f"{PREFIX}embeddings.patch_embeddings.projection",
    "v.norm": f"{PREFIX}layernorm",
    "mlp_head.0": "classifier.layernorm",
    "mlp_head.1": "classifier.dense",
}
_IN_BLOCK: dict[Style, dict[str, str]] = {
    "hub": {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    },
    "modules": {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.o_proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    },
}
_QUERY_KEY_VALUE: dict[Style, tuple[str, str, str]] = {
    "hub": ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    "modules": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
}
_LAYERS: dict[Style, str] = {"hub": f"{PREFIX}encoder.layer.", "modules": f"{PREFIX}layers."}


class Name(NamedTuple):
    """An original entry, its Hugging Face entry, and which third of the original's rows that is (None: all)."""

    original: str
    hugging_face: str
    third: int | None


def hugging_face_names(original_keys: Iterable[str], style: Style = "hub") -> list[Name]:
    """The entries that Hugging Face keeps; the unused ImageNet heads are dropped."""
    names = []
    for key in original_keys:
        if key in _FIXED:
            names.append(Name(key, _FIXED[key], None))
            continue
        module, _, leaf = key.rpartition(".")
        if module in _FIXED:
            names.append(Name(key, f"{_FIXED[module]}.{leaf}", None))
            continue
        match = re.fullmatch(r"v\.blocks\.(\d+)\.(.+)", module)
        if match is None:
            continue
        layer, part = f"{_LAYERS[style]}{match[1]}.", match[2]
        if part == "attn.qkv":
            for third, name in enumerate(_QUERY_KEY_VALUE[style]):
                names.append(Name(key, f"{layer}{name}.{leaf}", third))
        elif part in _IN_BLOCK[style]:
            names.append(Name(key, f"{layer}{_IN_BLOCK[style][part]}.{leaf}", None))
    return names


def to_hugging_face(state_dict: Mapping[str, Tensor], style: Style = "hub") -> dict[str, Tensor]:
    """An AST state dict under Hugging Face's names."""
    result = {}
    for name in hugging_face_names(state_dict, style):
        value = state_dict[name.original]
        # Copies, because safetensors refuses entries that share memory.
        result[name.hugging_face] = value.clone() if name.third is None else value.chunk(3)[name.third].clone()
    return result


def is_hugging_face(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of a Hugging Face AST with its classifier."""
    return f"{PREFIX}embeddings.cls_token" in state_dict and "classifier.dense.weight" in state_dict


def from_hugging_face(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A Hugging Face state dict (either style) under the original names; entries it does not know keep theirs."""
    style: Style = "modules" if any(key.startswith(_LAYERS["modules"]) for key in state_dict) else "hub"
    fixed = {value: key for key, value in _FIXED.items()}
    in_block = {value: key for key, value in _IN_BLOCK[style].items()}
    result: dict[str, Tensor] = {}
    thirds: dict[str, dict[int, Tensor]] = {}
    for key, value in state_dict.items():
        module, _, leaf = key.rpartition(".")
        match = re.fullmatch(rf"{re.escape(_LAYERS[style])}(\d+)\.(.+)", module)
        if key in fixed:
            result[fixed[key]] = value
        elif module in fixed:
            result[f"{fixed[module]}.{leaf}"] = value
        elif match and match[2] in _QUERY_KEY_VALUE[style]:
            name = f"v.blocks.{match[1]}.attn.qkv.{leaf}"
            thirds.setdefault(name, {})[_QUERY_KEY_VALUE[style].index(match[2])] = value
        elif match and match[2] in in_block:
            result[f"v.blocks.{match[1]}.{in_block[match[2]]}.{leaf}"] = value
        else:
            result[key] = value
    for name, parts in thirds.items():
        result[name] = torch.cat([parts[index] for index in sorted(parts)])
    return result
