// The event graph: drawing, switches, sound and answers held together. Knows nothing of Streamlit.
import { loadGrey, type Grey } from "../assets";
import { h } from "../dom";
import { readTheme } from "../theme";
import { freeLayout, timeLayout } from "./layout";
import { type Piece, Playback } from "./playback";
import { drawScene, s, tooltipOf } from "./scene";
import { linkTable } from "./table";
import { cutTiles, loadStrip } from "./tiles";
import type { GraphCallbacks, GraphData, Layout, Parts } from "./types";
import { nodeTitle, percent } from "./words";

const LINKS_AT_FIRST = 30;
let instances = 0;

export class EventGraph {
  private svg = s("svg", { class: "ewg-svg", role: "group" }) as SVGSVGElement;
  private scroller = h("div", { class: "ewg-scroll" }, this.svg);
  private tooltip = h("div", { class: "ewg-tooltip", hidden: true, "aria-hidden": "true" });
  private live = h("div", { class: "ewg-live", role: "status", "aria-live": "polite" });
  private slider = h("input", { type: "range", min: 0, max: 100, step: 1, class: "ewg-range" });
  private shown = h("output", { class: "ewg-shown" });
  private layouts = h("div", { class: "ewg-choice", role: "radiogroup", "aria-label": "Layout" });
  private several = h("button", { type: "button", class: "ewg-button", "aria-pressed": "false" }, "Select several");
  private stopButton = h("button", { type: "button", class: "ewg-button", disabled: true }, "Stop");
  private legend = h("div", { class: "ewg-legend" });
  private viewer = h("div", { class: "ewg-viewer" });
  private caption = h("div", { class: "ewg-caption" });
  private chosen = h("div", { class: "ewg-chosen" });
  private playButton = h("button", { type: "button", class: "ewg-button" }, "Play");
  private leaveOut = h("button", { type: "button", class: "ewg-button ewg-strong" }, "Leave out");
  private putBack = h("button", { type: "button", class: "ewg-button" }, "Put back");
  private putAllBack = h("button", { type: "button", class: "ewg-button" }, "Put all back");
  private links = h("div", { class: "ewg-links" });
  private layout: Layout = "time";
  private visible = new Set<number>();
  private selected = { nodes: new Set<number>(), edges: new Set<number>() };
  private focusable = 0;
  private tiles: string[] = [];
  private strip: HTMLImageElement | null = null;
  private grey: Grey | null = null;
  private themeKey = "";
  private width = 0;
  private playback: Playback;
  private observer: ResizeObserver;
  private scheme = matchMedia("(prefers-color-scheme: dark)");
  private abort = new AbortController();

  constructor(
    private root: HTMLElement,
    private data: GraphData,
    private callbacks: GraphCallbacks,
  ) {
    this.playback = new Playback({
      piece: (piece) => this.showPiece(piece),
      position: (seconds) => (root.dataset.currentTime = seconds.toFixed(3)),
      problem: (name) => this.say(name === "blocked" ? "This browser did not allow sound. Click once more." : "The sound could not be loaded. Reload the page to try again."),
    });
    this.build();
    this.adopt(true);
    this.observer = new ResizeObserver(() => {
      this.refreshTheme();
      const width = Math.floor(this.scroller.clientWidth);
      if (width !== this.width) this.draw();
    });
    this.observer.observe(this.scroller);
    this.scheme.addEventListener("change", this.refreshTheme);
  }

  update(data: GraphData, callbacks: GraphCallbacks): void {
    this.callbacks = callbacks;
    this.refreshTheme();
    if (JSON.stringify(data) === JSON.stringify(this.data)) return;
    const other = data.graphId !== this.data.graphId;
    const otherClip = data.sound !== this.data.sound;
    this.data = data;
    this.adopt(other, otherClip);
  }

  destroy(): void {
    this.abort.abort();
    this.observer.disconnect();
    this.scheme.removeEventListener("change", this.refreshTheme);
    this.playback.destroy();
    this.root.replaceChildren();
  }

