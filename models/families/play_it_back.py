"""Play It Back: hears a clip, selects what stands out, and listens to that again at a finer hop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import SettingsError
from models.frontends import FrontEndConfig
from models.frontends.play_it_back import PlayItBackMelConfig
from models.layers.mvit import MViT
from models.layers.play_it_back_config import (
    PlayItBackConfig,
    infer_from_shapes,
    read_published,
    values_schedule,
    with_prefix,
)
from models.layers.replay import (
    Clock,
    near_divisor,
    pairwise_segments,
    profile_on_frames,
    published_profile,
    published_replay,
    select_segments,
    token_profile,
)
from models.layers.slot_attention import SaliencySlots, TimeSlots
from models.layers.tempr import TemPr
from models.network import CamLayer, Network, NetworkConfig
from models.playback import Heard, Playback, explain_playback
from models.registry import FamilyInfo, register_family

log = logging.getLogger(__name__)
# Parts of a published model that a mode may lack.
PARTS = ("saliency_slots.", "norm.", "decoder.", "time_slots.")
# Number of the pass, segments in cells and valid cells of every clip -> segments to replay.
Choose = Callable[[int, list[np.ndarray], list[int]], list[np.ndarray]]
NOTHING = np.zeros((0, 2), dtype=np.int64)


@register_family(
    FamilyInfo(
        name="play_it_back",
        title="Play It Back",
        summary="Listens to a clip, selects what stands out, and listens to that again at a finer time resolution.",
        citation="Stergiou, Damen: Play It Back: Iterative Attention for Audio Recognition. ICASSP 2023, "
        "arXiv 2210.11328",
        views=frozenset({"attribution", "playback"}),
        published_key="encoder.blocks.0.attn.pool_q.weight and decoder.latents",
    )
)
class PlayItBack(Network):
    """Play It Back with 0 to 7 playbacks, as published or corrected.

    The hidden representation is the fused vector of the decoder ``[batch, latent_dim]`` (of the encoder's mean token
    ``[batch, D]`` if there is no playback; ``[batch, passes, latent_dim]`` where scores are fused).

    Published mode keeps what checkpoints depend on: slots whose time axis mixes time and frequency and which no
    training reaches, segments made of pairs of mask positions, replay that addresses the wrong moments from the second
    playback on, and AudioSet levels squeezed to one resolution. Corrected mode (`schedule.corrected`) replaces
    selection and replay: slots over time-frequency tokens, contiguous segments, one clock in seconds for every level.
    """

    Config = PlayItBackConfig
    config: PlayItBackConfig

    def __init__(self, config: PlayItBackConfig) -> None:
        super().__init__(config)
        if config.encoder.class_token and config.playbacks:
            raise SettingsError(
                "An encoder with a class token cannot be listened to repeatedly.", "Set encoder.class_token to false."
            )
        width, n_passes = config.encoder.width, config.playbacks + 1
        self.encoder = MViT(config.encoder, config.heads)
        # Where hooks can tell the passes apart: every one is called once.
        self.pass_tokens = nn.ModuleList(nn.Identity() for _ in range(n_passes))
        if config.playbacks == 0:
            return
        self.decoder = TemPr(config.decoder, width, n_passes, config.heads)
        if config.corrected:
            self.time_slots = TimeSlots(width, config.slots.slot_dim, config.slots.iterations)
        else:
            self.saliency_slots = nn.ModuleList(SaliencySlots(width, config.slot_resolution) for _ in range(n_passes))
            # Published checkpoints carry it; nothing reads it.
            self.norm = nn.LayerNorm(width)

    @property
    def views(self) -> frozenset[str]:
        """What this configuration can show; an encoder alone listens once."""
        return self.info.views if self.config.playbacks else self.info.views - {"playback"}

    # --- listening -------------------------------------------------------------------------------------------------

    def lengths(self, features: Tensor) -> list[int]:
        """Frames of every level in `features`.

        Raises
        ------
        SettingsError
            If the features are not those of this network's front end.
        """
        if features.ndim != 3 or features.shape[2] != self.config.n_mels:
            raise SettingsError(
                f"Play It Back reads features [batch, frames, {self.config.n_mels}], not {list(features.shape)}.",
                "Use the front end that the checkpoint's card names.",
            )
        return self.config.schedule.lengths(self.config.playbacks + 1, features.shape[1])

    def clock(self) -> Clock:
        """Seconds of levels and frames in corrected mode."""
        schedule, n_levels = self.config.schedule, self.config.playbacks + 1
        return Clock([schedule.hop(p) for p in range(n_levels)], schedule.lengths(n_levels), schedule.sample_rate)

    def slot_noise(self, step: int, batch: int, device: torch.device) -> Tensor:
        """Start noise of the published slots in one pass, ``[batch, 2, resolution]``: fixed unless training."""
        shape = (2, self.config.slot_resolution)
        if self.training:
            return torch.randn(batch, *shape, device=device)
        generator = torch.Generator().manual_seed(self.config.noise_seed * 1009 + step)
        return torch.randn(shape, generator=generator).to(device).expand(batch, -1, -1)

    def encode(
        self, features: Tensor, step: int, level: np.ndarray, frame: np.ndarray, lengths: Sequence[int]
    ) -> Heard:
        """Run the encoder on chosen frames; `level`, `frame` are ``[batch, frames]`` or ``[frames]``."""
        starts = np.concatenate([[0], np.cumsum(lengths)])
        levels, frames = np.atleast_2d(level), np.atleast_2d(frame)
        index = torch.from_numpy(starts[levels] + frames).to(features.device)
        index = index.expand(features.shape[0], -1)
        inputs = features.gather(1, index.unsqueeze(2).expand(-1, -1, features.shape[2]))
        tokens, grid = self.encoder(inputs.unsqueeze(1))
        tokens = self.pass_tokens[step](tokens)
        shape = index.shape
        source_level = torch.from_numpy(levels).expand(shape)
        source_frame = torch.from_numpy(frames).expand(shape)
        return Heard(index, source_level, source_frame, None, inputs, tokens, grid, tokens)

    def listen(
        self, features: Tensor, *, valid_seconds: Sequence[float] | None = None, noise: Sequence[Tensor] | None = None,
        choose: Choose | None = None, explain: bool = False,
    ) -> list[Heard]:  # fmt: skip
        """All passes over ``[batch, frames of all levels, n_mels]``.

        Parameters
        ----------
        valid_seconds
            Length of every clip before it was padded (corrected mode); by default told from trailing digital silence.
        noise
            Start noise of the published slots per pass, ``[batch, 2, resolution]``.
        choose
            Called before pass 1, 2, ... with its number, the selected segments and the valid cells of every clip;
            returns the segments to replay instead (corrected mode).
        explain
            Also say what the last pass would select, which no score depends on.
        """
        lengths = self.lengths(features)
        n_passes = self.config.playbacks + 1
        passes: list[Heard] = []
        clock = self.clock()
        valid = self.valid_cells(features, clock, valid_seconds) if self.config.corrected else []
        for step in range(n_passes):
            needed = self.config.playbacks > 0 and (explain or step < n_passes - 1)
            segments = passes[-1].segments if passes else None
            if self.config.corrected:
                if choose is not None and segments is not None:
                    segments = passes[-1].segments = choose(step, segments, valid)
                passes.append(self._listen_corrected(features, step, clock, valid, segments, needed))
            else:
                given = noise[step] if noise is not None else None
                passes.append(self._listen_published(features, step, lengths, segments, given, needed))
        return passes

    def _listen_published(
        self, features: Tensor, step: int, lengths: list[int], segments: list[np.ndarray] | None, noise: Tensor | None,
        needed: bool,
    ) -> Heard:  # fmt: skip
        if segments is None:
            heard = self.encode(features, step, np.zeros(lengths[0], dtype=np.int64), np.arange(lengths[0]), lengths)
        else:
            sources = [published_replay(found, step, lengths) for found in segments]
            level, frame = np.stack([s[0] for s in sources]), np.stack([s[1] for s in sources])
            heard = self.encode(features, step, level, frame, lengths)
        if self.config.playbacks == 0:
            return heard
        # The published "time" axis: tokens are stored time-major but read frequency-major.
        n_tokens = heard.tokens.shape[1]
        columns = near_divisor(lengths[0] // 32, n_tokens)
        heard.ordered = heard.tokens.unflatten(1, (n_tokens // columns, columns)).transpose(1, 2)
        if needed:
            self._select_published(heard, step, lengths[0], noise)
        return heard

    @torch.no_grad()
    def _select_published(self, heard: Heard, step: int, n_frames: int, noise: Tensor | None) -> None:
        course = heard.ordered.mean(dim=2).transpose(1, 2)
        course = nn.functional.interpolate(course, size=n_frames, mode="linear", align_corners=False)
        noise = self.slot_noise(step, course.shape[0], course.device) if noise is None else noise
        slots = self.saliency_slots[step](course, noise)
        heard.slots, heard.slot_attention = slots.slots, slots.attention
        profile = published_profile(slots.slots, self.config.minimum_over_batch)
        heard.positive, heard.negative, heard.saliency, heard.mask = profile
        heard.segments = [pairwise_segments(row) for row in heard.mask.cpu().numpy()]

    def valid_cells(self, features: Tensor, clock: Clock, valid_seconds: Sequence[float] | None) -> list[int]:
        """Cells of every clip that carry signal (corrected mode).

        Without `valid_seconds`, frames at the end whose bands are all equal are padding; right to one cell.
        """
        if valid_seconds is not None:
            return [clock.valid_cells(float(seconds)) for seconds in valid_seconds]
        coarse = features[:, : clock.n_cells].detach()
        audible = (coarse.amax(dim=2) > coarse.amin(dim=2)).cpu().numpy()
        hop, half = clock.hops[0], self.config.schedule.window_samples // 2
        found = []
        for row in audible:
            last = int(np.flatnonzero(row)[-1]) if row.any() else clock.n_cells - 1
            whole = last == clock.n_cells - 1
            seconds = clock.seconds if whole else max(1, last * hop - half + 1) / clock.sample_rate
            found.append(clock.valid_cells(seconds))
        return found

    def _listen_corrected(
        self, features: Tensor, step: int, clock: Clock, valid: list[int], segments: list[np.ndarray] | None,
        needed: bool,
    ) -> Heard:  # fmt: skip
        sources = [clock.replay(found, step) for found in segments or [NOTHING] * features.shape[0]]
        level, frame = np.stack([s[1] for s in sources]), np.stack([s[2] for s in sources])
        heard = self.encode(features, step, level, frame, clock.lengths)
        heard.seconds = np.stack([s[0] for s in sources])
        heard.ordered = heard.tokens.unflatten(1, heard.grid)
        if needed:
            with torch.no_grad():
                evidence, heard.slots = self.time_slots.evidence(heard.tokens)
                heard.evidence = evidence.unflatten(1, heard.grid)
                heard.profile = self.frame_profile(heard.evidence, clock.n_cells)
                heard.slot_attention, heard.saliency = heard.evidence.sigmoid(), heard.profile.sigmoid()
            profiles = heard.profile.cpu().double().numpy()
            heard.segments = [
                self.select(profile, seconds, cells, clock)
                for profile, seconds, cells in zip(profiles, heard.seconds, valid, strict=True)
            ]
        return heard

    def frame_profile(self, evidence: Tensor, n_frames: int) -> Tensor:
        """Profile on input frames ``[batch, frames]`` of evidence ``[batch, time, frequency]``."""
        return profile_on_frames(token_profile(evidence), n_frames, self.config.encoder.total_stride[0])

    def select(self, profile: np.ndarray, seconds: np.ndarray, valid: int, clock: Clock) -> np.ndarray:
        """Segments in cells of one clip's profile on input frames that stand for `seconds`."""
        settings = self.config.slots
        cells = np.interp((np.arange(valid) + 0.5) * clock.cell_seconds, seconds, profile)
        shortest_seconds = settings.min_seconds or self.config.encoder.total_stride[0] / 2 * clock.cell_seconds
        gap_seconds = shortest_seconds / 2 if settings.max_gap_seconds is None else settings.max_gap_seconds
        shortest, gap = round(shortest_seconds / clock.cell_seconds), round(gap_seconds / clock.cell_seconds)
        budget = int(settings.budget * valid + 1e-9)
        return select_segments(cells, shortest, gap, budget, settings.stand_out)

    # --- answering -------------------------------------------------------------------------------------------------

    def contexts(self, passes: Sequence[Heard]) -> list[Tensor]:
        """What the decoder listens to: the tokens of every pass with their positions."""
        if not self.config.corrected:
            return [self.decoder.context(heard.ordered) for heard in passes]
        clock, stride = self.clock(), self.config.encoder.total_stride[0]
        found = []
        for heard in passes:
            assert heard.seconds is not None
            rows = np.minimum(stride * np.arange(heard.grid[0]), clock.n_cells - 1)
            positions = torch.from_numpy(2.0 * heard.seconds[:, rows] / clock.seconds - 1.0).float()
            found.append(self.decoder.context(heard.ordered, positions.to(heard.tokens)))
        return found

    def weighted_scores(self, tokens: Tensor, weights: Tensor) -> list[Tensor]:
        """Encoder logits of ``[batch, N, D]`` with every token weighted by a course over time ``[batch, steps]``."""
        course = nn.functional.interpolate(weights.unsqueeze(1), size=tokens.shape[1], mode="nearest")
        return self.encoder.classify((tokens * course.transpose(1, 2)).mean(dim=1))

    def forward_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """``[batch, frames of all levels, n_mels]`` to what `forward_head` reads."""
        passes = self.listen(features)
        if self.config.playbacks == 0:
            return self.encoder.pool(passes[0].tokens)
        return self.decoder.fuse(self.decoder.summarize(self.decoder.listen(self.contexts(passes))))

    def forward_head(self, hidden: Tensor) -> Tensor:
        """Logits; groups of classes one after the other."""
        parts = self.encoder.classify(hidden) if self.config.playbacks == 0 else self.decoder.predict(hidden)
        return torch.cat(parts, dim=-1)

    def playback(self, features: Tensor, *, valid_seconds: float | None = None, draws: int = 1) -> Playback:
        """What was heard, selected and concluded in every pass over one clip ``[1, frames of all levels, n_mels]``.

        Parameters
        ----------
        valid_seconds
            Length of the clip before it was padded (corrected mode).
        draws
            Draws of the published slots' start noise over which attention is averaged; scores and segments are those of
            the first, which is the one `forward` uses.

        Raises
        ------
        SettingsError
            If the model has no playback, or not exactly one clip is given.
        """
        return explain_playback(self, features, valid_seconds, draws)

    def cam_layers(self) -> list[CamLayer]:
        """The tokens of the first pass, which hears the whole clip on an even grid."""
        length = self.config.schedule.lengths(self.config.playbacks + 1)[0]
        grid, (time, frequency) = self.config.encoder.grid(length, self.config.n_mels), self.config.encoder.total_stride
        special = int(self.config.encoder.class_token)

        def to_map(tokens: Tensor) -> Tensor:
            return tokens[:, special:].transpose(1, 2).unflatten(2, grid)

        # Odd kernels padded by half of themselves: token 0 is centred on frame 0 and band 0.
        return [CamLayer("first pass, all tokens", self.pass_tokens[0], to_map, 0.0, time, 0.0, frequency)]

    @classmethod
    def default_frontend(cls, config: NetworkConfig) -> FrontEndConfig:
        """The schedule's levels, not normalised (as published)."""
        assert isinstance(config, PlayItBackConfig)
        return PlayItBackMelConfig(
            sample_rate=config.schedule.sample_rate, n_mels=config.n_mels, n_levels=config.playbacks + 1,
            schedule=config.schedule,
        )  # fmt: skip

    # --- published checkpoints -------------------------------------------------------------------------------------

    @classmethod
    def recognizes(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """The whole model, or its encoder alone with or without its prefix."""
        prefix = "encoder." if "encoder.patch_embed.proj.weight" in state_dict else ""
        patch = state_dict.get(f"{prefix}patch_embed.proj.weight")
        # Image models of the same architecture read three channels.
        return patch is not None and patch.shape[1] == 1 and f"{prefix}blocks.0.attn.pool_q.weight" in state_dict

    @classmethod
    def infer_config(cls, state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> PlayItBackConfig:
        """From the config that published containers carry (`hints["cfg"]`, YAML text or mapping), else from shapes.

        Without it the number of classes tells the data set; give `schedule` for any other.
        """
        given = dict(hints)
        published = given.pop("cfg", None)
        corrected = given.pop("corrected", None)
        if published is not None:
            values = read_published(published).model_dump()
        else:
            values = infer_from_shapes(state_dict)
        values |= given
        if corrected is None:
            corrected = values_schedule(values["schedule"]).corrected or any(
                key.startswith("time_slots.") for key in state_dict
            )
        schedule = values_schedule(values["schedule"])
        values["schedule"] = schedule.model_copy(
            update={"corrected": corrected, "squeeze": schedule.squeeze and not corrected}
        )
        return PlayItBackConfig.model_validate(values)

    @classmethod
    def convert_state_dict(cls, state_dict: Mapping[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
        """Prefix a bare encoder, and drop (and log) what the configured mode does not have.

        The final norm of a bare encoder goes where it belongs; the published code put it into the unused top norm.
        A published file that is to be used in corrected mode gets new, untrained slots.
        """
        assert isinstance(config, PlayItBackConfig)
        with torch.device("meta"):
            expected = set(cls(config).state_dict())
        entries = with_prefix(state_dict)
        skipped = sorted(key for key in entries if key not in expected and key.startswith(PARTS))
        kept = {key: value for key, value in entries.items() if key not in set(skipped)}
        if skipped:
            log.warning("%d entries are not used in this mode: %s", len(skipped), ", ".join(skipped[:8]))
        if config.corrected and config.playbacks and not any(key.startswith("time_slots.") for key in kept):
            log.warning("The checkpoint has no slots for the corrected mode; they start untrained.")
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.noise_seed)
                fresh = TimeSlots(config.encoder.width, config.slots.slot_dim, config.slots.iterations)
            kept |= {f"time_slots.{key}": value for key, value in fresh.state_dict().items()}
        return kept
