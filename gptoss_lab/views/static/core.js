// What every view stands on: a trace's numbers (Data), the one selection (Store), colours, and elements made without HTML.
//
// No view ever hands text to the HTML parser: what people and models wrote becomes text nodes. Numbers arrive in one
// block of bytes, most of them as 16-bit steps between the smallest and the largest value of their point, and become
// numbers again when they are asked for. Band storage: row t of a T x S pattern holds the keys max(0, t - window + 1)
// to t alone, because no query sees others.

export { heatmap } from "./heatmap.js";

const coreReaders = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, f32: Float32Array };

/** Where row t of a band of `window` keys begins, counted in stored numbers. */
export function bandStart(t, window) {
  return t < window ? (t * (t + 1)) / 2 : (window * (window + 1)) / 2 + (t - window) * window;
}

/** One point of a trace: `axes` and `shape` as in the catalogue without the batch; values are dequantised when read. */
export class Values {
  constructor(about, bytes) {
    const Reader = coreReaders[about.kind];
    this.axes = about.axes;
    this.shape = about.shape;
    this.about = about;
    this.codes = new Reader(bytes.buffer, bytes.byteOffset + about.offset, about.count);
    this.strides = about.shape.map((_, i) => about.shape.slice(i + 1).reduce((a, b) => a * b, 1));
    if (about.band) this.plane = bandStart(about.shape.at(-2), about.band);
  }

  /** The stored code at an index; undefined where a band holds nothing. */
  code(index) {
    if (index.length !== this.shape.length || index.some((i, a) => !(i >= 0 && i < this.shape[a]))) {
      throw new RangeError(`index [${index}] is outside ${this.axes.join(" ")} = ${this.shape.join(" x ")}`);
    }
    const { band } = this.about;
    if (!band) return this.codes[index.reduce((sum, i, a) => sum + i * this.strides[a], 0)];
    const [t, s] = index.slice(-2);
    const first = Math.max(0, t - band + 1);
    if (s < first || s > t) return undefined;
    const planes = index.slice(0, -2).reduce((sum, i, a) => sum * this.shape[a] + i, 0);
    return this.codes[planes * this.plane + bandStart(t, band) + s - first];
  }

  value(code) {
    const { lo, step, hole, nothing } = this.about;
    if (code === undefined || code === hole) return nothing ?? -Infinity;
    return lo + code * step;
  }

  /** The number at an index: where masked, 0 for probabilities and -Infinity for scores. */
  at(...index) {
    return this.value(this.code(index));
  }

  /** Whether a query may not see this key (or the model put -inf here). */
  masked(...index) {
    const code = this.code(index);
    return code === undefined || code === this.about.hole;
  }

  /** All numbers under the first indices, flattened: Float32Array. */
  row(...prefix) {
    const left = this.shape.length - prefix.length;
    if (this.about.band && left < 2) return this.square(...prefix.slice(0, -1)).values.slice(prefix.at(-1) * this.shape.at(-1), (prefix.at(-1) + 1) * this.shape.at(-1));
    if (this.about.band && left === 2) return this.square(...prefix).values;
    if (this.about.band) throw new RangeError(`a band of axes ${this.axes.join(" ")} is read at most T x S at a time`);
    const out = new Float32Array(this.shape.slice(prefix.length).reduce((a, b) => a * b, 1));
    const start = prefix.reduce((sum, i, a) => sum + i * this.strides[a], 0);
    for (let n = 0; n < out.length; n++) out[n] = this.value(this.codes[start + n]);
    return out;
  }

  /** One whole T x S band, the latest asked for kept: { values, seen }, both T*S long, row by row. */
  square(...prefix) {
    const name = prefix.join(" ");
    if (this.latest?.name === name) return this.latest;
    const { band, hole, lo, step } = this.about;
    const [T, S] = this.shape.slice(-2);
    const values = new Float32Array(T * S).fill(this.about.nothing ?? -Infinity);
    const seen = new Uint8Array(T * S);
    let from = prefix.reduce((sum, i, a) => sum * this.shape[a] + i, 0) * this.plane;
    for (let t = 0; t < T; t++) {
      for (let s = Math.max(0, t - band + 1); s <= t; s++) {
        const code = this.codes[from++];
        if (code === hole) continue;
        values[t * S + s] = lo + code * step;
        seen[t * S + s] = 1;
      }
    }
    return (this.latest = { name, values, seen });
  }
}

