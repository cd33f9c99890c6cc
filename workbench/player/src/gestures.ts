// Pointer, wheel and keyboard, turned into what they mean.
import type { Stage } from "./stage";
import type { Range, Selection } from "./types";

/** Movement in CSS pixels above which a press is a drag. */
const DRAG = 5;

export interface Meaning {
  seek(time: number): void;
  /** While dragging, `done` is false. */
  drag(region: Range, box: Selection | null, done: boolean): void;
  cancelDrag(): void;
  hover(at: { x: number; y: number | null } | null): void;
  zoom(factor: number, around: number): void;
  pan(seconds: number): void;
  boxMode(): boolean;
}

export function listenToPointer(stage: Stage, meaning: Meaning): void {
  for (const surface of stage.surfaces) {
    const main = surface === stage.spectrogram.plot;
    let press: { id: number; x: number; time: number; hz: number; box: boolean; moved: boolean } | null = null;
    const round = (value: number) => Math.round(value * 1000) / 1000;
    const shape = (event: PointerEvent): { region: Range; box: Selection | null } => {
      const time = stage.timeAt(event.clientX);
      const region = { start: round(Math.min(press!.time, time)), end: round(Math.max(press!.time, time)) };
      if (!press!.box) return { region, box: null };
      const hz = stage.frequencyAt(event.clientY);
      const box = { ...region, f_low: Math.round(Math.min(press!.hz, hz)), f_high: Math.round(Math.max(press!.hz, hz)) };
      return { region, box };
    };
    surface.addEventListener("pointerdown", (event) => {
      // Segments and labels among the lanes answer for themselves.
      if (event.button !== 0 || press || (event.target as Element).closest?.(".ew-segment, .ew-gutter, .ew-lane-head")) return;
      surface.setPointerCapture(event.pointerId);
      const box = main && (event.shiftKey || meaning.boxMode());
      const time = stage.timeAt(event.clientX);
      press = { id: event.pointerId, x: event.clientX, time, hz: stage.frequencyAt(event.clientY), box, moved: false };
      stage.spectrogram.plot.focus({ preventScroll: true });
    });
    surface.addEventListener("pointermove", (event) => {
      if (press && event.pointerId === press.id) {
        if (Math.abs(event.clientX - press.x) > DRAG) press.moved = true;
        if (press.moved) {
          const { region, box } = shape(event);
          meaning.drag(region, box, false);
        }
      }
      if (event.pointerType === "mouse") meaning.hover({ x: event.clientX, y: main ? event.clientY : null });
    });
    surface.addEventListener("pointerup", (event) => {
      if (!press || event.pointerId !== press.id) return;
      const { region, box } = shape(event);
      if (press.moved && region.end - region.start >= 0.01) meaning.drag(region, box, true);
      else {
        if (press.moved) meaning.cancelDrag();
        meaning.seek(press.time);
      }
      press = null;
    });
    surface.addEventListener("pointercancel", () => {
      if (press?.moved) meaning.cancelDrag();
      press = null;
    });
    surface.addEventListener("pointerleave", () => meaning.hover(null));
    surface.addEventListener(
      "wheel",
      (event) => {
        if (event.ctrlKey) {
          event.preventDefault();
          meaning.zoom(Math.exp(-Math.max(-100, Math.min(100, event.deltaY)) * 0.005), stage.timeAt(event.clientX));
          return;
        }
        const sideways = event.shiftKey ? event.deltaX || event.deltaY : event.deltaX;
        if (!stage.zoomed || (!event.shiftKey && Math.abs(event.deltaX) <= Math.abs(event.deltaY))) return;
        event.preventDefault();
        meaning.pan((sideways / surface.clientWidth) * (stage.view.end - stage.view.start));
      },
      { passive: false },
    );
  }
  let panning: number | null = null;
  stage.pan.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !stage.zoomed) return;
    stage.pan.setPointerCapture(event.pointerId);
    panning = event.clientX;
    const box = stage.pan.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * stage.duration;
    if (at < stage.view.start || at > stage.view.end) meaning.pan(at - (stage.view.start + stage.view.end) / 2);
  });
  stage.pan.addEventListener("pointermove", (event) => {
    if (panning === null) return;
    meaning.pan(((event.clientX - panning) / stage.pan.clientWidth) * stage.duration);
    panning = event.clientX;
  });
  for (const end of ["pointerup", "pointercancel"]) stage.pan.addEventListener(end, () => (panning = null));
}

export interface Keys {
  toggle(): void;
  seekBy(seconds: number): void;
  seekTo(place: "start" | "end"): void;
  trackNumber(index: number): void;
  loop(): void;
  selectMode(): void;
  mark(edge: "start" | "end"): void;
  zoom(direction: 1 | -1): void;
  fit(): void;
  help(): void;
  /** False when there was nothing to close or clear. */
  escape(): boolean;
  helpOpen(): boolean;
}

export function listenToKeys(root: HTMLElement, keys: Keys, signal: AbortSignal): void {
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (!handle(event, keys)) return;
    event.preventDefault();
    event.stopPropagation(); // or the shortcuts of the page around the player would fire as well
  }, { signal });
}

function handle(event: KeyboardEvent, keys: Keys): boolean {
  const target = event.composedPath()[0] as HTMLElement;
  const { key } = event;
  if (key === "Escape") return keys.escape();
  if (key === "?") {
    keys.help();
    return true;
  }
  if (keys.helpOpen()) return false;
  const button = target.matches?.("button, input[type=checkbox]");
  const range = target.matches?.("input[type=range]");
  if (key === " ") {
    if (button) return false;
    keys.toggle();
  } else if (key === "ArrowLeft" || key === "ArrowRight") {
    if (range) return false;
    keys.seekBy((key === "ArrowLeft" ? -1 : 1) * (event.shiftKey ? 1 : 0.1));
  } else if (key === "Home" || key === "End") {
    if (range) return false;
    keys.seekTo(key === "Home" ? "start" : "end");
  } else if (/^[1-9]$/.test(key)) keys.trackNumber(Number(key) - 1);
  else if (key === "l" || key === "L") keys.loop();
  else if (key === "b" || key === "B") keys.selectMode();
  else if (key === "[" || key === "]") keys.mark(key === "[" ? "start" : "end");
  else if (key === "+" || key === "=") keys.zoom(1);
  else if (key === "-" || key === "_") keys.zoom(-1);
  else if (key === "0") keys.fit();
  else return false;
  return true;
}
