"""FNet: Fourier transforms over time and width instead of attention (Lee-Thorp et al., NAACL 2022), on log-mel frames."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from models.layers.fourier import FourierConfig, FourierNetwork, fourier_real
from models.registry import FamilyInfo, register_family


class FNetConfig(FourierConfig):
    """Settings of FNet; the defaults are the published ones."""

    n_mels: int = 128
    n_layers: int = 50
    hidden_size: int = 256
    intermediate_size: int = 512


class FNetLayer(nn.Module):
    """Fourier mixing and a feed-forward part, each with a normalised residual sum."""

    def __init__(self, width: int, inner: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.mixing_layer_norm = nn.LayerNorm(width, eps=eps)
        self.feed_forward = nn.Linear(width, inner)
        self.act = nn.GELU()
        self.output_dense = nn.Linear(inner, width)
        self.output_layer_norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[batch, frames, width]`` to the same."""
        mixed = self.mixing_layer_norm(fourier_real(hidden, (1, 2)) + hidden)
        out = self.output_dense(self.act(self.feed_forward(mixed)))
        return self.output_layer_norm(self.dropout(out) + mixed)


@register_family(
    FamilyInfo(
        name="fnet",
        title="FNet",
        summary="A baseline that mixes frames by Fourier transforms instead of attention.",
        citation="Li, Qu, Huang, Metze: AudioTagging Done Right. Interspeech 2022, arXiv 2203.13448; "
        "Lee-Thorp, Ainslie, Eckstein, Ontanon: FNet. NAACL 2022, arXiv 2105.03824",
        views=frozenset({"attribution"}),
        published_key="encoder.layer.0.mixing_layer_norm.weight",
    )
)
class FNet(FourierNetwork):
    """FNet; the hidden representation is ``[batch, frames, hidden_size]``.

    As published, frame scores are clamped to 0..1 without a sigmoid. Every layer mixes all frames, so a frame's weight in
    the pooling says little about that moment of the clip: there is no time attention to show.
    """

    Config = FNetConfig
    config: FNetConfig
    Layer = FNetLayer
    sigmoid = False

    @classmethod
    def recognizes(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """By the one mixing norm a layer."""
        return (
            "encoder.layer.0.mixing_layer_norm.weight" in state_dict
            and "encoder.layer.0.mixing_layer_norm2.weight" not in state_dict
        )
