"""EquiAV's pre-training augmentations and the vectors that describe them (specification, section 6).

An augmentation is drawn as a small record, applied to a spectrogram or a picture, and written down as a vector from which
the network predicts its effect. Published quirks that a pre-trained augmentation encoder depends on are kept: the crop of
the spectrogram is recorded with swapped axes, the time shift is recorded but never happens, mask borders are recorded in
frames and bins, and colour jitter clamps the normalised spectrogram to 0..1.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor, nn

from models.video_frames import normalize_picture, to_tensor

AUDIO_VECTOR_SIZES = (7, 12, 21, 23, 24)
VIDEO_VECTOR_SIZES = (16, 18, 21)
_GREY = (0.2989, 0.587, 0.114)


@dataclass(frozen=True)
class Jitter:
    """Colour jitter: factors around 1, a hue shift in turns, and the order of operations.

    Operations are 0 brightness, 1 contrast, 2 saturation, 3 hue.
    """

    order: tuple[int, int, int, int]
    brightness: float
    contrast: float
    saturation: float
    hue: float


@dataclass(frozen=True)
class SpectrogramMask:
    """SpecAugment: ``[start, end)`` in frames and bins, and the shift that is recorded (as a share of the frames)."""

    time: tuple[int, int]
    frequency: tuple[int, int]
    shift: float


@dataclass(frozen=True)
class AudioAugmentation:
    """One augmentation of a spectrogram; ``crop`` is first frame, first bin, frames, bins."""

    mask: SpectrogramMask | None
    crop: tuple[int, int, int, int] | None
    jitter: Jitter | None = None
    blur_sigma: float | None = None
    flip: bool = False


@dataclass(frozen=True)
class VideoAugmentation:
    """One augmentation of a picture; ``crop`` is top, left, height, width; `turns` are quarter turns counter-clockwise."""

    crop: tuple[int, int, int, int]
    jitter: Jitter | None = None
    blur_sigma: float | None = None
    flip: bool = False
    grey: bool = False
    turns: int | None = None
    upside_down: bool = False


# --- drawing --------------------------------------------------------------------------------------------------------


def _random_crop(
    height: int, width: int, ratios: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Random resized crop: area in 0.08..1, aspect (width / height) log-uniform; up to 10 tries, then the centre."""
    for _ in range(10):
        area = height * width * rng.uniform(0.08, 1.0)
        aspect = math.exp(rng.uniform(math.log(ratios[0]), math.log(ratios[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
    h, w = height, width
    if width / height < ratios[0]:
        h = round(width / ratios[0])
    elif width / height > ratios[1]:
        w = round(height * ratios[1])
    return (height - h) // 2, (width - w) // 2, h, w


def _random_jitter(rng: np.random.Generator) -> Jitter | None:
    if rng.random() >= 0.8:
        return None
    first, second, third, fourth = (int(i) for i in rng.permutation(4))
    brightness, contrast, saturation = (float(x) for x in rng.uniform(0.6, 1.4, size=3))
    return Jitter((first, second, third, fourth), brightness, contrast, saturation, float(rng.uniform(-0.1, 0.1)))


def _random_span(size: int, largest: int, rng: np.random.Generator) -> tuple[int, int]:
    value = rng.random() * largest
    start = int(rng.random() * (size - value))
    return start, start + int(value)


def draw_audio_augmentation(
    frames: int,
    n_mels: int,
    rng: np.random.Generator,
    vector_size: int = 24,
    time_mask: int = 192,
    frequency_mask: int = 48,
) -> AudioAugmentation:
    """Draw an augmentation for ``[frames, n_mels]``; operations beyond `vector_size` stay off."""
    mask = None
    if rng.random() < 0.8:
        time = _random_span(frames, time_mask, rng)
        frequency = _random_span(n_mels, frequency_mask, rng)
        mask = SpectrogramMask(time, frequency, int(rng.integers(-frames, frames)) / frames)
    crop = _random_crop(frames, n_mels, (0.1, 0.1875), rng) if vector_size >= 12 else None
    jitter = _random_jitter(rng) if vector_size >= 21 else None
    blur = float(rng.uniform(0.1, 2.0)) if vector_size >= 23 and rng.random() < 0.5 else None
    return AudioAugmentation(mask, crop, jitter, blur, vector_size >= 24 and bool(rng.random() < 0.5))


def draw_video_augmentation(
    height: int, width: int, rng: np.random.Generator, vector_size: int = 18
) -> VideoAugmentation:
    """Draw an augmentation for a picture of ``height x width`` pixels."""
    crop = _random_crop(height, width, (3 / 4, 4 / 3), rng)
    jitter = _random_jitter(rng)
    blur = float(rng.uniform(0.1, 2.0)) if rng.random() < 0.5 else None
    flip = vector_size >= 18 and bool(rng.random() < 0.5)
    grey = vector_size >= 18 and bool(rng.random() < 0.2)
    turns = int(rng.integers(0, 4)) if vector_size >= 21 and rng.random() < 0.5 else None
    return VideoAugmentation(crop, jitter, blur, flip, grey, turns, vector_size >= 21 and bool(rng.random() < 0.5))


# --- writing down ---------------------------------------------------------------------------------------------------


def _jitter_slots(jitter: Jitter | None) -> list[float]:
    """On, order, and the four values at their own places."""
    if jitter is None:
        return [0.0, 0.0, 1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0]
    values = [jitter.brightness - 1, jitter.contrast - 1, jitter.saturation - 1, jitter.hue]
    return [1.0, *map(float, jitter.order), *values]


def _blur_slots(sigma: float | None) -> list[float]:
    return [0.0, 0.0] if sigma is None else [1.0, sigma]


def audio_vector(augmentation: AudioAugmentation, frames: int, n_mels: int, size: int = 24) -> Tensor:
    """The parameter vector ``[size]`` of an augmentation of ``[frames, n_mels]``."""
    mask, crop = augmentation.mask, augmentation.crop
    slots = [0.0] * 7
    if mask is not None:
        slots = [1.0, *map(float, mask.time), *map(float, mask.frequency), 1.0, mask.shift]
    if crop is not None:
        i, j, h, w = crop
        # Swapped axes, as published: frames are divided by the number of bins and bins by the number of frames.
        slots += [1.0, i / n_mels, j / frames, h / n_mels, w / frames]
    else:
        slots += [0.0] * 5
    slots += [*_jitter_slots(augmentation.jitter), *_blur_slots(augmentation.blur_sigma), float(augmentation.flip)]
    return torch.tensor(slots[:size])


def video_vector(augmentation: VideoAugmentation, height: int, width: int, size: int = 18) -> Tensor:
    """The parameter vector ``[size]`` of an augmentation of a picture of ``height x width`` pixels."""
    i, j, h, w = augmentation.crop
    slots = [1.0, i / height, j / width, h / height, w / width]
    slots += [*_jitter_slots(augmentation.jitter), *_blur_slots(augmentation.blur_sigma)]
    slots += [float(augmentation.flip), float(augmentation.grey)]
    slots += [float(augmentation.turns is not None), float(augmentation.turns or 0), float(augmentation.upside_down)]
    return torch.tensor(slots[:size])


def centroid_vectors(
    tower: Literal["a", "v"], n: int, size: int, seed: int = 0, frames: int = 1024, n_mels: int = 128
) -> Tensor:
    """`n` random parameter vectors ``[n, size]``, with no input involved; the same seed gives the same ones."""
    return _centroid_vectors(tower, n, size, seed, frames, n_mels).clone()


@functools.lru_cache(maxsize=16)
def _centroid_vectors(tower: str, n: int, size: int, seed: int, frames: int, n_mels: int) -> Tensor:
    rng = np.random.default_rng(seed)
    if tower == "a":
        drawn = [
            audio_vector(draw_audio_augmentation(frames, n_mels, rng, size), frames, n_mels, size) for _ in range(n)
        ]
    else:
        drawn = [video_vector(draw_video_augmentation(224, 224, rng, size), 224, 224, size) for _ in range(n)]
    return torch.stack(drawn)


# --- applying to spectrograms ---------------------------------------------------------------------------------------


def augment_spectrogram(spectrogram: Tensor, augmentation: AudioAugmentation) -> Tensor:
    """Mask, crop, jitter, blur and flip of a normalised spectrogram ``[3, frames, n_mels]``, in this order.

    The flip reverses the mel axis. The recorded time shift has no effect, as published.
    """
    image = spectrogram.clone()
    if augmentation.mask is not None:
        (start, end), (low, high) = augmentation.mask.time, augmentation.mask.frequency
        image[:, start:end] = 0.0
        image[:, :, low:high] = 0.0
    if augmentation.crop is not None:
        i, j, h, w = augmentation.crop
        image = nn.functional.interpolate(
            image[None, :, i : i + h, j : j + w],
            size=tuple(spectrogram.shape[1:]),
            mode="bilinear",
            align_corners=False,
        )[0]
    if augmentation.jitter is not None:
        image = jitter_tensor(image, augmentation.jitter)
    if augmentation.blur_sigma is not None:
        image = blur_tensor(image, augmentation.blur_sigma)
    return image.flip(2) if augmentation.flip else image


def _grey(image: Tensor) -> Tensor:
    red, green, blue = (weight * channel for weight, channel in zip(_GREY, image, strict=True))
    return (red + green + blue).unsqueeze(0)


def jitter_tensor(image: Tensor, jitter: Jitter) -> Tensor:
    """Colour jitter of ``[3, height, width]``; every operation but hue clamps to 0..1."""
    for operation in jitter.order:
        if operation == 0:
            image = (jitter.brightness * image).clamp(0, 1)
        elif operation == 1:
            image = (jitter.contrast * image + (1 - jitter.contrast) * _grey(image).mean()).clamp(0, 1)
        elif operation == 2:
            image = (jitter.saturation * image + (1 - jitter.saturation) * _grey(image)).clamp(0, 1)
        else:
            image = shift_hue(image, jitter.hue)
    return image


def shift_hue(image: Tensor, hue: float) -> Tensor:
    """Rotate the hue of ``[3, height, width]`` by a share of a full turn, by way of HSV."""
    red, green, blue = image
    largest, smallest = image.amax(0), image.amin(0)
    grey, spread = largest == smallest, largest - smallest
    saturation = spread / torch.where(grey, torch.ones_like(largest), largest)
    divisor = torch.where(grey, torch.ones_like(spread), spread)
    r, g, b = ((largest - channel) / divisor for channel in (red, green, blue))
    angle = torch.where(largest == red, b - g, torch.where(largest == green, 2 + r - b, 4 + g - r))
    turned = ((angle / 6) % 1.0 + hue) % 1.0
    sector = (turned * 6).floor()
    rest = turned * 6 - sector
    p = (largest * (1 - saturation)).clamp(0, 1)
    q = (largest * (1 - saturation * rest)).clamp(0, 1)
    t = (largest * (1 - saturation * (1 - rest))).clamp(0, 1)
    sector = sector.long() % 6
    v = largest
    table = torch.stack(
        [torch.stack(rgb) for rgb in ((v, t, p), (q, v, p), (p, v, t), (p, q, v), (t, p, v), (v, p, q))]
    )
    return table.gather(0, sector.expand(1, 3, *sector.shape))[0]


def blur_tensor(image: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian blur of ``[3, height, width]``, kernel ``2 * ceil(sigma) + 1``, reflected borders."""
    reach = math.ceil(sigma)
    positions = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (positions / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = nn.functional.pad(image.unsqueeze(1), (reach, reach, reach, reach), mode="reflect")
    down = nn.functional.conv2d(padded, kernel.view(1, 1, -1, 1))
    return nn.functional.conv2d(down, kernel.view(1, 1, 1, -1)).squeeze(1)


# --- applying to pictures -------------------------------------------------------------------------------------------


def augment_picture(image: Image.Image, augmentation: VideoAugmentation, size: int = 224) -> Tensor:
    """The augmented view of a raw frame: Pillow operations on 8 bits, then ImageNet's scale; ``[3, size, size]``."""
    top, left, height, width = augmentation.crop
    image = image.convert("RGB").crop((left, top, left + width, top + height))
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    if augmentation.jitter is not None:
        image = jitter_picture(image, augmentation.jitter)
    if augmentation.blur_sigma is not None:
        image = image.filter(ImageFilter.GaussianBlur(radius=augmentation.blur_sigma))
    if augmentation.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if augmentation.grey:
        image = image.convert("L").convert("RGB")
    if augmentation.turns:
        image = image.rotate(90 * augmentation.turns)
    if augmentation.upside_down:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return normalize_picture(to_tensor(image))


def jitter_picture(image: Image.Image, jitter: Jitter) -> Image.Image:
    """Colour jitter with Pillow's enhancers; hue by adding to the byte of HSV's first channel."""
    for operation in jitter.order:
        if operation == 0:
            image = ImageEnhance.Brightness(image).enhance(jitter.brightness)
        elif operation == 1:
            image = ImageEnhance.Contrast(image).enhance(jitter.contrast)
        elif operation == 2:
            image = ImageEnhance.Color(image).enhance(jitter.saturation)
        else:
            hue, saturation, value = image.convert("HSV").split()
            turned = (np.asarray(hue).astype(np.int16) + int(jitter.hue * 255)) % 256
            image = Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")
    return image
