// What is drawn: spectrogram, explanation, axes, segments, curve and waveform over one time axis, and one playhead.
import { shade, tint, type Pictures } from "./assets";
import { frequencyScale, frequencyText } from "./axes";
import { contour } from "./contour";
import { h } from "./dom";
import { drawAxis, drawCurve, drawSpectrogram, drawWaveform, share, type Layers } from "./lanes";
import { paintOverlay } from "./overlay";
import { fillSegments, placeSegments } from "./segments";
import { LaneStack } from "./stack";
import { FilmStrip } from "./strip";
import type { Translate } from "./strings";
import type { Theme } from "./theme";
import type { PlayerData, Range, Segment, Selection } from "./types";

interface Lane {
  row: HTMLElement;
  plot: HTMLElement;
  canvas: HTMLCanvasElement;
  left: HTMLElement;
  right: HTMLElement;
}

const MIN_SPAN = 0.05;

export class Stage {
  readonly element = h("div", { class: "ew-stage" });
  readonly spectrogram: Lane;
  readonly video = h("video", { class: "ew-video", playsinline: true, preload: "metadata", hidden: true });
  readonly pan = h("div", { class: "ew-pan", "aria-hidden": "true" }, h("div", { class: "ew-pan-thumb" }));
  /** The level scale again, for a narrow page where there is no place beside the picture. */
  readonly legend = h("div", { class: "ew-legend", "aria-hidden": "true" });
  view: Range = { start: 0, end: 1 };
  /** The looped time range, and the box in time and frequency, where there are any. */
  region: Range | null = null;
  box: Selection | null = null;
  hover: { x: number; y: number | null } | null = null;
  opacity = 0.85;
  supports = true;
  opposes = true;
  readonly stack = new LaneStack();
  private strip = new FilmStrip(() => this.draw());
  onsegment: (segment: Segment, index: number, lane?: number) => void = () => undefined;

  private axis = lane("axis");
  private segments = lane("segments");
  private curve = lane("curve");
  private waveform = lane("waveform");
  private overlay = h("canvas", { class: "ew-overlay", "aria-hidden": "true" });
  private data: PlayerData | null = null;
  private pictures: Pictures | null = null;
  private layers: Layers = {};
  private theme!: Theme;
  private toHz: (position: number) => number = () => NaN;
  private position = 0;

  constructor(private t: Translate) {
    this.spectrogram = lane("spectrogram");
    this.spectrogram.plot.classList.add("ew-loading");
    const film = h("div", { class: "ew-row ew-row-video" }, h("div"), this.video, h("div"));
    const [spectrogram, axis, segments, ...others] = this.lanes().map((one) => one.row);
    this.element.append(film, this.strip.element, spectrogram, axis, segments, this.stack.element, ...others, this.overlay);
    this.stack.onsegment = (segment, index, lane) => this.onsegment(segment, index, lane);
  }

  private lanes(): Lane[] {
    return [this.spectrogram, this.axis, this.segments, this.curve, this.waveform];
  }

  /** Plots that answer to the pointer with time (and frequency). */
  get surfaces(): HTMLElement[] {
    return [this.spectrogram.plot, this.axis.plot, this.stack.element, this.curve.plot, this.waveform.plot];
  }

  get duration(): number {
    return this.data?.duration ?? 1;
  }

  show(data: PlayerData, t: Translate, newClip: boolean): void {
    const before = this.data;
    this.t = t;
    this.data = data;
    this.toHz = frequencyScale(data.frequencyAxis);
    if (newClip) {
      this.view = { start: 0, end: data.duration };
      this.region = null;
      this.box = null;
      this.position = 0;
    }
    this.element.style.setProperty("--ew-spectrogram-height", data.height ? `${data.height}px` : "");
    this.segments.row.hidden = !data.segments; // an empty list keeps the place, so that nothing moves when segments come
    this.curve.row.hidden = !data.curve?.times.length;
    this.waveform.row.hidden = !data.waveform?.max.length;
    this.video.parentElement!.hidden = this.video.hidden = !data.video;
    this.strip.show(data);
    this.frequencyLabels(data);
    this.levelBar(data);
    if (JSON.stringify(before?.segments) !== JSON.stringify(data.segments)) {
      fillSegments(this.segments.plot, data.segments ?? [], t, (segment, index) => this.onsegment(segment, index));
    }
    this.stack.show(data.lanes ?? [], t);
    this.curve.left.replaceChildren(tick("100 %", 1), tick("0 %", 0));
    this.curve.plot.dataset.label = data.curve?.label ?? "";
    this.axis.left.replaceChildren(h("span", { class: "ew-unit" }, data.duration > 90 ? "min:s" : "s"));
  }

  setPictures(pictures: Pictures): void {
    this.pictures = pictures;
    this.spectrogram.plot.classList.remove("ew-loading");
    this.colour();
  }

  setTheme(theme: Theme): void {
    this.theme = theme;
    this.colour();
  }

  private colour(): void {
    const { theme, pictures } = this;
    if (!pictures || !theme) return;
    this.layers = {
      spectrogram: pictures.spectrogram && shade(pictures.spectrogram, theme.quiet, theme.loud),
      supports: pictures.supports && tint(pictures.supports, theme.supports),
      opposes: pictures.opposes && tint(pictures.opposes, theme.opposes),
      kept: pictures.kept && contour(pictures.kept),
    };
    this.draw();
  }

  // --- from places to values and back

