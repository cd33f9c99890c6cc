// The player: sound, picture and controls, held together by one position. Knows nothing of Streamlit.
import { PictureLoader, type Pictures } from "./assets";
import { spoken } from "./axes";
import { Controls } from "./controls";
import { h } from "./dom";
import { listenToKeys, listenToPointer } from "./gestures";
import { type Sound, SoundLoader, type Sounds } from "./sound";
import { Stage } from "./stage";
import { translator, type Translate } from "./strings";
import { readTheme } from "./theme";
import { Transport } from "./transport";
import type { Callbacks, Player, PlayerData } from "./types";

export function createPlayer(root: HTMLElement, data: PlayerData, callbacks: Callbacks = {}): Player {
  return new SyncedPlayer(root, data, callbacks);
}

function sameClip(before: PlayerData, after: PlayerData): boolean {
  if (before.clipId !== undefined || after.clipId !== undefined) return before.clipId === after.clipId;
  return before.tracks[0]?.url === after.tracks[0]?.url || Math.abs(before.duration - after.duration) < 1e-3;
}

class SyncedPlayer implements Player {
  private t: Translate;
  private stage: Stage;
  private controls: Controls;
  private transport: Transport;
  private sound: Sound;
  private soundLoader = new SoundLoader();
  private pictureLoader = new PictureLoader();
  private pictures: Pictures | null = null;
  private sounds: Sounds | null = null;
  private version = 0;
  private audible = new Set<string>();
  private videoFailed = false;
  private themeKey = "";
  private spokenAt = 0;
  private frame = 0;
  private resize: ResizeObserver;
  private scheme = matchMedia("(prefers-color-scheme: dark)");
  private abort = new AbortController();

  constructor(
    private root: HTMLElement,
    private data: PlayerData,
    private callbacks: Callbacks,
  ) {
    this.t = translator(data.strings);
    this.stage = new Stage(this.t);
    this.transport = new Transport(this.stage, {
      data: () => this.data,
      callbacks: () => this.callbacks,
      t: () => this.t,
      say: (sentence) => this.controls.say(sentence),
      changed: () => this.showState(),
    });
    this.sound = this.transport.sound;
    this.controls = new Controls(this.t, {
      toggle: () => this.transport.toggle(),
      track: (id) => this.transport.chooseTrack(id),
      loop: () => this.transport.toggleLoop(),
      selectMode: () => this.transport.toggleBoxMode(),
      opacity: (value) => this.draw(() => (this.stage.opacity = value)),
      layer: (name, on) => this.draw(() => (this.stage[name] = on)),
      zoom: (direction) => this.zoom(direction > 0 ? 2 : 0.5),
      fit: () => this.fit(),
      audible: () => this.toggleAudible(),
    });
    this.build();
    this.resize = new ResizeObserver(() => {
      this.refreshTheme();
      this.stage.draw();
    });
    this.resize.observe(this.stage.element);
    this.scheme.addEventListener("change", this.refreshTheme);
    this.adopt(data, true);
    this.refreshTheme();
    void this.load(data, true);
  }

