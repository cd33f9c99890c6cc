"""Event graphs: importances and ablations against the graph part written out by hand, message by message."""

from __future__ import annotations

import dataclasses
import io
import json

import networkx
import numpy as np
import pytest
import torch

from models.clip import Clip, open_clip
from models.errors import SettingsError
from models.prediction import predict
from models.recognizer import Recognizer
from saliency.graph import MEASURES, GraphExplanation, encode_clip, explain_graph
from saliency.graph_ablation import deletion_curve, what_if
from tests.conftest import make_recognizer
from tests.models.media_files import with_pyav
from tests.models.tiny_families import sound, tiny_recognizer
from workbench.graph_view.exports import deletion_json, graph_json, graphml


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return tiny_recognizer("hetero_graph")


@pytest.fixture(scope="module")
def film() -> Clip:
    """1 s with a picture of 0.8 s in which something moves."""
    pictures = []
    for number in range(20):
        picture = np.full((48, 64, 3), 60, dtype=np.uint8)
        picture[10:30, 2 * number : 2 * number + 16] = (220, 120, 30)
        pictures.append(picture)
    return open_clip(with_pyav("mp4", "aac", sound(1.0, 48000)[None], 48000, pictures=pictures, frame_rate=25))


@pytest.fixture(scope="module")
def explained(recognizer: Recognizer, film: Clip) -> dict[str, GraphExplanation]:
    waveform = film.at(recognizer.sample_rate)
    encoded = encode_clip(recognizer, waveform, film.video)
    return {m: explain_graph(recognizer, waveform, film.video, "class 1", m, encoded=encoded) for m in MEASURES}


def by_hand(
    recognizer: Recognizer,
    graph: GraphExplanation,
    factor: dict[int, float] | None = None,
    gone: frozenset[int] = frozenset(),
) -> np.ndarray:
    """Logits, one message after another in float64; `factor` multiplies messages of edges, `gone` are nodes left out."""
    network, factor = recognizer.network, factor or {}
    weights = {name: value.double().numpy() for name, value in network.state_dict().items()}
    config, first = network.config, graph.n_audio

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)

    states = []
    for nodes, kind, short in ((graph.audio_nodes, "audio", "a"), (graph.video_nodes, "video", "v")):
        x = nodes.astype(np.float64)
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-5) * weights[f"pre_norm_{kind}.weight"] + weights[
            f"pre_norm_{kind}.bias"
        ]
        states.append(linear(f"dim_reduction_{short}", x))
    x = np.concatenate(states)
    edges = [
        (int(s), int(t), int(layer), factor.get(e, 1.0) * (s not in gone and t not in gone))
        for e, (s, t, layer) in enumerate(zip(graph.edge_source, graph.edge_target, graph.edge_layer, strict=True))
    ]
    for layer in range(config.n_layers):
        name = f"convs.{layer}.convs"
        new = np.zeros_like(x)
        for node in range(len(x)):
            own = "audio__audio-audio__audio" if node < first else "video__video-video__video"
            into = [(s, f) for s, t, made, f in edges if t == node and made < 0]
            mean = sum(f * x[s] for s, f in into) / max(1, len(into))
            new[node] = linear(f"{name}.{own}.lin_l", mean) + linear(f"{name}.{own}.lin_r", x[node])
        if layer in config.fusing:
            fusion = f"{name}.video__video-audio__audio"
            source, target = linear(f"{fusion}.lin_src", x), linear(f"{fusion}.lin_dst", x)
            for node in range(first):
                into = [(s, f) for s, t, made, f in edges if t == node and made == layer]
                raw = [source[s] @ weights[f"{fusion}.att_src"].ravel() + target[node] @ weights[f"{fusion}.att_dst"].ravel()
                       for s, _ in into]  # fmt: skip
                share = np.exp([r if r > 0 else 0.2 * r for r in raw])
                for (s, f), alpha in zip(into, share / max(share.sum(), 1e-300), strict=True):
                    new[node] += f * alpha * source[s]
                new[node] += weights[f"{fusion}.bias"]
        else:
            new[:first] *= 2
        for part in (slice(0, first), slice(first, None)):
            new[part] = (new[part] - new[part].mean(axis=0)) / np.sqrt(new[part].var(axis=0) + 1e-5)
        x = new / (1 + np.exp(-new)) + x
    pooled = []
    for kind, numbers in (("audio", range(first)), ("video", range(first, len(x)))):
        there = [n for n in numbers if n not in gone]
        gate = np.exp([x[n] @ weights[f"att_w_{kind}.weight"][0] for n in there])
        pooled.append(sum(g * x[n] for g, n in zip(gate, there, strict=True)) / gate.sum() if there else 0 * x[0])
    return linear("lin.0", np.concatenate(pooled))


