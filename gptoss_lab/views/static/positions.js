// Positions: what the rotation does to the query and the key that one head compares.
//
// Pick a query and a key, turn each to any position, and see every pair of channels turn, what it adds to the score,
// and how the same two vectors would score at other distances. Needs attention.q and .k, or .q_normed and .k_normed.

import { el, svg } from "./core.js";
import { positionsDial, positionsEnd, positionsSelect, positionsSigned } from "./dials.js";
import {
  positionsConcentration, positionsFrequencies, positionsHands, positionsScoreParts, positionsSpread,
    positionsStretched,
  positionsSum, positionsTurn, positionsWavelengths,
} from "./rotation.js";
import { quoted } from "./tokens.js";
import { positionsScoreChart, positionsWaveChart } from "./rotation_charts.js";

const positionsBig = {
  plain: positionsFrequencies(64, 150000),
  frequencies: positionsFrequencies(64, 150000, { factor: 32, original_context: 4096, beta_fast: 32, beta_slow: 1 }),
};
const positionsLines = [
  ["position", "━", "all pairs"], ["position", "╍", "slower half alone"], ["ink", "─", "chosen pair alone"],
];
const positionsReaches = [64, 256, 1024, 4096, 16384, 131072];
const positionsStyle = `
.gl-pos { display: grid; gap: 14px; font-variant-numeric: tabular-nums; }
.gl-pos h3 { margin: 0 0 6px; font-size: 14px; font-weight: 600; }
.gl-pos h3 .gl-quiet { font-weight: 400; }
.gl-pos-found { flex: 1 1 460px; min-height: 2.9em; }
.gl-pos-ends { display: grid; grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); gap: 12px; }
.gl-pos-end { border: 1px solid var(--gl-line); border-left: 4px solid var(--end); border-radius: 6px;
  padding: 8px 12px; display: grid; grid-template-columns: auto 1fr auto; gap: 6px 10px; align-items: center; }
.gl-pos-end select { min-width: 0; width: 100%; }
.gl-root .gl-pos-end input[type=range] { appearance: none; width: 100%; min-width: 0; min-height: 0;
  height: 6px; padding: 0; border: 0; border-radius: 3px; background: var(--gl-line); cursor: pointer; }
.gl-pos-end input::-webkit-slider-thumb { appearance: none; width: 18px; height: 18px; border-radius: 9px;
  background: var(--end); }
.gl-pos-end input::-moz-range-thumb { width: 18px; height: 18px; border: 0; border-radius: 9px;
  background: var(--end); }
.gl-pos-end input[type=number] { width: 7.5em; }
.gl-pos-row { display: flex; flex-wrap: wrap; gap: 6px 18px; align-items: baseline; }
.gl-pos-row label { display: inline-flex; gap: 6px; align-items: center; }
.gl-root .gl-pos-row input { min-height: 0; }
.gl-pos-dials { display: grid; grid-template-columns: repeat(auto-fit, minmax(118px, 1fr)); gap: 6px; }
.gl-pos-dial { margin: 0; padding: 4px 2px 5px; text-align: center; border: 1px solid transparent; border-radius: 6px;
  cursor: pointer; font-size: 12px; line-height: 1.35; }
.gl-pos-dial svg { display: block; width: 100%; max-width: 128px; margin: 0 auto; }
.gl-pos-dial[aria-selected=true] { border-color: var(--gl-pick); }
.gl-pos-dial:focus-visible { outline: 2px solid var(--gl-pick); outline-offset: 1px; }
.gl-pos-soft { color: var(--gl-muted); font-size: 12.5px; }
.gl-pos-soft i { font-style: normal; }
.gl-pos-charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr)); gap: 14px 20px; }
.gl-root .gl-pos-title { flex-wrap: nowrap; height: 26px; }
.gl-root .gl-pos-title select { min-width: 0; min-height: 26px; padding: 0 6px; font-size: 13px; }
.gl-pos-title h3 { margin: 0; white-space: nowrap; }
.gl-pos-charts > section > h3 { height: 26px; margin: 0; }
.gl-pos-charts > section { min-width: 0; }
.gl-pos-chart { display: block; width: 100%; height: 250px; font-size: 12px; }
.gl-pos-chart text { fill: var(--gl-ink); paint-order: stroke; stroke: var(--gl-page); stroke-width: 3px;
  stroke-linejoin: round; }
.gl-pos-chart .soft { fill: var(--gl-muted); }
.gl-pos-chart .grid { stroke: var(--gl-line); }
@container gl-view (max-width: 980px) {
  .gl-pos-dials { grid-template-columns: repeat(4, minmax(0, 1fr)); }
  .gl-pos-found { flex-basis: 300px; }
  .gl-pos-end input[type=number] { width: 5.5em; }
  .gl-pos-charts { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .gl-pos-charts > section:first-child { grid-column: 1 / -1; }
}
@container gl-view (max-width: 720px) { .gl-pos-found { min-height: 4.4em; } }
@container gl-view (max-width: 560px) {
  .gl-pos-charts { grid-template-columns: minmax(0, 1fr); }
}
`;

