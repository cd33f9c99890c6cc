// The pictures on the time axis, each painted from its data and what part of the clip is visible.
import type { Pictures } from "./assets";
import { tickLabel, timeTicks } from "./axes";
import { sharp } from "./dom";
import type { Theme } from "./theme";
import type { PlayerData, Range } from "./types";

/** What is visible, and how it is to look. */
export interface Scene {
  data: PlayerData;
  view: Range;
  theme: Theme;
}

/** The coloured pictures, ready to be drawn. */
export interface Layers {
  spectrogram?: HTMLCanvasElement;
  supports?: HTMLCanvasElement;
  opposes?: HTMLCanvasElement;
  kept?: Path2D;
}

/** Place of a time in the visible part: 0 left edge, 1 right edge. */
export function share(view: Range, time: number): number {
  return (time - view.start) / (view.end - view.start);
}

export function drawSpectrogram(
  canvas: HTMLCanvasElement,
  { data, view, theme }: Scene,
  layers: Layers,
  pictures: Pictures | null,
  opacity: number,
): void {
  const { context, width, height } = sharp(canvas);
  const { start, end } = data.spectrogram;
  const perPixel = (view.end - view.start) / width;
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  const left = (start - view.start) / perPixel;
  const spread = (end - start) / perPixel;
  const put = (picture: HTMLCanvasElement, strength: number) => {
    // Only the visible columns: a scaled whole picture would be thousands of pixels wide when zoomed in.
    const scale = picture.width / spread;
    const from = Math.max(0, Math.floor(-left * scale) - 1);
    const to = Math.min(picture.width, Math.ceil((width - left) * scale) + 1);
    if (to <= from) return;
    context.globalAlpha = strength;
    context.drawImage(picture, from, 0, to - from, picture.height, left + from / scale, 0, (to - from) / scale, height);
    context.globalAlpha = 1;
  };
  const { spectrogram, supports, opposes, kept } = layers;
  if (spectrogram) put(spectrogram, 1);
  if (opposes) put(opposes, opacity);
  if (supports) put(supports, opacity);
  if (kept && pictures?.kept && opacity > 0) {
    const grid = pictures.kept;
    const path = new Path2D();
    path.addPath(kept, new DOMMatrix([spread / grid.width, 0, 0, height / grid.height, left, 0]));
    context.lineJoin = context.lineCap = "round";
    context.strokeStyle = theme.background;
    // Where many cells share a pixel, full lines would cover what they enclose.
    const thin = Math.min(1, (1.5 * spread) / grid.width);
    context.globalAlpha = 0.45 * thin;
    context.lineWidth = 2.5 * thin;
    context.stroke(path);
    context.globalAlpha = thin;
    context.strokeStyle = theme.outline;
    context.lineWidth = 1.25 * thin;
    context.stroke(path);
    context.globalAlpha = 1;
  }
}

export function drawAxis(canvas: HTMLCanvasElement, { data, view, theme }: Scene): void {
  const { context, width } = sharp(canvas);
  const { step, ticks } = timeTicks(view.start, view.end, width / 64);
  context.font = `12px ${theme.font}`;
  context.textBaseline = "top";
  context.fillStyle = theme.muted;
  context.strokeStyle = theme.line;
  context.lineWidth = 1;
  for (const time of ticks) {
    const x = share(view, time) * width;
    const label = tickLabel(time, step, data.duration > 90);
    const half = context.measureText(label).width / 2;
    const line = Math.min(width - 0.5, Math.max(0.5, Math.round(x) + 0.5));
    context.beginPath();
    context.moveTo(line, 0);
    context.lineTo(line, 5);
    context.stroke();
    context.textAlign = "center";
    context.fillText(label, Math.max(half, Math.min(width - half, x)), 8);
  }
}

export function drawCurve(canvas: HTMLCanvasElement, { data, view, theme }: Scene): void {
  const { context, width, height } = sharp(canvas);
  const { times, values } = data.curve!;
  const y = (value: number) => height - 1 - Math.max(0, Math.min(1, value)) * (height - 2);
  context.strokeStyle = theme.line;
  context.lineWidth = 1;
  context.setLineDash([2, 3]);
  context.beginPath();
  context.moveTo(0, Math.round(height / 2) + 0.5);
  context.lineTo(width, Math.round(height / 2) + 0.5);
  context.stroke();
  context.setLineDash([]);
  context.beginPath();
  times.forEach((time, index) => {
    const x = share(view, time) * width;
    if (index === 0) context.moveTo(x, y(values[0]));
    else context.lineTo(x, y(values[index]));
  });
  context.strokeStyle = theme.text;
  context.lineWidth = 1.5;
  context.lineJoin = "round";
  context.stroke();
  context.lineTo(share(view, times[times.length - 1]) * width, height);
  context.lineTo(share(view, times[0]) * width, height);
  context.fillStyle = theme.text;
  context.globalAlpha = 0.08;
  context.fill();
  context.globalAlpha = 1;
}

export function drawWaveform(canvas: HTMLCanvasElement, { data, view, theme }: Scene): void {
  const { context, width, height } = sharp(canvas);
  const { min, max } = data.waveform!;
  const count = Math.min(min.length, max.length);
  const first = Math.max(0, Math.floor((view.start / data.duration) * count));
  const last = Math.min(count, Math.ceil((view.end / data.duration) * count));
  const centre = height / 2;
  const x = (index: number) => share(view, (index / count) * data.duration) * width;
  context.beginPath();
  for (let index = first; index < last; index += 1) context.lineTo(x(index + 0.5), centre - Math.max(max[index] * centre, 0.5));
  for (let index = last - 1; index >= first; index -= 1) context.lineTo(x(index + 0.5), centre - Math.min(min[index] * centre, -0.5));
  context.closePath();
  context.fillStyle = theme.muted;
  context.globalAlpha = 0.75;
  context.fill();
  context.globalAlpha = 1;
}
