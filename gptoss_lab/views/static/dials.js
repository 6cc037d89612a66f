// The controls of the Positions view: a dial for each pair of channels, a card for the query and one for the key.
//
// A dial shows pair i of both vectors as hands: thin before the rotation, thick after, an arc for the angle between
// them (whole turns left out). Its ring is as long as its longest hand; what the pair adds to the score stands beneath.

import { canPress, el, svg } from "./core.js";
import { quoted } from "./tokens.js";

/** A number to three digits: 6.28, 14,100, 20.8M. */
export function positionsCount(n) {
  return n >= 999500 ? `${Number((n / 1e6).toPrecision(3))}M` : Number(n.toPrecision(3)).toLocaleString("en");
}
/** A number with its sign. */
export const positionsSigned = (n, digits = 2) => (Math.abs(n) < 0.5 * 10 ** -digits ? "0"
  : (n < 0 ? "−" : "+") + Math.abs(n).toFixed(digits));
/** So many tokens. */
export const positionsTokens = (n) => `${positionsCount(n)} token${n === 1 ? "" : "s"}`;

/** A labelled select: `names` one a value from 0. */
export function positionsSelect(label, names, change) {
  const node = el("select", { "aria-label": label, onchange: () => change(Number(node.value)) },
    names.map((name, i) => el("option", { value: i }, name)));
  return node;
}

/** A query's or key's card: which token's vector, and where it stands. */
export function positionsEnd(name, labels, context, chooseToken, choosePlace) {
  const token = positionsSelect(`${name}: whose vector`, labels.map((label, t) => `${t} ${quoted(label)}`), chooseToken);
  const moved = (event) => choosePlace(Math.min(Math.max(Math.trunc(Number(event.target.value)) || 0, 0), context - 1));
  const range = el("input",
    { type: "range", min: 0, max: context - 1, step: 1, "aria-label": `${name}: position`, oninput: moved });
  const number = el("input",
    { type: "number", min: 0, max: context - 1, step: 1, "aria-label": `${name}: position, as a number`, onchange: moved });
  const home = el("button", { type: "button", }, "own place");
  home.addEventListener("click", () => choosePlace(null));
  const node = el("div", { class: "gl-pos-end", role: "group", "aria-label": name,
    style: { "--end": `var(--gl-${name})` } },
    el("b", {}, name), token, home, el("span", {}, "turned to"), range, number);
  return {
    node,
    update(which, place) {
      token.value = which;
      range.value = place;
      number.value = place;
      canPress(home, place !== which);
    },
  };
}

/** One pair as a dial; update() moves its hands. */
export function positionsDial(pair, wavelength, choose) {
  const hand = (idea, strong) => svg("line", { x1: 0, y1: 0, stroke: `var(--gl-${idea})`, "stroke-linecap": "round",
    "stroke-width": strong ? 3.6 : 1.6, "stroke-opacity": strong ? 1 : 0.55, "stroke-dasharray": idea === "key"
      && !strong ? "4 3" : null });
  const parts = {};
  for (const idea of ["query", "key"]) {
    parts[idea] = { before: hand(idea, false), after: hand(idea, true),
      tip: idea === "query" ? svg("circle", { r: 4.2, fill: "var(--gl-query)" })
        : svg("rect", { x: -3.8, y: -3.8, width: 7.6, height: 7.6, fill: "var(--gl-key)" }),
      arc: svg("path", { fill: "none", stroke: `var(--gl-${idea})`, "stroke-width": 1.5 }) };
  }
  const all = Object.values(parts);
  const adds = el("div", {});
  const title = svg("title", {});
  const node = el("figure", { class: "gl-pos-dial", role: "option", tabindex: -1, onclick: () => choose(pair) },
    svg("svg", { viewBox: "-62 -62 124 124", "aria-hidden": "true" }, title,
      svg("circle", { r: 54, fill: "none", stroke: "var(--gl-line)" }),
      svg("path", { d: "M-54 0H54M0 -54V54", stroke: "var(--gl-line)", "stroke-dasharray": "2 4" }),
      all.flatMap((p) => [p.arc, p.before]), all.flatMap((p) => [p.after, p.tip]),
        svg("circle", { r: 2.2, fill: "var(--gl-ink)" })),
    el("div", {}, `pair ${pair}`), el("div", { class: "gl-pos-soft" }, positionsTokens(wavelength)), adds);

  function place(part, before, after, angle, radius, scale) {
    const set = (line, [x, y]) => { line.setAttribute("x2", x * scale); line.setAttribute("y2", -y * scale); };
    set(part.before, before);
    set(part.after, after);
    part.tip.setAttribute("transform", `translate(${after[0] * scale} ${-after[1] * scale})`);
    const turn = angle % (2 * Math.PI);
    const start = Math.atan2(before[1], before[0]);
    const at = (a) => `${(radius * Math.cos(a)).toFixed(2)} ${(-radius * Math.sin(a)).toFixed(2)}`;
    part.arc.setAttribute("d", turn < 0.02 ? ""
      : `M${at(start)}A${radius} ${radius} 0 ${turn > Math.PI ? 1 : 0} 0 ${at(start + turn)}`);
  }

  return {
    node,
    update({ q, k, qTurned, kTurned, angles, part, selected }) {
      const longest = Math.max(...[q, k, qTurned, kTurned].map(([x, y]) => Math.hypot(x, y))) || 1;
      place(parts.query, q, qTurned, angles[0], 22, 54 / longest);
      place(parts.key, k, kTurned, angles[1], 15, 54 / longest);
      adds.textContent = `adds ${positionsSigned(part)}`;
      const turns = angles.map((a) => (a / (2 * Math.PI)).toFixed(2));
      const words = `Pair ${pair}: a turn takes ${positionsTokens(wavelength)}; query turned ${turns[0]}, ` +
        `key ${turns[1]} times; adds ${positionsSigned(part)} to the score`;
      title.textContent = words;
      node.setAttribute("aria-label", words);
      node.setAttribute("aria-selected", String(selected));
      node.tabIndex = selected ? 0 : -1;
    },
  };
}
