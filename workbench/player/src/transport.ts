// Playing, looping and selecting: what every gesture does to the sound and to the marks on the picture.
import { frequencyText, spoken } from "./axes";
import { Sound } from "./sound";
import type { Stage } from "./stage";
import type { Translate } from "./strings";
import type { Callbacks, PlayerData, Range, Segment, Selection } from "./types";

/** What the transport needs of the player around it; data, texts and callbacks may change at any time. */
export interface Surroundings {
  data(): PlayerData;
  callbacks(): Callbacks;
  t(): Translate;
  say(sentence: string): void;
  changed(): void;
}

export class Transport {
  readonly sound = new Sound();
  loopOn = false;
  boxMode = false;
  /** The view follows the playhead; not after someone moved it elsewhere. */
  following = true;
  /** The browser refused to start the sound. */
  blocked = false;
  /** The loop was switched on by dragging, so clearing the range switches it off again. */
  private loopByDrag = false;
  private beforeDrag: { region: Range | null; box: Selection | null } | null = null;

  constructor(
    private stage: Stage,
    private around: Surroundings,
  ) {
    this.sound.onstop = () => around.changed();
  }

  /** Back to the beginning of another clip. */
  reset(duration: number): void {
    this.sound.reset(duration);
    this.loopOn = this.loopByDrag = this.boxMode = false;
    this.following = true;
    this.beforeDrag = null;
  }

  // --- sound

  toggle(): void {
    if (this.sound.playing) {
      this.sound.pause();
      this.around.changed();
      return;
    }
    const { region } = this.stage;
    const position = this.sound.position();
    if (region && !this.loopOn) {
      // What is selected is what is played.
      const inside = position >= region.start && position < region.end - 1e-3;
      void this.play(inside ? position : region.start, region.end);
    } else void this.play(position >= this.around.data().duration - 1e-3 ? 0 : position);
  }

  private async play(from: number, until = this.around.data().duration): Promise<void> {
    this.following = true;
    const started = await this.sound.play(from, until);
    this.blocked = !started && this.sound.ready;
    this.around.changed();
  }

  seek(time: number): void {
    const { region } = this.stage;
    const target = Math.max(0, Math.min(this.around.data().duration, time));
    const inside = region && !this.loopOn && target >= region.start && target < region.end;
    this.sound.seek(target, inside ? region.end : this.around.data().duration);
    this.following = true;
    this.stage.follow(target);
    this.around.changed();
  }

  chooseTrack(id: string): void {
    if (id === this.sound.track || !this.sound.has(id)) return;
    this.sound.setTrack(id);
    const label = this.around.data().tracks.find((track) => track.id === id)?.label ?? id;
    this.around.say(this.around.t()("saidTrack", { label }));
    this.around.changed();
    this.around.callbacks().track?.(id);
  }

  playSegment(segment: Segment, index: number, lane?: number): void {
    const start = Math.max(0, segment.start);
    const end = Math.min(this.around.data().duration, segment.end);
    if (end <= start) return;
    this.stage.region = { start, end };
    this.clearBox();
    this.sound.setLoop(this.loopOn ? this.stage.region : null);
    this.stage.follow(start);
    void this.play(start, end);
    this.around.callbacks().segment?.({ ...segment, index, ...(lane === undefined ? {} : { lane }) });
  }

  // --- loop and selection

  private applyLoop(): void {
    this.sound.setLoop(this.loopOn ? (this.stage.region ?? { start: 0, end: this.around.data().duration }) : null);
    this.around.changed();
  }

  toggleLoop(): void {
    this.loopOn = !this.loopOn;
    this.loopByDrag = false;
    this.applyLoop();
    this.sayLoop();
  }

  private sayLoop(): void {
    const { region } = this.stage;
    if (!this.loopOn) this.around.say(this.around.t()("saidLoopOff"));
    else if (region) this.around.say(this.around.t()("saidLoop", { start: spoken(region.start), end: spoken(region.end) }));
    else this.around.say(this.around.t()("saidLoopAll"));
  }

  dragged(region: Range, box: Selection | null, done: boolean): void {
    this.beforeDrag ??= { region: this.stage.region, box: this.stage.box };
    this.stage.region = region;
    this.stage.box = box;
    if (!done) {
      this.stage.paintOverlay(this.sound.position());
      return;
    }
    const before = this.beforeDrag;
    this.beforeDrag = null;
    this.loopRegion();
    if (box) {
      const low = frequencyText(box.f_low);
      const high = frequencyText(box.f_high);
      this.around.say(this.around.t()("saidSelection", { start: spoken(box.start), end: spoken(box.end), low, high }));
      if (Number.isFinite(box.f_low)) this.around.callbacks().selection?.(box);
    } else {
      this.sayLoop();
      if (before.box) this.around.callbacks().selection?.(null);
    }
    if (this.boxMode) this.toggleBoxMode();
  }

  private loopRegion(): void {
    const region = this.stage.region!;
    if (!this.loopOn) this.loopOn = this.loopByDrag = true;
    const position = this.sound.position();
    if (!this.sound.playing && (position < region.start || position >= region.end)) this.sound.seek(region.start);
    this.applyLoop();
  }

  cancelDrag(): void {
    this.stage.region = this.beforeDrag?.region ?? null;
    this.stage.box = this.beforeDrag?.box ?? null;
    this.beforeDrag = null;
    this.stage.paintOverlay(this.sound.position());
  }

  /** Start or end of the loop at the playhead: the keyboard's way to drag. */
  mark(edge: "start" | "end"): void {
    const position = Math.round(this.sound.position() * 1000) / 1000;
    const old = this.stage.region;
    const region = edge === "start" ? { start: position, end: old?.end ?? this.around.data().duration } : { start: old?.start ?? 0, end: position };
    if (region.end - region.start < 0.01) return;
    this.stage.region = region;
    this.clearBox();
    this.loopRegion();
    this.sayLoop();
  }

  private clearBox(): void {
    if (!this.stage.box) return;
    this.stage.box = null;
    this.around.callbacks().selection?.(null);
  }

  clearSelection(): void {
    this.clearBox();
    this.stage.region = null;
    if (this.loopByDrag) this.loopOn = this.loopByDrag = false;
    this.applyLoop();
    this.around.say(this.around.t()("saidCleared"));
  }

  toggleBoxMode(): void {
    this.boxMode = !this.boxMode;
    this.around.changed();
  }

  escape(): boolean {
    if (this.stage.region || this.stage.box) this.clearSelection();
    else if (this.boxMode) this.toggleBoxMode();
    else return false;
    return true;
  }
}
