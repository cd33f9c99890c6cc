"""Parity of the audio-tagging families: networks, adapted positions and Hugging Face names."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.families.ast import AST, ASTConfig
from models.families.cnn_transformer import CNNTransformer, CNNTransformerConfig
from models.families.crnn import CRNN, CRNNConfig
from models.families.ffnet import FFNet, FFNetConfig
from models.families.fnet import FNet, FNetConfig
from models.families.linear import Linear, LinearConfig
from models.families.mobilenet import MobileNet, MobileNetConfig
from models.families.psla import PSLA, PSLAConfig
from models.families.resnet_attention import ResNetAttention, ResNetAttentionConfig
from models.families.transformer import Transformer, TransformerConfig
from models.layers.ast_names import Style, from_hugging_face, hugging_face_names, to_hugging_face
from models.layers.frame_tagging import FrameTagger
from models.network import Network
from models.training.ast_start import adapt_audioset, adapt_deit
from tests.parity import audio_tagging_data
from tests.parity.cases import Case, Comparison, largest_error, standard_tolerance

_SUFFIX = re.compile(r"_first(\d+)(ch|classes|rows)?$")


def run(case: Case) -> list[Comparison]:
    """Compare every stored output of a case of the audio-tagging systems."""
    family = case.family
    if family in audio_tagging_data.RUNNERS:
        return audio_tagging_data.RUNNERS[family](case)
    if family == "ast_huggingface":
        return _hugging_face(case)
    if family.startswith("ast_pos_embed_"):
        return _positions(case)
    return _network(case)


def build(family: str, config: dict[str, Any]) -> Network:
    """The network of a case; options that a case leaves out have the published constructor's defaults."""
    renamed = {_RENAMED.get(key, key): value for key, value in config.items()}
    if family == "ast":
        return AST(ASTConfig.model_validate(_known(ASTConfig, renamed)))
    if family in ("crnn", "crnn_newnet"):
        return CRNN(CRNNConfig.model_validate(_known(CRNNConfig, renamed)))
    if family == "cnn_transformer":
        return CNNTransformer(CNNTransformerConfig.model_validate(_known(CNNTransformerConfig, renamed)))
    if family == "transformer":
        return Transformer(TransformerConfig.model_validate(_known(TransformerConfig, renamed)))
    if family == "linear":
        return Linear(LinearConfig.model_validate(_known(LinearConfig, renamed)))
    if family == "fnet":
        return FNet(FNetConfig.model_validate(_known(FNetConfig, renamed)))
    if family == "ffnet":
        return FFNet(FFNetConfig.model_validate(_known(FFNetConfig, renamed)))
    if family == "psla":
        heads = config.get("head_num", 4)
        # The published code makes four heads whenever more than one is asked for.
        values = {"b": 0} | _known(PSLAConfig, renamed) | {"heads": 4 if heads > 1 else heads}
        return PSLA(PSLAConfig.model_validate(values))
    if family == "mbnet":
        return MobileNet(MobileNetConfig.model_validate(_known(MobileNetConfig, renamed)))
    if family == "resnet_attention":
        legacy = {"legacy_832": config.get("n_in") == 832}
        return ResNetAttention(ResNetAttentionConfig.model_validate(_known(ResNetAttentionConfig, renamed) | legacy))
    raise ValueError(f"unknown family {family!r}")


_RENAMED = {
    "label_dim": "n_classes", "n_class": "n_classes", "num_classes": "n_classes", "fstride": "frequency_stride",
    "tstride": "time_stride", "input_fdim": "n_mels", "input_tdim": "target_length", "input_dim": "n_mels",
    "hidden_dim": "hidden_size", "num_hidden_layers": "n_layers", "input_size": "n_mels", "layer_norm_eps": "eps",
    "dropout_rate": "dropout", "att_act": "activation", "att_activation": "activation",
}  # fmt: skip


def _known(config_class: Any, values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in config_class.model_fields}


def load(case: Case, network: Network, key: str = "state_dict") -> Network:
    """Fill a network with the case's weights, through the family's own import hook, and strictly."""
    weights = case.state_dict(key)
    constructed = list(case.spec.get("constructor_values") or [])
    for name in constructed:
        weights.pop(name, None)
    converted = type(network).convert_state_dict(weights, network.config)
    own = network.state_dict()
    converted |= {name: own[name] for name in constructed}
    network.load_state_dict(converted, strict=True)
    return network.eval()


class _Taps:
    """Inputs and outputs of modules during one forward pass."""

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    def output(self, name: str, module: nn.Module) -> None:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self.values.setdefault(name, output)

        module.register_forward_hook(hook)

    def input(self, name: str, module: nn.Module) -> None:
        def hook(_module: nn.Module, inputs: Any) -> None:
            self.values.setdefault(name, inputs[0])

        module.register_forward_pre_hook(hook)