/** Keys typed into a control stay there: a notebook has shortcuts of its own. */
function positionsQuiet(event) {
  if (["INPUT", "SELECT"].includes(event.target.tagName)) event.stopPropagation();
}

/** Mounts the view: dials, the score over distance, wavelengths. Needs attention.q and .k (or .q_normed, .k_normed). */
export function mountPositions(root, data, store, env = {}) {
  const state = { places: [null, null], pair: null, all: false, stretched: true, reach: 0, ahead: false };
  let view = null;
  let now = data;
  const resize = globalThis.ResizeObserver && new ResizeObserver((entries) => {
    for (const { target, contentRect: box } of entries) view?.sizes.set(target, [box.width, box.height]);
    if (view) view.drawn = "";
    draw();
  });

  const name = (side) => (now.config.qk_norm ? `${side}_normed` : side); // what is rotated

  const has = (layer, n) => now.has(`blocks.${layer}.attention.${n}`);

  function vector(side, layer, head, token) {
    const which = side === "q" ? head : Math.floor(head / (now.config.n_heads / now.config.n_kv_heads));
    return positionsHands(now.get(`blocks.${layer}.attention.${name(side)}`).row(token, which));
  }

  function why() {
    if (!now.config.frequencies?.length) {
      return `${now.config.name ?? "This model"} learned a vector for each position and adds it to the token's: ` +
        "nothing turns, so there are no hands to show.";
    }
    const lacking = ["q", "k"].map(name).filter((n) => !now.config.windows.some((_, layer) => has(layer, n)));
    return lacking.length ? lacking.map((n) => now.lacks(`blocks.*.attention.${n}`)).join(" ") : null;
  }

  function build() {
    resize?.disconnect();
    const reason = why();
    view = null;
    root.replaceChildren(el("style", {}, positionsStyle));
    if (reason) return root.append(el("p", { class: "gl-absent" }, reason));
    const c = now.config;
    const labels = Array.from(now.labels);
    const own = { plain: positionsFrequencies(c.d_head, c.rope_theta), model: Array.from(c.frequencies) };
    const spread = positionsSpread(own.model.length);
    const clamped = (t) => Math.min(t, c.context - 1);
    state.pair = Math.min(state.pair ?? spread[Math.floor(spread.length / 3)], own.model.length - 1);
    const place = (side) => (p) => { state.places[side] = p === null ? null : clamped(p); draw(); };
    const query = positionsEnd("query", labels, c.context,
      (t) => { state.places[0] = null; store.set({ token: t }); draw(); }, place(0));
    const key = positionsEnd("key", labels, c.context,
      (t) => { state.places[1] = null; state.ahead = true; store.set({ key: t }); draw(); }, place(1));
    const found = el("p", { class: "gl-pos-found", "data-found": "positions" });
    const dials = el("div", { class: "gl-pos-dials", role: "listbox",
      "aria-label": "pairs of channels, fastest first", onkeydown: move });
    const all = el("input", { type: "checkbox", onchange: () => { state.all = all.checked; fill(); draw(); } });
    const stretched = el("input",
      { type: "checkbox", onchange: () => { state.stretched = stretched.checked; fill(); draw(); } });
    stretched.checked = state.stretched;
    all.checked = state.all;
    const reaches = [...positionsReaches.filter((r) => r < c.context), c.context];
    const reach = positionsSelect("distances shown", reaches.map((r) => `up to ${r.toLocaleString("en")} tokens`),
      (n) => { state.reach = n; draw(); });
    state.reach = Math.min(state.reach || Math.min(1, reaches.length - 1), reaches.length - 1);
    const chart = (name) => svg("svg", { class: "gl-pos-chart", role: "img", "aria-label": name });
    const [score, waves, big] = ["score by distance", "wavelengths of this model",
      "wavelengths of gpt-oss-20b"].map(chart);
    score.addEventListener("click", (event) => {
      if (!view.frame) return;
      const box = score.getBoundingClientRect();
      const share = (event.clientX - box.left - view.frame.left) / (view.frame.right - view.frame.left);
      const distance = Math.round(share * reaches[state.reach]);
      if (distance >= 0) place(1)(Math.max(0, view.at[0] - distance));
    });
    const legend = el("div", { class: "gl-pos-row gl-pos-soft" },
      el("span", {}, el("i", { style: { color: "var(--gl-position)" } }, "●"), " as it turns"),
      el("span", {}, "□ plain RoPE"));
    const rest = el("div", { class: "gl-pos" });
    view = { query, key, found, rest, dials, reach, reaches, score, waves, big, own, list: new Map(), drawn: "",
      sizes: new Map(), size: (node) => view.sizes.get(node) ?? [400, 250] };
    root.append(el("div", { class: "gl-view" }, el("div", { class: "gl-pos", onkeydown: positionsQuiet },
      el("div", { class: "gl-pos-row" }, found, c.yarn && el("label", {}, stretched, ` YaRN (×${c.yarn.factor})`),
        own.model.length > 8 && el("label", {}, all, ` all ${own.model.length} pairs`)),
      rest)));
    rest.append(
      el("div", { class: "gl-pos-ends" }, query.node, key.node),
      el("section", {}, el("h3", {}, "Each pair of channels is a hand: thin before the rotation, thick after ",
        el("span", { class: "gl-quiet" }, "below: tokens for one turn, and what it adds to the score")), dials),
      el("div", { class: "gl-pos-charts" },
        el("section", {}, el("div", { class: "gl-pos-row gl-pos-title" }, el("h3", {}, "Score by distance"), reach),
          score,
          el("div", { class: "gl-pos-row gl-pos-soft" },
            positionsLines.map(([idea, mark, words]) =>
              el("span", {}, el("i", { style: { color: `var(--gl-${idea})` } }, mark), ` ${words}`)))),
        el("section", {}, el("h3", {}, `One turn, in ${c.name}`), waves, legend),
        el("section", {}, el("h3", {}, "One turn, in gpt-oss-20b"), big, legend.cloneNode(true))));
    fill();
    draw();
    for (const node of [score, waves, big]) resize?.observe(node);
  }

  function fill() {
    const count = view.own.model.length;
    const pairs = state.all ? view.own.model.map((_, i) => i)
      : [...new Set([...positionsSpread(count), state.pair])].sort((a, b) => a - b).slice(0, 9);
    const wave = positionsWavelengths(state.stretched ? view.own.model : view.own.plain);
    view.list = new Map(pairs.map((i) => [i, positionsDial(i, wave[i], (pair) => choose(pair))]));
    view.dials.replaceChildren(...[...view.list.values()].map((dial) => dial.node));
  }

  function choose(pair, focus = false) {
    state.pair = pair;
    draw();
    if (focus) view.list.get(pair).node.focus();
  }

  function move(event) {
    const pairs = [...view.list.keys()];
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -99, End: 99 }[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    choose(pairs[Math.min(Math.max(pairs.indexOf(state.pair) + step, 0), pairs.length - 1)], true);
  }

  /** The selected key; where none is, or it comes after the query and was not chosen here, the token before the query. */
  function keyOf() {
    const { token, key } = store.get();
    return key === undefined || (key > token && !state.ahead) ? Math.max(0, token - 1) : key;
  }

  /** Query and key of the run beside this one, for a common scale: [hands, hands], or null where it has none such. */
  function twins(layer, head, tokens) {
    const { twin } = env;
    const names = ["q", "k"].map((side) => `blocks.${layer}.attention.${twin?.config.qk_norm ? `${side}_normed` : side}`);
    if (!twin || names.some((n) => !twin.has(n)) || tokens.some((t) => t >= twin.tokens)) return null;
    const heads = [head, Math.floor(head / (twin.config.n_heads / twin.config.n_kv_heads))];
    return twin.config.d_head === now.config.d_head ? names.map((n, side) => positionsHands(twin.get(n).row(tokens[side], heads[side]))) : null;
  }

  function draw() {
    if (!view) return;
    const c = now.config;
    const { token, layer, head } = store.get();
    const key = keyOf();
    const left = ["q", "k"].map(name).find((n) => !has(layer, n));
    view.rest.hidden = Boolean(left);
    if (left) {
      view.found.textContent = `blocks.${layer}.attention.${left} was left out of what was sent: choose another layer.`;
      return;
    }
    const tokens = [token, Math.min(Math.max(key, 0), now.tokens - 1)];
    const at = tokens.map((t, side) => Math.min(state.places[side] ?? t, c.context - 1));
    view.at = at;
    const plain = !state.stretched || !c.yarn;
    const frequencies = plain ? view.own.plain : view.own.model;
    const concentration = plain ? 1 : (c.concentration ?? positionsConcentration(c.yarn));
    const [q, k] = [vector("q", layer, head, tokens[0]), vector("k", layer, head, tokens[1])];
    const [qTurned, kTurned] = [q, k].map((hands, side) => positionsTurn(hands, at[side], frequencies, concentration));
    const parts = positionsScoreParts(q, k, frequencies, concentration, at[0] - at[1]);
    for (const [i, dial] of view.list) {
      dial.update({ q: q[i], k: k[i], qTurned: qTurned[i], kTurned: kTurned[i],
        angles: at.map((p) => p * frequencies[i]), part: parts[i], selected: i === state.pair });
    }
    view.query.update(tokens[0], at[0]);
    view.key.update(tokens[1], at[1]);
    view.reach.value = state.reach;
    tell(tokens, at, positionsSum(parts), c.windows[layer]);
    view.frame = positionsScoreChart(view.score, view.size(view.score), {
      q, k, frequencies, concentration, distance: at[0] - at[1], score: positionsSum(parts), window: c.windows[layer],
      reach: view.reaches[state.reach], pair: state.pair, twins: twins(layer, head, tokens),
    });
    const picture = `${plain} ${state.pair}`;
    if (view.drawn !== picture) drawWaves(frequencies);
    view.drawn = picture;
  }

  function tell(tokens, at, score, window) {
    const distance = at[0] - at[1];
    const moved = at.some((p, side) => p !== tokens[side]);
    const seen = distance < 0 ? "The key would come after the query: the model never looks ahead."
      : window && distance >= window
        ? `That is outside this layer's window of ${window}: the model does not look there.`
        : window ? `That is inside this layer's window of ${window}.`
          : "This layer is dense: it may look at any distance.";
    const where = (side) => `${quoted(now.labels[tokens[side]])} at ${at[side].toLocaleString("en")}`;
    const apart = Math.abs(distance);
    const words = `Query ${where(0)}, key ${where(1)}${moved ? " (moved)" : ""}: ${apart.toLocaleString("en")} ` +
      `token${apart === 1 ? "" : "s"} apart, score ${positionsSigned(score)} before the softmax. ${seen}`;
    if (view.found.textContent !== words) {
      view.found.textContent = words;
      env.say?.(words);
    }
  }

  function drawWaves(frequencies) {
    const c = now.config;
    const window = c.windows.find((w) => w);
    const lengths = (w, original, context) => [
      w && { tokens: w, name: "window", idea: "window", dash: "6 3" },
      original && { tokens: original, name: "before YaRN", idea: "muted", dash: "2 3" },
      { tokens: context, name: "context", idea: "dense", dash: null },
      context !== 131072 && { tokens: 131072, name: "gpt-oss's context", idea: "muted", dash: null },
    ].filter(Boolean);
    positionsWaveChart(view.waves, view.size(view.waves),
      { frequencies, plain: view.own.plain, lengths: lengths(window, c.yarn?.original_context, c.context),
      pair: state.pair });
    positionsWaveChart(view.big, view.size(view.big),
      { ...positionsBig, lengths: lengths(128, 4096, 131072), pair: null });
    const said = ({ kept, partly, whole, factor }) => (whole
      ? `YaRN leaves ${kept} pairs alone, slows ${partly} in part and ${whole} by ${factor}` : "no pair is slowed");
    view.waves.setAttribute("aria-label",
      `Wavelengths in ${c.name}: ${said(positionsStretched(frequencies, view.own.plain))}.`);
    view.big.setAttribute("aria-label",
      `Wavelengths in gpt-oss-20b: ${said(positionsStretched(positionsBig.frequencies, positionsBig.plain))}.`);
  }

  let { token: last, key: lastKey } = store.get();
  const off = store.on(({ token, key }) => {
    if (key !== lastKey || (key === undefined && token !== last)) state.places[1] = null;
    if (token !== last) state.ahead = false;
    if (token !== last) state.places[0] = null; // another token's vector starts from its own place
    [last, lastKey] = [token, key];
    draw();
  });
  build();
  return {
    update(next) {
      now = next;
      state.places = [null, null];
      build();
    },
    destroy() {
      off();
      resize?.disconnect();
      root.replaceChildren();
    },
  };
}