/** A trace as the views see it: `config`, `labels`, `text`, `source`, `extra`, `code`, `leftOut`, and points by name. */
export class Data {
  constructor(payload, buffers) {
    const given = Array.isArray(buffers) ? buffers[0] : buffers;
    let bytes = given instanceof ArrayBuffer ? new Uint8Array(given) : new Uint8Array(given.buffer, given.byteOffset, given.byteLength);
    if (bytes.byteOffset % 4) bytes = bytes.slice(); // typed arrays begin at multiples of their size
    this.payload = payload;
    this.bytes = bytes;
    this.config = payload.config;
    this.labels = payload.labels;
    this.text = payload.text;
    this.source = payload.source;
    this.extra = payload.extra ?? {};
    this.code = payload.code ?? {};
    this.leftOut = payload.left_out ?? [];
    this.noNumbers = payload.no_numbers ?? "";
    this.missing = payload.missing ?? {};
    this.made = new Map();
  }

  get tokens() {
    return this.labels.length;
  }

  has(name) {
    return name in this.payload.arrays;
  }

  get(name) {
    if (!this.has(name)) throw new Error(`'${name}' is not in this trace; keep it and watch again`);
    if (!this.made.has(name)) this.made.set(name, new Values(this.payload.arrays[name], this.bytes));
    return this.made.get(name);
  }

  /** Why the points of a glob are not here, in words: left out of what was sent, or never kept. */
  lacks(glob) {
    const name = glob.replace("blocks.*.", "");
    return this.leftOut.some((told) => told.startsWith(`${name} of `))
      ? `${name} would not fit into what was sent: take a shorter text, or write a page with a larger limit (export_html).`
      : `This trace lacks ${glob}; keep it and watch again.`;
  }

  /** The sizes that the selection must stay within. */
  get limits() {
    return { token: this.tokens, layer: this.config.n_layers, head: this.config.n_heads, expert: this.config.n_experts || 1 };
  }
}

/** The limits of one selection for two runs: what both have; experts of either where only one has any. */
export function limitsOfBoth(data, beside) {
  if (!beside) return data.limits;
  const [mine, its] = [data.limits, beside.limits];
  const both = data.config.n_experts && beside.config.n_experts;
  return { token: mine.token, layer: Math.min(mine.layer, its.layer), head: Math.min(mine.head, its.head),
    expert: both ? Math.min(mine.expert, its.expert) : Math.max(mine.expert, its.expert) };
}

/** In the next frame, or at once where there are none. */
export const coreSoon = globalThis.requestAnimationFrame ? (f) => requestAnimationFrame(f) : (f) => setTimeout(f, 0);

/** One selection for all views. `set` keeps whole numbers within limits and tells listeners once a frame. */
export class Store {
  constructor(limits = {}, first = {}) {
    this.limits = limits;
    this.state = { token: 0, layer: 0, head: 0, expert: 0 };
    this.listeners = new Set();
    this.waiting = false;
    this.set(first);
  }

  get() {
    return { ...this.state };
  }

  set(changes) {
    let changed = false;
    for (const [key, asked] of Object.entries(changes)) {
      const limit = this.limits[key];
      const value = limit === undefined ? asked : Math.min(Math.max(Math.trunc(asked) || 0, 0), Math.max(limit - 1, 0));
      if (this.state[key] !== value) {
        this.state[key] = value;
        changed = true;
      }
    }
    if (changed) this.notify();
  }

  /** Other limits, for a new trace; the selection is brought within them and everybody is told. */
  limit(limits) {
    this.limits = limits;
    this.set(this.get());
    this.notify();
  }

  notify() {
    if (this.waiting) return;
    this.waiting = true;
    coreSoon(() => {
      this.waiting = false;
      for (const listener of [...this.listeners]) listener(this.get());
    });
  }

