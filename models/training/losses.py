"""What a recipe minimises."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.data import ExampleSet
from models.errors import SettingsError
from models.families.play_it_back import PlayItBack
from models.network import Network
from models.training.config import TrainConfig
from models.training.heads import heads_cross_entropy
from models.training.hetero_graph import balanced_class_weights, focal_loss
from models.training.label_embeddings import LabelEmbeddingLoss, load_label_embeddings
from models.training.playback_published import published_loss


def label_groups(network: Network) -> tuple[int, ...]:
    """Sizes of consecutive groups of classes among which one is right (verbs and nouns); empty for one group."""
    config = network.config
    return tuple(getattr(config, "class_groups", ()) or getattr(config, "groups", ()))


def soft_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float, weight: Tensor | None = None) -> Tensor:
    """Cross entropy with mixed targets ``[batch, n_classes]``, classes weighed by `weight` ``[n_classes]``."""
    smoothed = targets * (1 - smoothing) + smoothing / targets.shape[1]
    if weight is not None:
        smoothed = smoothed * weight
    return -(smoothed * logits.log_softmax(dim=1)).sum(dim=1).mean()


class Criterion(nn.Module):
    """Loss of a batch. Kinds override `of_logits`, or `forward` if they look at more than logits.

    Parameters
    ----------
    config
        The recipe.
    network
        The network itself, not wrapped for several devices.
    examples
        Training examples.
    """

    def __init__(self, config: TrainConfig, network: Network, examples: ExampleSet) -> None:
        super().__init__()
        self.config, self.groups = config, label_groups(network)
        self.weight: Tensor | None = None
        if config.loss.class_weights:
            index = {label: i for i, label in enumerate(examples.labels)}
            labels = [index[example.labels[0]] for example in examples.examples if example.labels]
            self.weight = balanced_class_weights(labels, len(examples.labels))

    def forward(
        self, model: Callable[..., Tensor], network: Network, features: Tensor, frames: Tensor | None, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss and logits of features; `model` is the network, perhaps wrapped."""
        logits = (model(features) if frames is None else model(features, frames)).float()
        outputs = logits.sigmoid() if self.config.loss.probabilities_as_logits else logits
        return self.of_logits(outputs, targets), logits

    def of_logits(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of logits and targets, ``[batch, n_classes]`` both."""
        raise NotImplementedError


class CrossEntropy(Criterion):
    """One class is right; with soft targets where clips are mixed."""

    def of_logits(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Smoothed and weighed as the recipe says."""
        weight = self.weight.to(logits) if self.weight is not None else None
        return soft_cross_entropy(logits, targets, self.config.optimizer.label_smoothing, weight)


class BinaryCrossEntropy(Criterion):
    """Any number of classes is right.

    For families that output probabilities the logits are the log-odds of probabilities clamped to 1e-7 from 0 and 1, so this is
    the published loss on clamped probabilities.
    """

    def of_logits(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over batch and classes."""
        return nn.functional.binary_cross_entropy_with_logits(logits, targets)


class Heads(Criterion):
    """Mean of the cross entropies of several groups of classes (verbs and nouns)."""

    def __init__(self, config: TrainConfig, network: Network, examples: ExampleSet) -> None:
        super().__init__(config, network, examples)
        if not self.groups:
            raise SettingsError(
                "The loss 'heads' needs groups of classes.", "Set config.class_groups, or use the loss cross_entropy."
            )

    def of_logits(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Targets hold one class of every group."""
        smoothing = self.config.optimizer.label_smoothing
        parts = [part * (1 - smoothing) + smoothing / part.shape[1] for part in targets.split(list(self.groups), dim=1)]
        return heads_cross_entropy(logits, parts, self.groups).mean()


class Focal(Criterion):
    """Focal loss with alpha 0.5 and gamma 2; the class is that of the largest target."""

    def of_logits(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over clips."""
        return focal_loss(logits, targets.argmax(dim=1))


class LabelEmbeddings(Criterion):
    """Label Embeddings Projection: cross entropy, and the squared error to the true label's word vector."""

    def __init__(self, config: TrainConfig, network: Network, examples: ExampleSet) -> None:
        super().__init__(config, network, examples)
        if config.loss.embeddings is None:
            raise SettingsError("The loss 'label_embeddings' needs a table.", "Give loss.embeddings=FILE.npy.")
        table = load_label_embeddings(config.loss.embeddings, len(examples.labels))
        size = getattr(network.config, "label_embedding_size", 0)
        if size != table.shape[1]:
            raise SettingsError(
                f"The label embeddings have {table.shape[1]} dimensions, the network predicts {size}.",
                f"Set config.label_embedding_size to {table.shape[1]} (family slowfast).",
            )
        self.criterion = LabelEmbeddingLoss(table, config.loss.embedding_weight)

    def forward(
        self, model: Callable[..., Tensor], network: Network, features: Tensor, frames: Tensor | None, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The table stays as it is, as in the published code."""
        logits = model(features).float()
        embedding = network.label_embedding(logits)  # type: ignore[operator]
        smoothing = self.config.optimizer.label_smoothing
        smoothed = targets * (1 - smoothing) + smoothing / targets.shape[1]
        return self.criterion(logits, embedding, smoothed).total, logits


class Playback(Criterion):
    """Play It Back as published: the answer, and 0.1 x the answer after every pass; groups of classes averaged.

    The published rank terms are left out: they carry no gradient. With two groups the published code forgets the passes;
    they are left out then, too.
    """

    def __init__(self, config: TrainConfig, network: Network, examples: ExampleSet) -> None:
        super().__init__(config, network, examples)
        if not isinstance(network, PlayItBack):
            raise SettingsError("The loss 'play_it_back' is made for Play It Back only.", "Choose another loss.")

    def forward(
        self, model: Callable[..., Tensor], network: Network, features: Tensor, frames: Tensor | None, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Answers of every pass and of all together."""
        assert isinstance(network, PlayItBack)
        if network.config.playbacks == 0:
            found = network.encoder.classify(network.encoder.pool(network.listen(features)[0].tokens))
            by_pass = [one.new_zeros(0, *one.shape) for one in found]
        else:
            decoder = network.decoder
            summaries = decoder.summarize(decoder.listen(network.contexts(network.listen(features))))
            found = decoder.predict(decoder.fuse(summaries))
            by_pass = [scores.transpose(0, 1) for scores in decoder.scores(summaries)]
        multi_label, smoothing = self.config.task == "multi-label", self.config.optimizer.label_smoothing
        losses = []
        parts = targets.split(list(network.config.heads), dim=1)
        for one, passes, target in zip(found, by_pass, parts, strict=True):
            wanted = target if multi_label else target * (1 - smoothing) + smoothing / target.shape[1]
            passes = passes.float() if len(found) == 1 else passes[:0].float()
            losses.append(published_loss(one.float(), passes, wanted, multi_label=multi_label))
        return torch.stack(losses).mean(), torch.cat(found, dim=1).float()


LOSSES: dict[str, type[Criterion]] = {
    "cross_entropy": CrossEntropy,
    "bce": BinaryCrossEntropy,
    "heads": Heads,
    "focal": Focal,
    "label_embeddings": LabelEmbeddings,
    "play_it_back": Playback,
}


def build_criterion(config: TrainConfig, network: Network, examples: ExampleSet) -> Criterion:
    """The loss of a recipe.

    Raises
    ------
    EarwitnessError
        If it does not fit the network or the data.
    """
    default = "bce" if config.task == "multi-label" else "cross_entropy"
    return LOSSES[config.loss.kind or default](config, network, examples)


def distilled(config: TrainConfig, own: Tensor, logits: Tensor, soft: Tensor | None) -> Tensor:
    """The recipe's own loss together with the distance to a teacher's logits, if there is a teacher."""
    if soft is None or config.teacher is None:
        return own
    heat, weight = config.teacher.temperature, config.teacher.weight
    distance = nn.functional.kl_div(
        (logits / heat).log_softmax(dim=1), (soft / heat).log_softmax(dim=1), log_target=True, reduction="batchmean"
    )
    return (1 - weight) * own + weight * heat**2 * distance
