// The picture of every node: cut out of the spectrogram and of the strip of pictures.
import { type Grey, type Rgb, shade } from "../assets";
import type { GraphData } from "./types";

export async function loadStrip(url: string): Promise<HTMLImageElement | null> {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    return null;
  }
  return image;
}

function cut(source: HTMLCanvasElement | HTMLImageElement, from: number, length: number, height: number, type: string): string {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(length));
  canvas.height = height;
  canvas.getContext("2d")!.drawImage(source, from, 0, length, height, 0, 0, canvas.width, height);
  return canvas.toDataURL(type, 0.85);
}

export function cutTiles(data: GraphData, grey: Grey | null, strip: HTMLImageElement | null, quiet: Rgb, loud: Rgb): string[] {
  const sound = grey ? shade(grey, quiet, loud) : null;
  const first = data.nodes.findIndex((node) => node.kind === "video");
  const span = data.end - data.start;
  return data.nodes.map((node, index) => {
    if (node.kind === "audio") {
      if (!sound) return "";
      const from = ((node.start - data.start) / span) * sound.width;
      return cut(sound, from, Math.max(1, ((node.end - node.start) / span) * sound.width), sound.height, "image/png");
    }
    if (!strip || !data.strip || !node.present) return "";
    const width = strip.naturalWidth / data.strip.count;
    return cut(strip, width * (index - first), width, strip.naturalHeight, "image/jpeg");
  });
}
