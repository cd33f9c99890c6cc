// The data the player shows. Python writes the same shape (workbench/player/data.py); keep both in step.

export interface Track {
  id: string;
  label: string;
  url: string;
  /** Gain in dB that would make a very quiet track audible. Offered as a switch, never applied by itself. */
  gainDb?: number;
}

export interface FrequencyTick {
  /** 0 at the bottom of the spectrogram, 1 at its top. */
  position: number;
  hz: number;
  label?: string;
}

export interface FrequencyAxis {
  scale: "mel" | "linear" | "log";
  ticks: FrequencyTick[];
  /** Frequencies of the lower and the upper edge, in Hz; found from the ticks where they are missing. */
  fMin?: number;
  fMax?: number;
}

export interface Segment {
  start: number;
  end: number;
  label: string;
  kind?: string;
}

/** A course over time with its own segments. One time more than values: borders of steps. */
export interface Lane {
  label: string;
  note?: string;
  times: number[];
  values: number[];
  /** Values at the lower and the upper edge, with what is written there. */
  low: number;
  high: number;
  lowLabel?: string;
  highLabel?: string;
  /** A value at which a thin line is drawn. */
  mark?: number;
  segments?: Segment[];
}

export interface PlayerData {
  duration: number;
  tracks: Track[];
  /** An 8-bit grey picture, first row = highest frequency, 0 = dbMin, 255 = dbMax. */
  spectrogram: { url: string; start: number; end: number; dbMin: number; dbMax: number };
  /** 8-bit grey pictures over the same area: how strongly a place supports or opposes, and what is kept. */
  overlay?: { supportsUrl?: string; opposesUrl?: string; keptOutline?: string };
  frequencyAxis: FrequencyAxis;
  segments?: Segment[];
  /** One under the other below the spectrogram. */
  lanes?: Lane[];
  curve?: { label: string; times: number[]; values: number[] };
  waveform?: { min: number[]; max: number[] };
  video?: { url: string; label?: string };
  /** Small pictures of the video side by side in one image, from the middles of `count` equal parts of the clip. */
  filmstrip?: { url: string; count: number };
  initial?: { track?: string; overlayOpacity?: number; supports?: boolean; opposes?: boolean };
  strings?: Record<string, string>;
  /** Same id = same clip: position, zoom and loop are kept when the rest changes. */
  clipId?: string;
  /** Height of the spectrogram in CSS pixels. */
  height?: number;
  /** Without zoom, loop and selection: for a sound that is only listened to. */
  compact?: boolean;
  title?: string;
}

export interface Range {
  start: number;
  end: number;
}

/** A box in time (s) and frequency (Hz). Named as Python names them, because it goes there as it is. */
export interface Selection extends Range {
  f_low: number;
  f_high: number;
}

export interface Callbacks {
  track?(id: string): void;
  /** A box was drawn; null: it was cleared. */
  selection?(selection: Selection | null): void;
  /** A segment was clicked; `lane` is the place of its lane, where it belongs to one. */
  segment?(segment: Segment & { index: number; lane?: number }): void;
}

export interface Player {
  /** Shows other data; what did not change is neither loaded nor moved. */
  update(data: PlayerData, callbacks?: Callbacks): void;
  destroy(): void;
}
