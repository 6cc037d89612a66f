// Scales: numbers for reading, where a value stands between two ends, the meaning of colours, what a zoom leaves in view.

import { colours, el, percent } from "./core.js";

/** A number for reading: shares as percentages, others with three significant digits. */
export function readable(value, unit) {
  if (!Number.isFinite(value)) return value < 0 ? "−∞" : "–";
  if (unit === "share") return percent(value);
  if (value === 0) return "0";
  return (value < 0 ? "−" : "") + (Math.abs(value) >= 1000 ? Math.abs(value).toFixed(0) : Math.abs(value).toPrecision(3));
}

/** What stays in view of `total` cells when `factor` times as many are shown about `at` (0 to 1 of the view): [first, count]. */
export function zoomed([first, count], total, factor, at = 0.5) {
  const next = Math.min(Math.max(count * factor, Math.min(4, total)), total);
  const start = first + (count - next) * at;
  return [Math.min(Math.max(start, 0), total - next), next];
}

/** Every how many labels one is written, when a cell is `size` pixels and a label needs `need`: 1, 2, 4, 8, … */
export function labelStep(size, need) {
  let step = 1;
  while (step * size < need && step < 4096) step *= 2;
  return step;
}

/** Where a value stands between lo and hi, 0 to 1. gamma 0.5 (a square root) opens up small shares. */
export function shareOf(value, { lo = 0, hi = 1, gamma = 1 }) {
  const t = Math.min(Math.max((value - lo) / (hi - lo || 1), 0), 1);
  return gamma === 1 ? t : t ** gamma;
}

/** The meaning of the colours: a bar with numbers at `ticks`, its name before it unless something else says it. */
export function legend(scale, ticks, name, named = true) {
  const { map = "cividis", unit } = scale;
  const stops = Array.from({ length: 17 }, (_, n) => `${colours.css(map, n / 16)} ${(100 * n) / 16}%`);
  const marks = ticks.map((tick) => el("span", { style: { left: `${100 * shareOf(tick, scale)}%` } }, readable(tick, unit)));
  return el("div", { class: "gl-legend", role: "img", "aria-label": `${name}, from ${readable(ticks[0], unit)} to ${readable(ticks.at(-1), unit)}` },
    el("span", { class: named ? "gl-legend-name" : "gl-hidden" }, name),
    el("div", { class: "gl-legend-bar", style: { background: `linear-gradient(to right, ${stops.join(", ")})` } }),
    el("div", { class: "gl-legend-ticks" }, marks));
}
