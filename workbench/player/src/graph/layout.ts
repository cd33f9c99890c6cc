// Where nodes stand and how links run: on a common time axis, or free, where links pull together what they connect.
import { forceCollide, forceLink, forceManyBody, forceSimulation, forceX, forceY } from "d3-force";
import type { SimulationNodeDatum } from "d3-force";
import type { GraphData, GraphEdge } from "./types";

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface Placed {
  width: number;
  height: number;
  boxes: Box[];
  /** Path of a link. */
  path(edge: GraphEdge): string;
  /** x of a time; only on the time axis. */
  at?(seconds: number): number;
  rows?: { video: number; audio: number; axis: number };
}

const PAD = 6;
const ARC = 50;
const GAP = 168;
const SOUND = 76;
const AXIS = 26;
/** Pixels that a sound needs at least to be hit with a finger; below that the graph scrolls sideways. */
const LEAST = 22;

export function timeLayout(data: GraphData, available: number): Placed {
  const sounds = data.nodes.filter((node) => node.kind === "audio").length;
  const width = Math.max(available, LEAST * sounds + 2 * PAD);
  const at = (seconds: number) => PAD + ((seconds - data.start) / (data.end - data.start)) * (width - 2 * PAD);
  const pictures = data.nodes.filter((node) => node.kind === "video").length;
  // As high as a picture of 4:3 of that width, so that nothing of it is cut off.
  const picture = Math.min(90, Math.max(28, (0.75 * width) / Math.max(1, pictures)));
  const video = ARC;
  const audio = video + picture + GAP;
  const boxes = data.nodes.map((node, index) => {
    const next = data.nodes[index + 1];
    const end = next?.kind === node.kind ? Math.min(node.end, next.start) : node.end;
    const x = at(node.start);
    return {
      x: x + 0.75,
      y: node.kind === "video" ? video : audio,
      width: Math.max(3, at(end) - x - 1.5),
      height: node.kind === "video" ? picture : SOUND,
    };
  });
  const middle = (box: Box) => box.x + box.width / 2;
  const path = (edge: GraphEdge) => {
    const [from, to] = [boxes[edge.source], boxes[edge.target]];
    const [a, b] = [middle(from), middle(to)];
    const kind = data.nodes[edge.source].kind;
    if (kind !== data.nodes[edge.target].kind) {
      const [top, bottom] = kind === "video" ? [from.y + from.height, to.y] : [to.y + to.height, from.y];
      const [above, below] = kind === "video" ? [a, b] : [b, a];
      const bend = (bottom - top) * 0.45;
      return `M${above} ${top}C${above} ${top + bend} ${below} ${bottom - bend} ${below} ${bottom}`;
    }
    // Pictures are linked above their row, sounds below theirs; back in time runs nearer to the row than forward.
    const outward = kind === "video" ? -1 : 1;
    const y = kind === "video" ? from.y : from.y + from.height;
    if (edge.source === edge.target) return `M${a - 5} ${y}C${a - 9} ${y + 22 * outward} ${a + 9} ${y + 22 * outward} ${a + 5} ${y}`;
    const reach = Math.min(ARC * 1.3, 14 + Math.abs(b - a) * 0.55) * (b > a ? 1 : 0.62);
    return `M${a} ${y}C${a} ${y + reach * outward} ${b} ${y + reach * outward} ${b} ${y}`;
  };
  return { width, height: audio + SOUND + ARC + AXIS, boxes, path, at, rows: { video, audio, axis: audio + SOUND + ARC } };
}

interface Body extends SimulationNodeDatum {
  index: number;
  radius: number;
}

export function freeLayout(data: GraphData, available: number, visible: number[], strength: (edge: number) => number): Placed {
  const width = Math.max(300, available);
  const height = width < 560 ? 560 : 470;
  const linked = new Set(visible.flatMap((edge) => [data.edges[edge].source, data.edges[edge].target]));
  const first = timeLayout(data, width);
  const bodies: Body[] = data.nodes.map((node, index) => ({
    index,
    radius: linked.has(index) ? 27 : 11,
    x: ((first.boxes[index].x + first.boxes[index].width / 2) / first.width) * width,
    y: height * (node.kind === "video" ? 0.3 : 0.7),
  }));
  const links = visible
    .filter((edge) => data.edges[edge].source !== data.edges[edge].target)
    .map((edge) => ({ source: data.edges[edge].source, target: data.edges[edge].target, pull: strength(edge) }));
  const simulation = forceSimulation(bodies)
    .force("links", forceLink<Body, (typeof links)[number]>(links).distance((link) => 120 - 50 * link.pull).strength((link) => 0.05 + 0.5 * link.pull))
    .force("apart", forceManyBody<Body>().strength((body) => -9 * body.radius))
    .force("collide", forceCollide<Body>((body) => body.radius))
    .force("x", forceX<Body>(width / 2).strength(0.05))
    .force("y", forceY<Body>(height / 2).strength((0.05 * width) / height))
    .stop();
  for (let step = 0; step < 300; step += 1) {
    simulation.tick();
    for (const body of bodies) {
      body.x = Math.min(width - body.radius, Math.max(body.radius, body.x!));
      body.y = Math.min(height - body.radius, Math.max(body.radius, body.y!));
    }
  }
  const boxes = bodies.map((body, index) => {
    const scale = linked.has(index) ? 1 : 0.42;
    const [w, h] = data.nodes[index].kind === "video" ? [52 * scale, 38 * scale] : [32 * scale, 46 * scale];
    return { x: body.x! - w / 2, y: body.y! - h / 2, width: w, height: h };
  });
  const path = (edge: GraphEdge) => {
    const [from, to] = [boxes[edge.source], boxes[edge.target]];
    const [x0, y0] = [from.x + from.width / 2, from.y + from.height / 2];
    const [x1, y1] = [to.x + to.width / 2, to.y + to.height / 2];
    if (edge.source === edge.target) return `M${x0 - 6} ${from.y}C${x0 - 16} ${from.y - 26} ${x0 + 16} ${from.y - 26} ${x0 + 6} ${from.y}`;
    // Bent to one side, so that the two directions between a pair do not cover each other.
    const [mx, my] = [(x0 + x1) / 2 - (y1 - y0) * 0.12, (y0 + y1) / 2 + (x1 - x0) * 0.12];
    return `M${x0} ${y0}Q${mx} ${my} ${x1} ${y1}`;
  };
  return { width, height, boxes, path };
}
