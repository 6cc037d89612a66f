// The two drawings of the Positions view: the score over distance, and the wavelengths of the pairs on a log scale.

import { svg } from "./core.js";
import { positionsCount, positionsSigned, positionsTokens } from "./dials.js";
import { positionsCurve, positionsTicks, positionsWavelengths } from "./rotation.js";

/** A frame with axes in `node` of size [width, height]: x and y map numbers to pixels; draw into it with add(). */
function positionsFrame(node, [width, height], { x, y, xTicks, yTicks, xName, yName, yTick = positionsCount }) {
  const [left, right, top, bottom] = [62, width - 10, 10, height - 36];
  const at = { x: (v) => left + ((v - x[0]) / (x[1] - x[0])) * (right - left),
    y: (v) => bottom - ((v - y[0]) / (y[1] - y[0])) * (bottom - top) };
  node.setAttribute("viewBox", `0 0 ${width} ${height}`);
  node.replaceChildren(
    ...yTicks.flatMap((t) => [svg("line", { class: "grid", x1: left, x2: right, y1: at.y(t), y2: at.y(t) }),
      svg("text", { class: "soft", x: left - 6, y: at.y(t) + 4, "text-anchor": "end" }, yTick(t))]),
    ...xTicks.map((t) => svg("text",
      { class: "soft", x: at.x(t), y: bottom + 15, "text-anchor": t === x[1] ? "end" : "middle" },
      t.toLocaleString("en"))),
    svg("path", { d: `M${left} ${top}V${bottom}H${right}`, fill: "none", stroke: "var(--gl-muted)" }),
    svg("text", { x: (left + right) / 2, y: height - 4, "text-anchor": "middle" }, xName),
    svg("text", { transform: `translate(11 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, yName),
  );
  return { ...at, left, right, top, bottom, add: (...nodes) => node.append(...nodes) };
}

function positionsPath(values, x, y, step) {
  return Array.from(values, (v, n) => `${n ? "L" : "M"}${x(n * step).toFixed(1)} ${y(v).toFixed(1)}`).join("");
}

/** Wavelengths pair by pair on a log scale, with the lengths they are measured by. */
export function positionsWaveChart(node, size, { frequencies, plain, lengths, pair }) {
  const [long, short] = [positionsWavelengths(frequencies), positionsWavelengths(plain)];
  const most = Math.log10(Math.max(...long, ...lengths.map((l) => l.tokens)) * 2);
  const frame = positionsFrame(node, size, {
    x: [-0.5, frequencies.length - 0.5], y: [0.5, most], xTicks: positionsTicks(0, frequencies.length - 1, 8).filter(Number.isInteger),
    yTicks: positionsTicks(1, Math.floor(most), 4), xName: "pair, fastest first", yName: "tokens for one turn",
    yTick: (t) => (t < 4 ? (10 ** t).toLocaleString("en") : t < 6 ? `${10 ** (t - 3)}k` : `${10 ** (t - 6)}M`),
  });
  let below = Infinity; // names at the right stand under their lines, and keep clear of the axis and of one another
  for (const { tokens, name, idea, dash } of [...lengths].sort((a, b) => a.tokens - b.tokens)) {
    const high = Math.log10(tokens) > (0.5 + most) / 2;
    const y = frame.y(Math.log10(tokens));
    const under = Math.min(y + 14, frame.bottom - 4, below - 14);
    if (!high) below = under;
    frame.add(svg("line", { x1: frame.left, x2: frame.right, y1: y, y2: y, stroke: `var(--gl-${idea})`,
      "stroke-width": 1.6, "stroke-dasharray": dash }),
      svg("text", { x: high ? frame.left + 6 : frame.right - 2, y: high ? y - 4 : under,
        "text-anchor": high ? "start" : "end" }, `${name} ${tokens.toLocaleString("en")}`));
  }
  const dots = (values, shape) => values.forEach((v, i) => frame.add(shape(frame.x(i), frame.y(Math.log10(v)), i)));
  dots(short, (x, y) => svg("rect",
    { x: x - 3, y: y - 3, width: 6, height: 6, fill: "none", stroke: "var(--gl-muted)", "stroke-width": 1.3 }));
  dots(long, (x, y, i) => svg("circle", { cx: x, cy: y, r: 3.4, fill: "var(--gl-position)" },
    svg("title", {}, `pair ${i}: ${positionsTokens(long[i])}; plain RoPE ${positionsTokens(short[i])}`)));
  if (pair !== null) frame.add(svg("circle",
    { cx: frame.x(pair), cy: frame.y(Math.log10(long[pair])), r: 7.5, fill: "none", stroke: "var(--gl-pick)",
    "stroke-width": 2 }));
}

/** The score at every distance: all pairs, the slower half alone, the chosen pair alone, and where we are.
 *  `twins`: another run's query and key, which have room on the scale too. Returns its frame. */
export function positionsScoreChart(node, size,
  { q, k, frequencies, concentration, distance, score, window, reach, pair, twins = null }) {
  const step = Math.max(1, Math.ceil(reach / 512));
  const slow = frequencies.map((_, i) => i).slice(Math.floor(frequencies.length / 2));
  const drawn = ([a, b]) => [slow, [pair], null].map((pairs) => positionsCurve(a, b, frequencies, concentration, reach, step, pairs));
  const curves = drawn([q, k]);
  let [low, high] = [0, 0];
  for (const v of [...curves, ...(twins ? drawn(twins) : [])].flatMap((scores) => Array.from(scores))) [low, high] = [Math.min(low, v), Math.max(high, v)];
  const room = (high - low || 1) * 0.08;
  const frame = positionsFrame(node, size, {
    x: [0, reach], y: [low - room, high + room],
    xTicks: positionsTicks(0, reach, 4), yTicks: positionsTicks(low, high, 5),
    yTick: (t) => String(t).replace("-", "−"),
    xName: `tokens from query back to key${step > 1 ? ` (one in ${step} drawn)` : ""}`, yName: "score",
  });
  const line = (d, width, dash, ink = "position") => svg("path",
    { d, fill: "none", stroke: `var(--gl-${ink})`, "stroke-width": width, "stroke-dasharray": dash,
    "stroke-linejoin": "round" });
  if (window && window <= reach) {
    const x = frame.x(window - 0.5);
    frame.add(svg("line", { x1: x, x2: x, y1: frame.top, y2: frame.bottom, stroke: "var(--gl-window)",
      "stroke-width": 2, "stroke-dasharray": "6 3" }),
      svg("text", { x: x + 5, y: frame.top + 11 }, `window of ${window}`));
  }
  frame.add(line(positionsPath(curves[0], frame.x, frame.y, step), 1.6, "6 4"),
    line(positionsPath(curves[1], frame.x, frame.y, step), 1.2, null, "ink"),
    line(positionsPath(curves[2], frame.x, frame.y, step), 2.2));
  if (distance >= 0 && distance <= reach) {
    const [x, y] = [frame.x(distance), frame.y(score)];
    const rightwards = x < (frame.left + frame.right) / 2;
    frame.add(svg("line", { x1: x, x2: x, y1: frame.bottom, y2: y, stroke: "var(--gl-ink)",
      "stroke-dasharray": "2 3" }),
      svg("circle", { cx: x, cy: y, r: 5, fill: "var(--gl-ink)" }),
      svg("text", { x: x + (rightwards ? 9 : -9), y: frame.bottom - 6, "text-anchor": rightwards ? "start" : "end",
        "font-weight": 600 }, `${positionsSigned(score)} at ${distance.toLocaleString("en")}`));
  }
  if (distance > reach) frame.add(svg("text",
    { x: frame.right - 2, y: frame.bottom - 6, "text-anchor": "end", "font-weight": 600 },
    `${positionsSigned(score)} at ${distance.toLocaleString("en")}, further right →`));
  node.setAttribute("aria-label",
    `Score by distance up to ${reach}: ${positionsSigned(curves[2][0])} at 0, ${positionsSigned(curves[2].at(-1))} ` +
    `at the end; now ${positionsSigned(score)} at ${distance}.`);
  return frame;
}
