// Lanes one under the other on the player's time axis: a course over time, and segments of its own.
import { h, sharp } from "./dom";
import { share, type Scene } from "./lanes";
import { fillSegments, placeSegments } from "./segments";
import type { Translate } from "./strings";
import type { Lane, Segment } from "./types";

interface Row {
  lane: Lane;
  element: HTMLElement;
  plot: HTMLElement;
  canvas: HTMLCanvasElement;
  segments: HTMLElement;
}

export class LaneStack {
  readonly element = h("div", { class: "ew-stack", hidden: true });
  onsegment: (segment: Segment, index: number, lane: number) => void = () => undefined;
  private rows: Row[] = [];
  private shown = "";

  show(lanes: Lane[], t: Translate): void {
    const key = JSON.stringify(lanes);
    this.element.hidden = !lanes.length;
    if (key === this.shown) return;
    this.shown = key;
    this.rows = lanes.map((lane, number) => this.row(lane, number, t));
    this.element.replaceChildren(...this.rows.map((row) => row.element));
  }

  private row(lane: Lane, number: number, t: Translate): Row {
    const canvas = h("canvas", { "aria-hidden": "true" });
    const plot = h("div", { class: "ew-plot ew-plot-lane", role: "img", "aria-label": [lane.label, lane.note].filter(Boolean).join(". ") }, canvas);
    const left = h("div", { class: "ew-gutter ew-gutter-left", "aria-hidden": "true" });
    for (const [label, place] of [[lane.highLabel, "top"], [lane.lowLabel, "bottom"]] as const) {
      if (!label) continue;
      const mark = h("span", { class: `ew-tick ew-tick-${place}` }, label);
      mark.style.bottom = place === "top" ? "100%" : "0%";
      left.append(mark);
    }
    const head = h("div", { class: "ew-lane-head" }, h("strong", {}, lane.label));
    if (lane.note) head.append(" ", h("span", {}, lane.note));
    const segments = h("div", { class: "ew-plot ew-plot-segments" });
    const given = lane.segments ?? [];
    fillSegments(segments, given, t, (segment, index) => this.onsegment(segment, index, number));
    segments.setAttribute("aria-label", `${lane.label}: ${t("segments")}`);
    const gutter = () => h("div", { class: "ew-gutter" });
    const row = (name: string, ...children: HTMLElement[]) => h("div", { class: `ew-row ew-row-${name}` }, ...children);
    const rows = [row("lane-head", gutter(), head, gutter()), row("lane", left, plot, h("div", { class: "ew-gutter ew-gutter-right" }))];
    if (lane.segments) rows.push(row("segments", gutter(), segments, gutter()));
    const element = h("div", { class: "ew-lane" }, ...rows);
    element.dataset.lane = String(number);
    return { lane, element, plot, canvas, segments };
  }

  /** What the playhead runs through. */
  get plots(): HTMLElement[] {
    return this.rows.flatMap((row) => (row.segments.isConnected ? [row.plot, row.segments] : [row.plot]));
  }

  draw(scene: Scene): void {
    if (this.element.hidden) return;
    for (const row of this.rows) {
      drawLane(row.canvas, scene, row.lane);
      placeSegments(row.segments, row.lane.segments ?? [], scene.view);
    }
  }
}

function drawLane(canvas: HTMLCanvasElement, { view, theme }: Scene, lane: Lane): void {
  const { context, width, height } = sharp(canvas);
  const span = lane.high - lane.low || 1;
  const y = (value: number) => height - 1 - ((Math.max(lane.low, Math.min(lane.high, value)) - lane.low) / span) * (height - 2);
  const zero = y(0);
  for (const { start, end } of lane.segments ?? []) {
    context.fillStyle = theme.text;
    context.globalAlpha = 0.07;
    context.fillRect(share(view, start) * width, 0, Math.max(1, share(view, end) * width - share(view, start) * width), height);
  }
  context.globalAlpha = 1;
  context.fillStyle = theme.line;
  for (const mark of lane.mark === undefined ? [0] : [0, lane.mark]) context.fillRect(0, Math.round(y(mark)), width, 1);
  const path = course(lane, (time) => share(view, time) * width, y);
  if (!path.length) return;
  // The same course twice, each time cut off at zero: what supports above, what opposes below.
  for (const [colour, top, bottom] of [[theme.supports, 0, zero], [theme.opposes, zero, height]] as const) {
    if (colour === theme.opposes && lane.low >= 0) continue; // a line along zero opposes nothing
    context.save();
    context.beginPath();
    context.rect(0, top, width, bottom - top);
    context.clip();
    context.beginPath();
    context.moveTo(path[0][0], zero);
    for (const [x, at] of path) context.lineTo(x, at);
    context.lineTo(path[path.length - 1][0], zero);
    context.closePath();
    context.fillStyle = `rgb(${colour.join(" ")})`;
    context.globalAlpha = 0.3;
    context.fill();
    context.restore();
    context.save();
    context.beginPath();
    context.rect(0, top - 1, width, bottom - top + 2);
    context.clip();
    context.beginPath();
    for (const [x, at] of path) context.lineTo(x, at);
    context.strokeStyle = `rgb(${colour.join(" ")})`;
    context.lineWidth = 1.5;
    context.lineJoin = "round";
    context.stroke();
    context.restore();
  }
}

/** Points of a lane: steps where it has borders (one time more than values), otherwise a line from centre to centre. */
function course(lane: Lane, x: (time: number) => number, y: (value: number) => number): [number, number][] {
  const { times, values } = lane;
  if (times.length === values.length) return times.map((time, index) => [x(time), y(values[index])]);
  return values.flatMap((value, index) => [[x(times[index]), y(value)], [x(times[index + 1]), y(value)]] as [number, number][]);
}
