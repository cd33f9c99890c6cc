// The buttons above and below the picture, the list of keys, the notes, and what a screen reader is told.
import { clockText } from "./axes";
import { h, icon, type IconName } from "./dom";
import type { Translate } from "./strings";
import type { Track } from "./types";

export interface Actions {
  toggle(): void;
  track(id: string): void;
  loop(): void;
  selectMode(): void;
  opacity(value: number): void;
  layer(name: "supports" | "opposes", on: boolean): void;
  zoom(direction: 1 | -1): void;
  fit(): void;
  audible(): void;
}

function labelled(name: IconName, text: string, attributes: Record<string, string> = {}): HTMLButtonElement {
  return h("button", { type: "button", class: "ew-button", ...attributes }, icon(name), h("span", { class: "ew-button-text" }, text));
}

const pressed = (button: HTMLElement, on: boolean) => button.setAttribute("aria-pressed", String(on));

export class Controls {
  readonly top: HTMLElement;
  readonly bottom: HTMLElement;
  readonly notes = h("div", { class: "ew-notes" });
  readonly quiet = h("div", { class: "ew-quiet", hidden: true });
  readonly live = h("div", { class: "ew-live", role: "status", "aria-live": "polite" });
  readonly help: HTMLElement;
  private play: HTMLButtonElement;
  private time = h("span", { class: "ew-now" });
  private total = h("span", { class: "ew-total" });
  private tracks: HTMLElement;
  private loop: HTMLButtonElement;
  private select: HTMLButtonElement;
  private helpButton: HTMLButtonElement;
  private opacity: HTMLInputElement;
  private layers: Record<"supports" | "opposes", HTMLInputElement>;
  private zoomIn: HTMLButtonElement;
  private zoomOut: HTMLButtonElement;
  private fit: HTMLButtonElement;
  private shown = "";

  constructor(
    private t: Translate,
    private actions: Actions,
  ) {
    this.play = labelled("play", t("play"), { class: "ew-button ew-play" });
    this.play.disabled = true;
    this.play.addEventListener("click", () => actions.toggle());
    this.tracks = h("div", { class: "ew-tracks", role: "group", "aria-label": t("track") });
    this.loop = labelled("loop", t("loop"), { "aria-pressed": "false", "data-action": "loop" });
    this.loop.addEventListener("click", () => actions.loop());
    this.select = labelled("box", t("selectRegion"), { "aria-pressed": "false", "data-action": "select" });
    this.select.addEventListener("click", () => actions.selectMode());
    this.helpButton = labelled("keyboard", t("help"), { "aria-expanded": "false", "data-action": "help", class: "ew-button ew-plain" });
    this.helpButton.addEventListener("click", () => this.toggleHelp());
    const clock = h("span", { class: "ew-time", "aria-hidden": "true" }, this.time, h("span", { class: "ew-slash" }, " / "), this.total);
    this.top = h(
      "div",
      { class: "ew-bar ew-bar-top" },
      h("div", { class: "ew-transport" }, this.play, clock),
      this.tracks,
      h("div", { class: "ew-tools" }, this.loop, this.select),
      this.helpButton,
    );

    this.opacity = h("input", { type: "range", min: 0, max: 1, step: 0.05, class: "ew-opacity", "aria-label": t("overlay") });
    this.opacity.addEventListener("input", () => {
      this.setOpacity(Number(this.opacity.value));
      actions.opacity(Number(this.opacity.value));
    });
    const layer = (name: "supports" | "opposes") => {
      const box = h("input", { type: "checkbox", role: "switch", "data-layer": name });
      box.addEventListener("change", () => actions.layer(name, box.checked));
      return box;
    };
    this.layers = { supports: layer("supports"), opposes: layer("opposes") };
    const swatch = (name: "supports" | "opposes") =>
      h("label", { class: `ew-switch ew-switch-${name}` }, this.layers[name], h("span", { class: "ew-swatch" }), t(name));
    const small = (name: IconName, label: string, run: () => void) => {
      const button = h("button", { type: "button", class: "ew-button ew-square", "aria-label": label, title: label }, icon(name));
      button.addEventListener("click", run);
      return button;
    };
    this.zoomOut = small("minus", t("zoomOut"), () => actions.zoom(-1));
    this.zoomIn = small("plus", t("zoomIn"), () => actions.zoom(1));
    this.fit = labelled("fit", t("fit"), { "aria-label": t("fitLong"), title: t("fitLong") });
    this.fit.addEventListener("click", () => actions.fit());
    this.bottom = h(
      "div",
      { class: "ew-bar ew-bar-bottom" },
      h("label", { class: "ew-slider" }, h("span", {}, t("overlay")), this.opacity),
      h("div", { class: "ew-switches" }, swatch("supports"), swatch("opposes")),
      h("div", { class: "ew-zoom", role: "group", "aria-label": t("zoom") }, h("span", { "aria-hidden": "true" }, t("zoom")), this.zoomOut, this.zoomIn, this.fit),
    );
    this.help = this.buildHelp();
  }