def test_the_whole_graph_says_what_the_model_says(recognizer: Recognizer, film: Clip, explained: dict) -> None:
    graph = explained["gradient"]
    said = predict(recognizer, film.at(recognizer.sample_rate)[:8000], video=film.video)
    assert np.allclose(graph.scores, said.scores, atol=1e-5)
    assert np.allclose(by_hand(recognizer, graph), graph.logits, atol=1e-4)
    assert graph.target == "class 1" and graph.measure == "gradient"
    bias = float(recognizer.network.lin[0].bias[1])
    assert graph.node_contribution.sum() + bias == pytest.approx(graph.logits[1], abs=1e-4)


def test_gradient_is_the_change_for_a_small_change_of_every_message(recognizer: Recognizer, explained: dict) -> None:
    graph = explained["gradient"]
    step = 1e-4
    for edge in range(graph.n_edges):
        up, down = (by_hand(recognizer, graph, {edge: 1 + s})[1] for s in (step, -step))
        assert graph.edge_importance[edge] == pytest.approx((up - down) / (2 * step), abs=2e-3)


def test_ablation_is_the_loss_without_the_message(recognizer: Recognizer, explained: dict) -> None:
    graph = explained["ablation"]
    whole = by_hand(recognizer, graph)[1]
    for edge in range(graph.n_edges):
        assert graph.edge_importance[edge] == pytest.approx(
            whole - by_hand(recognizer, graph, {edge: 0.0})[1], abs=1e-3
        )


def test_attention_is_of_fused_links_only_and_sums_to_one_at_every_sound(explained: dict) -> None:
    graph = explained["attention"]
    fused = graph.edge_layer >= 0
    assert np.isnan(graph.edge_importance[~fused]).all() and fused.any()
    into = np.bincount(graph.edge_target[fused], graph.edge_importance[fused])
    assert np.allclose(into[into > 0], 1.0, atol=1e-5)
    assert np.array_equal(graph.order()[-(~fused).sum() :], np.flatnonzero(~fused))


@pytest.mark.parametrize(
    ("nodes", "edges"),
    [((), ()), ((), (0, 7)), ((1,), ()), ((0, 6), (3,)), (range(5), ()), (range(5, 9), ()), (range(9), ())],
)
def test_what_if_leaves_exactly_that_out(recognizer: Recognizer, explained: dict, nodes: tuple, edges: tuple) -> None:
    graph = explained["gradient"]
    tried = what_if(recognizer, graph, nodes, edges)
    expected = by_hand(recognizer, graph, dict.fromkeys(edges, 0.0), frozenset(nodes))
    assert np.allclose(tried.logits, expected, atol=2e-4)
    assert tried.scores.sum() == pytest.approx(1.0, abs=1e-5)
    assert tried.without_nodes == tuple(nodes) and tried.without_edges == tuple(edges)


def test_nothing_that_is_not_there_can_be_left_out(recognizer: Recognizer, explained: dict) -> None:
    for wrong in ({"without_nodes": [9]}, {"without_edges": [-1]}):
        with pytest.raises(SettingsError, match="has no"):
            what_if(recognizer, explained["gradient"], **wrong)