  private build(): void {
    const { root, stage, controls } = this;
    root.classList.add("ew-player");
    root.setAttribute("role", "group");
    root.tabIndex = -1;
    for (const flag of ["ready", "playing"]) root.dataset[flag] = "false";
    const surface = stage.spectrogram.plot;
    surface.tabIndex = 0;
    surface.setAttribute("role", "slider");
    surface.setAttribute("aria-valuemin", "0");
    surface.after(controls.quiet); // beside it, not in it: what is inside a slider is hidden from screen readers
    const frame = h("div", { class: "ew-frame" }, controls.notes, stage.element, h("div", { class: "ew-row ew-row-pan" }, h("div"), stage.pan, h("div")));
    controls.bottom.prepend(stage.legend);
    root.replaceChildren(controls.top, frame, controls.bottom, controls.help, controls.live);
    listenToPointer(stage, {
      seek: (time) => {
        const { region } = stage;
        if (region && (time < region.start || time > region.end)) this.transport.clearSelection();
        this.transport.seek(time);
      },
      drag: (region, box, done) => this.transport.dragged(region, box, done),
      cancelDrag: () => this.transport.cancelDrag(),
      hover: (at) => {
        stage.hover = at;
        stage.paintOverlay(this.sound.position());
      },
      zoom: (factor, around) => this.zoom(factor, around),
      pan: (seconds) => this.changeView(() => stage.setView(stage.view.start + seconds, stage.view.end + seconds)),
      boxMode: () => this.transport.boxMode,
    });
    listenToKeys(root, {
      toggle: () => this.transport.toggle(),
      seekBy: (seconds) => this.transport.seek(this.sound.position() + seconds),
      seekTo: (place) => this.transport.seek(place === "start" ? 0 : this.data.duration),
      trackNumber: (index) => this.data.tracks[index] && this.transport.chooseTrack(this.data.tracks[index].id),
      loop: () => this.transport.toggleLoop(),
      selectMode: () => this.transport.toggleBoxMode(),
      mark: (edge) => this.transport.mark(edge),
      zoom: (direction) => this.zoom(direction > 0 ? 2 : 0.5),
      fit: () => this.fit(),
      help: () => controls.toggleHelp(),
      escape: () => this.escape(),
      helpOpen: () => controls.helpOpen,
    }, this.abort.signal);
    const signal = this.abort.signal;
    root.addEventListener("keydown", () => (root.dataset.keyboard = "true"), { signal, capture: true });
    root.addEventListener("pointerdown", () => (root.dataset.keyboard = "false"), { signal, capture: true });
    // A button pressed with the pointer hands the focus back, so that Space plays and does not press it again.
    root.addEventListener("click", (event) => {
      const target = event.composedPath()[0] as Element;
      if (event.detail > 0 && target.closest?.("button") && !controls.helpOpen) surface.focus({ preventScroll: true });
    }, { signal });
    stage.onsegment = (segment, index, lane) => this.transport.playSegment(segment, index, lane);
    stage.video.muted = true;
    stage.video.addEventListener("error", () => {
      this.videoFailed = this.data.video !== undefined;
      this.showNotes();
    });
  }

  // --- data

  update(data: PlayerData, callbacks?: Callbacks): void {
    if (callbacks) this.callbacks = callbacks;
    this.refreshTheme();
    if (JSON.stringify(data) === JSON.stringify(this.data)) return;
    const same = sameClip(this.data, data);
    this.root.setAttribute("aria-busy", "true");
    this.root.classList.toggle("ew-stale", !same);
    void this.load(data, false, same);
  }

  private async load(data: PlayerData, first: boolean, same = false): Promise<void> {
    const version = ++this.version;
    const current = () => version === this.version;
    const pictures = this.pictureLoader.load(data);
    const sounds = this.soundLoader.load(data.tracks, data.duration);
    if (first || same) {
      const shown = pictures.then((loaded) => {
        if (!current()) return;
        if (!first) this.adopt(data, false);
        this.usePictures(loaded);
      });
      const heard = Promise.all([sounds, first ? null : shown]).then(([loaded]) => current() && this.useSounds(loaded));
      await Promise.all([shown, heard]);
    } else {
      // Another clip: the old one stays as it is until all of the new one is there.
      const [loadedPictures, loadedSounds] = await Promise.all([pictures, sounds]);
      if (!current()) return;
      this.adopt(data, true);
      this.usePictures(loadedPictures);
      this.useSounds(loadedSounds);
    }
    if (!current()) return;
    this.root.classList.remove("ew-stale");
    this.root.setAttribute("aria-busy", "false");
    this.root.dataset.ready = "true";
  }

