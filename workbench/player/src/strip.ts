// Small pictures of the video along the time axis, whatever part of the clip is visible.
import { h, sharp } from "./dom";
import { share, type Scene } from "./lanes";
import type { PlayerData } from "./types";

export class FilmStrip {
  readonly element = h("div", { class: "ew-row ew-row-strip", hidden: true });
  private canvas = h("canvas", { class: "ew-strip", "aria-hidden": "true" });
  private image = new Image();
  private url = "";
  private count = 0;

  constructor(private redraw: () => void) {
    this.element.append(h("div"), this.canvas, h("div"));
  }

  show(data: PlayerData): void {
    const strip = data.filmstrip;
    this.element.hidden = !strip;
    if (!strip || strip.url === this.url) return;
    this.url = strip.url;
    this.count = strip.count;
    this.image = new Image();
    const image = this.image;
    image.src = strip.url;
    // Without the small pictures everything else still works.
    void image.decode().then(
      () => this.redraw(),
      () => (this.element.hidden = true),
    );
  }

  /** Pictures side by side, each the one on show at the middle of its place. */
  draw({ view, data }: Scene): void {
    if (this.element.hidden || !this.image.complete || !this.image.naturalWidth) return;
    const { context, width, height } = sharp(this.canvas);
    const source = this.image.naturalWidth / this.count;
    const step = (source * height) / this.image.naturalHeight;
    // Places keep to the clip, not to the visible part: panning moves the pictures instead of changing them.
    const seconds = (step / width) * (view.end - view.start);
    for (let place = Math.floor(view.start / seconds); place * seconds < view.end; place += 1) {
      const middle = Math.min(data.duration, (place + 0.5) * seconds);
      const index = Math.max(0, Math.min(this.count - 1, Math.floor((middle / data.duration) * this.count)));
      const x = share(view, place * seconds) * width;
      context.drawImage(this.image, index * source, 0, source, this.image.naturalHeight, x, 0, step - 1, height);
    }
  }
}
