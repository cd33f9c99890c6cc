// Every sentence of the player. `data.strings` replaces single ones; {name} is filled in.

const ENGLISH = {
  player: "Player",
  play: "Play",
  pause: "Pause",
  track: "Track",
  loop: "Loop",
  selectRegion: "Select region",
  help: "Shortcuts",
  close: "Close",
  position: "Position",
  positionText: "{now} seconds of {duration}",
  overlay: "Overlay",
  supports: "Supports",
  opposes: "Opposes",
  zoom: "Zoom",
  zoomIn: "Zoom in",
  zoomOut: "Zoom out",
  fit: "Fit",
  fitLong: "Show the whole clip",
  level: "Level",
  spectrogram: "Spectrogram",
  segments: "Segments",
  playSegment: "Play {label}, {start} to {end} seconds",
  quiet: "Very quiet",
  makeAudible: "Make audible (+{gain} dB)",
  audible: "Gain +{gain} dB",
  trackFailed: "“{label}” cannot be played: {reason}",
  notFound: "the sound could not be fetched ({status}). Reload the page to try again.",
  unreachable: "the sound could not be fetched. Reload the page to try again.",
  undecodable: "this browser cannot read the sound data.",
  pictureFailed: "The spectrogram could not be loaded. The sound still plays.",
  overlayFailed: "The explanation on the spectrogram could not be loaded.",
  videoFailed: "The video could not be played. The sound still plays.",
  audioBlocked: "This browser did not allow sound. Press Play again.",
  reducedRate: "Long clip: played with frequencies up to {limit} kHz.",
  saidTrack: "Track: {label}",
  saidLoop: "Loop from {start} to {end} seconds",
  saidLoopAll: "Loop the whole clip",
  saidLoopOff: "Loop off",
  saidSelection: "Selected {start} to {end} seconds, {low} to {high}",
  saidCleared: "Selection cleared",
  saidZoom: "Showing {start} to {end} seconds",
  keysPlay: "Play or pause",
  keysSeek: "Back and forward (with Shift: 1 s)",
  keysEnds: "To the start, to the end",
  keysTracks: "Choose the track",
  keysLoop: "Loop on or off",
  keysRegion: "Set start and end of the loop here",
  keysDrag: "Loop a time range",
  keysBox: "Select a time-frequency region",
  keysZoom: "Zoom in and out",
  keysFit: "Show the whole clip",
  keysEscape: "Clear the selection",
  keysHelp: "This list",
  keyDrag: "Drag",
  keyShiftDrag: "Shift + drag",
  keySpace: "Space",
};

export type StringName = keyof typeof ENGLISH;
export type Translate = (name: StringName, values?: Record<string, string | number>) => string;

export function translator(replaced: Record<string, string> = {}): Translate {
  return (name, values = {}) => {
    const text = Object.hasOwn(replaced, name) ? String(replaced[name]) : ENGLISH[name];
    return text.replace(/\{(\w+)\}/g, (whole, key) => (Object.hasOwn(values, key) ? String(values[key]) : whole));
  };
}