  // --- building

  private build(): void {
    const { root } = this;
    const id = `ewg-${(instances += 1)}`;
    root.classList.add("ewg");
    root.dataset.ready = "false";
    for (const [name, text] of [["time", "Time axis"], ["free", "Free"]] as const) {
      const input = h("input", { type: "radio", name: `${id}-layout`, value: name, checked: name === "time" });
      input.addEventListener("change", () => this.setLayout(name));
      this.layouts.append(h("label", {}, input, h("span", {}, text)));
    }
    this.slider.id = `${id}-threshold`;
    const top = h("div", { class: "ewg-bar" },
      this.layouts,
      h("div", { class: "ewg-threshold" }, h("label", { for: this.slider.id }, "Hide links weaker than"), this.slider, this.shown),
      h("div", { class: "ewg-tools" }, this.several, this.stopButton),
    );
    const side = h("div", { class: "ewg-side" }, this.viewer, this.caption, this.chosen,
      h("div", { class: "ewg-actions" }, this.playButton, this.leaveOut, this.putBack, this.putAllBack));
    root.replaceChildren(top, h("div", { class: "ewg-stage" }, this.scroller, this.tooltip), this.legend,
      h("div", { class: "ewg-below" }, side, this.links), this.live);
    this.slider.addEventListener("input", () => this.applyThreshold());
    this.several.addEventListener("click", () => this.several.setAttribute("aria-pressed", String(!this.choosing)));
    this.stopButton.addEventListener("click", () => this.playback.stop());
    this.playButton.addEventListener("click", () => this.playSelection());
    this.leaveOut.addEventListener("click", () => this.askToLeaveOut());
    this.putBack.addEventListener("click", () => this.callbacks.putBack?.(false));
    this.putAllBack.addEventListener("click", () => this.callbacks.putBack?.(true));
    const { svg } = this;
    svg.addEventListener("click", (event) => this.clicked(event));
    svg.addEventListener("pointermove", (event) => this.hover(event.target as Element, event));
    svg.addEventListener("pointerleave", () => this.hover(null));
    svg.addEventListener("focusin", (event) => this.hover(event.target as Element));
    svg.addEventListener("focusout", () => this.hover(null));
    root.addEventListener("keydown", (event) => this.key(event));
  }

  private adopt(other: boolean, otherClip = other): void {
    const { data } = this;
    this.playback.use(data);
    if (other) {
      this.selected.nodes.clear();
      this.selected.edges.clear();
      const sizes = data.edges.map((_, edge) => this.strength(edge)).sort((a, b) => b - a);
      const last = sizes[Math.min(LINKS_AT_FIRST, sizes.length) - 1] ?? 0;
      this.slider.value = String(Math.max(1, Math.floor(100 * Math.sqrt(last))));
    }
    if (otherClip) {
      const first = data.nodes.findIndex((node) => node.present);
      this.focusable = Math.max(0, first);
      this.playback.show(data.nodes[this.focusable].end);
    }
    const gone = (kind: "nodes" | "edges") => data.leftOut[kind].forEach((index) => this.selected[kind].delete(index));
    gone("nodes");
    gone("edges");
    this.svg.setAttribute("aria-label", `Event graph of ${data.target}: sounds and pictures and the links between them. Arrow keys go from piece to piece, Enter plays one.`);
    this.viewer.replaceChildren(data.video ? this.playback.video : h("div", { class: "ewg-still" }));
    this.viewer.hidden = !data.video && !data.strip;
    this.drawLegend();
    if (otherClip || !this.grey) void this.loadPictures();
    this.refreshTheme();
    this.applyThreshold();
  }

  private async loadPictures(): Promise<void> {
    const { spectrogram, strip } = this.data;
    const [grey, pictures] = await Promise.all([loadGrey(spectrogram).catch(() => null), strip ? loadStrip(strip.url) : null]);
    if (spectrogram !== this.data.spectrogram || this.abort.signal.aborted) return;
    this.grey = grey;
    this.strip = pictures;
    if (!grey) this.say("The spectrogram could not be loaded. The sound still plays.");
    this.themeKey = "";
    this.refreshTheme();
    this.draw();
    this.root.dataset.ready = "true";
  }

