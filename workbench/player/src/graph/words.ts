// Every sentence of the event graph.
import type { GraphData } from "./types";

export function amount(value: number): string {
  const size = Math.abs(value);
  const digits = size >= 10 ? 1 : size >= 0.095 ? 2 : 3;
  return `${value < 0 ? "−" : "+"}${size.toFixed(digits)}`;
}

export function percent(share: number): string {
  const value = 100 * share;
  return `${value >= 10 || value === 0 ? Math.round(value) : value.toFixed(1)} %`;
}

export function seconds(value: number): string {
  return value.toFixed(1);
}

export function nodeTitle(data: GraphData, node: number): string {
  const { kind, span } = data.nodes[node];
  return `${kind === "video" ? "Picture" : "Sound"} ${span}`;
}

export function nodeSentence(data: GraphData, node: number, shownLinks: number): string {
  const { contribution, present } = data.nodes[node];
  if (!present) return `${nodeTitle(data, node)}: after the end of the clip`;
  const links = shownLinks === 1 ? "1 link shown" : `${shownLinks} links shown`;
  return `${nodeTitle(data, node)}: adds ${amount(contribution)} to ${data.target}; ${links}`;
}

export function edgeMeaning(data: GraphData, edge: number): string {
  const { importance, weight } = data.edges[edge];
  if (importance === null) return "no attention between pieces of the same kind";
  if (!data.signed) return `attention ${percent(weight)}`;
  if (importance === 0) return `neither supports nor opposes ${data.target}`;
  return `${importance > 0 ? "supports" : "opposes"} ${data.target}, ${amount(importance)}`;
}

export function edgeSentence(data: GraphData, edge: number): string {
  const { words, weight } = data.edges[edge];
  const share = data.signed ? `; ${percent(weight)} of what the ${data.nodes[data.edges[edge].target].kind === "video" ? "picture" : "sound"} receives this way` : "";
  return `${words}: ${edgeMeaning(data, edge)}${share}`;
}
