"""From decoded clips to the features of a training batch: one function for every kind of augmentation.

The random numbers of a clip come from its draw alone, so that its changes do not depend on which clips stand beside it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.frontends import FrontEnd
from models.frontends.play_it_back import PlayItBackMel
from models.training.augment import add_noise, alter, mask_features
from models.training.clips import Batch, Draw
from models.training.config import AugmentConfig
from models.training.mean_masks import mask_batch, mask_with_mean
from models.training.playback_published import draw_mix, mix_levels
from models.training.published_augment import MaskDraws, add_noise_and_roll, mask_spectrogram

# Features, targets, and the waveforms that a teacher hears: all on the front end's device.
Prepared = tuple[Tensor, Tensor, Tensor | list[Tensor]]
Augmentation = Callable[[Batch, FrontEnd, AugmentConfig, torch.device], Prepared]
# Purposes of a draw's random numbers.
_CHANGES, _NOISE, _MASKS, _MIXTURE = range(4)


def features_of(waveforms: Tensor | list[Tensor], frontend: FrontEnd) -> Tensor:
    """Features of equally long waveforms, or of each by itself."""
    if isinstance(waveforms, Tensor):
        return frontend(waveforms)
    return torch.cat([frontend(waveform.unsqueeze(0)) for waveform in waveforms])


def _on(device: torch.device, waveforms: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    return waveforms.to(device) if isinstance(waveforms, Tensor) else [waveform.to(device) for waveform in waveforms]


def _stacked(waveforms: Tensor | list[Tensor]) -> Tensor:
    if isinstance(waveforms, Tensor):
        return waveforms
    longest = max(waveform.shape[0] for waveform in waveforms)
    return torch.stack([nn.functional.pad(waveform, (0, longest - waveform.shape[0])) for waveform in waveforms])


def standard(batch: Batch, frontend: FrontEnd, config: AugmentConfig, device: torch.device) -> Prepared:
    """Shift, speed, gain, mixup within the step, noise; masks of silence. What models trained here use."""
    changed: dict[int, Tensor] = {}

    def once(waveform: Tensor, draw: Draw) -> Tensor:
        if draw.key not in changed:
            changed[draw.key] = alter(waveform, config, draw.generator(_CHANGES))
        return changed[draw.key]

    heard, targets = [], []
    for waveform, target, draw, guest in zip(
        _stacked(batch.waveforms), batch.targets, batch.draws, batch.guests, strict=True
    ):
        mixed = once(waveform, draw)
        if guest is not None:
            mixed = draw.weight * mixed + (1 - draw.weight) * once(guest.waveform, guest.draw)
            target = draw.weight * target + (1 - draw.weight) * guest.target
        heard.append(add_noise(mixed, config, draw.generator(_NOISE)))
        targets.append(target)
    waveforms = torch.stack(heard).to(device)
    features = frontend(waveforms)
    masked = torch.cat([
        mask_features(clip, config, frontend.silence, draw.generator(_MASKS))
        for clip, draw in zip(features.split(1), batch.draws, strict=True)
    ])  # fmt: skip
    return masked, torch.stack(targets).to(device), waveforms


def audio_tagging(batch: Batch, frontend: FrontEnd, config: AugmentConfig, device: torch.device) -> Prepared:
    """As AST and PSLA: clips mixed when drawn, masks of 0 before normalisation, noise and roll for Speech Commands."""
    waveforms = _stacked(batch.waveforms).to(device)
    heard = waveforms - waveforms.mean(dim=1, keepdim=True)
    missing = max(0, frontend.samples_for(1) - heard.shape[1])
    log_mel = frontend.fit_length(frontend.log_mel(nn.functional.pad(heard, (0, missing))))
    # No wider than the features, which the published code does not look at.
    bands, frames = min(config.frequency_mask, log_mel.shape[2]), min(config.time_mask, log_mel.shape[1])
    masked = torch.stack([
        mask_spectrogram(clip, bands, frames, MaskDraws.random(draw.generator(_MASKS)))
        for clip, draw in zip(log_mel, batch.draws, strict=True)
    ])  # fmt: skip
    features = frontend.normalize(masked).contiguous()
    if config.noise:
        noisy = []
        for clip, draw in zip(features, batch.draws, strict=True):
            generator = draw.generator(_NOISE)
            noise = torch.rand(clip.shape, generator=generator).to(device)
            amplitude = torch.rand((), generator=generator).item()
            shift = int(torch.randint(-10, 10, (1,), generator=generator))
            noisy.append(add_noise_and_roll(clip, noise, amplitude, shift))
        features = torch.stack(noisy)
    return features, batch.targets.to(device), waveforms


def _python_random(generator: torch.Generator) -> random.Random:
    return random.Random(int(torch.randint(2**31, (1,), generator=generator)))


def _mean_masks(features: Tensor, config: AugmentConfig, draw: random.Random) -> Tensor:
    """Masks with the clips' mean, as `mask_batch`; widths of 0 switch a kind off."""
    if config.frequency_mask and config.time_mask:
        return mask_batch(features, config.frequency_mask, config.time_mask, generator=draw)
    masked = features.clone()
    for axis, largest in ((1, config.frequency_mask), (0, config.time_mask)):
        if largest:
            masked = torch.stack([mask_with_mean(clip, axis, largest, draw=draw.randrange) for clip in masked])
    return masked


