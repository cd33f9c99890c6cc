// Colours for the canvases, read from the style sheet, so that light, dark and any theme of the page hold there too.
import type { Rgb } from "./assets";

export interface Theme {
  dark: boolean;
  text: string;
  muted: string;
  line: string;
  background: string;
  supports: Rgb;
  opposes: Rgb;
  quiet: Rgb;
  loud: Rgb;
  outline: string;
  font: string;
}

const ORANGE: Rgb = [217, 95, 2];
const BLUE: Rgb = [31, 104, 190];
const ORANGE_ON_DARK: Rgb = [255, 140, 50];
const BLUE_ON_DARK: Rgb = [86, 165, 255];

function resolve(root: HTMLElement, variable: string): { css: string; rgb: Rgb } {
  const probe = document.createElement("span");
  probe.style.display = "none";
  probe.style.color = `var(${variable})`;
  root.append(probe);
  const css = getComputedStyle(probe).color;
  probe.remove();
  const context = document.createElement("canvas").getContext("2d")!;
  context.fillStyle = css;
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
  return { css, rgb: [red, green, blue] };
}

export function readTheme(root: HTMLElement): Theme {
  const background = resolve(root, "--ew-background");
  const text = resolve(root, "--ew-text");
  const dark = 0.299 * background.rgb[0] + 0.587 * background.rgb[1] + 0.114 * background.rgb[2] < 128;
  root.dataset.theme = dark ? "dark" : "light";
  const supports = dark ? ORANGE_ON_DARK : ORANGE;
  const opposes = dark ? BLUE_ON_DARK : BLUE;
  root.style.setProperty("--ew-supports", `rgb(${supports.join(" ")})`);
  root.style.setProperty("--ew-opposes", `rgb(${opposes.join(" ")})`);
  // Silence has the colour of paper, slightly off the page; loud is not quite ink, so that colour stays readable on it.
  const mix = (share: number): Rgb => background.rgb.map((value, c) => value + (text.rgb[c] - value) * share) as Rgb;
  const quiet = mix(0.04);
  const loud = mix(0.76);
  root.style.setProperty("--ew-quiet", `rgb(${quiet.join(" ")})`);
  root.style.setProperty("--ew-loud", `rgb(${loud.join(" ")})`);
  return {
    dark,
    text: text.css,
    muted: resolve(root, "--ew-muted").css,
    line: resolve(root, "--ew-line").css,
    background: background.css,
    supports,
    opposes,
    quiet,
    loud,
    outline: dark ? "rgb(255 176 112)" : "rgb(150 62 0)",
    font: getComputedStyle(root).fontFamily,
  };
}
