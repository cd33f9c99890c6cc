// For a page without a server: `EarwitnessGraph.create(root, data)`.
import { EventGraph } from "./graph";
import type { GraphData } from "./types";

export function create(root: HTMLElement, data: GraphData): EventGraph {
  return new EventGraph(root, data, {});
}
