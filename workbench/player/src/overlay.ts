// The layer above all lanes, painted at every frame: loop, box, playhead, and the values under the pointer.
import { clockText, frequencyText } from "./axes";
import { sharp } from "./dom";
import { share, type Scene } from "./lanes";
import type { Range, Selection } from "./types";

interface Span {
  top: number;
  height: number;
}

export interface Marks {
  position: number;
  region: Range | null;
  box: Selection | null;
  /** Time, and on the spectrogram also frequency, under the pointer. */
  hover: { time: number; hz: number | null } | null;
  /** Where the lanes lie in the canvas; the first is the spectrogram. */
  lanes: Span[];
  toHz: (position: number) => number;
}

export function paintOverlay(canvas: HTMLCanvasElement, scene: Scene, marks: Marks): void {
  const { context, width } = sharp(canvas);
  if (marks.region) paintRegion(context, width, scene, marks.region, marks.lanes);
  if (marks.box) paintBox(context, width, scene, marks.box, marks);
  paintPlayhead(context, width, scene, marks);
  if (marks.hover) paintHover(context, width, scene, marks.hover, marks.lanes[0]);
}

function paintRegion(context: CanvasRenderingContext2D, width: number, { view, theme }: Scene, region: Range, lanes: Span[]): void {
  const from = share(view, region.start) * width;
  const to = share(view, region.end) * width;
  for (const lane of lanes) {
    context.fillStyle = theme.background;
    context.globalAlpha = 0.55;
    context.fillRect(0, lane.top, Math.max(0, from), lane.height);
    context.fillRect(to, lane.top, Math.max(0, width - to), lane.height);
    context.fillStyle = theme.text;
    context.globalAlpha = 1;
    for (const x of [from, to]) context.fillRect(Math.round(x), lane.top, 1, lane.height);
  }
}

function paintPlayhead(context: CanvasRenderingContext2D, width: number, { view, theme }: Scene, { position, lanes }: Marks): void {
  const x = share(view, position) * width;
  if (x < -1 || x > width + 1) return;
  const place = Math.max(1, Math.min(width - 1, x));
  for (const [style, thickness] of [[theme.background, 4], [theme.text, 1.75]] as const) {
    context.fillStyle = style;
    context.globalAlpha = style === theme.background ? 0.75 : 1;
    for (const lane of lanes) context.fillRect(place - thickness / 2, lane.top, thickness, lane.height);
  }
  context.beginPath();
  context.moveTo(place - 5, lanes[0].top - 6);
  context.lineTo(place + 5, lanes[0].top - 6);
  context.lineTo(place, lanes[0].top + 2);
  context.closePath();
  context.fill();
}

function paintBox(context: CanvasRenderingContext2D, width: number, { view, theme }: Scene, box: Selection, { toHz, lanes }: Marks): void {
  const main = lanes[0];
  const height = (hz: number) => {
    let low = 0;
    let high = 1;
    for (let step = 0; step < 20; step += 1) {
      const middle = (low + high) / 2;
      if (toHz(middle) < hz) low = middle;
      else high = middle;
    }
    return main.top + (1 - (low + high) / 2) * main.height;
  };
  const from = share(view, box.start) * width;
  const to = share(view, box.end) * width;
  const top = height(box.f_high);
  const bottom = height(box.f_low);
  for (const [style, thickness] of [[theme.background, 3.5], [theme.text, 1.5]] as const) {
    context.strokeStyle = style;
    context.lineWidth = thickness;
    context.setLineDash(thickness < 2 ? [5, 3] : []);
    context.strokeRect(from, top, to - from, bottom - top);
  }
  context.setLineDash([]);
}

function paintHover(
  context: CanvasRenderingContext2D,
  width: number,
  { data, view, theme }: Scene,
  { time, hz }: { time: number; hz: number | null },
  main: Span,
): void {
  const words = [data.duration > 90 ? clockText(time) : `${time.toFixed(2)} s`];
  if (hz !== null && Number.isFinite(hz)) words.push(frequencyText(hz));
  const curve = data.curve;
  if (curve?.times.length) words.push(`${Math.round(100 * interpolate(curve.times, curve.values, time))} %`);
  const text = words.join("   ");
  context.font = `12px ${theme.font}`;
  const wide = context.measureText(text).width + 14;
  const place = share(view, time) * width;
  const left = place < width / 2 ? width - wide - 6 : 6; // away from the pointer
  context.fillStyle = theme.background;
  context.globalAlpha = 0.92;
  context.beginPath();
  context.roundRect(left, main.top + main.height - 28, wide, 22, 4);
  context.fill();
  context.globalAlpha = 1;
  context.fillStyle = theme.text;
  context.textBaseline = "middle";
  context.textAlign = "left";
  context.fillText(text, left + 7, main.top + main.height - 16.5);
  context.fillStyle = theme.text;
  context.globalAlpha = 0.35;
  context.fillRect(Math.round(place), main.top, 1, main.height);
  context.globalAlpha = 1;
}

function interpolate(times: number[], values: number[], time: number): number {
  const after = times.findIndex((one) => one >= time);
  if (after <= 0) return values[after < 0 ? values.length - 1 : 0];
  const share = (time - times[after - 1]) / (times[after] - times[after - 1]);
  return values[after - 1] + share * (values[after] - values[after - 1]);
}
