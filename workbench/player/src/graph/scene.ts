// The drawing: pieces of the spectrogram, thumbnails, links, time axis. Text always goes in as a text node.
import type { Placed } from "./layout";
import type { GraphData, Layout } from "./types";
import { edgeSentence, nodeSentence } from "./words";

const SVG = "http://www.w3.org/2000/svg";

export function s(tag: string, attributes: Record<string, string | number> = {}, ...children: (Node | string)[]): SVGElement {
  const element = document.createElementNS(SVG, tag) as SVGElement;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

export interface SceneState {
  data: GraphData;
  layout: Layout;
  placed: Placed;
  visible: Set<number>;
  /** 0 to 1: how a link compares with the strongest. */
  strength(edge: number): number;
  leftOut(kind: "node" | "edge", index: number): boolean;
  /** Picture of every node, as a URL; empty where there is none. */
  tiles: string[];
  focusable: number;
}

const place = (value: number) => value.toFixed(2);

export function drawScene(svg: SVGSVGElement, state: SceneState): void {
  const { data, placed, layout } = state;
  svg.setAttribute("viewBox", `0 0 ${placed.width} ${placed.height}`);
  svg.setAttribute("width", String(placed.width));
  svg.setAttribute("height", String(placed.height));
  const layers = layout === "time" ? [axis(data, placed)] : [];
  const edges = s("g", { class: "ewg-edges", "aria-hidden": "true" });
  const weakFirst = [...state.visible].sort((a, b) => state.strength(a) - state.strength(b));
  for (const edge of weakFirst) edges.append(...drawEdge(edge, state));
  const nodes = s("g", { class: "ewg-nodes" });
  data.nodes.forEach((_, index) => nodes.append(drawNode(index, state)));
  // Links run over the tiles only where they are free; on the time axis they end at them.
  const video = placed.rows && data.nodes.find((node) => node.kind === "video");
  const notes = video && !data.strip ? [noPicture(data, placed)] : [];
  svg.replaceChildren(...layers, edges, nodes, ...notes);
}

function noPicture(data: GraphData, placed: Placed): SVGElement {
  const { y, height } = placed.boxes[data.nodes.findIndex((node) => node.kind === "video")];
  return s("text", { x: place(placed.width / 2), y: place(y + height / 2 + 4), "text-anchor": "middle", class: "ewg-nothing", "aria-hidden": "true" }, "no picture");
}

function axis(data: GraphData, placed: Placed): SVGElement {
  const { at, rows, width } = placed as Required<Placed>;
  const group = s("g", { class: "ewg-axis", "aria-hidden": "true" });
  const least = width / (data.end - data.start);
  const step = [0.05, 0.1, 0.2, 0.5, 1, 2, 5].find((candidate) => candidate * least >= 56) ?? 10;
  const long = data.end > 90;
  for (let index = Math.ceil(data.start / step - 1e-6); index * step <= data.end + 1e-6; index += 1) {
    const x = at(index * step);
    const time = index * step;
    const text = long ? `${Math.floor(time / 60)}:${String(Math.round(time % 60)).padStart(2, "0")}` : time.toFixed(step < 1 ? 1 : 0);
    const anchor = x < 16 ? "start" : x > width - 16 ? "end" : "middle";
    group.append(s("line", { x1: place(x), x2: place(x), y1: rows.video, y2: rows.axis + 4, class: "ewg-grid" }));
    group.append(s("text", { x: place(x), y: rows.axis + 19, "text-anchor": anchor }, `${text}${index * step + step > data.end + 1e-6 ? " s" : ""}`));
  }
  if (data.duration < data.end - 0.01) {
    const x = at(Math.max(data.start, data.duration));
    group.append(s("rect", { x: place(x), y: rows.video, width: place(width - x), height: rows.axis - rows.video, class: "ewg-after" }));
    if (width - x > 90) group.append(s("text", { x: place((x + width) / 2), y: (rows.video + rows.axis) / 2, "text-anchor": "middle" }, "after the clip"));
  }
  return group;
}

function drawEdge(edge: number, state: SceneState): SVGElement[] {
  const { data, placed } = state;
  const { importance, source, target } = data.edges[edge];
  const strength = state.strength(edge);
  const kind = importance === null || !data.signed ? "neutral" : importance < 0 ? "opposes" : "supports";
  const out = state.leftOut("edge", edge) || state.leftOut("node", source) || state.leftOut("node", target);
  const path = placed.path(data.edges[edge]);
  const line = s("path", {
    d: path, class: `ewg-edge ewg-${kind}${out ? " ewg-out" : ""}`, "data-edge": edge,
    "stroke-width": (0.8 + 6 * strength).toFixed(2), "stroke-opacity": (0.2 + 0.8 * Math.sqrt(strength)).toFixed(2),
  });
  const hit = s("path", { d: path, class: "ewg-hit", "data-hit": edge, "stroke-width": Math.max(10, 6 * strength + 4).toFixed(1) });
  return [line, hit];
}

function drawNode(index: number, state: SceneState): SVGElement {
  const { data, placed } = state;
  const node = data.nodes[index];
  const box = placed.boxes[index];
  const links = [...state.visible].filter((edge) => data.edges[edge].source === index || data.edges[edge].target === index).length;
  const out = state.leftOut("node", index);
  const group = s("g", {
    class: `ewg-node ewg-node-${node.kind}${out ? " ewg-out" : ""}${node.present ? "" : " ewg-absent"}`,
    "data-node": index, transform: `translate(${place(box.x)} ${place(box.y)})`, role: "button",
    tabindex: index === state.focusable ? 0 : -1, "aria-pressed": "false",
    "aria-label": `${nodeSentence(data, index, links)}${out ? ", left out" : ""}`,
  });
  const size = { width: place(box.width), height: place(box.height) };
  group.append(s("rect", { ...size, class: "ewg-tile" }));
  const picture = tile(index, state);
  if (picture) group.append(picture);
  const most = Math.max(...data.nodes.map((one) => Math.abs(one.contribution)), 1e-9);
  const share = Math.abs(node.contribution) / most;
  if (node.present && share > 0.02) {
    const inner = node.kind === "video" ? box.height - 4 : 0;
    group.append(s("rect", {
      y: place(inner), width: size.width, height: 4, "fill-opacity": (0.15 + 0.85 * share).toFixed(2),
      class: `ewg-adds ewg-adds-${node.contribution < 0 ? "opposes" : "supports"}`,
    }));
  }
  if (out) group.append(s("path", { d: `M0 0L${size.width} ${size.height}M${size.width} 0L0 ${size.height}`, class: "ewg-cross" }));
  group.append(s("rect", { ...size, class: "ewg-frame" }));
  return group;
}

/** The node's part of the spectrogram or of the pictures. */
function tile(index: number, state: SceneState): SVGElement | null {
  const { data, placed, tiles } = state;
  const { width, height } = placed.boxes[index];
  if (!tiles[index]) return null;
  const fit = data.nodes[index].kind === "audio" ? "none" : "xMidYMid slice";
  return s("image", { href: tiles[index], width: place(width), height: place(height), preserveAspectRatio: fit });
}

export function tooltipOf(data: GraphData, target: Element): string {
  const edge = target.getAttribute("data-hit");
  if (edge !== null) return edgeSentence(data, Number(edge));
  return target.closest(".ewg-node")?.getAttribute("aria-label") ?? "";
}