def _network(case: Case) -> list[Comparison]:
    network = load(case, build(case.family, case.config))
    (features,) = case.inputs().values()
    taps = _Taps()
    _install(taps, network)
    wanted = list(case.arrays)
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        found |= _results(network, features)
        found |= taps.values
        _derive(network, features, found, wanted)
    if "grad_input" in wanted:
        found["grad_input"] = _gradient(network, features, case.spec["grad_target"])
    rows = []
    for name in wanted:
        value = _cut(name, found, case.family)
        tolerance = standard_tolerance(case, name)
        rows.append(Comparison(case.path.stem, name, largest_error(value, case.arrays[name]), tolerance))
    return rows


def _output(network: Network, features: Tensor) -> Tensor:
    """What the published forward returns: logits of AST, probabilities of the others."""
    hidden = network.forward_features(features)
    if isinstance(network, AST):
        return network.forward_head(hidden)
    if isinstance(network, MobileNet):
        return network.forward_head(hidden).sigmoid()
    return cast(Any, network).pool(hidden).output


def _gradient(network: Network, features: Tensor, target: dict[str, Any]) -> Tensor:
    features = features.clone().requires_grad_(True)
    _output(network, features)[target["item"], target["class"]].backward()
    assert features.grad is not None
    return features.grad


def _results(network: Network, features: Tensor) -> dict[str, Tensor]:
    hidden = network.forward_features(features)
    if isinstance(network, AST):
        return {"pooled": hidden, "logits": network.forward_head(hidden)}
    if isinstance(network, MobileNet):
        return {"features_mean": hidden, "global_prob": network.forward_head(hidden).sigmoid()}
    pooled = cast(Any, network).pool(hidden)
    # The logits of the contract have to say the same as the published probabilities.
    again = network.forward_head(hidden).sigmoid()
    expected = pooled.output.clamp(1e-7, 1 - 1e-7)
    if not torch.allclose(again, expected, atol=2e-7, rtol=1e-5):
        raise AssertionError("forward_head is not the log-odds of the published output")
    found = {"global_prob": pooled.output}
    if isinstance(network, FrameTagger | FNet | FFNet):
        found |= {"frame_prob": pooled.frame_scores, "seq_out": hidden, "hidden": hidden}
        for name, value in (("frame_att", pooled.frame_attention), ("global_weights", pooled.ensemble_weights)):
            if value is not None:
                found[name] = value
    else:
        found |= {"feat": hidden}
        heads = pooled.attention.ndim == 4
        found["norm_att_heads" if heads else "norm_att"] = pooled.attention
        found["cla_heads" if heads else "cla"] = pooled.scores
    return found


def _install(taps: _Taps, network: Network) -> None:
    if isinstance(network, AST):
        taps.output("patch_embed", network.v.patch_embed)
        taps.output("norm_out", network.v.norm)
        for index, block in enumerate(network.v.blocks):
            taps.input(f"block{index}_in", block)
    elif isinstance(network, CRNN | CNNTransformer):
        taps.output("conv0_out", network.conv[0])
        taps.output("conv_last", network.conv[-1])
    elif isinstance(network, Transformer):
        taps.output("embed", network.layer_norm_in)
        taps.output("seq_out", network.layer_stack[-1])
    elif isinstance(network, PSLA):
        taps.output("stem_bn", network.effnet._bn0)
        taps.output("block0_out", network.effnet._blocks[0])
        taps.output("last_block_out", network.effnet._blocks[-1])
    elif isinstance(network, ResNetAttention):
        taps.output("stem_bn", network.model.bn1)
        for stage in range(1, 5):
            taps.output(f"layer{stage}", getattr(network.model, f"layer{stage}"))
    elif isinstance(network, MobileNet):
        taps.output("features0", network.model.features[0])
    elif isinstance(network, FNet | FFNet):
        taps.output("embed", network.input)
        for index, layer in enumerate(network.encoder.layer):
            taps.output(f"layer{index}_out", layer)


def _derive(network: Network, features: Tensor, found: dict[str, Tensor], wanted: list[str]) -> None:
    """Outputs that need more than a tap; attention is only computed where a case stores it."""
    if "conv_last" in found:
        found["conv_out"] = found["conv_last"].transpose(1, 2).flatten(2)
    if isinstance(network, CNNTransformer | Transformer) and any(name.startswith("attn_layer0") for name in wanted):
        first = network.self_attention(features)[:, 0].transpose(0, 1).flatten(0, 1)
        found["attn_layer0"] = first[:, :8] if isinstance(network, CNNTransformer) else first
    if isinstance(network, AST) and any(name.startswith("attn_") for name in wanted):
        found["attn_map_true"] = network.token_attention(features)
        found["attn_map_colab"] = torch.stack(
            [
                _attention(block.attn, found[f"block{index}_in"])[:, :, :2, 2:].mean(dim=(1, 2))
                for index, block in enumerate(cast(Any, network.v.blocks))
            ],
            dim=1,
        ).unflatten(2, network.config.grid)
        last = len(network.v.blocks) - 1
        block = cast(Any, network.v.blocks[last])
        found["attn_last_true_heads_clsdist"] = _attention(block.attn, block.norm1(found[f"block{last}_in"]))[:, :, :2]


