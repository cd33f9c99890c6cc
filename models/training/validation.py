"""What is measured on the validation folds while a network is trained."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor
from torch.utils.data import DataLoader

from models.frontends import FrontEnd
from models.network import Network
from models.training.augmentations import features_of
from models.training.clips import TrainingClips, collate
from models.training.losses import label_groups
from models.training.metrics import average_precision


def figure_of(logits: Tensor, targets: Tensor, metric: str, groups: tuple[int, ...] = ()) -> float:
    """Accuracy (of all groups of classes together) or mean average precision of ``[n, n_classes]``."""
    if metric == "mAP":
        # The order of logits is that of probabilities.
        return float(np.nanmean(average_precision(logits.numpy(), targets.numpy())))
    sizes = list(groups) or [logits.shape[1]]
    right = torch.ones(len(logits), dtype=torch.bool)
    for guess, truth in zip(logits.split(sizes, dim=1), targets.split(sizes, dim=1), strict=True):
        right &= guess.argmax(dim=1) == truth.argmax(dim=1)
    return right.float().mean().item()


@torch.no_grad()
def validate(
    network: Network, frontend: FrontEnd, clips: TrainingClips, metric: str, workers: int, accelerator: Accelerator
) -> float:
    """The metric of a network in evaluation mode, on all processes; of longer clips the beginning is heard.

    Processes share the clips among them.
    """
    was_training = network.training
    network.eval()
    device, count = accelerator.device, len(clips)
    processes, rank = accelerator.num_processes, accelerator.process_index
    if processes > 1:
        # Running statistics of batch norms on the CPU are each process's own.
        broadcast(list(network.buffers()))
    # As many for every process: at the end some are heard twice, and counted once.
    rows = [row % count for row in range(rank, -(-count // processes) * processes, processes)]
    logits = []
    # A generator of its own, so that validating leaves the training's random numbers alone.
    loader = DataLoader(
        clips, 32, sampler=rows, collate_fn=collate, num_workers=workers, generator=torch.Generator()
    )  # fmt: skip
    for batch in loader:
        found = batch.waveforms
        features = features_of(
            found.to(device) if isinstance(found, Tensor) else [w.to(device) for w in found], frontend
        )
        with accelerator.autocast():
            answer = network(features) if batch.frames is None else network(features, batch.frames.to(device))
        logits.append(answer.float())
    network.train(was_training)
    heard = torch.cat(logits)
    gathered: Tensor = accelerator.gather(heard)
    in_order = gathered.view(processes, len(rows), -1).transpose(0, 1).flatten(0, 1)[:count]
    return figure_of(in_order.cpu(), clips.targets, metric, label_groups(network))
