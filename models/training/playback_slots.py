"""Losses that train Play It Back in corrected mode: what is selected must be enough for the answer, and the rest not.

The mask has to be put on the *input*: encoder tokens have heard the whole clip, so any of them knows the class, and
pooling tokens with the slots' weights alone gives pictures no better than chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from models.families.play_it_back import PlayItBack
from models.layers.replay import keep_and_drop, token_profile
from models.playback import Heard
from models.training.processes import alone


@contextmanager
def constant(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, and no gradient *to* the module's weights (but through them) for what is computed inside."""
    was_training = module.training
    wanted = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        module.eval()
        for parameter in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        module.train(was_training)


def soft_mask(profile: Tensor, valid: Tensor, budget: float, temperature: float) -> Tensor:
    """Mask ``[batch, frames]`` in 0..1 whose mean over valid frames is `budget`, whatever the profile.

    The threshold depends on the profile such that the gradient cannot simply make the mask larger.
    """

    def mean(values: Tensor) -> Tensor:
        return (values * valid).sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True)

    with torch.no_grad():
        low = profile.amin(dim=1, keepdim=True) - 20.0
        high = profile.amax(dim=1, keepdim=True) + 20.0
        for _ in range(40):
            threshold = (low + high) / 2
            too_much = mean(((profile - threshold) / temperature).sigmoid()) > budget
            low, high = torch.where(too_much, threshold, low), torch.where(too_much, high, threshold)
        threshold = (low + high) / 2
        mask = ((profile - threshold) / temperature).sigmoid()
        slope = mean(mask * (1 - mask)).clamp(min=1e-4) / temperature
    threshold = threshold + (mean(((profile - threshold) / temperature).sigmoid()) - budget) / slope
    return ((profile - threshold) / temperature).sigmoid() * valid