def _attention(layer: Any, tokens: Tensor) -> Tensor:
    """Softmax attention of a block's projection for some tokens, ``[batch, heads, N, N]``."""
    batch, count, width = tokens.shape
    qkv = layer.qkv(tokens).reshape(batch, count, 3, layer.n_heads, width // layer.n_heads).permute(2, 0, 3, 1, 4)
    return (qkv[0] @ qkv[1].transpose(2, 3) * (width // layer.n_heads) ** -0.5).softmax(dim=3)


def _cut(name: str, found: dict[str, Tensor], family: str) -> Tensor:
    """The stored part of an output: ``X_first5``, ``X_first2ch``, ``X_first20classes``, ``X_first4rows``."""
    if name in found:
        return found[name]
    match = _SUFFIX.search(name)
    if match is None or name[: match.start()] not in found:
        raise KeyError(f"{family} has no output {name}")
    base, count, unit = name[: match.start()], int(match[1]), match[2]
    value = found[base]
    if unit == "classes":
        return value[:, :, :count] if base.endswith("_heads") or base.startswith("frame_") else value[:, :count]
    value = value[:, :count]
    if unit == "ch" and base in ("stem_bn", "block0_out", "features0"):
        return value[..., :8, :16]
    if unit == "ch" and base == "conv0_out":
        return value[:, :, :8]
    return value


def _positions(case: Case) -> list[Comparison]:
    values = {_RENAMED.get(key, key): value for key, value in case.config.items()}
    config = ASTConfig.model_validate(_known(ASTConfig, values))
    weights = case.state_dict()
    adapt: Callable[..., dict[str, Tensor]] = adapt_deit if case.family.endswith("imagenet") else adapt_audioset
    adapted = adapt(weights, config)
    names = {
        "pos_embed": "v.pos_embed",
        "patch_proj_weight": "v.patch_embed.proj.weight",
        "patch_proj_bias": "v.patch_embed.proj.bias",
    }
    rows = []
    for name, reference in case.arrays.items():
        value = adapted[names[name]]
        stored = reference.shape
        value = value[..., : stored[-1]] if name == "pos_embed" else value[: stored[0]]
        rows.append(Comparison(case.path.stem, name, largest_error(value, reference), standard_tolerance(case, name)))
    return rows


def _hugging_face(case: Case) -> list[Comparison]:
    weights = case.state_dict()
    (features,) = case.inputs().values()
    rows = []
    styles: tuple[tuple[Style, int, str], ...] = (("hub", 1, "hf_v4_state_dict"), ("modules", 2, "hf_v5_state_dict"))
    for style, column, key in styles:
        width = case.config["hf"]["hidden_size"]
        names = {
            (
                name.original,
                name.hugging_face,
                None if name.third is None else (name.third * width, (name.third + 1) * width),
            )
            for name in hugging_face_names(weights, style)
        }
        expected = {(row[0], row[column], tuple(row[3]) if row[3] else None) for row in case.spec["mapping"]}
        rows.append(Comparison(case.path.stem, f"mapping ({style})", len(names ^ expected), 0))
        renamed = to_hugging_face(weights, style)
        shapes = {name: list(value.shape) for name, value in renamed.items()}
        wanted = {name: list(shape) for name, (shape, _) in case.spec[key].items()}
        rows.append(Comparison(case.path.stem, f"shapes ({style})", 0.0 if shapes == wanted else 1.0, 0))
        back = from_hugging_face(renamed)
        kept = AST.convert_state_dict(weights, ASTConfig())
        same = set(back) == set(kept) and all(torch.equal(back[name], kept[name]) for name in kept)
        rows.append(Comparison(case.path.stem, f"back again ({style})", 0.0 if same else 1.0, 0))

    def network(eps: dict[str, float]) -> AST:
        built = cast(AST, build("ast", case.config | eps))
        built.load_state_dict(from_hugging_face(to_hugging_face(weights)))
        return cast(AST, built.eval())

    with torch.no_grad():
        for name, reference in case.arrays.items():
            if name == "logits_original":
                value, tolerance = network({})(features), standard_tolerance(case, name)
            elif name == "attn_map_hf":
                value = network({"eps": 1e-12, "head_eps": 1e-12}).token_attention(features)
                tolerance = standard_tolerance(case, name)
            else:
                eps = float(name.removeprefix("logits_hf_eps"))
                value, tolerance = network({"eps": eps, "head_eps": eps})(features), 2e-4
            rows.append(Comparison(case.path.stem, name, largest_error(value, reference), tolerance))
    return rows
