// The clock. All tracks start at the same sample of one AudioContext; choosing a track only moves gains.
import { fetchBytes, LoadError } from "./assets";
import type { Range, Track } from "./types";

/** Context and decoder run at one rate, so nothing is resampled while playing. */
const RATE = 48000;
/** Samples kept in memory for all tracks of a clip (float32: 256 MiB); longer clips are decoded at a lower rate. */
const SAMPLE_BUDGET = 64e6;
/** Start a little ahead of the clock, so that every source is ready at the same sample. */
const LEAD = 0.02;
/** Fade at starts, stops and jumps, in s: long enough not to click, too short to hear. */
const FADE = 0.006;
/** Time constant of a track switch; after 8 ms the new gain is reached to 2 %. */
const SWITCH = 0.002;

// Browsers limit how many contexts a page may have: all players share one, closed when the last one goes.
let shared: AudioContext | null = null;
const owners = new Set<object>();

function openContext(owner: object): AudioContext {
  owners.add(owner);
  if (!shared || shared.state === "closed") {
    try {
      shared = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    } catch {
      shared = new AudioContext();
    }
  }
  return shared;
}

function closeContext(owner: object): void {
  owners.delete(owner);
  if (owners.size === 0 && shared) {
    void shared.close().catch(() => undefined);
    shared = null;
  }
}

export interface Sounds {
  buffers: Map<string, AudioBuffer>;
  errors: Map<string, LoadError>;
  /** Set when the clip is so long that it was decoded at a lower rate, in Hz. */
  reducedRate?: number;
}

/** Decodes without an AudioContext: one may only be made after a gesture. */
async function decode(url: string, rate: number): Promise<AudioBuffer> {
  const bytes = await fetchBytes(url);
  try {
    return await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes);
  } catch {
    throw new LoadError("undecodable");
  }
}

export class SoundLoader {
  private cache = new Map<string, Promise<AudioBuffer>>();

  async load(tracks: Track[], duration: number): Promise<Sounds> {
    const needed = (rate: number) => duration * rate * Math.max(1, tracks.length);
    const rate = [RATE, 32000, 24000, 16000].find((candidate) => needed(candidate) <= SAMPLE_BUDGET) ?? 8000;
    const next = new Map<string, Promise<AudioBuffer>>();
    for (const track of tracks) {
      const key = `${rate} ${track.url}`;
      next.set(key, this.cache.get(key) ?? decode(track.url, rate));
    }
    this.cache = next;
    const sounds: Sounds = { buffers: new Map(), errors: new Map(), reducedRate: rate < RATE ? rate : undefined };
    for (const track of tracks) {
      const key = `${rate} ${track.url}`;
      try {
        sounds.buffers.set(track.id, await next.get(key)!);
      } catch (error) {
        this.cache.delete(key); // the next update tries again
        sounds.errors.set(track.id, error instanceof LoadError ? error : new LoadError("undecodable"));
      }
    }
    return sounds;
  }
}

interface Voice {
  start: number;
  sources: AudioBufferSourceNode[];
  envelopes: GainNode[];
}

export class Sound {
  duration = 0;
  track = "";
  playing = false;
  /** Called when playback ends by itself or the browser takes the sound away. */
  onstop: () => void = () => undefined;
  private context: AudioContext | null = null;
  private buffers = new Map<string, AudioBuffer>();
  private buses = new Map<string, GainNode>();
  private gains = new Map<string, number>();
  private voice: Voice | null = null;
  /** Position `offset` sounds at context time `time`. */
  private anchor = { time: 0, offset: 0 };
  private rest = 0;
  private loop: Range | null = null;
  private until = 0;
  private starting = 0;

  get ready(): boolean {
    return this.buffers.size > 0;
  }

  has(track: string): boolean {
    return this.buffers.has(track);
  }

  /** Other sound data; when playing it goes on at the same position. */
  use(buffers: Map<string, AudioBuffer>): void {
    const same = buffers.size === this.buffers.size && [...buffers].every(([id, buffer]) => this.buffers.get(id) === buffer);
    if (same) return;
    this.buffers = buffers;
    if (this.playing && buffers.size === 0) this.pause();
    else if (this.playing) this.reschedule();
  }

  /** Seconds into the clip that are heard right now. */
  position(): number {
    return this.playing && this.voice ? this.positionAt(this.heard()) : this.rest;
  }

  private positionAt(time: number): number {
    const run = this.anchor.offset + Math.max(0, time - this.anchor.time);
    if (this.loop) {
      const { start, end } = this.loop;
      return run < end ? run : start + ((run - start) % (end - start));
    }
    return Math.min(run, this.until);
  }

  /** Context time at the loudspeaker: with wireless headphones the rendered time runs far ahead of it. */
  private heard(): number {
    const context = this.context!;
    const rendered = context.currentTime;
    const stamp = context.getOutputTimestamp?.();
    if (!stamp?.contextTime || !stamp.performanceTime) return rendered;
    const time = stamp.contextTime + (performance.now() - stamp.performanceTime) / 1000;
    return rendered - time > 0.5 || time - rendered > 0.1 ? rendered : Math.min(time, rendered);
  }

