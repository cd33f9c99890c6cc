// Playing one piece after another: sound with exact boundaries, and the video beside it.
import { Sound, SoundLoader } from "../sound";
import type { GraphData } from "./types";

export interface Piece {
  start: number;
  end: number;
  node: number;
}

const PAUSE = 260; // ms between the two ends of a link

export class Playback {
  readonly video = document.createElement("video");
  failed = false;
  private sound = new Sound();
  private loader = new SoundLoader();
  private loading: Promise<void> = Promise.resolve();
  private url = "";
  private offset = 0;
  private queue: Piece[] = [];
  private current: Piece | null = null;
  private attempt = 0;
  private frame = 0;
  private wanted = 0;
  private timer = 0;

  constructor(
    private hooks: { piece(piece: Piece | null): void; position(seconds: number): void; problem(name: "blocked" | "sound"): void },
  ) {
    this.video.muted = true;
    this.video.playsInline = true;
    this.video.preload = "auto";
    this.video.disablePictureInPicture = true;
    this.video.addEventListener("loadeddata", () => this.show(this.wanted));
    this.sound.onstop = () => this.next();
  }

  use(data: GraphData): void {
    if (data.video !== null && this.video.getAttribute("src") !== data.video) this.video.src = data.video;
    if (data.video === null && this.video.hasAttribute("src")) this.video.removeAttribute("src");
    if (data.sound === this.url) return;
    this.stop();
    this.url = data.sound;
    this.offset = data.start;
    const duration = Math.max(0.001, Math.min(data.end, data.duration) - data.start);
    this.failed = false;
    this.loading = this.loader.load([{ id: "sound", label: "", url: data.sound }], duration).then((sounds) => {
      if (this.url !== data.sound) return;
      this.failed = sounds.errors.size > 0;
      this.sound.reset(duration);
      this.sound.setTrack("sound");
      this.sound.use(sounds.buffers);
    });
  }

  /** Shows a moment of the video without playing. */
  show(seconds: number): void {
    this.wanted = seconds;
    if (!this.current && this.video.readyState >= 1) this.video.currentTime = seconds;
  }

  async play(pieces: Piece[]): Promise<void> {
    this.stop();
    const attempt = this.attempt;
    await this.loading;
    if (attempt !== this.attempt) return;
    if (this.failed) return this.hooks.problem("sound");
    this.queue = [...pieces];
    this.next();
  }

  stop(): void {
    this.attempt += 1;
    this.queue = [];
    clearTimeout(this.timer);
    this.sound.pause();
    this.end();
  }

  destroy(): void {
    this.stop();
    this.sound.destroy();
    this.video.removeAttribute("src");
    this.video.load();
  }

  private end(): void {
    cancelAnimationFrame(this.frame);
    if (!this.video.paused) this.video.pause();
    if (!this.current) return;
    this.current = null;
    this.hooks.piece(null);
  }

  private next(): void {
    const pause = this.current ? PAUSE : 0;
    this.end();
    const piece = this.queue.shift();
    if (!piece) return;
    const attempt = this.attempt;
    this.timer = window.setTimeout(() => {
      if (attempt === this.attempt) void this.begin(piece);
    }, pause);
  }

  private async begin(piece: Piece): Promise<void> {
    this.current = piece;
    this.hooks.piece(piece);
    const attempt = this.attempt;
    if (this.video.readyState >= 1) this.video.currentTime = piece.start;
    const from = piece.start - this.offset;
    const until = Math.min(piece.end - this.offset, this.sound.duration);
    if (!(await this.sound.play(from, until)) || attempt !== this.attempt) {
      if (attempt === this.attempt) {
        this.stop();
        this.hooks.problem("blocked");
      }
      return;
    }
    if (this.video.readyState >= 1) void this.video.play().catch(() => undefined);
    this.follow();
  }

  private follow = (): void => {
    if (!this.current) return;
    const position = this.sound.position() + this.offset;
    this.hooks.position(position);
    const { video } = this;
    if (video.readyState >= 1 && Math.abs(video.currentTime - position) > 0.12) video.currentTime = position;
    this.frame = requestAnimationFrame(this.follow);
  };
}
