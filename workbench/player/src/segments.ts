// Boxes on the time axis that are played when they are clicked.
import { h } from "./dom";
import { share } from "./lanes";
import type { Translate } from "./strings";
import type { Range, Segment } from "./types";

/** Fills a plot with a button for every segment; those that overlap get rows of their own. */
export function fillSegments(plot: HTMLElement, segments: Segment[], t: Translate, chosen: (segment: Segment, index: number) => void): void {
  const ends: number[] = []; // where each row is taken up to
  const buttons = segments.map((segment, index) => {
    let row = ends.findIndex((end) => end <= segment.start + 1e-6);
    if (row < 0) row = ends.length;
    ends[row] = segment.end;
    const button = h("button", { type: "button", class: "ew-segment" }, h("span", {}, segment.label));
    button.dataset.kind = segment.kind ?? "";
    button.dataset.index = String(index);
    button.style.setProperty("--ew-segment-row", String(row));
    const name = t("playSegment", { label: segment.label, start: segment.start.toFixed(2), end: segment.end.toFixed(2) });
    button.setAttribute("aria-label", name);
    button.title = name;
    button.addEventListener("click", () => chosen(segment, index));
    return button;
  });
  plot.style.setProperty("--ew-segment-rows", String(Math.max(1, ends.length)));
  plot.setAttribute("role", "group");
  plot.setAttribute("aria-label", t("segments"));
  plot.replaceChildren(...buttons);
}

/** Moves the buttons to where their times lie in the visible part. */
export function placeSegments(plot: HTMLElement, segments: Segment[], view: Range): void {
  for (const button of plot.querySelectorAll<HTMLElement>(".ew-segment")) {
    const segment = segments[Number(button.dataset.index)];
    if (!segment) continue;
    const from = Math.max(0, share(view, segment.start));
    const to = Math.min(1, share(view, segment.end));
    button.hidden = to <= 0 || from >= 1;
    button.style.left = `${100 * from}%`;
    button.style.width = `${100 * Math.max(0, to - from)}%`;
  }
}