  /** Plays from `from` (default: where it stands), to `until` (default: the end). Only ever called by a gesture. */
  async play(from = this.rest, until = this.duration): Promise<boolean> {
    if (!this.ready) return false;
    const attempt = ++this.starting;
    const context = (this.context ??= this.connect());
    if (context.state !== "running") {
      try {
        await context.resume();
      } catch {
        return false;
      }
      if (attempt !== this.starting) return true;
    }
    this.until = until;
    this.playing = true;
    this.schedule(this.inLoop(from));
    return true;
  }

  pause(): void {
    this.starting += 1;
    if (!this.playing) return;
    this.rest = this.position();
    this.playing = false;
    this.fadeOut(this.context!.currentTime);
  }

  seek(position: number, until = this.duration): void {
    const target = Math.max(0, Math.min(this.duration, position));
    if (this.playing) {
      this.until = until;
      this.schedule(this.inLoop(target));
    } else this.rest = target;
  }

  setLoop(loop: Range | null): void {
    if (this.playing && this.context) {
      const position = this.positionAt(this.context.currentTime + LEAD);
      this.loop = loop;
      this.until = this.duration;
      this.schedule(this.inLoop(position));
    } else this.loop = loop;
  }

  private inLoop(position: number): number {
    const loop = this.loop;
    return loop && (position < loop.start || position >= loop.end) ? loop.start : position;
  }

  setTrack(track: string): void {
    this.track = track;
    this.mix();
  }

  /** Gain of a track in dB (0 = as it is). */
  setGain(track: string, gainDb: number): void {
    this.gains.set(track, 10 ** (gainDb / 20));
    this.mix();
  }

  private mix(): void {
    if (!this.context) return;
    for (const [id, bus] of this.buses) {
      bus.gain.setTargetAtTime(id === this.track ? (this.gains.get(id) ?? 1) : 0, this.context.currentTime, SWITCH);
    }
  }

  private connect(): AudioContext {
    const context = openContext(this);
    context.addEventListener("statechange", this.watch);
    return context;
  }

  private watch = (): void => {
    if (this.playing && this.context && this.context.state !== "running") {
      this.pause();
      this.onstop();
    }
  };

  private reschedule(): void {
    this.schedule(this.positionAt(this.context!.currentTime + LEAD));
  }

  private schedule(position: number): void {
    const context = this.context!;
    const when = context.currentTime + LEAD;
    this.fadeOut(when);
    const voice: Voice = { start: when, sources: [], envelopes: [] };
    const length = this.until - position;
    let running = 0;
    for (const [id, buffer] of this.buffers) {
      const source = context.createBufferSource();
      const envelope = context.createGain();
      source.buffer = buffer;
      envelope.gain.setValueAtTime(0, 0);
      envelope.gain.setValueAtTime(0, when);
      envelope.gain.linearRampToValueAtTime(1, when + FADE);
      source.connect(envelope).connect(this.bus(id));
      running += 1;
      source.onended = () => {
        running -= 1;
        source.disconnect();
        envelope.disconnect();
        if (running === 0 && this.voice === voice) this.finish();
      };
      if (this.loop) {
        source.loop = true;
        source.loopStart = Math.min(this.loop.start, buffer.duration);
        source.loopEnd = Math.min(this.loop.end, buffer.duration);
        source.start(when, Math.min(position, buffer.duration));
      } else {
        source.start(when, Math.min(position, buffer.duration));
        if (length > 2 * FADE) {
          envelope.gain.setValueAtTime(1, when + length - FADE);
          envelope.gain.linearRampToValueAtTime(0, when + length);
        }
        source.stop(when + Math.max(FADE, length));
      }
      voice.sources.push(source);
      voice.envelopes.push(envelope);
    }
    this.voice = voice;
    this.anchor = { time: when, offset: position };
  }

  private bus(id: string): GainNode {
    let bus = this.buses.get(id);
    if (!bus) {
      bus = this.context!.createGain();
      bus.gain.value = id === this.track ? (this.gains.get(id) ?? 1) : 0;
      bus.connect(this.context!.destination);
      this.buses.set(id, bus);
    }
    return bus;
  }

  private fadeOut(when: number): void {
    const voice = this.voice;
    this.voice = null;
    if (!voice) return;
    for (const [index, source] of voice.sources.entries()) {
      const gain = voice.envelopes[index].gain;
      gain.cancelScheduledValues(when);
      // A straight line down against the next voice's straight line up: where both play the same, nothing is heard of it.
      if (voice.start + FADE <= when) {
        gain.setValueAtTime(1, when);
        gain.linearRampToValueAtTime(0, when + FADE);
      } else gain.setValueAtTime(0, when);
      source.stop(when + FADE);
    }
  }

  private finish(): void {
    this.voice = null;
    this.playing = false;
    this.rest = this.until;
    this.onstop();
  }

  /** Back to the beginning of another clip. */
  reset(duration: number): void {
    this.pause();
    this.duration = duration;
    this.until = duration;
    this.rest = 0;
    this.loop = null;
    this.gains.clear();
  }

  destroy(): void {
    this.pause();
    this.context?.removeEventListener("statechange", this.watch);
    for (const bus of this.buses.values()) bus.disconnect();
    this.buses.clear();
    this.buffers = new Map();
    if (this.context) closeContext(this);
    this.context = null;
  }
}
