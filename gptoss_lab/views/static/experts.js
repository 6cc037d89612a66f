// Experts: which of them answer for every token, layer by layer; who carries the load; how close the choice was.
//
// Needs blocks.*.experts.logits, .choice and .weight. Tokens run across and experts down, so that a token is one line
// through all layers. margin = the smallest chosen logit − the largest that missed; 0 is a tie, below 0 an edited choice.

import { colours, el, percent } from "./core.js";
import { zoomButtons } from "./heat_picture.js";
import { heatmap, legend, readable } from "./heatmap.js";
import { marginOf, routing } from "./routing.js";
import { quoted } from "./tokens.js";

const expertsShown = {
  weight: { title: "weight of the chosen", scale: { lo: 0, hi: 1, unit: "share" }, ticks: [0, 0.5, 1] },
  share: { title: "softmax over all experts", scale: { lo: 0, hi: 1, gamma: 0.5, unit: "share" }, ticks: [0, 0.1, 0.5, 1] },
  logit: { title: "router logit", scale: null, ticks: null },
};

export function mountExperts(root, data, store, env) {
  let layers = [];
  let twins = []; // the same layers of the run beside this one, by number: both are drawn on one scale
  let shown = env.memory?.colours ?? "weight";
  let small = [];
  let big = null;
  let was = {};

  const title = el("h3");
  const pick = el("select", { "aria-label": "what the colours show", onchange: () => { shown = pick.value; if (env.memory) env.memory.colours = shown; draw(true); } },
    Object.entries(expertsShown).map(([key, { title }]) => el("option", { value: key }, title)));
  pick.value = shown;
  const key = el("div");
  const chip = el("span", { class: "gl-quiet gl-experts-chip" }, "not chosen");
  const canvas = el("canvas", { style: { height: "300px" } });
  const loads = el("canvas", { class: "gl-experts-load", style: { height: "300px" }, role: "img" });
  const margins = el("canvas", { style: { height: "64px" }, class: "gl-heat gl-experts-margins", role: "img", onpointermove: sayMargin,
    onpointerleave: () => (read.textContent = resting), onclick: (event) => marginAt(event) >= 0 && store.set({ token: marginAt(event) }) });
  const resting = "arrows move the selection · + and − zoom · 0 shows all";
  const read = el("div", { class: "gl-read" });
  const grid = el("div", { class: "gl-experts-layers", role: "group", "aria-label": "all layers; each button shows its layer large" });
  const path = el("tbody");
  const pathTitle = el("h3");
  const pathNote = el("p", { class: "gl-quiet" });
  const node = el("div", { class: "gl-view" }, el("div", { class: "gl-experts" },
    el("div", { style: { "min-width": "0" } },
      el("div", { class: "gl-experts-head" }, title,
        el("div", { class: "gl-experts-key" }, el("label", { class: "gl-quiet" }, "colours: ", pick), key, chip)),
      el("div", { class: "gl-experts-map" }, canvas, loads, margins, el("div")),
      el("div", { class: "gl-reads" }, read, zoomButtons(() => big)),
      el("h3", { style: { "margin-top": "8px" } }, "Every layer"),
      grid),
    el("div", { style: { "min-width": "0" } }, pathTitle, pathNote,
      el("div", { class: "gl-scroll" },
        el("table", { class: "gl-experts-path" },
          el("colgroup", {}, ["17%", "auto", "29%"].map((width) => el("col", { style: { width } }))),
          el("thead", {}, el("tr", {}, ["layer", "experts and weights", "just missed"].map((name) => el("th", { scope: "col" }, name)))), path)))));
  root.append(node);

  const margin = { left: 66, top: 2, bottom: 66 };

  function load(next) {
    data = next;
    const routed = (of) => Array.from({ length: of?.config.n_experts ? of.config.n_layers : 0 }, (_, n) => n)
      .filter((n) => of.has(`blocks.${n}.experts.choice`)).map((n) => ({ n, ...routing(of, n) }));
    layers = routed(data);
    twins = routed(env.twin);
    expertsShown.logit.scale = null;
    const { n_experts: E } = data.config;
    const height = Math.min(Math.max(E * 24, 150), 340) + margin.bottom;
    canvas.style.height = loads.style.height = `${height}px`;
    small.forEach((one) => one.map.destroy());
    small = layers.map((one) => {
      const picture = el("canvas", { style: { height: `${Math.min(Math.max(E * 6, 40), 96)}px` }, "aria-hidden": "true" });
      const busy = el("em", { class: "gl-quiet" });
      const window_ = data.config.windows[one.n];
      const button = el("button", { type: "button", class: "gl-experts-layer", onclick: () => store.set({ layer: one.n }) },
        el("span", {}, el("b", {}, `layer ${one.n}`), el("span", { class: "gl-quiet" }, window_ ? `window ${window_}` : "dense"), busy), picture);
      const first = one.load.indexOf(Math.max(...one.load));
      busy.textContent = `most: ${first}`;
      button.setAttribute("aria-label", `layer ${one.n}: expert ${first} answers most, ${percent(one.load[first])} of choices`);
      return { n: one.n, button, picture };
    });
    grid.replaceChildren(...small.map((one) => one.button));
    path.replaceChildren(...layers.map((one) => el("tr", { onclick: () => store.set({ layer: one.n }) },
      el("th", { scope: "row" }, el("button", { type: "button", "aria-label": `layer ${one.n}` }, String(one.n))), el("td"), el("td"))));
    small.forEach((one, i) => {
      one.map = heatmap(one.picture, { ...cells(layers[i], "weight"), tabIndex: -1, zoomable: false, name: "", plainMask: true });
      one.picture.removeAttribute("role");
      one.picture.removeAttribute("aria-roledescription");
      one.picture.removeAttribute("aria-label");
    });
    big?.destroy();
    big = null;
    draw(true);
  }

  function cells(one, what) {
    const about = expertsShown[what];
    if (!about.scale) {
      const most = [...layers, ...twins].reduce((m, l) => Math.max(m, l.reach), 1e-6);
      Object.assign(about, { scale: { lo: -most, hi: most, map: "differences" }, ticks: [-most, 0, most] });
    }
    return {
      rows: one.experts, cols: one.tokens, scale: about.scale, value: one[what],
      masked: what === "weight" ? (e, t) => Number.isNaN(one.weight(e, t)) : (e, t) => one.logit(e, t) === -Infinity, // forbidden by an edit
    };
  }

  function say(one, e, t) {
    const w = one.weight(e, t);
    const own = Number.isNaN(w) ? `not chosen${one.missed[t] === e ? `, missed by ${marginOf(one.margin[t])}` : ""}` : `weight ${percent(w)}`;
    return `layer ${one.n}, token ${t} ${quoted(data.labels[t])}, expert ${e}: ${own}; logit ${readable(one.logit(e, t))}, ${percent(one.share(e, t))} of a softmax over all`;
  }

  function draw(all = false) {
    const { token, layer, expert } = store.get();
    const one = layers.find((l) => l.n === layer) ?? layers[0];
    if (!one) return;
    const moved = all || was.layer !== one.n;
    if (moved) {
      const about = expertsShown[shown];
      const given = {
        ...cells(one, shown), plainMask: true, margin, name: `experts of layer ${one.n}: tokens across, experts down`,
        rowLabels: Array.from({ length: one.experts }, (_, e) => `expert ${e}`), colLabels: data.labels,
        describe: (e, t) => say(one, e, t), readout: read, say: env.say, resting,
        pick: (e, t) => store.set({ expert: e, token: t }), selected: { row: expert, col: token },
        overlay: (ctx, box) => guide(ctx, box, store.get().token), viewed: drawSides,
      };
      if (big) big.update(given);
      else big = heatmap(canvas, given);
      title.textContent = `Layer ${one.n}: ${one.kept} of ${one.experts} experts answer for each token`;
      key.replaceChildren(legend(about.scale, about.ticks, about.title, false));
      chip.hidden = shown !== "weight";
    } else {
      big.update({ selected: { row: expert, col: token } });
    }
    if (all || was.token !== token || was.layer !== one.n || was.expert !== expert) {
      small.forEach((l) => {
        l.button.setAttribute("aria-pressed", String(l.n === one.n));
        l.map.update({ selected: { col: token } });
      });
      drawPath(token, one.n, expert);
    }
    was = { token, layer: one.n, expert };
  }

  /** What stands beside the map, for what is in view of it. */
  function drawSides() {
    const { token, layer, expert } = store.get();
    const one = layers.find((l) => l.n === layer) ?? layers[0];
    drawLoads(one, expert);
    drawMargins(one, token);
  }

  /** Two lines down the sides of the selected token's column: the outline shows its cell alone. */
  function guide(ctx, box, token) {
    ctx.fillStyle = colours.of(canvas, "pick");
    for (const x of [box.x(token) - 0.75, box.x(token + 1) - 0.75]) ctx.fillRect(x, box.top, 1.5, box.height);
  }

  let sizes = new Map(); // measured when the page's layout changes, not at each drawing

  function plain(target) {
    if (!sizes.get(target)?.[0]) sizes.set(target, [target.clientWidth, target.clientHeight, `12px ${getComputedStyle(target).fontFamily}`]);
    const [w, h, font] = sizes.get(target);
    const ratio = globalThis.devicePixelRatio || 1;
    const [wide, high] = [Math.round(w * ratio), Math.round(h * ratio)];
    if (target.width !== wide || target.height !== high) [target.width, target.height] = [wide, high];
    const ctx = target.getContext("2d");
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, w, h);
    Object.assign(ctx, { font, lineWidth: 1, textAlign: "left", globalAlpha: 1 });
    ctx.setLineDash([]);
    return [ctx, w, h];
  }

  const twin = (one) => twins.find((l) => l.n === one.n);

  /** Each expert's share of the choices, beside its row; the line is the share that each would have if all were equal. */
  function drawLoads(one, expert) {
    const [ctx, w, h] = plain(loads);
    if (!w) return;
    const { rows: [first, count] } = big.view();
    const size = (h - margin.top - margin.bottom) / count;
    const most = Math.max(...one.load, ...(twin(one)?.load ?? []), 2 / one.experts);
    const room = w - 40;
    const written = [];
    ctx.save();
    ctx.beginPath();
    ctx.rect(0, margin.top, w, h - margin.top - margin.bottom);
    ctx.clip();
    for (let e = Math.floor(first); e < Math.min(one.experts, first + count); e++) {
      const y = margin.top + (e - first) * size;
      ctx.fillStyle = colours.of(loads, "experts");
      ctx.globalAlpha = e === expert ? 1 : 0.7;
      ctx.fillRect(0, y + 0.15 * size, (room * one.load[e]) / most, Math.max(0.7 * size, 1));
      ctx.globalAlpha = 1;
      if (size < 13 && e !== expert) continue;
      const seen = [Math.max(e, first), Math.min(e + 1, first + count)]; // the number stands at the middle of what is seen
      if ((seen[1] - seen[0]) * size < 12 && size >= 12) continue;
      written.push([percent(one.load[e]), (room * one.load[e]) / most + 5, y + ((seen[0] + seen[1]) / 2 - e) * size, e === expert ? "ink" : "muted"]);
    }
    const even = room / one.experts / most;
    ctx.strokeStyle = colours.of(loads, "ink");
    ctx.setLineDash([3, 3]);
    ctx.beginPath();
    ctx.moveTo(even, 0);
    ctx.lineTo(even, h - margin.bottom);
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.restore();
    ctx.textBaseline = "middle";
    for (const [text, x, y, ink] of written) {
      ctx.fillStyle = colours.of(loads, "page");
      ctx.fillRect(x - 2, y - 7, ctx.measureText(text).width + 4, 14); // over the line
      ctx.fillStyle = colours.of(loads, ink);
      ctx.fillText(text, x, y);
    }
    ctx.fillStyle = colours.of(loads, "muted");
    ctx.textBaseline = "top";
    ctx.fillText("load: share of", 0, h - margin.bottom + 6);
    ctx.fillText("all choices", 0, h - margin.bottom + 21);
    ctx.fillText(`┆ even: ${Number((100 / one.experts).toPrecision(3))} %`, 0, h - margin.bottom + 40);
    loads.setAttribute("aria-label", `load of layer ${one.n}: ${[...one.load].map((v, e) => `expert ${e} ${percent(v)}`).join(", ")}`);
  }

  /** How far ahead of the best that missed the last of the chosen was, for every token: short bars are near ties. */
  function drawMargins(one, token) {
    const [ctx, w, h] = plain(margins);
    if (!w) return;
    const { cols } = big.view();
    const size = (w - margin.left) / cols[1];
    const finite = [...one.margin, ...(twin(one)?.margin ?? [])].filter(Number.isFinite);
    const most = Math.max(...finite, 1e-6);
    ctx.textAlign = "right";
    ctx.textBaseline = "middle";
    ctx.fillStyle = colours.of(margins, "muted");
    ctx.fillText("margin to", margin.left - 6, 14);
    ctx.fillText("the next", margin.left - 6, 29);
    ctx.fillText(`0 – ${readable(most)}`, margin.left - 6, h - 10);
    for (let t = 0; t < one.tokens; t++) {
      const tall = (Math.max(Number.isFinite(one.margin[t]) ? one.margin[t] : most, 0) / most) * (h - 6);
      const x = margin.left + (t - cols[0] + 0.1) * size;
      const left = Math.max(x, margin.left); // no farther than the map
      const wide = Math.max(Math.max(0.8 * size, 1) - (left - x), 0);
      if (x > w) break;
      ctx.fillStyle = colours.of(margins, t === token ? "pick" : "experts");
      ctx.fillRect(left, h - 2 - tall, wide, Math.max(tall, 1));
    }
    const closest = one.margin.indexOf(Math.min(...one.margin));
    margins.setAttribute("aria-label", `margin by which the last chosen expert leads the best that missed, for every token; ` +
      `smallest for token ${closest} ${quoted(data.labels[closest])}: ${marginOf(one.margin[closest])}`);
  }

  /** The token whose margin is under the pointer, or −1. */
  function marginAt({ offsetX }) {
    const { cols } = big.view();
    const t = Math.floor(cols[0] + ((offsetX - margin.left) / (margins.clientWidth - margin.left)) * cols[1]);
    return offsetX >= margin.left && t < data.tokens ? t : -1;
  }

  function sayMargin(event) {
    const t = marginAt(event);
    const one = layers.find((l) => l.n === was.layer);
    if (!one) return;
    read.textContent = t < 0 ? resting : `layer ${one.n}, token ${t} ${quoted(data.labels[t])}: ` + (one.missed[t] < 0 ? "every expert answers"
      : `margin ${marginOf(one.margin[t])}, expert ${one.missed[t]} just missed`);
  }

  function drawPath(token, layer, expert) {
    pathTitle.textContent = `Token ${token} ${quoted(data.labels[token])} through the layers`;
    [...path.children].forEach((row, i) => {
      const one = layers[i];
      const chosen = one.chosen(token);
      row.setAttribute("aria-selected", String(one.n === layer));
      row.querySelector("button").setAttribute("aria-pressed", String(one.n === layer));
      row.children[1].replaceChildren(el("div", { class: "gl-experts-weights" }, chosen.map(({ expert: e, weight }) =>
        el("i", { class: e === expert && one.n === layer ? "gl-on" : "", style: { flex: `${Math.max(weight, 0.001)} 1 0` }, title: `expert ${e}: ${percent(weight)}` },
          weight > 0.4 ? `${e} · ${percent(weight)}` : weight > 0.1 ? `${e}` : ""))));
      row.children[2].textContent = one.missed[token] < 0 ? "none" : `${one.missed[token]} by ${marginOf(one.margin[token]).replace("less than ", "<")}`;
      row.children[2].title = "the best expert that was not chosen, and by how much its logit fell short";
    });
    const tightest = layers.reduce((a, b) => (b.margin[token] < a.margin[token] ? b : a));
    const near = tightest.margin[token];
    pathNote.textContent = tightest.missed[token] < 0 ? "Every expert answers in every layer."
      : near < 0 ? `Chosen against the logits in layer ${tightest.n}: expert ${tightest.missed[token]} leads by ${marginOf(-near)}.`
        : `Closest call in layer ${tightest.n}: expert ${tightest.missed[token]} missed by ${marginOf(near)}.`;
  }

  const redraw = () => draw(true);
  const off = store.on(() => draw());
  const resize = new ResizeObserver(() => {
    sizes = new Map();
    draw();
  });
  resize.observe(node);
  load(data);
  return {
    update: load,
    redraw,
    destroy() {
      off();
      resize.disconnect();
      big?.destroy();
      small.forEach((one) => one.map.destroy());
      node.remove();
    },
  };
}