def true_scores(logits: list[Tensor], targets: list[Tensor], multi_label: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Probability of the truth, and the losses of wanting and of not wanting it, per clip ``[batch]``; mean over heads.

    `logits` and `targets` (0..1) are ``[batch, n_classes]`` per head. Single-label: ``-ln p`` and ``-ln(1 - p)``;
    multi-label: ``softplus(-z)`` and ``softplus(z)``, mean over the positive classes.
    """
    probability, want, refuse = [], [], []
    for z, target in zip(logits, targets, strict=True):
        if multi_label:
            share = (target > 0.5).to(z.dtype)
            share = share / share.sum(dim=1, keepdim=True).clamp(min=1.0)
            probability.append((z.sigmoid() * share).sum(dim=1))
            want.append((nn.functional.softplus(-z) * share).sum(dim=1))
            refuse.append((nn.functional.softplus(z) * share).sum(dim=1))
        else:
            log_p = z.log_softmax(dim=1).gather(1, target.argmax(dim=1, keepdim=True)).squeeze(1)
            probability.append(log_p.exp())
            want.append(-log_p)
            refuse.append(-torch.log1p(-log_p.exp().clamp(max=1.0 - 1e-4)))
    return torch.stack(probability).mean(dim=0), torch.stack(want).mean(dim=0), torch.stack(refuse).mean(dim=0)


def answer_loss(logits: list[Tensor], targets: list[Tensor], multi_label: bool) -> Tensor:
    """Cross entropy (with soft targets), or binary cross entropy; mean over heads."""
    if multi_label:
        parts = [nn.functional.binary_cross_entropy_with_logits(z, y) for z, y in zip(logits, targets, strict=True)]
    else:
        parts = [nn.functional.cross_entropy(z, y) for z, y in zip(logits, targets, strict=True)]
    return torch.stack(parts).mean()


@dataclass(frozen=True)
class SlotLoss:
    """Parts of the slots' loss; `total` is sufficient + necessary + tokens + 0.1 smooth."""

    sufficient: Tensor
    necessary: Tensor
    tokens: Tensor
    smooth: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        return self.sufficient + self.necessary + self.tokens + 0.1 * self.smooth


def slot_loss(
    network: PlayItBack, heard: Heard, valid: Tensor, targets: Tensor | None, multi_label: bool = False,
    together: Callable[[Tensor], Tensor] = alone,
) -> SlotLoss:  # fmt: skip
    """Loss of `network.time_slots` on one pass; its gradient reaches nothing else.

    Parameters
    ----------
    heard
        The pass, from `PlayItBack.listen`.
    valid
        Which of its input frames carry signal, bool ``[batch, frames]``; see `valid_frames`.
    targets
        ``[batch, n_classes]`` in 0..1; None: the encoder's own best class of every group.
    together
        From values of these clips to those of the whole batch, where other processes hear the rest of it.
    """
    settings, encoder, sizes = network.config.slots, network.encoder, list(network.config.heads)
    inputs, tokens = heard.inputs.detach(), heard.tokens.detach()
    with constant(encoder):
        evidence, _ = network.time_slots.evidence(tokens)
        on_grid = evidence.unflatten(1, heard.grid)
        profile = network.frame_profile(on_grid, inputs.shape[1])
        mask = soft_mask(profile, valid, settings.budget, settings.temperature)
        kept, dropped = keep_and_drop(inputs, mask, valid)
        whole = [together(z.detach()) for z in encoder.classify(encoder.pool(tokens))]
        truth = [nn.functional.one_hot(z.argmax(dim=1), z.shape[1]).to(z) for z in whole]
        if targets is not None:
            truth = list(together(targets).split(sizes, dim=1))

        def classified(embedding: Tensor) -> list[Tensor]:
            return [together(z) for z in encoder.classify(embedding)]

        answers = [classified(encoder.pool(encoder(x.unsqueeze(1))[0])) for x in (kept, dropped)]
        recognized = true_scores(whole, truth, multi_label)[0]
        weight = recognized / recognized.sum().clamp(min=1e-12)
        sufficient = (weight * true_scores(answers[0], truth, multi_label)[1]).sum()
        necessary = (weight * true_scores(answers[1], truth, multi_label)[2]).sum()
        share = evidence.sigmoid().unsqueeze(2)
        chosen = classified((share * tokens).sum(dim=1) / share.sum(dim=1))
        others = classified(((1 - share) * tokens).sum(dim=1) / (1 - share).sum(dim=1))
        if multi_label:
            indifferent = [torch.full_like(z, 0.5) for z in others]
            of_tokens = answer_loss(chosen, truth, True) + answer_loss(others, indifferent, True)
        else:
            wanted = true_scores(chosen, truth, False)[1].mean()
            of_tokens = wanted - torch.stack([z.log_softmax(dim=1).mean() for z in others]).mean()
        course = together(token_profile(on_grid).sigmoid())
        smooth = (course[:, 1:] - course[:, :-1]).abs().mean() if course.shape[1] > 1 else course.new_zeros(())
    return SlotLoss(sufficient, necessary, of_tokens, smooth)


def valid_frames(network: PlayItBack, features: Tensor, heard: Heard, valid_seconds: Sequence[float] | None) -> Tensor:
    """Input frames of a pass that carry signal, bool ``[batch, frames]``."""
    assert heard.seconds is not None
    clock = network.clock()
    if valid_seconds is None:
        cells = network.valid_cells(features, clock, None)
        valid_seconds = [count * clock.cell_seconds for count in cells]
    ends = np.asarray(valid_seconds)[:, None]
    return torch.from_numpy(heard.seconds < ends - 1e-9).to(features.device)


def decoder_loss(
    network: PlayItBack, passes: Sequence[Heard], targets: Tensor, multi_label: bool = False,
    together: Callable[[Tensor], Tensor] = alone,
) -> Tensor:  # fmt: skip
    """Loss of the answers: the fused one, 0.1 x every pass, 0.1 x a hinge that wants each pass to be surer of the truth.

    The hinge is ``relu(p before + 0.05 - p after)`` for clips whose probability before is below 0.9. `together` as for
    `slot_loss`.
    """
    sizes = list(network.config.heads)
    truth = list(together(targets).split(sizes, dim=1))
    decoder = network.decoder
    summaries = decoder.summarize(decoder.listen(network.contexts(passes)))
    total = answer_loss([together(z) for z in decoder.predict(decoder.fuse(summaries))], truth, multi_label)
    by_pass = [together(z) for z in decoder.scores(summaries)]
    for step in range(len(passes)):
        total = total + 0.1 * answer_loss([z[:, step] for z in by_pass], truth, multi_label)
    for z, target in zip(by_pass, truth, strict=True):
        right = [true_scores([z[:, step]], [target], multi_label)[0] for step in range(len(passes))]
        for before, now in pairwise(right):
            unsure = before.detach() < 0.9
            hinge = (before.detach() + 0.05 - now).relu() * unsure
            total = total + 0.1 * hinge.sum() / unsure.sum().clamp(min=1) / len(truth)
    return total