  private adopt(data: PlayerData, newClip: boolean): void {
    const { stage, controls, sound } = this;
    this.data = data;
    this.t = translator(data.strings);
    this.root.setAttribute("aria-label", data.title ?? this.t("player"));
    const surface = stage.spectrogram.plot;
    surface.setAttribute("aria-label", `${this.t("spectrogram")}, ${this.t("position")}`);
    surface.setAttribute("aria-valuemax", data.duration.toFixed(2));
    if (newClip) {
      this.transport.reset(data.duration);
      this.audible.clear();
      const initial = data.initial ?? {};
      if (!data.tracks.some((track) => track.id === sound.track)) sound.setTrack(initial.track ?? data.tracks[0]?.id ?? "");
      stage.opacity = initial.overlayOpacity ?? stage.opacity;
      stage.supports = initial.supports ?? stage.supports;
      stage.opposes = initial.opposes ?? stage.opposes;
    }
    if (!data.tracks.some((track) => track.id === sound.track)) sound.setTrack(data.tracks[0]?.id ?? "");
    this.root.classList.toggle("ew-compact", data.compact === true);
    // Where a clip only ever has one sound there is nothing to choose; elsewhere the place is kept for those to come.
    this.root.classList.toggle("ew-one-track", data.lanes !== undefined && data.tracks.length === 1);
    stage.show(data, this.t, newClip);
    if (data.video && stage.video.getAttribute("src") !== data.video.url) {
      this.videoFailed = false;
      stage.video.src = data.video.url;
      stage.video.setAttribute("aria-label", data.video.label ?? "");
    }
    controls.setTracks(data.tracks);
    controls.setOpacity(stage.opacity);
    const { supportsUrl, opposesUrl, keptOutline } = data.overlay ?? {};
    controls.setLayers(
      { supports: stage.supports, opposes: stage.opposes },
      { supports: Boolean(supportsUrl ?? keptOutline), opposes: Boolean(opposesUrl) },
    );
    this.showState();
    stage.draw();
  }

  private usePictures(pictures: Pictures): void {
    this.pictures = pictures;
    this.stage.setPictures(pictures);
    this.showNotes();
  }

  private useSounds(sounds: Sounds): void {
    this.sounds = sounds;
    this.sound.use(sounds.buffers);
    if (!sounds.buffers.has(this.sound.track) && sounds.buffers.size) {
      this.sound.setTrack(sounds.buffers.keys().next().value!);
    }
    this.showNotes();
    this.showState();
  }

  private showNotes(): void {
    const notes: string[] = [];
    if (this.pictures?.spectrogramFailed) notes.push(this.t("pictureFailed"));
    if (this.pictures?.overlayFailed) notes.push(this.t("overlayFailed"));
    for (const [id, error] of this.sounds?.errors ?? []) {
      const label = this.data.tracks.find((track) => track.id === id)?.label ?? id;
      notes.push(this.t("trackFailed", { label, reason: this.t(error.reason, { status: error.status }) }));
    }
    if (this.videoFailed) notes.push(this.t("videoFailed"));
    if (this.transport.blocked) notes.push(this.t("audioBlocked"));
    if (this.sounds?.reducedRate) notes.push(this.t("reducedRate", { limit: this.sounds.reducedRate / 2000 }));
    this.controls.setNotes(notes);
  }

  private toggleAudible(): void {
    const track = this.data.tracks.find((one) => one.id === this.sound.track);
    if (!track?.gainDb) return;
    if (this.audible.has(track.id)) this.audible.delete(track.id);
    else this.audible.add(track.id);
    this.sound.setGain(track.id, this.audible.has(track.id) ? track.gainDb : 0);
    this.showState();
  }

  private escape(): boolean {
    if (!this.controls.helpOpen) return this.transport.escape();
    this.controls.toggleHelp(false);
    return true;
  }

  // --- view

  private changeView(change: () => void): void {
    change();
    const { start, end } = this.stage.view;
    const position = this.sound.position();
    this.transport.following = position >= start && position <= end;
    this.showState();
  }

  private zoom(factor: number, around?: number): void {
    const { view } = this.stage;
    const position = this.sound.position();
    const visible = position >= view.start && position <= view.end;
    this.changeView(() => this.stage.zoom(factor, around ?? (visible ? position : (view.start + view.end) / 2)));
    if (around === undefined) this.sayView();
  }