def slowfast(batch: Batch, frontend: FrontEnd, config: AugmentConfig, device: torch.device) -> Prepared:
    """As Auditory SlowFast: crops drawn with the clip, two masks of bands and two of frames with the clip's mean.

    The published time warp is left out (see `models.training.mean_masks`).
    """
    waveforms = _on(device, batch.waveforms)
    features = features_of(waveforms, frontend)
    masked = torch.cat([
        _mean_masks(clip, config, _python_random(draw.generator(_MASKS)))
        for clip, draw in zip(features.split(1), batch.draws, strict=True)
    ])  # fmt: skip
    return masked, batch.targets.to(device), waveforms


def play_it_back(batch: Batch, frontend: FrontEnd, config: AugmentConfig, device: torch.device) -> Prepared:
    """As Play It Back meant to: the same masks in every level by itself, then mix-up or CutMix of all levels alike."""
    waveforms = _stacked(batch.waveforms).to(device)
    features, targets = frontend(waveforms), batch.targets.to(device)
    assert isinstance(frontend, PlayItBackMel)
    lengths = [level.frames.stop - level.frames.start for level in frontend.levels_of(features.shape[1])]
    masked = []
    for clip, drawn in zip(features.split(1), batch.draws, strict=True):
        draw = _python_random(drawn.generator(_MASKS))
        masked.append(torch.cat([_mean_masks(part, config, draw) for part in clip.split(lengths, 1)], dim=1))
    features = torch.cat(masked)
    # One mixture for the batch, as published.
    generator = batch.draws[0].generator(_MIXTURE)
    if torch.rand((), generator=generator).item() < config.mixup:
        weight, box = draw_mix(features.shape[2], generator, config.mixup_beta, config.cutmix)
        features, share = mix_levels(features, lengths, weight, box)
        targets = share * targets + (1 - share) * targets.flip(0)
    return features, targets, waveforms


def equiav(batch: Batch, frontend: FrontEnd, config: AugmentConfig, device: torch.device) -> Prepared:
    """As EquiAV is fine-tuned: clips mixed when drawn, and features rolled along time by any number of frames."""
    waveforms = _stacked(batch.waveforms).to(device)
    features = frontend(waveforms - waveforms.mean(dim=1, keepdim=True))
    if config.shift:
        frames = features.shape[1]
        shifts = [int(torch.randint(-frames, frames, (1,), generator=draw.generator(_CHANGES))) for draw in batch.draws]
        features = torch.stack([clip.roll(shift, 0) for clip, shift in zip(features, shifts, strict=True)])
    return features, batch.targets.to(device), waveforms


AUGMENTATIONS: dict[str, Augmentation] = {
    function.__name__: function for function in (standard, audio_tagging, slowfast, play_it_back, equiav)
}
