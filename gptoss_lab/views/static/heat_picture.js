// A heat map's picture: numbers become levels of a colour map, and levels become pixels. Where a pixel holds many cells it
// shows the strongest of them, so that a thin line is not lost.

import { colours, el } from "./core.js";
import { shareOf } from "./scale.js";

/** The level of every cell, row by row: 0 to 255, −1 where masked. */
export function heatLevels({ rows, cols, value, masked, scale }) {
  const levels = new Int16Array(rows * cols).fill(-1);
  for (let r = 0, n = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++, n++) {
      if (!masked?.(r, c)) levels[n] = Math.round(255 * shareOf(value(r, c), scale));
    }
  }
  return levels;
}

/** The cells in view, [first, count] of rows and of columns, in at most `high` x `wide` points, each the strongest of its
 *  cells: the largest, or the farthest from the middle where colours go both ways. { levels, high, wide } */
export function heatPooled(levels, total, rows, cols, [most, mostWide], bothWays = false) {
  const [high, wide] = [Math.min(most, Math.ceil(rows[1])), Math.min(mostWide, Math.ceil(cols[1]))];
  const out = new Int16Array(high * wide).fill(-1);
  const strength = bothWays ? (level) => Math.abs(level - 127.5) : (level) => level;
  const last = ([first, count], all) => Math.min(Math.ceil(first + count), all);
  for (let r = Math.floor(rows[0]); r < last(rows, total[0]); r++) {
    const y = Math.min(Math.max(Math.floor(((r + 0.5 - rows[0]) / rows[1]) * high), 0), high - 1);
    for (let c = Math.floor(cols[0]); c < last(cols, total[1]); c++) {
      const x = Math.min(Math.max(Math.floor(((c + 0.5 - cols[0]) / cols[1]) * wide), 0), wide - 1);
      const level = levels[r * total[1] + c];
      const n = y * wide + x;
      if (level >= 0 && (out[n] < 0 || strength(level) > strength(out[n]))) out[n] = level;
    }
  }
  return { levels: out, high, wide };
}

/** Levels as a canvas of their own; masked ones stay clear, so that what lies below shows. */
export function heatCanvas(levels, high, wide, map = "cividis") {
  const table = colours.table(map);
  const data = new ImageData(wide, high);
  levels.forEach((level, n) => {
    if (level < 0) return;
    data.data.set(table.subarray(3 * level, 3 * level + 3), 4 * n);
    data.data[4 * n + 3] = 255;
  });
  const canvas = el("canvas", { width: wide, height: high });
  canvas.getContext("2d").putImageData(data, 0, 0);
  return canvas;
}

/** Buttons that zoom a map, for those who have no keys; keys do the same on the map, so they are no stops of Tab. */
export function zoomButtons(map) {
  const button = (sign, name, onclick) =>
    el("button", { type: "button", tabindex: -1, "aria-label": name, title: name, onclick }, sign);
  return el("span", { class: "gl-zoom", role: "group", "aria-label": "zoom" },
    button("−", "zoom out", () => map().zoom(1 / 0.6)), button("+", "zoom in", () => map().zoom(0.6)),
    button("⟲", "show all", () => map().reset()));
}