  private refreshTheme = (): void => {
    const theme = readTheme(this.root);
    const key = JSON.stringify(theme);
    if (key === this.themeKey) return;
    this.themeKey = key;
    this.tiles = cutTiles(this.data, this.grey, this.strip, theme.quiet, theme.loud);
    if (this.width) this.draw();
  };

  private drawLegend(): void {
    const item = (name: string, text: string) => h("span", {}, h("i", { class: `ewg-swatch ewg-swatch-${name}` }), text);
    const { data } = this;
    const colours = data.signed
      ? [item("supports", `supports ${data.target}`), item("opposes", `opposes ${data.target}`)]
      : [item("neutral", "attention, which knows nothing of the class")];
    this.legend.replaceChildren(...colours, h("span", { class: "ewg-hint" }, `Wider = more important (${data.measure.toLowerCase()}). The stripe of a piece: what it adds itself.`));
  }

  // --- what is shown

  private strength(edge: number): number {
    if (this.largest.data !== this.data) {
      const sizes = this.data.edges.map((one) => Math.abs(one.importance ?? 0));
      this.largest = { data: this.data, value: Math.max(...sizes, 0) };
    }
    return this.largest.value > 0 ? Math.abs(this.data.edges[edge].importance ?? 0) / this.largest.value : 0;
  }
  private largest: { data: GraphData | null; value: number } = { data: null, value: 0 };

  private applyThreshold(): void {
    const position = Number(this.slider.value) / 100;
    const least = position * position;
    const total = this.data.edges.length;
    this.visible = new Set([...this.data.edges.keys()].filter((edge) => position === 0 || (this.strength(edge) >= least && this.strength(edge) > 0)));
    this.slider.style.setProperty("--ewg-fill", `${100 * position}%`);
    this.shown.value = `${percent(least)} of the strongest: ${this.visible.size} of ${total} links`;
    this.slider.setAttribute("aria-valuetext", this.shown.value);
    this.root.dataset.links = String(this.visible.size);
    this.draw();
  }

  private setLayout(layout: Layout): void {
    this.layout = layout;
    this.root.dataset.layout = layout;
    this.draw();
  }

  private draw(): void {
    this.width = Math.floor(this.scroller.clientWidth);
    if (!this.width) return;
    const { data, visible } = this;
    const placed = this.layout === "time" ? timeLayout(data, this.width) : freeLayout(data, this.width, [...visible], (edge) => this.strength(edge));
    const focused = (this.root.getRootNode() as Document | ShadowRoot).activeElement?.getAttribute("data-node") ?? null;
    drawScene(this.svg, {
      data, placed, visible, layout: this.layout, tiles: this.tiles, focusable: this.focusable,
      strength: (edge) => this.strength(edge),
      leftOut: (kind, index) => data.leftOut[`${kind}s`].includes(index),
    });
    if (focused !== null) this.node(Number(focused))?.focus();
    this.links.replaceChildren(linkTable(data, (edge) => this.strength(edge), {
      play: (edge) => this.playEdge(edge),
      toggle: (edge) => this.toggle("edges", edge),
    }));
    this.showSelection();
  }

  private node(index: number): SVGElement | null {
    return this.svg.querySelector(`[data-node="${index}"]`);
  }