  on(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

// --- colours -----------------------------------------------------------------------------------------------------------

// Seventeen stations of each map, joined by straight lines. cividis: Nunez et al. 2018; both it and viridis grow lighter
// steadily, so that they survive in grey. "differences" is blue below zero and red above.
const coreMaps = {
  cividis: "00224e 002e6a 1a386f 32436d 434e6c 535a6d 61656f 6f7073 7d7c78 8c8878 9b9476 aba072 bcae6c cdbb63 dec958 f0d846 fee838",
  viridis: "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725",
  differences: "053061 175290 2a71b2 3f8ec0 6bacd1 9bc9e0 c2ddec e0ecf3 f7f6f6 fbe5d8 fbccb4 f5aa89 e48066 d05548 ba2832 930e26 67001f",
};
const coreTables = {};
const coreInks = new WeakMap(); // root → its inks, read once a theme: asking the style sheet makes the browser lay out the page

function coreTable(name) {
  if (coreTables[name]) return coreTables[name];
  const stations = coreMaps[name].split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const table = new Uint8Array(3 * 256);
  for (let n = 0; n < 256; n++) {
    const at = (n / 255) * (stations.length - 1);
    const left = Math.min(Math.floor(at), stations.length - 2);
    for (let c = 0; c < 3; c++) table[3 * n + c] = Math.round(stations[left][c] + (at - left) * (stations[left + 1][c] - stations[left][c]));
  }
  return (coreTables[name] = table);
}

export const colours = {
  /** 256 x 3 bytes of a map. */
  table: coreTable,
  /** [r, g, b] at t from 0 to 1. */
  at(name, t) {
    const n = 3 * Math.round(255 * Math.min(Math.max(t || 0, 0), 1));
    return [...coreTable(name).subarray(n, n + 3)];
  },
  /** The same for a style. */
  css(name, t) {
    return `rgb(${colours.at(name, t).join(" ")})`;
  },
  /** Black or white, whichever is read better on an [r, g, b]. */
  inkOn([r, g, b]) {
    return 0.2126 * (r / 255) ** 2.2 + 0.7152 * (g / 255) ** 2.2 + 0.0722 * (b / 255) ** 2.2 > 0.18 ? "#000" : "#fff";
  },
  /** The colour of an idea where `node` stands: query, key, value, sink, window, dense, experts, position, output, residual,
   *  ink, muted, masked, page, line, pick. Light and dark differ; the style sheet says how. */
  of(node, idea) {
    const root = node.closest(".gl-root") ?? node;
    let known = coreInks.get(root);
    if (!known || known.theme !== root.dataset.theme) coreInks.set(root, (known = { theme: root.dataset.theme }));
    return (known[idea] ??= getComputedStyle(root).getPropertyValue(`--gl-${idea}`).trim() || "#888");
  },
};

// --- elements ----------------------------------------------------------------------------------------------------------

/** Text that may stand in HTML or SVG source. Views need it only for what they write to files; on screen they use nodes. */
export function escapeText(text) {
  return String(text).replace(/[&<>"']/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[c]);
}

function coreFill(node, properties, children) {
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on") && typeof value === "function") node.addEventListener(key.slice(2), value);
    else if (key === "class") node.setAttribute("class", value);
    else if (key === "style" && typeof value === "object") for (const [name, v] of Object.entries(value)) node.style.setProperty(name, v);
    else if (key === "value") node.value = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An element: el("button", {class: "x", onclick: f}, "text", other). Strings become text nodes, never HTML. */
export function el(tag, properties, ...children) {
  return coreFill(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties, ...children) {
  return coreFill(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

/** Says whether a button does anything now. It keeps the focus, which `disabled` would take from who just pressed it; its
 *  action must do no harm when there is nothing to do. */
export function canPress(button, can) {
  button.setAttribute("aria-disabled", String(!can));
}

/** A share as people read it: "41 %", "4.1 %", "0.04 %", "<0.01 %", "0 %". */
export function percent(share) {
  const p = 100 * share;
  return p === 0 ? "0 %" : p > 0 && p < 0.005 ? "<0.01 %" : `${p.toFixed(p >= 9.95 ? 0 : p >= 0.095 ? 1 : 2)} %`;
}
