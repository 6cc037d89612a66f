// Attention: a layer with a window beside one without; each head with the keys it looks at, the sink as its own column.
//
// Needs blocks.*.attention.pattern; uses .sink. Queries run down and keys across; a row and its sink sum to 1. Colours
// follow the square root of the share, the same in both halves, so that small shares can be told from none.

import { colours, el, percent } from "./core.js";
import { zoomButtons } from "./heat_picture.js";
import { heatmap, legend } from "./heatmap.js";
import { charactersOf, inView, quoted, tokenStrip } from "./tokens.js";

/** Heads by the key/value head they share: [[0, 1, 2], [3, 4, 5]] for 6 heads over 2. */
export function headGroups(heads, keyValueHeads) {
  const each = heads / keyValueHeads;
  return Array.from({ length: keyValueHeads }, (_, g) => Array.from({ length: each }, (_, r) => g * each + r));
}

/** The columns of a picture with a sink: `wide` columns for the sink, `gap` empty ones, then the keys. spanOf(c): the sink's
 *  columns are one, [first, count]; a gap is nothing, null. */
export function sinkColumns(tokens, sinks) {
  const wide = sinks ? Math.max(1, Math.round(tokens / 22)) : 0;
  const gap = sinks ? Math.max(1, Math.round(tokens / 60)) : 0;
  const keyOf = (c) => (c < wide ? -1 : c < wide + gap ? null : c - wide - gap);
  const spanOf = (c) => (c < wide ? [0, wide] : c < wide + gap ? null : [c, 1]);
  return { wide, gap, total: tokens + wide + gap, keyOf, spanOf, columnOf: (key) => (key < 0 ? 0 : key + wide + gap) };
}

/** The keys that a row looks at most: [{key, share}] of at least `least`, largest first; key −1 is the sink. */
export function mostLooked(row, sink, count = 5, least = 0.01) {
  const all = Array.from(row, (share, key) => ({ key, share }));
  if (sink !== null) all.push({ key: -1, share: sink });
  return all.filter(({ share }) => share >= least).sort((a, b) => b.share - a.share).slice(0, count);
}

/** The edge of what queries may see, as a staircase of points [column, row]: the first key seen by each query from which
 *  the window hides a key; empty where the text is no longer than the window. */
export function bandEdge(tokens, window) {
  const points = [];
  for (let t = window; t < tokens; t++) {
    const first = Math.max(0, t - window + 1);
    points.push([first, t], [first, t + 1]);
  }
  return points;
}

/** Scrolls a row sideways until `cell` is seen. */
function beside(row, cell) {
  const [left, right] = [cell.offsetLeft - row.offsetLeft, cell.offsetLeft - row.offsetLeft + cell.offsetWidth];
  if (left < row.scrollLeft || right > row.scrollLeft + row.clientWidth) row.scrollLeft = (left + right - row.clientWidth) / 2;
}

const attentionScale = { lo: 0, hi: 1, gamma: 0.5, unit: "share" };

