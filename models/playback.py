"""What a model that listens repeatedly did: `Heard` as tensors on the way, `Playback` as plain data to show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from models.errors import SettingsError
from models.layers.replay import inside, keep_and_drop, runs

if TYPE_CHECKING:
    from models.families.play_it_back import PlayItBack

UNTRAINED = (
    "The published training never reaches the part that selects: what is replayed follows from its random start, not "
    "from anything that was learned."
)
NOMINAL = (
    "From the second playback on the published code replays other moments than the selected ones; 'replayed' says "
    "which."
)
LAST_PART = "The published AudioSet models hear only the last part of the clip in the first pass, at one resolution."
RESOLUTION = "The attention has one value every {0:.3g} s; finer structure means nothing."


@dataclass
class Heard:
    """One pass over a batch of clips.

    Attributes
    ----------
    index
        Row of the features of every input frame, ``[batch, frames]``.
    source_level, source_frame
        The same as level and frame of that level.
    seconds
        Where corrected models place these frames, float64 ``[batch, frames]``; None in published ones.
    inputs
        What the encoder read, ``[batch, frames, n_mels]``.
    tokens, grid
        ``[batch, N, D]``, time-major, and the grid (time, frequency).
    ordered
        The tokens on the grid that the decoder reads, ``[batch, W, H, D]``.
    slots, slot_attention
        Of the slot attention; None if this pass did not have to select anything.
    saliency, mask
        Published: ``[batch, resolution]``. Corrected: on input frames.
    positive, negative
        The published slots' weights over time.
    evidence, profile
        Corrected: log odds ``[batch, time, frequency]``, and their profile on input frames.
    segments
        What was selected, per clip: index pairs of the mask (published), cells of the clip (corrected).
    """

    index: Tensor
    source_level: Tensor
    source_frame: Tensor
    seconds: np.ndarray | None
    inputs: Tensor
    tokens: Tensor
    grid: tuple[int, int]
    ordered: Tensor
    slots: Tensor | None = None
    slot_attention: Tensor | None = None
    saliency: Tensor | None = None
    mask: Tensor | None = None
    positive: Tensor | None = None
    negative: Tensor | None = None
    evidence: Tensor | None = None
    profile: Tensor | None = None
    segments: list[np.ndarray] | None = None


@dataclass(frozen=True)
class PlaybackPass:
    """One pass over the clip; times are seconds from the beginning of the clip.

    Attributes
    ----------
    index
        0 hears the whole clip; 1, 2, ... replay what the pass before selected.
    hop_seconds
        Distance of frames in what was replayed (for pass 0: of all frames).
    features
        What the encoder read, ``[frames, n_mels]``.
    source_level, source_frame, source_seconds
        Where every one of these frames came from: level of the front end, frame of that level, second (negative:
        padding in front of the clip).
    replayed
        Stretches that this pass heard at `hop_seconds` rather than coarser, in true time, ``[n, 2]``; empty for pass 0.
    attention_seconds, attention
        Attention over time in 0..1; `attention_spread` is its standard deviation over draws of the slots' noise (zero
        where nothing is random).
    selected
        What this pass chose for the next one, ``[n, 2]``.
    selected_raw
        The same before slivers are tidied up for display; the same as `selected` in corrected models.
    scores
        Logits after hearing this pass and all before it, ``[n_classes]``.
    encoder_scores
        Logits of the encoder on what this pass heard alone.
    for_scores, against_scores
        Encoder logits when only what stands out is heard, and when only the rest is (published models: of tokens
        weighted by the positive and the inverted negative slot).
    token_seconds, token_map
        Rows of the time-frequency map of attention in 0..1, ``[time, frequency]``; None where there is none.
    decoder_map
        Attention of the decoder to the tokens of this pass, mean over latents and heads, ``[time, frequency]``.
    slots, slot_attention
        The two slot vectors ``[2, d]``, and the share of slot 0 in every token: channels in published models ``[D]``,
        the map in corrected ones.
    """

    index: int
    hop_seconds: float
    features: np.ndarray
    source_level: np.ndarray
    source_frame: np.ndarray
    source_seconds: np.ndarray
    replayed: np.ndarray
    attention_seconds: np.ndarray
    attention: np.ndarray
    attention_spread: np.ndarray
    selected: np.ndarray
    selected_raw: np.ndarray
    scores: np.ndarray
    encoder_scores: np.ndarray
    for_scores: np.ndarray
    against_scores: np.ndarray
    token_seconds: np.ndarray
    token_map: np.ndarray | None
    decoder_map: np.ndarray
    slots: np.ndarray
    slot_attention: np.ndarray


@dataclass(frozen=True)
class Playback:
    """A clip as a model listened to it.

    Attributes
    ----------
    passes
        In order.
    scores
        Final logits of all passes together, ``[n_classes]``.
    clip_seconds
        Length of what was listened to.
    resolution_seconds
        Width of one token: finer structure of the attention means nothing.
    corrected
        Whether selected and replayed stretches are the same moments (see the family's documentation).
    notes
        What a reader has to know about these pictures, in sentences.
    """

    passes: tuple[PlaybackPass, ...]
    scores: np.ndarray
    clip_seconds: float
    resolution_seconds: float
    corrected: bool
    notes: tuple[str, ...] = ()

    def scores_by_pass(self) -> np.ndarray:
        """Logits after every pass, ``[passes, n_classes]``."""
        return np.stack([one.scores for one in self.passes])


def tidy_segments(segments: np.ndarray, smallest_gap: float = 0.1, shortest: float = 0.05) -> np.ndarray:
    """Segments in seconds ``[n, 2]`` with short gaps closed and then short segments dropped."""
    joined: list[list[float]] = []
    for start, end in sorted(segments.tolist()):
        if joined and start - joined[-1][1] < smallest_gap:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    kept = [(start, end) for start, end in joined if end - start >= shortest]
    return np.array(kept, dtype=np.float64).reshape(-1, 2)


def replayed_stretches(seconds: np.ndarray, levels: np.ndarray, level: int, hop_seconds: float) -> np.ndarray:
    """Stretches of the clip that frames of one level cover, in seconds, ``[n, 2]``.

    A frame stands for one hop around its centre; frames that follow each other within two hops belong together.
    """
    times = np.sort(seconds[(levels == level) & (seconds >= 0)])
    if times.size == 0 or level == 0:
        return np.zeros((0, 2))
    breaks = np.flatnonzero(np.diff(times) > 2 * hop_seconds + 1e-9)
    starts = times[np.concatenate([[0], breaks + 1])] - hop_seconds / 2
    ends = times[np.concatenate([breaks, [times.size - 1]])] + hop_seconds / 2
    return np.maximum(np.stack([starts, ends], axis=1), 0.0)


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A tensor of a batch of one as an array without the batch."""
    return tensor[0].detach().cpu().numpy()


@torch.no_grad()
def explain_playback(network: PlayItBack, features: Tensor, valid_seconds: float | None, draws: int) -> Playback:
    """Build the result of `PlayItBack.playback`; see there."""
    config = network.config
    if config.playbacks == 0:
        raise SettingsError("This model listens only once.", "Choose a model with at least one playback.")
    if features.shape[0] != 1:
        raise SettingsError(
            f"Playback is shown for one clip, not for {features.shape[0]}.",
            "Give features of shape [1, frames, n_mels].",
        )
    lengths, schedule = network.lengths(features), config.schedule
    valid = None if valid_seconds is None else [valid_seconds]
    attentions = network.decoder.cross_attentions
    try:
        for attention in attentions:
            attention.keep_attention = True
        passes = network.listen(features, valid_seconds=valid, explain=True)
        summaries = network.decoder.summarize(network.decoder.listen(network.contexts(passes)))
        scores = network.forward_head(network.decoder.fuse(summaries))
        weights = [attention.attention for attention in attentions]
    finally:
        for attention in attentions:
            attention.keep_attention, attention.attention = False, None
    by_pass = torch.cat(network.decoder.scores(summaries), dim=-1)
    saliency = [[to_numpy(heard.saliency)] for heard in passes if heard.saliency is not None]
    if not config.corrected:
        for draw in range(1, draws):
            noise = [network.slot_noise(step + 7919 * draw, 1, features.device) for step in range(len(passes))]
            for step, heard in enumerate(network.listen(features, noise=noise, explain=True)):
                if heard.saliency is not None:
                    saliency[step].append(to_numpy(heard.saliency))
    times = schedule.frame_times(len(lengths), features.shape[1])
    found: list[PlaybackPass] = []
    for step, heard in enumerate(passes):
        assert heard.slots is not None and heard.slot_attention is not None
        level, frame = to_numpy(heard.source_level), to_numpy(heard.source_frame)
        hop = schedule.hop(step) / schedule.sample_rate
        seconds = np.array([times[one][at] for one, at in zip(level, frame, strict=True)])
        selected, raw = _selected(network, heard)
        rows = np.minimum(config.encoder.total_stride[0] * np.arange(heard.grid[0]), seconds.shape[0] - 1)
        if config.corrected:
            assert heard.seconds is not None
            attention_seconds, slot_attention = heard.seconds[0], to_numpy(heard.slot_attention)
            replayed = found[-1].selected if found else np.zeros((0, 2))
            both = _heard_alone(network, heard, selected, features, valid)
        else:
            n_steps = config.slot_resolution
            attention_seconds = (np.arange(n_steps) + 0.5) * schedule.clip_seconds / n_steps
            slot_attention = to_numpy(heard.slot_attention)[0]
            replayed = replayed_stretches(seconds, level, step, hop)
            assert heard.positive is not None and heard.negative is not None
            both = [network.weighted_scores(heard.tokens, one) for one in (heard.positive, heard.negative)]
        curves = np.stack(saliency[step])
        alone = network.encoder.classify(network.encoder.pool(heard.tokens))
        found.append(
            PlaybackPass(
                index=step, hop_seconds=hop, features=to_numpy(heard.inputs), source_level=level, source_frame=frame,
                source_seconds=seconds, replayed=replayed, attention_seconds=attention_seconds,
                attention=curves.mean(axis=0), attention_spread=curves.std(axis=0), selected=selected,
                selected_raw=raw, scores=by_pass[0, step].cpu().numpy(),
                encoder_scores=to_numpy(torch.cat(alone, dim=-1)), for_scores=to_numpy(torch.cat(both[0], dim=-1)),
                against_scores=to_numpy(torch.cat(both[1], dim=-1)), token_seconds=seconds[rows],
                token_map=slot_attention if config.corrected else None,
                decoder_map=_decoder_map(network, heard, weights[step]), slots=to_numpy(heard.slots),
                slot_attention=slot_attention,
            )
        )  # fmt: skip
    resolution = config.encoder.total_stride[0] * schedule.hop(0) / schedule.sample_rate
    notes = [RESOLUTION.format(resolution)]
    if not config.corrected:
        notes.insert(0, UNTRAINED)
        notes += [NOMINAL] if config.playbacks > 1 else []
        notes += [LAST_PART] if schedule.squeeze else []
    return Playback(tuple(found), to_numpy(scores), schedule.clip_seconds, resolution, config.corrected, tuple(notes))


def _selected(network: PlayItBack, heard: Heard) -> tuple[np.ndarray, np.ndarray]:
    """Selected stretches in seconds, tidied up and raw."""
    if network.config.corrected:
        assert heard.segments is not None
        exact = heard.segments[0] * network.clock().cell_seconds
        return exact, exact
    assert heard.mask is not None and heard.segments is not None
    step = network.config.schedule.clip_seconds / network.config.slot_resolution
    return tidy_segments(runs(to_numpy(heard.mask)) * step), heard.segments[0] * step


def _heard_alone(
    network: PlayItBack, heard: Heard, selected: np.ndarray, features: Tensor, valid: list[float] | None
) -> list[list[Tensor]]:
    """Encoder logits when only what was selected is heard, and when only the rest is."""
    assert heard.seconds is not None
    clock = network.clock()
    end = network.valid_cells(features, clock, valid)[0] * clock.cell_seconds
    seconds = heard.seconds[0]
    mask = torch.from_numpy(inside(seconds, selected)).to(heard.inputs).unsqueeze(0)
    there = torch.from_numpy(seconds < end - 1e-9).to(features.device).unsqueeze(0)
    changed = keep_and_drop(heard.inputs, mask, there)
    return [network.encoder.classify(network.encoder.pool(network.encoder(x.unsqueeze(1))[0])) for x in changed]


def _decoder_map(network: PlayItBack, heard: Heard, weights: Tensor | None) -> np.ndarray:
    """Attention of the decoder to the tokens of a pass on the encoder's grid, ``[time, frequency]``."""
    assert weights is not None
    share = weights[0].mean(dim=(0, 1))
    if not network.config.corrected:
        # The published decoder reads the tokens in another order than they are stored.
        share = share.reshape(heard.ordered.shape[1:3]).T.reshape(-1)
    return share.reshape(heard.grid).cpu().numpy()