  private showSelection(): void {
    const { data, selected } = this;
    for (const element of this.svg.querySelectorAll<SVGElement>(".ewg-node")) {
      const on = selected.nodes.has(Number(element.dataset.node));
      element.classList.toggle("ewg-selected", on);
      element.setAttribute("aria-pressed", String(on));
    }
    for (const element of this.svg.querySelectorAll<SVGElement>(".ewg-edge")) {
      element.classList.toggle("ewg-selected", selected.edges.has(Number(element.dataset.edge)));
    }
    for (const box of this.links.querySelectorAll<HTMLInputElement>("input")) box.checked = selected.edges.has(Number(box.value));
    const names = [...[...selected.nodes].sort((a, b) => a - b).map((node) => nodeTitle(data, node)), ...[...selected.edges].map((edge) => data.edges[edge].words)];
    const shownNames = names.length > 4 ? [...names.slice(0, 3), `and ${names.length - 3} more`] : names;
    this.chosen.replaceChildren(
      ...(names.length ? [h("b", {}, "Selected"), ...shownNames.map((name) => h("div", {}, name))] : [h("span", { class: "ewg-hint" }, "Click a piece to hear and see it, a link to play both ends.")]),
    );
    const out = data.leftOut.nodes.length + data.leftOut.edges.length;
    this.playButton.disabled = names.length === 0;
    this.leaveOut.disabled = names.length === 0;
    this.leaveOut.hidden = !data.editable;
    this.putBack.hidden = this.putAllBack.hidden = !data.editable || out === 0;
  }

  private showPiece(piece: Piece | null): void {
    for (const element of this.svg.querySelectorAll(".ewg-playing")) element.classList.remove("ewg-playing");
    this.root.dataset.playing = piece ? String(piece.node) : "";
    this.stopButton.disabled = !piece;
    this.caption.textContent = "";
    if (!piece) return;
    this.root.dataset.span = `${piece.start.toFixed(3)},${piece.end.toFixed(3)}`;
    this.root.dataset.played = `${this.root.dataset.played ?? ""} ${piece.node}`.trim();
    this.node(piece.node)?.classList.add("ewg-playing");
    this.caption.textContent = `Playing: ${nodeTitle(this.data, piece.node).toLowerCase()}`;
    this.showStill(piece.node);
    this.say(this.caption.textContent);
  }

  /** A picture in place of a video that browsers cannot play. */
  private showStill(index: number): void {
    const still = this.viewer.querySelector<HTMLElement>(".ewg-still");
    const { nodes } = this.data;
    if (!still) return;
    const middle = (nodes[index].start + nodes[index].end) / 2;
    const shown = [...nodes.keys()].filter((one) => nodes[one].kind === "video" && nodes[one].start <= middle).pop();
    still.style.backgroundImage = shown !== undefined && this.tiles[shown] ? `url("${this.tiles[shown]}")` : "";
  }

  private say(sentence: string): void {
    this.live.textContent = sentence;
  }

  // --- what a visitor does

  private get choosing(): boolean {
    return this.several.getAttribute("aria-pressed") === "true";
  }

  private toggle(kind: "nodes" | "edges", index: number): void {
    const set = this.selected[kind];
    if (!set.delete(index)) set.add(index);
    this.showSelection();
  }

  private selectOnly(kind: "nodes" | "edges", index: number): void {
    this.selected.nodes.clear();
    this.selected.edges.clear();
    this.selected[kind].add(index);
    this.showSelection();
  }

  private clicked(event: MouseEvent): void {
    const target = event.target as Element;
    const node = target.closest<SVGElement>(".ewg-node");
    const edge = target.getAttribute("data-hit");
    const adding = this.choosing || event.shiftKey || event.ctrlKey || event.metaKey;
    if (node) {
      const index = Number(node.dataset.node);
      this.moveFocus(index);
      if (adding) this.toggle("nodes", index);
      else this.playNode(index);
    } else if (edge !== null) {
      if (adding) this.toggle("edges", Number(edge));
      else this.playEdge(Number(edge));
    } else if (!adding) {
      this.selected.nodes.clear();
      this.selected.edges.clear();
      this.showSelection();
    }
  }

  private pieces(nodes: number[]): Piece[] {
    const { data } = this;
    const there = nodes.filter((node) => data.nodes[node].start < data.duration - 1e-6);
    if (there.length < nodes.length) this.say("There is no sound here: it lies after the end of the clip.");
    return there.map((node) => ({ node, start: data.nodes[node].start, end: Math.min(data.nodes[node].end, data.duration) }));
  }

