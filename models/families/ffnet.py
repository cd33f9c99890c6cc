"""FFNet: Fourier mixing over width and over time in turn, each with a feed-forward part of its own."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from models.layers.fourier import FourierConfig, FourierNetwork, fourier_real
from models.registry import FamilyInfo, register_family


class FFNetConfig(FourierConfig):
    """Settings of FFNet; the defaults are the published ones."""

    n_mels: int = 64
    n_layers: int = 10
    hidden_size: int = 128
    intermediate_size: int = 256


class FFNetLayer(nn.Module):
    """Mixing over width, feed-forward, mixing over time, feed-forward.

    The second residual sum adds the layer's *input*, not the first part's output: a quirk that weights depend on.
    """

    def __init__(self, width: int, inner: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.mixing_layer_norm = nn.LayerNorm(width, eps=eps)
        self.feed_forward = nn.Linear(width, inner)
        self.act = nn.GELU()
        self.output_dense = nn.Linear(inner, width)
        self.mixing_layer_norm2 = nn.LayerNorm(width, eps=eps)
        self.feed_forward2 = nn.Linear(width, inner)
        self.act2 = nn.GELU()
        self.output_dense2 = nn.Linear(inner, width)
        self.output_layer_norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[batch, frames, width]`` to the same."""
        mixed = self.mixing_layer_norm(fourier_real(hidden, (2,)) + hidden)
        out = self.output_dense(self.act(self.feed_forward(mixed)))
        mixed = self.mixing_layer_norm2(fourier_real(out, (1,)) + hidden)
        out = self.output_dense2(self.act2(self.feed_forward2(mixed)))
        return self.output_layer_norm(self.dropout(out) + mixed)


@register_family(
    FamilyInfo(
        name="ffnet",
        title="FFNet",
        summary="A baseline that mixes width and time by separate Fourier transforms.",
        citation="Li, Qu, Huang, Metze: AudioTagging Done Right. Interspeech 2022, arXiv 2203.13448",
        views=frozenset({"attribution"}),
        published_key="encoder.layer.0.mixing_layer_norm2.weight",
    )
)
class FFNet(FourierNetwork):
    """FFNet; the hidden representation is ``[batch, frames, hidden_size]``.

    The published pooler cannot run, because its number of classes is undefined; here `n_classes` defines it.
    """

    Config = FFNetConfig
    config: FFNetConfig
    Layer = FFNetLayer
    sigmoid = True

    @classmethod
    def recognizes(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """By the second mixing norm of a layer."""
        return "encoder.layer.0.mixing_layer_norm2.weight" in state_dict
