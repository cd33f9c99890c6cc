"""Graph layers against PyTorch Geometric's, and edges, cutting and training pieces by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from models.errors import DataError, SettingsError
from models.layers.graph_edges import batched, intra_edges, matching_edges
from models.layers.hetero_layers import BipartiteGATConv, GCNConv, SAGEConv, normalize_nodes, with_bipartite_loops
from models.layers.segments import Segmentation
from models.training.hetero_graph import (
    PublishedLoop,
    PublishedSolver,
    balanced_class_weights,
    balanced_sampling,
    classification_loss,
    evaluate_logits,
    parameter_norms,
    repeat_factors,
)


def edges_of(n_sources: int, n_targets: int, n_edges: int = 30) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    # Repeated edges are likely, and the last target gets none.
    return torch.stack(
        [
            torch.randint(n_sources, (n_edges,), generator=generator),
            torch.randint(n_targets - 1, (n_edges,), generator=generator),
        ]
    )


@pytest.mark.slow
def test_layers_equal_torch_geometric() -> None:
    geometric = pytest.importorskip("torch_geometric.nn")
    torch.manual_seed(0)
    x, y = torch.randn(7, 5), torch.randn(6, 4)
    inside, across = edges_of(7, 7), edges_of(7, 6)
    sage, theirs = SAGEConv(5, 3), geometric.SAGEConv((5, 5), 3)
    theirs.load_state_dict(sage.state_dict())
    torch.testing.assert_close(sage(x, inside), theirs((x, x), inside))
    for normalize, loops in ((False, False), (True, False), (True, True)):
        gcn = GCNConv(5, 3, normalize, loops)
        theirs = geometric.GCNConv(5, 3, normalize=normalize, add_self_loops=loops)
        theirs.load_state_dict(gcn.state_dict())
        torch.testing.assert_close(gcn(x, inside), theirs(x, inside))
    gat, theirs = BipartiteGATConv(5, 4, 3), geometric.GATConv((5, 4), 3, add_self_loops=False)
    theirs.load_state_dict(gat.state_dict())
    out, (_, alpha) = theirs((x, y), across, return_attention_weights=True)
    attended = gat(x, y, across)
    torch.testing.assert_close(attended.out, out)
    torch.testing.assert_close(attended.alpha, alpha)


def test_a_factor_of_zero_silences_a_message_only() -> None:
    torch.manual_seed(0)
    conv, x = SAGEConv(2, 2), torch.randn(3, 2)
    edges = torch.tensor([[0, 1], [2, 2]])
    silenced = conv(x, edges, torch.tensor([1.0, 0.0]))
    # The average still divides by two.
    expected = conv.lin_l(x[0] / 2) + conv.lin_r(x[2])
    torch.testing.assert_close(silenced[2], expected)
    torch.testing.assert_close(conv(x, edges, torch.ones(2)), conv(x, edges))


def test_nodes_without_edges_get_the_bias_of_attention() -> None:
    gat = BipartiteGATConv(2, 2, 2)
    nn.init.constant_(gat.bias, 0.5)
    out = gat(torch.randn(2, 2), torch.randn(3, 2), torch.tensor([[0, 1], [0, 0]])).out
    torch.testing.assert_close(out[1:], torch.full((2, 2), 0.5))


def test_norm_over_the_batch_or_each_clip() -> None:
    x = torch.randn(12, 3) * 5 + 2
    over_batch = normalize_nodes(x, 3, per_clip=False)
    torch.testing.assert_close(over_batch, nn.functional.batch_norm(x, None, None, training=True))
    per_clip = normalize_nodes(x, 3, per_clip=True)
    torch.testing.assert_close(per_clip[4:8], normalize_nodes(x[4:8], 1, per_clip=False))


def test_neighbourhoods_slide_inwards_at_the_borders() -> None:
    edges = intra_edges(5, 1)
    assert edges.tolist() == [[1, 2, 0, 2, 1, 3, 2, 4, 2, 3], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]]
    union = batched(edges, 2, 5, 5, torch.device("cpu"))
    assert torch.equal(union[:, 10:], union[:, :10] + 5)
    # A graph smaller than the neighbourhood: sources repeat rather than become negative.
    assert (intra_edges(4, 3) >= 0).all() and (intra_edges(4, 3, clamp=False) < 0).any()


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_nearest_neighbours_stay_within_their_clip(distance: str) -> None:
    torch.manual_seed(0)
    audio, video = torch.randn(2, 6, 4), torch.randn(2, 5, 4)
    edges, distances = matching_edges(audio, video, distance, 2)  # type: ignore[arg-type]
    assert edges.shape == (2, 20)
    assert torch.equal(edges[0] // 5, edges[1] // 6)
    for column in range(0, 20, 2):
        clip, node = divmod(int(edges[0, column]), 5)
        near, far = distances[clip, edges[1, column : column + 2] - 6 * clip, node]
        assert near <= far and far <= distances[clip, :, node].sort().values[1] + 1e-6


def test_loops_within_each_clip_or_by_index_in_the_batch() -> None:
    edges = torch.tensor([[0, 1, 2, 3], [0, 2, 3, 5]])  # 2 clips of 2 video and 3 audio nodes
    by_index = with_bipartite_loops(edges, 4, 6, 1)
    assert by_index.tolist() == [[1, 2, 3, 0, 1, 2, 3], [2, 3, 5, 0, 1, 2, 3]]
    by_clip = with_bipartite_loops(edges, 4, 6, 2)
    assert by_clip.tolist() == [[1, 3, 0, 1, 2, 3], [2, 5, 0, 1, 3, 4]]


def test_segments_cover_what_they_say() -> None:
    cutting = Segmentation.of(160000, 30, 320, 16000)
    assert (cutting.size, cutting.step, cutting.count) == (5120, 5340, 30)
    assert cutting.starts[1] == pytest.approx(0.33375) and cutting.ends[0] == pytest.approx(0.32)
    pieces = cutting.cut(torch.arange(160000.0)[None], 1)
    assert pieces.shape == (1, 30, 5120) and pieces[0, 2, 0] == 10680
    for length, count in ((5000, 30), (160000, 1)):
        with pytest.raises(SettingsError, match="cannot be cut"):
            Segmentation.of(length, count, 320, 16000)


def test_losses_and_weights_by_hand() -> None:
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), torch.tensor([0, 0, 1])
    weights = balanced_class_weights([0, 0, 1], 2)
    torch.testing.assert_close(weights, torch.tensor([0.75, 1.5]))
    single = -logits.log_softmax(1)[range(3), labels]
    expected = (single * weights[labels]).sum() / weights[labels].sum()
    torch.testing.assert_close(classification_loss(logits, labels, class_weights=weights), expected)
    p = logits.softmax(1)[range(3), labels]
    focal = (-0.5 * (1 - p) ** 2 * p.log()).mean()
    torch.testing.assert_close(classification_loss(logits, labels, "focal"), focal, atol=1e-5, rtol=1e-4)
    with pytest.raises(DataError, match="1 of 3 classes"):
        balanced_class_weights([0, 0, 1], 3)
    assert parameter_norms(nn.Linear(1, 1, bias=False)).ndim == 0


def test_evaluation_of_a_perfect_and_an_undefined_set() -> None:
    labels = torch.tensor([0, 1, 2, 1])
    perfect = evaluate_logits(10 * nn.functional.one_hot(labels, 3).float(), labels)
    assert (perfect.mean_average_precision, perfect.accuracy, perfect.roc_auc) == (1.0, 1.0, 1.0)
    missing = evaluate_logits(10 * nn.functional.one_hot(labels, 4).float(), labels)
    assert missing.mean_average_precision == pytest.approx(0.75)  # the class without clips counts as 0
    assert np.isnan(missing.roc_auc)


def test_rare_classes_come_more_often() -> None:
    labels = [0] * 98 + [1] * 2
    factors = repeat_factors(labels, 0.32)
    assert factors[0] == 1 and factors[-1] == pytest.approx(4)
    drawn = balanced_sampling(labels, torch.Generator().manual_seed(0), 0.32)
    assert sorted(drawn.tolist()) == [*range(98), *[98] * 4, *[99] * 4]


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.audio_head, self.video_head, self.lin = nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(self.audio_head(x) + self.video_head(x))


@pytest.mark.parametrize(("every", "expected"), [(1, [1, 1, 1, 1, 1]), (2, [0, 1, 1, 1, 1]), (3, [0, 0, 1, 0, 1])])
@pytest.mark.parametrize("same_rate", [False, True])
def test_only_the_first_step_waits_its_full_time(every: int, expected: list[int], same_rate: bool) -> None:
    solver = PublishedSolver(
        BASE_LR=1.0, SAME_LR=same_rate, ITERS_TO_ACCUMULATE=every, WARMUP_ITERS=2, STEPS=(3,), MY_CLIP_GRADIENTS=True
    )
    loop = PublishedLoop(TwoHeads(), solver)
    stepped, rates = [], []
    for _ in range(5):
        rates.append(max(loop.rates))
        report = loop.step(1000 * loop.network(torch.ones(1, 1)).sum())
        stepped.append(int(report.stepped))
        assert report.norms[2] > 1 >= report.clipped_norms[2] - 1e-5
    assert stepped == expected
    assert rates == pytest.approx([0.001, 0.5005, 1.0, 0.1, 0.1])
    assert min(loop.rates) == pytest.approx(0.1 if same_rate else 0.01)


def test_the_published_loop_wants_its_network() -> None:
    with pytest.raises(SettingsError):
        PublishedLoop(nn.Linear(1, 1), PublishedSolver())


def test_schedules() -> None:
    cosine = PublishedSolver(LR_SCHEDULER_NAME="CosineAnnealingLR", LR_SCHEDULER_T_MAX=10)
    restarts = PublishedSolver(LR_SCHEDULER_NAME="CosineAnnealingWarmRestarts", LR_SCHEDULER_T_MAX=10)
    assert cosine.rate_factor(10) == pytest.approx(0) and cosine.rate_factor(20) == pytest.approx(1)
    assert restarts.rate_factor(10) == pytest.approx(1) and restarts.rate_factor(15) == pytest.approx(0.5)
    warm = PublishedSolver(LR_SCHEDULER_NAME="WarmupCosineLR", MAX_ITER=100, WARMUP_ITERS=10)
    assert warm.rate_factor(0) == pytest.approx(0.001) and warm.rate_factor(50) == pytest.approx(0.5)
    constant = PublishedSolver(WARMUP_METHOD="constant", WARMUP_ITERS=5)
    assert constant.rate_factor(4) == pytest.approx(0.001) and constant.rate_factor(5) == 1
