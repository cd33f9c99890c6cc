// The most important links in words: everything about them works without a mouse.
import { h } from "../dom";
import type { GraphData } from "./types";
import { amount, edgeMeaning, percent } from "./words";

const ROWS = 10;

export function linkTable(
  data: GraphData,
  strength: (edge: number) => number,
  hooks: { play(edge: number): void; toggle(edge: number): void },
): HTMLElement {
  const order = [...data.edges.keys()].filter((edge) => strength(edge) > 0).sort((a, b) => strength(b) - strength(a)).slice(0, ROWS);
  if (order.length === 0) return h("p", { class: "ewg-hint" }, "No link counts for this class.");
  const rows = order.map((edge) => {
    const { words, importance, source, target } = data.edges[edge];
    const play = h("button", { type: "button", class: "ewg-button ewg-small", "aria-label": `Play both ends: ${words}` }, "Play");
    play.addEventListener("click", () => hooks.play(edge));
    const box = h("input", { type: "checkbox", value: edge, "aria-label": `Select: ${words}` });
    box.addEventListener("change", () => hooks.toggle(edge));
    const out = data.leftOut.edges.includes(edge) || data.leftOut.nodes.some((node) => node === source || node === target);
    const kind = !data.signed ? "neutral" : importance! < 0 ? "opposes" : "supports";
    const value = data.signed ? amount(importance!) : percent(importance!);
    const meaning = data.signed ? edgeMeaning(data, edge).split(" ")[0] : "attention";
    return h("tr", out ? { class: "ewg-out" } : {},
      h("td", {}, h("label", { class: "ewg-check" }, box)),
      h("td", {}, words.replaceAll(/ (s|min)\b/g, "\u00a0$1"), ...(out ? [h("span", { class: "ewg-hint" }, " (left out)")] : [])),
      h("td", { class: "ewg-number" }, h("i", { class: `ewg-swatch ewg-swatch-${kind}` }), `${value} `, h("span", { class: "ewg-meaning" }, meaning)),
      h("td", {}, play),
    );
  });
  const head = ["Select", "Link", data.measure, "Play"].map((text, index) => h("th", { scope: "col", class: index === 0 || index === 3 ? "ewg-hidden-head" : "" }, text));
  return h("table", {},
    h("caption", {}, `The ${order.length === 1 ? "only link" : `${order.length} most important links`}`),
    h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows));
}