  timeAt(clientX: number): number {
    const box = this.spectrogram.plot.getBoundingClientRect();
    const share = Math.max(0, Math.min(1, (clientX - box.left) / Math.max(1, box.width)));
    return this.view.start + share * (this.view.end - this.view.start);
  }

  frequencyAt(clientY: number): number {
    const box = this.spectrogram.plot.getBoundingClientRect();
    return this.toHz(1 - Math.max(0, Math.min(1, (clientY - box.top) / Math.max(1, box.height))));
  }

  // --- what part is visible

  get zoomed(): boolean {
    return this.view.end - this.view.start < this.duration - 1e-6;
  }

  setView(start: number, end: number): void {
    const span = Math.max(Math.min(MIN_SPAN, this.duration), Math.min(this.duration, end - start));
    const from = Math.max(0, Math.min(this.duration - span, start));
    this.view = { start: from, end: from + span };
    this.draw();
  }

  zoom(factor: number, around: number): void {
    const span = (this.view.end - this.view.start) / factor;
    const place = Math.max(0, Math.min(1, share(this.view, around)));
    this.setView(around - place * span, around + (1 - place) * span);
  }

  /** Turns the page when the playhead leaves the visible part. */
  follow(position: number): void {
    const { start, end } = this.view;
    if (!this.zoomed || (position >= start && position <= end)) return;
    const span = end - start;
    this.setView(position - 0.05 * span, position + 0.95 * span);
  }

  // --- drawing

  draw(): void {
    if (!this.data || !this.theme || this.element.clientWidth === 0) return;
    const scene = { data: this.data, view: this.view, theme: this.theme };
    const { supports, opposes, ...others } = this.layers;
    const layers = { ...others, supports: this.supports ? supports : undefined, opposes: this.opposes ? opposes : undefined };
    drawSpectrogram(this.spectrogram.canvas, scene, layers, this.pictures, this.opacity);
    drawAxis(this.axis.canvas, scene);
    placeSegments(this.segments.plot, this.data.segments ?? [], this.view);
    this.strip.draw(scene);
    this.stack.draw(scene);
    if (!this.curve.row.hidden) drawCurve(this.curve.canvas, scene);
    if (!this.waveform.row.hidden) drawWaveform(this.waveform.canvas, scene);
    const thumb = this.pan.firstElementChild as HTMLElement;
    thumb.style.left = `${(100 * this.view.start) / this.duration}%`;
    thumb.style.width = `${(100 * (this.view.end - this.view.start)) / this.duration}%`;
    this.pan.classList.toggle("ew-pan-active", this.zoomed);
    this.paintOverlay(this.position);
  }

  /** Everything that moves; called at every frame while playing. */
  paintOverlay(position: number): void {
    this.position = position;
    if (!this.data || !this.theme) return;
    const below = [this.curve, this.waveform].filter((one) => !one.row.hidden).map((one) => one.plot);
    const plots = [this.spectrogram.plot, ...(this.segments.row.hidden ? [] : [this.segments.plot]), ...this.stack.plots, ...below];
    const lanes = plots.map((plot) => ({ top: plot.parentElement!.offsetTop + plot.offsetTop, height: plot.offsetHeight }));
    const { region, box, toHz } = this;
    const hover = this.hover && {
      time: this.timeAt(this.hover.x),
      hz: this.hover.y === null ? null : this.frequencyAt(this.hover.y),
    };
    paintOverlay(this.overlay, { data: this.data, view: this.view, theme: this.theme }, { position, region, box, hover, lanes, toHz });
  }

  // --- labels and segments

  private frequencyLabels(data: PlayerData): void {
    const ticks = data.frequencyAxis.ticks.filter((one) => one.position >= 0 && one.position <= 1);
    const height = data.height ?? 240;
    const kept: typeof ticks = [];
    for (const one of [...ticks].sort((a, b) => a.position - b.position)) {
      const last = kept[kept.length - 1];
      if (!last || (one.position - last.position) * height >= 17) kept.push(one);
    }
    this.spectrogram.left.replaceChildren(...kept.map((one) => tick(one.label ?? frequencyText(one.hz), one.position)));
  }

  private levelBar(data: PlayerData): void {
    const { dbMin, dbMax } = data.spectrogram;
    const text = (value: number) => `${Math.round(value)}`.replace("-", "−") + " dB";
    const bar = h("div", { class: "ew-level", role: "img" });
    bar.setAttribute("aria-label", `${this.t("level")}: ${text(dbMin)} – ${text(dbMax)}`);
    this.legend.replaceChildren(text(dbMin), h("span", {}), text(dbMax));
    const labels = [0, 0.5, 1].map((share) => tick(text(dbMin + share * (dbMax - dbMin)), share));
    this.spectrogram.right.replaceChildren(bar, ...labels);
  }
}

function lane(name: string): Lane {
  const canvas = h("canvas", { "aria-hidden": "true" });
  const left = h("div", { class: "ew-gutter ew-gutter-left", "aria-hidden": "true" });
  const plot = h("div", { class: `ew-plot ew-plot-${name}` }, canvas);
  const right = h("div", { class: "ew-gutter ew-gutter-right" });
  return { row: h("div", { class: `ew-row ew-row-${name}` }, left, plot, right), plot, canvas, left, right };
}

function tick(label: string, position: number): HTMLElement {
  const element = h("span", { class: "ew-tick" }, label);
  element.style.bottom = `${100 * position}%`;
  if (position > 0.97) element.classList.add("ew-tick-top");
  if (position < 0.03) element.classList.add("ew-tick-bottom");
  return element;
}
