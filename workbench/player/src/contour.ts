// The border of what is kept, as lines: it stays thin at every zoom, which a picture of a line does not.
import type { Grey } from "./assets";

const LEVEL = 127.5;

/**
 * Marching squares at half of the grey range, in units of the picture (x to the right, y down; cell centres at .5).
 * Outside the picture counts as not kept, so every border is closed.
 */
export function contour(grey: Grey): Path2D {
  const { width, height, values } = grey;
  const path = new Path2D();
  const at = (x: number, y: number) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : values[y * width + x]);
  const between = (a: number, b: number) => (LEVEL - a) / (b - a);
  const clampX = (x: number) => Math.min(width, Math.max(0, x + 0.5));
  const clampY = (y: number) => Math.min(height, Math.max(0, y + 0.5));
  for (let y = -1; y < height; y += 1) {
    for (let x = -1; x < width; x += 1) {
      const topLeft = at(x, y);
      const topRight = at(x + 1, y);
      const bottomLeft = at(x, y + 1);
      const bottomRight = at(x + 1, y + 1);
      const code =
        (topLeft > LEVEL ? 8 : 0) | (topRight > LEVEL ? 4 : 0) | (bottomRight > LEVEL ? 2 : 0) | (bottomLeft > LEVEL ? 1 : 0);
      if (code === 0 || code === 15) continue;
      const top = (): [number, number] => [x + between(topLeft, topRight), y];
      const bottom = (): [number, number] => [x + between(bottomLeft, bottomRight), y + 1];
      const left = (): [number, number] => [x, y + between(topLeft, bottomLeft)];
      const right = (): [number, number] => [x + 1, y + between(topRight, bottomRight)];
      const line = (a: [number, number], b: [number, number]) => {
        path.moveTo(clampX(a[0]), clampY(a[1]));
        path.lineTo(clampX(b[0]), clampY(b[1]));
      };
      if (code === 1 || code === 14) line(left(), bottom());
      else if (code === 2 || code === 13) line(bottom(), right());
      else if (code === 3 || code === 12) line(left(), right());
      else if (code === 4 || code === 11) line(top(), right());
      else if (code === 6 || code === 9) line(top(), bottom());
      else if (code === 7 || code === 8) line(left(), top());
      else if (code === 5) {
        line(left(), top());
        line(bottom(), right());
      } else {
        line(left(), bottom());
        line(top(), right());
      }
    }
  }
  return path;
}