  private fit(): void {
    this.changeView(() => this.stage.setView(0, this.data.duration));
    this.sayView();
  }

  private sayView(): void {
    const { start, end } = this.stage.view;
    this.controls.say(this.t("saidZoom", { start: spoken(start), end: spoken(end) }));
  }

  private draw(change: () => void): void {
    change();
    this.stage.draw();
  }

  private refreshTheme = (): void => {
    const theme = readTheme(this.root);
    const key = JSON.stringify(theme);
    if (key === this.themeKey) return;
    this.themeKey = key;
    this.stage.setTheme(theme);
    this.stage.draw();
  };

  // --- what is shown

  private showState(): void {
    const { controls, sound, stage, root } = this;
    this.showNotes();
    root.dataset.playing = String(sound.playing);
    root.dataset.track = sound.track;
    root.dataset.loop = this.transport.loopOn ? (stage.region ? `${stage.region.start},${stage.region.end}` : "all") : "";
    root.dataset.view = `${stage.view.start.toFixed(3)},${stage.view.end.toFixed(3)}`;
    stage.spectrogram.plot.classList.toggle("ew-boxing", this.transport.boxMode);
    controls.setPlaying(sound.playing, sound.ready);
    controls.markTrack(sound.track, (id) => sound.has(id));
    controls.setLoop(this.transport.loopOn);
    controls.setSelectMode(this.transport.boxMode);
    controls.setZoom(stage.zoomed, stage.view.end - stage.view.start > 0.0501);
    const gain = this.data.tracks.find((track) => track.id === sound.track)?.gainDb ?? 0;
    controls.setQuiet(gain > 0 && sound.has(sound.track) ? gain : null, this.audible.has(sound.track));
    this.tick(true);
  }

  private tick = (discrete: boolean | number = false): void => {
    cancelAnimationFrame(this.frame);
    if (this.abort.signal.aborted) return;
    const { stage, sound, data } = this;
    const position = sound.position();
    const inside = position >= stage.view.start && position <= stage.view.end;
    if (inside) this.transport.following = true;
    else if (sound.playing && this.transport.following) stage.follow(position);
    this.root.dataset.currentTime = position.toFixed(3);
    this.root.dataset.view = `${stage.view.start.toFixed(3)},${stage.view.end.toFixed(3)}`;
    this.controls.setTime(position, data.duration);
    const now = performance.now();
    if (discrete === true || now - this.spokenAt > 1000) {
      // Once a second is enough for a screen reader; the playhead itself moves at every frame.
      this.spokenAt = now;
      const surface = stage.spectrogram.plot;
      surface.setAttribute("aria-valuenow", position.toFixed(2));
      surface.setAttribute("aria-valuetext", this.t("positionText", { now: spoken(position), duration: spoken(data.duration) }));
    }
    stage.paintOverlay(position);
    this.syncVideo(position);
    if (sound.playing) this.frame = requestAnimationFrame(this.tick);
  };

  private syncVideo(position: number): void {
    const { video } = this.stage;
    if (!this.data.video || this.videoFailed || video.readyState < 1) return;
    const behind = position - video.currentTime;
    if (this.sound.playing) {
      // A seek stutters: small differences are made up by a slightly other speed.
      if (Math.abs(behind) > 0.2) video.currentTime = position;
      video.playbackRate = Math.abs(behind) > 0.2 ? 1 : Math.max(0.8, Math.min(1.25, 1 + 1.5 * behind));
      if (video.paused && position < video.duration) void video.play().catch(() => undefined);
    } else {
      if (!video.paused) video.pause();
      if (Math.abs(behind) > 0.02) video.currentTime = position;
    }
  }

  destroy(): void {
    this.version += 1;
    this.abort.abort();
    cancelAnimationFrame(this.frame);
    this.resize.disconnect();
    this.scheme.removeEventListener("change", this.refreshTheme);
    this.sound.destroy();
    this.stage.video.removeAttribute("src");
    this.root.replaceChildren();
    this.root.classList.remove("ew-player", "ew-stale");
  }
}