  private playNode(index: number): void {
    this.selectOnly("nodes", index);
    void this.playback.play(this.pieces([index]));
  }

  private playEdge(edge: number): void {
    this.selectOnly("edges", edge);
    const { source, target } = this.data.edges[edge];
    void this.playback.play(this.pieces([source, target]));
  }

  private playSelection(): void {
    const nodes = [...this.selected.nodes].sort((a, b) => a - b);
    for (const edge of this.selected.edges) nodes.push(this.data.edges[edge].source, this.data.edges[edge].target);
    void this.playback.play(this.pieces(nodes));
  }

  private askToLeaveOut(): void {
    const parts: Parts = { nodes: [...this.selected.nodes], edges: [...this.selected.edges] };
    if (!this.data.editable || parts.nodes.length + parts.edges.length === 0) return;
    this.playback.stop();
    this.callbacks.leaveOut?.(parts);
  }

  private moveFocus(index: number): void {
    this.node(this.focusable)?.setAttribute("tabindex", "-1");
    this.focusable = index;
    const element = this.node(index);
    element?.setAttribute("tabindex", "0");
    element?.focus({ preventScroll: true });
  }

  private key(event: KeyboardEvent): void {
    const element = event.composedPath()[0] as Element;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      this.playback.stop();
      event.stopPropagation();
      return;
    }
    const node = element.closest?.<SVGElement>(".ewg-node");
    if (!node) {
      if (/^[a-z]$/i.test(event.key)) event.stopPropagation(); // Streamlit has shortcuts of one letter
      return;
    }
    const index = Number(node.dataset.node);
    const go = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (go) this.moveFocus(Math.min(this.data.nodes.length - 1, Math.max(0, index + go)));
    else if (event.key === "ArrowUp" || event.key === "ArrowDown") this.otherRow(index);
    else if (event.key === "Enter") this.playNode(index);
    else if (event.key === " ") this.toggle("nodes", index);
    else if (event.key === "Delete") this.askToLeaveOut();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** From a sound to the picture of its time, and back. */
  private otherRow(index: number): void {
    const { nodes } = this.data;
    const middle = (nodes[index].start + nodes[index].end) / 2;
    const distance = (other: number) => Math.abs((nodes[other].start + nodes[other].end) / 2 - middle);
    const others = [...nodes.keys()].filter((other) => nodes[other].kind !== nodes[index].kind);
    if (others.length) this.moveFocus(others.reduce((best, other) => (distance(other) < distance(best) ? other : best)));
  }

  private hover(target: Element | null, at?: PointerEvent): void {
    const text = target ? tooltipOf(this.data, target) : "";
    const node = target?.closest<SVGElement>(".ewg-node")?.dataset.node ?? null;
    const edge = target?.getAttribute("data-hit") ?? null;
    this.svg.classList.toggle("ewg-hovering", node !== null || edge !== null);
    for (const element of this.svg.querySelectorAll<SVGElement>(".ewg-edge")) {
      const one = this.data.edges[Number(element.dataset.edge)];
      const near = edge !== null ? element.dataset.edge === edge : node !== null && (one.source === Number(node) || one.target === Number(node));
      element.classList.toggle("ewg-near", near);
    }
    this.tooltip.hidden = text === "";
    if (!text) return;
    this.tooltip.textContent = text;
    const stage = this.tooltip.parentElement!.getBoundingClientRect();
    const box = at ? { x: at.clientX, y: at.clientY + 18 } : { x: target!.getBoundingClientRect().left, y: target!.getBoundingClientRect().bottom + 6 };
    const left = Math.min(box.x - stage.left, stage.width - this.tooltip.offsetWidth - 4);
    this.tooltip.style.left = `${Math.max(4, left)}px`;
    this.tooltip.style.top = `${box.y - stage.top}px`;
  }
}

