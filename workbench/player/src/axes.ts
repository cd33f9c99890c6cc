// Numbers with units: ticks on the time axis, frequencies, spoken and written times.
import type { FrequencyAxis } from "./types";

const STEPS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];

/** Round times within [start, end], at most `count` of them, and the step between them. */
export function timeTicks(start: number, end: number, count: number): { step: number; ticks: number[] } {
  const span = end - start;
  const step = STEPS.find((candidate) => span / candidate <= Math.max(1, count)) ?? 3600;
  const ticks: number[] = [];
  for (let index = Math.ceil(start / step - 1e-6); index * step <= end + step * 1e-6; index += 1) ticks.push(index * step);
  return { step, ticks };
}

/** A tick's label: plain seconds for short clips, minutes:seconds for long ones. */
export function tickLabel(seconds: number, step: number, long: boolean): string {
  const digits = step >= 1 ? 0 : Math.min(3, Math.ceil(-Math.log10(step) - 1e-9));
  if (!long) return seconds.toFixed(digits);
  const minutes = Math.floor(seconds / 60 + 1e-9);
  const rest = Math.max(0, seconds - 60 * minutes).toFixed(digits);
  return `${minutes}:${rest.padStart(digits ? digits + 3 : 2, "0")}`;
}

/** 0:01.2 */
export function clockText(seconds: number): string {
  const tenths = Math.floor(seconds * 10 + 1e-6);
  const minutes = Math.floor(tenths / 600);
  const rest = (tenths % 600) / 10;
  return `${minutes}:${rest.toFixed(1).padStart(4, "0")}`;
}

export function spoken(seconds: number): string {
  return seconds.toFixed(1);
}

/** 440 Hz, 2.4 kHz */
export function frequencyText(hz: number): string {
  if (hz < 1000) return `${Math.round(hz)} Hz`;
  return `${Number((hz / 1000).toFixed(hz < 10000 ? 1 : 0))} kHz`;
}

const WARP: Record<FrequencyAxis["scale"], [(hz: number) => number, (value: number) => number]> = {
  linear: [(hz) => hz, (value) => value],
  log: [(hz) => Math.log(Math.max(hz, 1e-3)), (value) => Math.exp(value)],
  mel: [(hz) => 2595 * Math.log10(1 + hz / 700), (value) => 700 * (10 ** (value / 2595) - 1)],
};

/** From a height (0 bottom, 1 top) to Hz; runs exactly through the ticks, between them along the scale. */
export function frequencyScale(axis: FrequencyAxis): (position: number) => number {
  const [forward, back] = WARP[axis.scale] ?? WARP.linear;
  const points = axis.ticks.map((tick) => [tick.position, forward(tick.hz)] as [number, number]);
  if (axis.fMin !== undefined) points.push([0, forward(axis.fMin)]);
  if (axis.fMax !== undefined) points.push([1, forward(axis.fMax)]);
  points.sort((a, b) => a[0] - b[0]);
  const known = points.filter((point, index) => index === 0 || point[0] - points[index - 1][0] > 1e-6);
  if (known.length < 2) return () => NaN;
  return (position) => {
    let upper = known.findIndex((point) => point[0] >= position);
    if (upper < 0) upper = known.length - 1;
    upper = Math.max(1, upper);
    const [x0, y0] = known[upper - 1];
    const [x1, y1] = known[upper];
    return Math.max(0, back(y0 + ((position - x0) / (x1 - x0)) * (y1 - y0)));
  };
}
