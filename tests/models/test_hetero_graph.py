"""The audio-visual event-graph network, on tiny configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pytest
import torch
from torch import Tensor

from models.audio_visual import blank_frames
from models.card import Card
from models.checkpoint import load_recognizer, save_checkpoint
from models.errors import CheckpointError, SettingsError
from models.families.hetero_graph import HeteroGraph
from models.families.hetero_graph_fixed import FixedFeatureGraph, FixedFeatureGraphConfig
from models.frontends import build_frontend
from models.layers.hetero_settings import AUDIOSET_33, HeteroGraphConfig, convert_backbone
from models.layers.r3d import R3D18
from models.registry import family

TINY: dict[str, Any] = {
    "n_classes": 3, "hidden_channels": 8, "n_layers": 2, "n_audio_nodes": 5, "n_video_nodes": 4,
    "audio_segment_ms": 50, "video_segment_ms": 150, "sample_rate": 8000, "clip_seconds": 1.0, "video_width": 2,
    "conv_layers": ((6, 10, 5), (8, 3, 2)), "audio_span": 1,
}  # fmt: skip


def tiny(**settings: Any) -> HeteroGraph:
    torch.manual_seed(0)
    return HeteroGraph(HeteroGraphConfig(**(TINY | settings))).eval()


def clips(batch: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 8000, 1, generator=generator), torch.rand(batch, 20, 3, 16, 16, generator=generator)


def test_it_is_registered_with_what_it_reads_and_shows() -> None:
    assert family("hetero_graph") is HeteroGraph
    assert HeteroGraph.info.modalities == ("audio", "video")
    assert "graph" in HeteroGraph.info.views
    assert len(AUDIOSET_33) == len(set(AUDIOSET_33)) == HeteroGraphConfig().n_classes == 33


def test_published_size() -> None:
    with torch.device("meta"):
        network = HeteroGraph(HeteroGraphConfig())
    # The gates and the fusion layer's weights count once although they have two names.
    assert len(network.state_dict()) == 174
    assert abs(sum(p.numel() for p in network.parameters()) / 1e6 - 42.4) < 0.05
    assert sum(p.numel() for p in network.video_head.parameters()) == 33_371_472


def test_shapes_and_gradients_reach_both_inputs() -> None:
    network = tiny()
    sound, picture = clips(2)
    sound.requires_grad_()
    picture.requires_grad_()
    hidden = network.forward_features(sound, picture)
    assert hidden.shape == (2, 16)
    logits = network(sound, picture)
    assert torch.equal(network.forward_head(hidden), logits)
    logits[0, 1].backward()
    assert sound.grad is not None and sound.grad[0].abs().sum() > 0
    assert picture.grad is not None and picture.grad[0].abs().sum() > 0


def test_the_sound_between_segments_is_not_heard() -> None:
    network = tiny()
    sound, picture = clips()
    changed = sound.clone()
    changed[:, 400:1900] += 1.0  # segments of 400 samples begin every 1900
    assert torch.equal(network(sound, picture), network(changed, picture))


@pytest.mark.parametrize("self_loops", [False, True])
def test_batch_independent_mode_gives_what_a_clip_gets_alone(self_loops: bool) -> None:
    published = tiny(self_loops=self_loops)
    corrected = tiny(self_loops=self_loops, batch_independent=True)
    sound, picture = clips(3)
    with torch.no_grad():
        alone = torch.cat([published(sound[i : i + 1], picture[i : i + 1]) for i in range(3)])
        together = published(sound, picture)
        independent = corrected(sound, picture)
    torch.testing.assert_close(independent, alone, atol=1e-5, rtol=1e-4)
    assert (together - alone).abs().max() > 1e-3


def test_doubled_audio_messages_are_a_setting() -> None:
    sound, picture = clips()
    with torch.no_grad():
        published, single = (
            tiny(doubled_audio=doubled, n_layers=3)(sound, picture) for doubled in (True, False)
        )  # fmt: skip
    difference = (published - single).abs().max()
    # The norm behind it undoes it almost.
    assert 0 < difference < 0.05


def test_encoded_frames_stand_for_the_picture() -> None:
    network = tiny(batch_independent=True)
    sound, picture = clips(2)
    with torch.no_grad():
        encoded = network.encode_frames(picture[:1])
        from_picture = network(sound, picture[:1].expand(2, -1, -1, -1, -1))
        torch.testing.assert_close(network(sound, encoded), from_picture)
        with pytest.raises(SettingsError, match="3 videos were given for 2 sounds"):
            network(sound, encoded.expand(3, -1, -1))


def test_without_a_picture_it_sees_grey() -> None:
    network = tiny()
    sound, _ = clips(2)
    grey = blank_frames(20)[None].expand(2, -1, -1, -1, -1)
    with torch.no_grad():
        torch.testing.assert_close(network(sound), network(sound, grey), atol=1e-5, rtol=1e-4)


def test_a_clip_that_does_not_cut_into_the_nodes_is_refused() -> None:
    network = tiny()
    _, picture = clips()
    with pytest.raises(SettingsError, match="cannot be cut"):
        network(torch.randn(1, 300, 1), picture)
    with pytest.raises(SettingsError, match="7 segments"):
        # 16 frames, 4 a segment, 6 nodes: the published rule gives 7.
        tiny(n_video_nodes=6, video_segment_ms=200)(torch.randn(1, 8000, 1), torch.rand(1, 16, 3, 16, 16))


def test_graph_covers_the_clip_and_adds_up() -> None:
    network = tiny(batch_independent=True)
    sound, picture = clips()
    graph = network.graph(sound, picture, target=2)
    audio, video = graph.nodes["audio"], graph.nodes["video"]
    assert (len(audio), len(video)) == (5, 4)
    np.testing.assert_allclose(audio.start, np.arange(5) * 1900 / 8000)
    np.testing.assert_allclose(video.end, np.arange(4) * 5 / 20 + 0.15)
    for nodes in (audio, video):
        assert nodes.attention.sum() == pytest.approx(1, abs=1e-5)
    parts = [nodes.contribution for nodes in (audio, video) if nodes.contribution is not None]
    total = sum(part.sum() for part in parts) + network.get_parameter("lin.0.bias")[2].item()
    assert total == pytest.approx(float(graph.logits[2]), abs=1e-5)
    assert [edges.relation for edges in graph.edges] == ["audio-audio", "video-video", "video-audio"]
    assert [edges.layers for edges in graph.edges] == [(0, 1), (0, 1), (1,)]
    matching = graph.relation("video-audio")[0]
    distances = graph.distances[1]
    for node in range(4):
        chosen = matching.target[matching.source == node]
        assert set(chosen) == set(np.argsort(distances[:, node])[:3])


def test_edge_importance_is_the_slope_of_the_logit() -> None:
    network = tiny(batch_independent=True).double()
    sound, picture = (x.double() for x in clips())
    graph = network.graph(sound, picture, target=0)
    with torch.no_grad():
        nodes = network.encode_audio(sound), network.encode_frames(picture)
        factors = {i: {n: f.detach().double() for n, f in layer.items()}
                   for i, layer in network.reason(*nodes).unit_factors().items()}  # fmt: skip
        step = 1e-4
        for index, layer, name in ((3, 0, "audio-audio"), (2, 1, "video-video"), (5, 1, "video-audio")):
            edges = graph.relation(name)[0]
            assert edges.importance_by_layer is not None
            found = edges.importance_by_layer[edges.layers.index(layer), index]
            slopes = []
            for sign in (1, -1):
                factors[layer][name][index] = 1 + sign * step
                slopes.append(network.forward_head(network.reason(*nodes, factors).hidden)[0, 0].item())
            factors[layer][name][index] = 1.0
            assert found == pytest.approx((slopes[0] - slopes[1]) / (2 * step), rel=1e-3, abs=1e-7)


def test_graph_leaves_the_mode_alone_and_needs_one_clip() -> None:
    network = tiny(graph_dropout=0.5)
    sound, picture = clips()
    network.train()
    first, second = network.graph(sound, picture), network.graph(sound, picture)
    assert network.training
    np.testing.assert_array_equal(first.logits, second.logits)
    assert first.target is None and first.edges[0].importance is None
    with pytest.raises(SettingsError, match="one clip"):
        network.graph(*clips(2))
    with pytest.raises(SettingsError, match="no class number 3"):
        network.graph(sound, picture, target=3)


def test_graph_exports_to_networkx(tmp_path: Path) -> None:
    sound, picture = clips()
    exported = tiny().graph(sound, picture, target=1).to_networkx()
    assert exported.number_of_nodes() == 9
    assert exported.nodes["audio 1"]["start"] == pytest.approx(1900 / 8000)
    kinds = [data["relation"] for _, _, data in exported.edges(data=True)]
    assert kinds.count("video-audio") == 12
    networkx.write_graphml(exported, tmp_path / "graph.graphml")
    again = networkx.read_graphml(tmp_path / "graph.graphml")
    assert again.number_of_edges() == exported.number_of_edges() == len(kinds)


@pytest.mark.slow
def test_graph_exports_to_torch_geometric() -> None:
    pytest.importorskip("torch_geometric")
    sound, picture = clips()
    graph = tiny().graph(sound, picture, target=1)
    data = graph.to_hetero_data()
    data.validate()
    assert data["audio"].num_nodes == 5
    assert data["video", "video-audio 1", "audio"].edge_index.shape == (2, 12)
    assert data["audio", "audio-audio", "audio"].importance.shape[0] == len(graph.relation("audio-audio")[0])


def test_time_attention_is_the_audio_part_of_the_logits() -> None:
    network = tiny()
    sound, picture = clips(2)
    contribution, centers = network.time_attention(sound, picture)
    assert contribution.shape == (2, 3, 5)
    with torch.no_grad():
        hidden = network.forward_features(sound, picture)
        audio_part = hidden[:, :8] @ network.get_parameter("lin.0.weight")[:, :8].T
    torch.testing.assert_close(contribution.sum(dim=2), audio_part, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(centers, torch.arange(5) * 1900 + 199.5)


def test_cam_layer_lies_on_the_clip() -> None:
    network = tiny()
    (layer,) = network.cam_layers()
    # Receptive field 20 samples every 10: 39 steps a segment.
    assert (layer.time_center, layer.time_step) == (9.5, 10.0)
    seen = []
    layer.module.register_forward_hook(lambda _m, _i, output: seen.append(output))
    with torch.no_grad():
        network(*clips(2))
    grid = layer.to_map(seen[0])
    assert grid.shape == (2, 8, 799, 1)
    torch.testing.assert_close(grid[1, :, 190, 0], seen[0][6, :, 0])  # clip 1, segment 1 begins at sample 1900
    torch.testing.assert_close(grid[0, :, 38, 0], seen[0][0, :, 38])


def test_frozen_backbones_stay_as_they_are() -> None:
    network = tiny(freeze_audio=True, freeze_video=True).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network(*clips(2)).square().sum().backward()
    torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1).step()
    after = network.state_dict()
    changed = {key.split(".")[0] for key in after if not torch.equal(after[key], before[key])}
    assert "lin" in changed and not changed & {"audio_head", "video_head"}


def test_dynamic_graphs_vary_while_training_only() -> None:
    network = tiny(dynamic=True, audio_span=2, video_span=2, n_audio_nodes=12, n_video_nodes=6)
    device = torch.device("cpu")
    fixed = network.intra_edges(2, device)
    assert torch.equal(fixed["audio-audio"], network.intra_edges(2, device)["audio-audio"])
    network.train()
    sizes = {tuple(e.shape[1] for e in network.intra_edges(2, device).values()) for _ in range(20)}
    assert len(sizes) > 1
    network(torch.randn(2, 8000, 1), torch.rand(2, 20, 3, 16, 16)).sum().backward()


def test_edge_dropout_keeps_answers_finite() -> None:
    network = tiny(adjacency_dropout=0.95).train()
    assert torch.isfinite(network(*clips(2))).all()


def card_of(network: HeteroGraph) -> Card:
    frontend = network.default_frontend(network.config)
    return Card(
        name="tiny", family="hetero_graph", config=network.config.model_dump(mode="json"),
        frontend=frontend.model_dump(mode="json"), labels=["a", "b", "c"], task="single-label",
    )  # fmt: skip


def test_round_trip_through_a_checkpoint(tmp_path: Path) -> None:
    network = tiny(batch_independent=True)
    save_checkpoint(tmp_path / "tiny", network, card_of(network))
    recognizer = load_recognizer(tmp_path / "tiny", "cpu")
    assert isinstance(recognizer.network, HeteroGraph)
    assert recognizer.network.att_w_audio is recognizer.network.graph_read_out_audio.gate_nn
    sound, picture = clips()
    features = recognizer.features(sound[:, :, 0])
    torch.testing.assert_close(recognizer(features, picture), network(sound, picture))


def test_default_front_end_gives_the_samples_of_one_clip() -> None:
    network = tiny()
    frontend = build_frontend(network.default_frontend(network.config))
    waveform = torch.randn(2, 5000)
    features = frontend(waveform)
    assert features.shape == (2, 8000, 1)
    assert torch.equal(features[:, :5000, 0], waveform) and not features[:, 5000:].any()


def test_a_published_checkpoint_is_recognised_and_its_sizes_are_read() -> None:
    network = tiny(n_layers=3, fusion_layers=(-1, -2))
    state_dict = network.state_dict()
    assert HeteroGraph.recognizes(state_dict)
    hints = {
        key: TINY[key] for key in ("audio_segment_ms", "video_segment_ms", "sample_rate", "clip_seconds", "audio_span")
    }
    config = HeteroGraph.infer_config(state_dict, hints)
    expected = network.config.model_copy(update={"batch_independent": True})
    assert config.model_dump() | {"fusion_layers": {-1, -2}} == expected.model_dump() | {"fusion_layers": {-1, -2}}
    assert set(config.fusion_layers) == {-1, -2}
    stale = dict(state_dict)
    stale["att_w_audio.weight"] = torch.zeros(1, 8)
    stale["convs.2.convs.video__video-video__video.lin_l.bias"] = torch.zeros(8)
    converted = HeteroGraph.convert_state_dict(stale, config)
    for name, canonical in (
        ("att_w_audio.weight", "graph_read_out_audio.gate_nn.weight"),
        ("convs.2.convs.video__video-video__video.lin_l.bias", "convs.2.convs.audio__audio-audio__audio.lin_l.bias"),
    ):
        assert torch.equal(converted[name], state_dict[canonical])
    assert not HeteroGraph.recognizes({"v.pos_embed": torch.zeros(1)})


def test_early_and_incomplete_checkpoints_are_refused() -> None:
    state_dict = tiny().state_dict()
    early = {key: value for key, value in state_dict.items() if not key.startswith("dim_reduction")}
    with pytest.raises(CheckpointError, match="early version"):
        HeteroGraph.infer_config(early, {})
    fixed = {key: value for key, value in state_dict.items() if not key.startswith("video_head")}
    assert HeteroGraph.recognizes(fixed)
    with pytest.raises(CheckpointError, match="no video backbone"):
        HeteroGraph.infer_config(fixed, {})
    incomplete = {key: value for key, value in state_dict.items() if not key.startswith("pre_norm_video")}
    with pytest.raises(CheckpointError, match=r"pre_norm_video\.weight"):
        HeteroGraph.infer_config(incomplete, {})


def test_public_backbones_can_start_a_training() -> None:
    network = tiny()
    video = R3D18(2).state_dict()
    audio = {f"feature_extractor.{key}": value for key, value in network.audio_head.state_dict().items()}
    for weights in (video, audio | {"encoder.layer": torch.zeros(1)}):
        converted = convert_backbone(weights)
        missing, unexpected = network.load_state_dict(converted, strict=False)
        assert not unexpected and missing
    with pytest.raises(CheckpointError, match="neither"):
        convert_backbone({"fc.weight": torch.zeros(1)})


def test_predecessor_without_fusion_cannot_see() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "n_audio_nodes": 12, "audio_features": 6, "n_video_nodes": 8, "video_features": 10, "hidden_channels": 5,
        "audio_span": 2, "audio_dilation": 1, "video_span": 1, "video_dilation": 1,
    }  # fmt: skip
    audio, video = torch.randn(2, 12, 6), torch.randn(2, 8, 10)
    blind = FixedFeatureGraph(FixedFeatureGraphConfig(**sizes)).eval()
    seeing = FixedFeatureGraph(FixedFeatureGraphConfig(**sizes, fusion_layers=(-1,), self_loops=True)).eval()
    assert torch.equal(blind(audio, video), blind(audio, -video))
    assert not torch.allclose(seeing(audio, video), seeing(audio, -video))
    seeing.train()(audio, video).sum().backward()
    with pytest.raises(SettingsError, match="needs the video features"):
        blind(audio)
    with pytest.raises(SettingsError, match="both ends"):
        FixedFeatureGraph(FixedFeatureGraphConfig(**(sizes | {"audio_span": 6, "audio_dilation": 3})))(audio, video)
