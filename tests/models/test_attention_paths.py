"""Looking at attention must not change the answer: kept weights and the fused attention give the same logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.families.ast import AST, ASTConfig
from models.network import Network
from models.registry import families
from tests.models import test_audio_tagging_families, test_equiav, test_equiav_pretraining, test_play_it_back

Case = Callable[[], tuple[Network, tuple[Tensor, ...]]]

# Relative to the largest logit. Only the order of sums differs, so double precision must agree far below single precision.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}


def published_ast() -> tuple[Network, tuple[Tensor, ...]]:
    """Heads of 64 and 1212 patches as in the published AST, where kernels for long sequences are chosen; two blocks."""
    torch.manual_seed(0)
    config = ASTConfig(model_size="custom", width=128, n_heads=2, depth=2, n_classes=5)
    return AST(config).eval(), (torch.randn(1, config.target_length, config.n_mels),)


def tagger(name: str) -> Case:
    def make() -> tuple[Network, tuple[Tensor, ...]]:
        network, features = test_audio_tagging_families.tiny(name)
        return network, (features,)

    return make


def equiav(**changes: Any) -> Case:
    def make() -> tuple[Network, tuple[Tensor, ...]]:
        network = test_equiav.build(**changes)
        return network, tuple(part for part in test_equiav.inputs(network) if part is not None)

    return make


def equiav_pretraining() -> tuple[Network, tuple[Tensor, ...]]:
    network = test_equiav_pretraining.build(centroid=False, depth=2)
    return network, (torch.randn(2, 64, 128),)


def play_it_back(**changes: Any) -> Case:
    def make() -> tuple[Network, tuple[Tensor, ...]]:
        network, front = test_play_it_back.tiny(**changes)
        return network, (front(test_play_it_back.noise()),)

    return make


# Family, then variant.
CASES: dict[str, Case] = {
    "ast: tiny": tagger("ast"),
    "ast: published sequence": published_ast,
    "cnn_transformer: as published": tagger("cnn_transformer"),
    "cnn_transformer: positions": tagger("cnn_transformer positions"),
    "transformer: as published": tagger("transformer"),
    "equiav: sound": equiav(mode="audio_only"),
    "equiav: picture": equiav(mode="video_only"),
    "equiav: both": equiav(mode="multimodal"),
    "equiav_pretraining: embedding": equiav_pretraining,
    "play_it_back: as published": play_it_back(playbacks=1),
    "play_it_back: corrected": play_it_back(schedule={"corrected": True}),
}  # fmt: skip


def attentions(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if hasattr(module, "keep_attention")]


def kept_weights(network: nn.Module) -> list[Tensor]:
    kept: list[Tensor] = []
    for module in attentions(network):
        kept += module.kept if hasattr(module, "kept") else [] if module.attention is None else [module.attention]
    return kept


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_kept_and_fused_attention_agree(case: str, dtype: torch.dtype) -> None:
    network, inputs = CASES[case]()
    network, inputs = network.to(dtype), tuple(part.to(dtype) for part in inputs)
    with torch.no_grad():
        fused = network(*inputs)
        assert not kept_weights(network)
        for module in attentions(network):
            module.keep_attention = True
        kept = network(*inputs)
    weights = kept_weights(network)
    assert weights
    for one in weights:
        assert (one >= 0).all()
        torch.testing.assert_close(one.sum(dim=-1), torch.ones_like(one[..., 0]), atol=1e-5, rtol=0)
    error = (kept - fused).abs().max() / fused.abs().max()
    assert error <= TOLERANCE[dtype], f"relative difference {error:.1e}"


def test_every_family_that_keeps_attention_is_tried() -> None:
    keeping = set()
    for name, cls in families().items():
        with torch.device("meta"):
            network = cls(cls.Config())
        if attentions(network):
            keeping.add(name)
    assert keeping == {case.partition(":")[0] for case in CASES}
