// Fetching sound and pictures, and turning grey pictures into what is drawn.
import type { PlayerData } from "./types";

export type LoadReason = "notFound" | "unreachable" | "undecodable";

export class LoadError extends Error {
  constructor(
    public reason: LoadReason,
    public status = 0,
  ) {
    super(reason);
  }
}

/** The bytes behind a URL. Data URLs are read here: a page opened from disk may not be allowed to fetch them. */
export async function fetchBytes(url: string): Promise<ArrayBuffer> {
  if (url.startsWith("data:")) {
    try {
      const comma = url.indexOf(",");
      const body = url.slice(comma + 1);
      const text = url.slice(0, comma).endsWith(";base64") ? atob(body) : decodeURIComponent(body);
      const bytes = new Uint8Array(text.length);
      for (let index = 0; index < text.length; index += 1) bytes[index] = text.charCodeAt(index);
      return bytes.buffer;
    } catch {
      throw new LoadError("undecodable");
    }
  }
  let response: Response;
  try {
    response = await fetch(url);
  } catch {
    throw new LoadError("unreachable");
  }
  if (!response.ok) throw new LoadError("notFound", response.status);
  return await response.arrayBuffer();
}

/** An 8-bit grey picture. */
export interface Grey {
  width: number;
  height: number;
  values: Uint8ClampedArray;
}

export async function loadGrey(url: string): Promise<Grey> {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    throw new LoadError("unreachable");
  }
  const width = image.naturalWidth;
  const height = image.naturalHeight;
  const context = canvasOf(width, height).getContext("2d", { willReadFrequently: true })!;
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, width, height).data;
  const values = new Uint8ClampedArray(width * height);
  for (let index = 0; index < values.length; index += 1) values[index] = pixels[4 * index];
  return { width, height, values };
}

function canvasOf(width: number, height: number): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

export type Rgb = [number, number, number];

/** Grey value to a colour between `low` and `high`. */
export function shade(grey: Grey, low: Rgb, high: Rgb): HTMLCanvasElement {
  const table = Array.from({ length: 256 }, (_, level) => low.map((value, c) => value + ((high[c] - value) * level) / 255));
  return paint(grey, (pixels, at, level) => {
    const colour = table[level];
    pixels[at] = colour[0];
    pixels[at + 1] = colour[1];
    pixels[at + 2] = colour[2];
    pixels[at + 3] = 255;
  });
}

/** One colour whose opacity is the grey value. */
export function tint(grey: Grey, colour: Rgb): HTMLCanvasElement {
  return paint(grey, (pixels, at, level) => {
    pixels[at] = colour[0];
    pixels[at + 1] = colour[1];
    pixels[at + 2] = colour[2];
    pixels[at + 3] = level;
  });
}

function paint(grey: Grey, set: (pixels: Uint8ClampedArray, at: number, level: number) => void): HTMLCanvasElement {
  const canvas = canvasOf(grey.width, grey.height);
  const context = canvas.getContext("2d")!;
  const picture = context.createImageData(grey.width, grey.height);
  for (let index = 0; index < grey.values.length; index += 1) set(picture.data, 4 * index, grey.values[index]);
  context.putImageData(picture, 0, 0);
  return canvas;
}

export interface Pictures {
  spectrogram?: Grey;
  supports?: Grey;
  opposes?: Grey;
  kept?: Grey;
  spectrogramFailed: boolean;
  overlayFailed: boolean;
}

export class PictureLoader {
  private cache = new Map<string, Promise<Grey>>();

  async load(data: PlayerData): Promise<Pictures> {
    const urls = {
      spectrogram: data.spectrogram.url,
      supports: data.overlay?.supportsUrl,
      opposes: data.overlay?.opposesUrl,
      kept: data.overlay?.keptOutline,
    };
    const next = new Map<string, Promise<Grey>>();
    for (const url of Object.values(urls)) if (url) next.set(url, this.cache.get(url) ?? loadGrey(url));
    this.cache = next;
    const pictures: Pictures = { spectrogramFailed: false, overlayFailed: false };
    for (const [name, url] of Object.entries(urls) as [keyof typeof urls, string | undefined][]) {
      if (!url) continue;
      try {
        pictures[name] = await next.get(url)!;
      } catch {
        this.cache.delete(url); // the next update tries again
        if (name === "spectrogram") pictures.spectrogramFailed = true;
        else pictures.overlayFailed = true;
      }
    }
    return pictures;
  }
}