export function mountAttention(root, data, store, env) {
  let sides = [];
  let lacks = []; // layers whose patterns were not sent
  const foot = el("div", { class: "gl-attention-foot" });
  const node = el("div", { class: "gl-attention" });
  const lacking = el("p", { class: "gl-quiet gl-attention-lacks" });
  const frame = el("div", { class: "gl-view" }, lacking, node);
  const memories = env.memory ? (env.memory.halves ??= {}) : {};
  root.append(frame);
  const margin = { left: 84, top: 7, bottom: 66 };
  const roomy = () => node.clientWidth === 0 || node.clientWidth > 980;

  /** One half: its layer, its heads, the large pattern, and the text shaded by what the selected token looks at. */
  function side(among, kind) {
    const pattern = (n) => data.get(`blocks.${n}.attention.pattern`);
    const sink = (n) => (data.has(`blocks.${n}.attention.sink`) ? data.get(`blocks.${n}.attention.sink`) : null);
    const T = data.tokens;
    const columns = sinkColumns(T, among.some((n) => sink(n)));
    const memory = (memories[kind] ??= {}); // the half keeps its layer while another view is shown
    let layer = [store.get().layer, memory.layer].find((n) => among.includes(n)) ?? among[0];
    let was = {};
    let shown = []; // the row that shades the text
    const levels = []; // what each token of the text is shaded with, 0 to 255, −1 where it is not seen

    const choose = el("select", { "aria-label": `layer of the ${kind} half`, onchange: () => { layer = Number(choose.value); store.set({ layer }); draw(true); } },
      among.map((n) => el("option", { value: n }, `layer ${n}`)));
    const tag = el("span", { class: "gl-tag" });
    const heading = el("h3");
    const canvas = el("canvas", { class: "gl-attention-map" });
    const read = el("div", { class: "gl-read" });
    const says = el("p", { class: "gl-attention-says" });
    const strip = tokenStrip(data.labels, (t) => store.set({ token: t }), "the text, shaded");
    const { node: text } = strip;
    const cells = [...text.children];
    const parts = charactersOf(data.labels).map((character, t) => `token ${t}${character ? `, part of ${quoted(character)}` : ""}`);
    const chip = el("span", { class: "gl-token gl-sink", role: "presentation" }, "sink");
    text.prepend(chip);
    text.addEventListener("pointerover", ({ target }) => { // titles are written when they are asked for
      const k = cells.indexOf(target);
      if (k >= 0) target.title = `${parts[k]}: ${levels[k] < 0 ? "may not be seen" : percent(shown[k])}`;
    });
    const { n_heads: H, n_kv_heads: G } = data.config;
    const shared = H > G;
    const thumbs = (shared ? headGroups(H, G) : [Array.from({ length: H }, (_, h) => h)]).map((heads, g) => {
      const buttons = heads.map((h) => {
        const picture = el("canvas", { width: 104, height: 104, "aria-hidden": "true" });
        return { h, picture, button: el("button", { type: "button", class: "gl-attention-thumb", "aria-label": shared ? `head ${h}, key/value head ${g}` : `head ${h}`, onclick: () => store.set({ head: h, layer }) }, `${h}`, picture) };
      });
      return { buttons, node: el("div", { class: "gl-attention-group", role: "group", "aria-label": shared ? `heads that share key/value head ${g}` : "heads, each with its own keys" },
        el("span", {}, shared ? `key/value head ${g}` : "each head has its own keys and values"), el("div", {}, buttons.map(({ button }) => button))) };
    });
    const rowOfHeads = el("div", { class: "gl-attention-groups" }, thumbs.map((group) => group.node));
    const box = el("section", { class: "gl-attention-side", "aria-label": `${kind} layer` },
      el("div", { class: "gl-attention-head" }, choose, tag, heading),
      rowOfHeads, canvas, el("div", { class: "gl-reads" }, read, zoomButtons(() => map)), says, text);
    const map = heatmap(canvas, given(layer, 0, 0));

    function given(n, h, t) {
      const { values, seen } = pattern(n).square(h);
      const taken = sink(n)?.row(h);
      return {
        rows: T, cols: columns.total, scale: attentionScale, margin,
        value: (q, c) => { const k = columns.keyOf(c); return k === -1 ? taken[q] : values[q * T + k]; },
        masked: (q, c) => { const k = columns.keyOf(c); return k === null || (k === -1 ? !taken : !seen[q * T + k]); },
        rowLabels: data.labels, colLabels: Array.from({ length: columns.total }, (_, c) => labelOf(c)), spanOf: columns.spanOf,
        name: `attention of layer ${n}, head ${h}: queries down, keys across`,
        describe: (q, c, value) => {
          const k = columns.keyOf(c);
          if (k === null) return "";
          const who = `${q} ${quoted(data.labels[q])}`;
          if (k === -1) return `query ${who} leaves ${percent(value ?? 0)} to the sink`;
          return value === null ? `query ${who} may not see key ${k} ${quoted(data.labels[k])}` : `query ${who} looks at key ${k} ${quoted(data.labels[k])}: ${percent(value)}`;
        },
        readout: read, resting: "query ↓  key →  ·  arrows move · + and − zoom · 0 shows all", say: env.say,
        pick: (q, c) => store.set({ token: q, layer: n, key: columns.keyOf(c) >= 0 ? columns.keyOf(c) : undefined }),
        selected: { row: t }, centre: () => columns.columnOf(store.get().key ?? store.get().token), overlay: (ctx, place) => edge(ctx, place, n),
      };
    }

    function labelOf(c) {
      const k = columns.keyOf(c);
      if (k === null) return "";
      if (k === -1) return "sink";
      return data.labels[k];
    }

    /** The gap beside the sink, the sink's frame, and the band's edge where the layer has a window. */
    function edge(ctx, place, n) {
      if (columns.wide) {
        ctx.fillStyle = colours.of(canvas, "page");
        ctx.fillRect(place.x(columns.wide), place.top, columns.gap * place.cell[0], place.height);
        ctx.strokeStyle = colours.of(canvas, "sink");
        ctx.lineWidth = 2;
        ctx.strokeRect(place.x(0) + 1, place.top + 1, columns.wide * place.cell[0] - 2, place.height - 2);
      }
      const window_ = data.config.windows[n];
      if (!window_) return;
      ctx.strokeStyle = colours.of(canvas, "window");
      ctx.lineWidth = 2.5;
      ctx.beginPath();
      for (const [k, q] of bandEdge(T, window_)) ctx.lineTo(place.x(columns.columnOf(k)), place.y(q));
      ctx.stroke();
    }

    function thumbnail(picture, n, h) {
      const size = picture.width;
      const ctx = picture.getContext("2d");
      const image = ctx.createImageData(size, size);
      const table = colours.table("cividis");
      const { values, seen } = pattern(n).square(h);
      const every = T / size;
      for (let y = 0; y < size; y++) {
        for (let x = 0; x < size; x++) {
          let most = -1; // the strongest of the cells that fall on this point, so that a thin line is not lost
          for (let q = Math.floor(y * every); q < Math.max((y + 1) * every, Math.floor(y * every) + 1) && q < T; q++) {
            for (let k = Math.floor(x * every); k < Math.max((x + 1) * every, Math.floor(x * every) + 1) && k < T; k++) {
              if (seen[q * T + k]) most = Math.max(most, values[q * T + k]);
            }
          }
          if (most < 0) continue;
          const p = 4 * (y * size + x);
          image.data.set(table.subarray(3 * Math.round(255 * Math.sqrt(Math.min(most, 1))), 3 * Math.round(255 * Math.sqrt(Math.min(most, 1))) + 3), p);
          image.data[p + 3] = 255;
        }
      }
      ctx.putImageData(image, 0, 0);
    }

    function draw(all = false) {
      const { token, head, layer: asked } = store.get();
      if (among.includes(asked)) layer = asked;
      const moved = all || was.layer !== layer;
      if (moved) {
        choose.value = String(layer);
        const window_ = data.config.windows[layer];
        tag.textContent = window_ ? `window of ${window_}` : "dense";
        tag.style.borderColor = colours.of(box, window_ ? "window" : "dense");
        thumbs.forEach((group) => group.buttons.forEach(({ picture, h }) => thumbnail(picture, layer, h)));
      }
      if (moved || was.head !== head) {
        map.update({ ...given(layer, head, token) });
        thumbs.forEach((group) => group.buttons.forEach(({ button, h }) => button.setAttribute("aria-pressed", String(h === head))));
        const chosen = thumbs.flatMap((group) => group.buttons).find(({ h }) => h === head)?.button;
        if (chosen) requestAnimationFrame(() => beside(rowOfHeads, chosen));
        const taken = sink(layer)?.row(head);
        const mean = taken ? taken.reduce((a, b) => a + b, 0) / T : 0;
        heading.textContent = taken ? `head ${head}: sink ${percent(mean)} on average` : `head ${head}: no sink`;
      } else if (was.token !== token) {
        map.update({ selected: { row: token } });
      }
      if (moved || was.head !== head || was.token !== token) shade(token, head);
      was = { token, head, layer };
      memory.layer = layer;
    }

    function shade(token, head) {
      const { values, seen } = pattern(layer).square(head);
      const row = values.subarray(token * T, (token + 1) * T);
      const taken = sink(layer)?.at(head, token) ?? null;
      chip.hidden = taken === null;
      const of = colours.at("cividis", Math.sqrt(taken ?? 0));
      chip.style.backgroundColor = `rgb(${of.join(" ")})`;
      chip.style.color = colours.inkOn(of);
      chip.title = `what goes to the sink: ${percent(taken ?? 0)}`;
      cells.forEach((cell, k) => {
        const level = seen[token * T + k] ? Math.round(255 * Math.sqrt(row[k])) : -1;
        if (levels[k] !== level) {
          const colour = colours.at("cividis", level / 255);
          cell.style.backgroundColor = level < 0 ? "" : `rgb(${colour.join(" ")})`;
          cell.style.color = level < 0 ? "var(--gl-muted)" : colours.inkOn(colour);
          cell.classList.toggle("gl-unseen", level < 0);
          levels[k] = level;
        }
      });
      shown = row;
      strip.update({ selected: token });
      const tops = mostLooked(row, taken);
      const told = tops.map(({ key: k, share }) => `${k < 0 ? "the sink" : `${k} ${quoted(data.labels[k])}`} ${percent(share)}`).join(", ");
      says.textContent = `${token} ${quoted(data.labels[token])} looks at ${told || "nothing in particular"}.`;
      text.setAttribute("aria-label", `the text, shaded: ${says.textContent}`);
      const at = tops.find(({ key: k }) => k >= 0)?.key ?? token;
      inView(text, cells[at]);
    }

    draw(true);
    return { box, draw, layer: () => layer, destroy: () => map.destroy() };
  }

  function load(next) {
    data = next;
    sides.forEach((one) => one.destroy());
    sides = [];
    const kept = data.config.windows.map((_, n) => n).filter((n) => data.has(`blocks.${n}.attention.pattern`));
    if (!kept.length) return node.replaceChildren(el("p", { class: "gl-absent" }, data.lacks("blocks.*.attention.pattern")));
    lacks = data.config.windows.map((_, n) => n).filter((n) => !kept.includes(n));
    lacking.hidden = !lacks.length;
    const windowed = kept.filter((n) => data.config.windows[n]);
    const dense = kept.filter((n) => !data.config.windows[n]);
    const halves = windowed.length && dense.length ? [[windowed, "window"], [dense, "dense"]] : kept.length > 1 ? [[kept.filter((n) => n % 2 === 0), "even"], [kept.filter((n) => n % 2 === 1), "odd"]] : [[kept, "only"]];
    node.replaceChildren();
    sides = halves.filter(([among]) => among.length).map(([among, kind]) => side(among, kind));
    const cut = data.config.windows.some((window) => window && window < data.tokens);
    foot.replaceChildren(legend(attentionScale, [0, 0.1, 0.4, 1], "attention (square-root scale)"),
      el("p", { class: "gl-quiet" }, "Hatched: keys that a query may not see. ",
        !windowed.length ? "" : cut ? "Blue staircase: the edge of the window. " : "The window is longer than this text and hides nothing. ",
        data.config.sinks ? "Sink: what a head leaves to no token; a row and its sink sum to 100 %." : "This model has no sinks: each row sums to 100 %."));
    node.append(...sides.map((one) => one.box), foot);
    sides.forEach((one) => one.draw(true));
    tellLacks();
  }

  /** Which layers are not here, and where one of them is chosen, what stands below instead. */
  function tellLacks() {
    if (!lacks.length || !sides.length) return;
    const [{ layer }, why] = [store.get(), data.lacks("blocks.*.attention.pattern")];
    const shown = sides.map((one) => one.layer()).join(" and ");
    lacking.classList.toggle("gl-bad", lacks.includes(layer));
    lacking.textContent = lacks.includes(layer) ? `Layer ${layer} is chosen and not here; below ${sides.length > 1 ? "are layers" : "is layer"} ${shown}. ${why}`
      : `Layer${lacks.length > 1 ? "s" : ""} ${lacks.join(", ")} ${lacks.length > 1 ? "are" : "is"} not here. ${why}`;
  }

  /** Names of queries take less room where the halves are narrow. */
  function fitted() {
    const left = roomy() ? 84 : 60;
    if (left === margin.left) return;
    margin.left = left;
    sides.forEach((one) => one.draw(true));
  }

  fitted();
  load(data);
  const resize = globalThis.ResizeObserver && new ResizeObserver(fitted);
  resize?.observe(node);
  const off = store.on(() => {
    sides.forEach((one) => one.draw());
    tellLacks();
  });
  return {
    update: load,
    redraw: () => sides.forEach((one) => one.draw(true)),
    destroy() {
      off();
      resize?.disconnect();
      sides.forEach((one) => one.destroy());
      frame.remove();
    },
  };
}