@pytest.mark.parametrize("measure", MEASURES)
def test_deletion_begins_and_ends_alike_in_every_order(recognizer: Recognizer, explained: dict, measure: str) -> None:
    graph = explained[measure]
    curve = deletion_curve(recognizer, graph, draws=6, steps=10)
    none = torch.as_tensor(by_hand(recognizer, graph, dict.fromkeys(range(graph.n_edges), 0.0))).softmax(0)[1]
    for values in (curve.by_importance, curve.random_mean, curve.random_low, curve.random_high):
        assert values[0] == pytest.approx(graph.score, abs=1e-5)
        assert values[-1] == pytest.approx(float(none), abs=1e-4)
    assert curve.fractions[0] == 0 and curve.fractions[-1] == 1
    assert (curve.random_low <= curve.random_high + 1e-9).all()
    assert curve.area_ratio == pytest.approx(
        np.trapezoid(curve.by_importance, curve.fractions) / np.trapezoid(curve.random_mean, curve.fractions)
    )
    # The half that comes first is left out exactly.
    half = int(np.flatnonzero(curve.fractions == 0.5)[0])
    left = dict.fromkeys((int(e) for e in graph.order()[: graph.n_edges // 2]), 0.0)
    assert curve.by_importance[half] == pytest.approx(
        float(torch.as_tensor(by_hand(recognizer, graph, left)).softmax(0)[1]), abs=1e-4
    )


def test_deletion_is_the_same_with_the_same_seed_only(recognizer: Recognizer, explained: dict) -> None:
    graph = explained["ablation"]
    first, again, other = (deletion_curve(recognizer, graph, draws=2, seed=s).random_mean for s in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    with pytest.raises(SettingsError, match="at least one"):
        deletion_curve(recognizer, graph, draws=0)


def test_an_order_that_falls_faster_has_the_smaller_ratio(recognizer: Recognizer, explained: dict) -> None:
    graph = explained["ablation"]
    generator = np.random.default_rng(3)
    ratios = {}
    for _ in range(12):
        ranks = generator.permutation(graph.n_edges).astype(np.float32)
        curve = deletion_curve(recognizer, dataclasses.replace(graph, edge_importance=ranks), draws=8, steps=10)
        ratios[float(np.trapezoid(curve.by_importance, curve.fractions))] = curve.area_ratio
    assert [ratios[area] for area in sorted(ratios)] == sorted(ratios.values())
    assert min(ratios.values()) < 1 < max(ratios.values())


def test_published_norms_give_the_same_one_graph_at_a_time(recognizer: Recognizer, explained: dict) -> None:
    """With statistics over the whole batch, graphs must not be run together."""
    published = recognizer.replica()
    published.network.config = recognizer.network.config.model_copy(update={"batch_independent": False})
    graph = explained["ablation"]
    assert np.allclose(
        *(deletion_curve(r, graph, draws=1, steps=5).random_mean for r in (published, recognizer)), atol=1e-5
    )


def test_without_a_picture_the_sound_still_works(recognizer: Recognizer) -> None:
    graph = explain_graph(recognizer, sound(1.0, 8000))
    assert graph.video_duration == 0 and graph.present.tolist() == [True] * 5 + [False] * 4
    assert graph.score == graph.scores.max()
    assert np.allclose(by_hand(recognizer, graph), graph.logits, atol=1e-4)


@pytest.mark.parametrize("n_samples", [1, 400, 8000, 20000])
def test_clips_of_any_length(recognizer: Recognizer, n_samples: int) -> None:
    graph = explain_graph(recognizer, sound(3.0, 8000)[:n_samples], measure="ablation")
    assert np.isfinite(graph.edge_importance).all() and graph.present[0]
    assert len(graph.windows) == (4 if n_samples == 20000 else 1)


def test_of_a_long_clip_the_surest_window_or_the_chosen_one(recognizer: Recognizer) -> None:
    waveform = sound(3.0, 8000)
    encoded = encode_clip(recognizer, waveform)
    graph = explain_graph(recognizer, waveform, None, "class 2", encoded=encoded)
    assert graph.window == int(graph.window_scores.argmax()) and len(graph.windows) == 5
    assert graph.node_start[0] == graph.windows[graph.window, 0]
    chosen = explain_graph(recognizer, waveform, None, "class 2", encoded=encoded, window=3)
    assert chosen.node_start[0] == pytest.approx(1.5) and chosen.score == pytest.approx(graph.window_scores[3])
    with pytest.raises(SettingsError, match="no window number 9"):
        explain_graph(recognizer, waveform, encoded=encoded, window=9)


def test_what_cannot_be_asked_is_refused(recognizer: Recognizer) -> None:
    waveform = sound(1.0, 8000)
    with pytest.raises(SettingsError, match="no measure of importance named 'loudness'"):
        explain_graph(recognizer, waveform, measure="loudness")
    with pytest.raises(SettingsError, match="no class named"):
        explain_graph(recognizer, waveform, target="zebra")
    with pytest.raises(SettingsError, match="does not reason by a graph"):
        explain_graph(make_recognizer("ast"), waveform)


def test_it_is_plain_data(explained: dict) -> None:
    for field in dataclasses.fields(GraphExplanation):
        assert isinstance(getattr(explained["gradient"], field.name), (np.ndarray, str, tuple, float, int)), field.name


@pytest.mark.parametrize("measure", MEASURES)
def test_exports_are_read_again(explained: dict, measure: str) -> None:
    hostile = "<b>\u0000\u0007dog & \u2028cat</b>"
    graph = explained[measure]
    graph = dataclasses.replace(graph, labels=("class 0", hostile, "class 2"), target=hostile)
    read = networkx.read_graphml(io.BytesIO(graphml(graph)), force_multigraph=True)
    assert (read.number_of_nodes(), read.number_of_edges()) == (graph.n_nodes, graph.n_edges)
    assert read.nodes["video 1"]["label"].startswith("picture 0.") and "dog & " in read.graph["target"]
    data = json.loads(graph_json(graph))
    again = networkx.node_link_graph(data, edges="edges")
    assert again.number_of_edges() == graph.n_edges
    assert data["graph"]["target"] == hostile and data["graph"]["scores"][hostile] == pytest.approx(graph.score)
    with_importance = [e for e in data["edges"] if "importance" in e]
    assert len(with_importance) == int(np.isfinite(graph.edge_importance).sum())
    total = sum(e["importance"] for e in with_importance)
    assert total == pytest.approx(float(np.nansum(graph.edge_importance)), abs=1e-4)
    layers = {e["layers"] for e in data["edges"]}
    assert layers == {"0 1", "1"}


def test_the_curve_is_exported(recognizer: Recognizer, explained: dict) -> None:
    curve = deletion_curve(recognizer, explained["gradient"], draws=2, steps=5)
    data = json.loads(deletion_json(curve))
    assert data["by_importance"] == curve.by_importance.tolist() and data["area_ratio"] == curve.area_ratio