  private buildHelp(): HTMLElement {
    const { t } = this;
    const rows: [string[], string][] = [
      [[t("keySpace")], t("keysPlay")],
      [["←", "→"], t("keysSeek")],
      [["Home", "End"], t("keysEnds")],
      [["1", "2", "3"], t("keysTracks")],
      [["L"], t("keysLoop")],
      [["[", "]"], t("keysRegion")],
      [[t("keyDrag")], t("keysDrag")],
      [[t("keyShiftDrag")], t("keysBox")],
      [["+", "−"], t("keysZoom")],
      [["0"], t("keysFit")],
      [["Esc"], t("keysEscape")],
      [["?"], t("keysHelp")],
    ];
    const list = h("dl", {});
    for (const [keys, text] of rows) {
      const term = h("dt", {});
      for (const key of keys) term.append(h("kbd", {}, key));
      list.append(term, h("dd", {}, text));
    }
    const close = h("button", { type: "button", class: "ew-button" }, t("close"));
    close.addEventListener("click", () => this.toggleHelp(false));
    return h("div", { class: "ew-help", role: "dialog", "aria-label": t("help"), tabindex: -1, hidden: true }, h("strong", {}, t("help")), list, close);
  }

  /** Opens or closes the list of keys; true if it is open then. */
  toggleHelp(open = !this.helpOpen): boolean {
    const was = this.helpOpen;
    this.help.hidden = !open;
    this.helpButton.setAttribute("aria-expanded", String(open));
    if (open) this.help.focus();
    else if (was) this.helpButton.focus();
    return open;
  }

  get helpOpen(): boolean {
    return this.help.hidden === false;
  }

  setTracks(tracks: Track[]): void {
    const key = JSON.stringify(tracks.map((track) => [track.id, track.label]));
    if (this.shown === key) return;
    this.shown = key;
    this.tracks.replaceChildren(
      ...tracks.map((track) => {
        const button = h("button", { type: "button", class: "ew-track", "aria-pressed": "false" }, track.label);
        button.dataset.id = track.id;
        button.addEventListener("click", () => this.actions.track(track.id));
        return button;
      }),
    );
  }

  markTrack(active: string, playable: (id: string) => boolean): void {
    for (const button of this.tracks.querySelectorAll<HTMLButtonElement>(".ew-track")) {
      pressed(button, button.dataset.id === active);
      button.disabled = !playable(button.dataset.id!);
    }
  }

  setPlaying(playing: boolean, ready: boolean): void {
    this.play.replaceChildren(icon(playing ? "pause" : "play"), h("span", { class: "ew-button-text" }, this.t(playing ? "pause" : "play")));
    this.play.disabled = !ready;
  }

  setTime(now: number, duration: number): void {
    const text = clockText(now);
    if (this.time.textContent !== text) this.time.textContent = text;
    const total = clockText(duration);
    if (this.total.textContent !== total) this.total.textContent = total;
  }

  setLoop(on: boolean): void {
    pressed(this.loop, on);
  }

  setSelectMode(on: boolean): void {
    pressed(this.select, on);
  }

  setOpacity(value: number): void {
    this.opacity.value = String(value);
    this.opacity.setAttribute("aria-valuetext", `${Math.round(100 * value)} %`);
    this.opacity.style.setProperty("--ew-fill", `${100 * value}%`);
  }

  setLayers(on: Record<"supports" | "opposes", boolean>, available: Record<"supports" | "opposes", boolean>): void {
    for (const name of ["supports", "opposes"] as const) {
      this.layers[name].checked = on[name];
      this.layers[name].disabled = !available[name];
      this.layers[name].parentElement!.hidden = !available[name];
    }
    const none = !available.supports && !available.opposes;
    this.opacity.disabled = none;
    this.opacity.parentElement!.hidden = none;
  }

  setZoom(zoomed: boolean, canZoomIn: boolean): void {
    this.zoomOut.disabled = this.fit.disabled = !zoomed;
    this.zoomIn.disabled = !canZoomIn;
  }

  setQuiet(gainDb: number | null, on: boolean): void {
    this.quiet.hidden = gainDb === null;
    if (gainDb === null) return;
    const gain = Number(gainDb.toFixed(1));
    let button = this.quiet.querySelector("button");
    if (!button) {
      button = h("button", { type: "button", class: "ew-button", "data-action": "audible" });
      button.addEventListener("click", () => this.actions.audible());
      this.quiet.replaceChildren(h("span", {}), button);
    }
    this.quiet.firstElementChild!.textContent = on ? this.t("audible", { gain }) : this.t("quiet");
    button.textContent = this.t("makeAudible", { gain });
    pressed(button, on);
  }

  setNotes(sentences: string[]): void {
    const before = [...this.notes.children].map((child) => child.textContent);
    if (JSON.stringify(before) === JSON.stringify(sentences)) return;
    this.notes.replaceChildren(...sentences.map((sentence) => h("p", {}, sentence)));
    if (sentences.length) this.say(sentences.join(" "));
  }

  say(sentence: string): void {
    this.live.textContent = sentence;
  }
}
