// A heat map on canvas: one picture of rows x columns, drawn once a change, crisp at any zoom and pixel ratio.
//
// Pointer: move to read a value, click to pick, drag to move about when zoomed, wheel to zoom once the map has the focus
// (or with Ctrl held: a page that is scrolled past is left alone), double click to see all. Keys: arrows move and pick,
// Page Up and Down and Home and End jump, + and - zoom, 0 shows all.

import { colours, percent } from "./core.js";

/** A number for reading: shares as percentages, others with three significant digits. */
export function readable(value, unit) {
  if (!Number.isFinite(value)) return value < 0 ? "−∞" : "–";
  if (unit === "share") return percent(value);
  return (value < 0 ? "−" : "") + (Math.abs(value) >= 1000 ? Math.abs(value).toFixed(0) : Math.abs(value).toPrecision(3));
}

/** The part of `total` cells that stays in view when `factor` more are shown about `at` (0 to 1 of the part): [first, count]. */
export function zoomed([first, count], total, factor, at = 0.5) {
  const next = Math.min(Math.max(count * factor, Math.min(4, total)), total);
  const start = first + (count - next) * at;
  return [Math.min(Math.max(start, 0), total - next), next];
}

/** Draws into `canvas` and answers to pointer and keys. options:
 *
 *  rows, cols, value(r, c), masked(r, c)?          the cells
 *  scale {lo, hi, map, unit}                       map: cividis (default), viridis, differences; unit "share" reads as %
 *  name                                            what the map shows, for screen readers
 *  describe(r, c, number) -> text                  one cell in words; readout: a node that shows it
 *  pick(r, c)                                      called for clicks and keys
 *  selected {row, col, rows?}                      outlined: a row, a column, a cell (row and col); `focus` is the key's cell
 *  overlay(ctx, box)                               draws above; box {x(c), y(r), cell: [w, h], width, height}
 *  zoomable                                        false for small multiples
 *
 *  Returns { update(changes), reset(), cellAt(x, y), view(), destroy() }.
 */
export function heatmap(canvas, options) {
  let o = { scale: {}, selected: {}, zoomable: true, describe: (r, c, v) => `row ${r}, column ${c}: ${readable(v)}`, ...options };
  let rows = [0, o.rows];
  let cols = [0, o.cols];
  let focus = { r: o.selected.row ?? 0, c: o.selected.col ?? 0 };
  let picture = null;
  let drag = null;
  const off = new AbortController();
  canvas.tabIndex = options.tabIndex ?? 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-roledescription", "heat map");
  canvas.classList.add("gl-heat");

  /** Cells → pixels of an own canvas; masked cells stay clear, so that the hatching below shows. */
  function paint() {
    const { lo = 0, hi = 1, map = "cividis" } = o.scale;
    const table = colours.table(map);
    const data = new ImageData(o.cols, o.rows);
    const by = 255 / (hi - lo || 1);
    for (let r = 0, p = 0; r < o.rows; r++) {
      for (let c = 0; c < o.cols; c++, p += 4) {
        if (o.masked?.(r, c)) continue;
        const n = 3 * Math.min(Math.max(Math.round((o.value(r, c) - lo) * by), 0), 255);
        data.data[p] = table[n];
        data.data[p + 1] = table[n + 1];
        data.data[p + 2] = table[n + 2];
        data.data[p + 3] = 255;
      }
    }
    picture = document.createElement("canvas");
    picture.width = o.cols;
    picture.height = o.rows;
    picture.getContext("2d").putImageData(data, 0, 0);
  }

  function hatch(ctx, w, h) {
    ctx.fillStyle = colours.of(canvas, "masked");
    ctx.fillRect(0, 0, w, h);
    ctx.strokeStyle = colours.of(canvas, "hatch");
    ctx.lineWidth = 1;
    ctx.beginPath();
    for (let x = -h; x < w; x += 7) {
      ctx.moveTo(x, h);
      ctx.lineTo(x + h, 0);
    }
    ctx.stroke();
  }

  function draw() {
    const w = canvas.clientWidth;
    const h = canvas.clientHeight;
    const ratio = globalThis.devicePixelRatio || 1;
    if (!w || !h || !o.rows || !o.cols) return;
    if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
      canvas.width = Math.round(w * ratio);
      canvas.height = Math.round(h * ratio);
    }
    if (!picture) paint();
    const ctx = canvas.getContext("2d");
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.imageSmoothingEnabled = false;
    if (o.masked) hatch(ctx, w, h);
    else ctx.clearRect(0, 0, w, h);
    ctx.drawImage(picture, cols[0], rows[0], cols[1], rows[1], 0, 0, w, h);
    const cell = [w / cols[1], h / rows[1]];
    const box = { x: (c) => (c - cols[0]) * cell[0], y: (r) => (r - rows[0]) * cell[1], cell, width: w, height: h };
    o.overlay?.(ctx, box);
    outline(ctx, box);
  }

  function outline(ctx, box) {
    const { row, col } = o.selected;
    const frame = (x, y, w, h, width) => {
      for (const [stroke, line] of [[colours.of(canvas, "page"), width + 2], [colours.of(canvas, "pick"), width]]) {
        ctx.strokeStyle = stroke;
        ctx.lineWidth = line;
        ctx.strokeRect(x, y, w, h);
      }
    };
    const [cw, ch] = box.cell;
    if (row !== undefined && col !== undefined) frame(box.x(col), box.y(row), cw, ch, 2);
    else if (row !== undefined) frame(1, box.y(row), box.width - 2, ch, 2);
    else if (col !== undefined) frame(box.x(col), 1, cw, box.height - 2, 2);
    if (document.activeElement === canvas || canvas.getRootNode().activeElement === canvas) {
      ctx.setLineDash([4, 3]);
      frame(box.x(focus.c), box.y(focus.r), cw, ch, 1);
      ctx.setLineDash([]);
    }
  }

  function cellAt(x, y) {
    const c = Math.floor(cols[0] + (x / canvas.clientWidth) * cols[1]);
    const r = Math.floor(rows[0] + (y / canvas.clientHeight) * rows[1]);
    return r >= 0 && r < o.rows && c >= 0 && c < o.cols ? { r, c } : null;
  }

  function describe({ r, c }) {
    return o.masked?.(r, c) ? o.describe(r, c, null) : o.describe(r, c, o.value(r, c));
  }

  function tell(cell) {
    if (o.readout) o.readout.textContent = cell ? describe(cell) : (o.resting ?? "");
  }

  function speak() {
    canvas.setAttribute("aria-label", `${o.name ?? "heat map"}. ${describe(focus)}`);
  }

  function go(r, c) {
    focus = { r: Math.min(Math.max(r, 0), o.rows - 1), c: Math.min(Math.max(c, 0), o.cols - 1) };
    const keep = ([first, count], at) => [at < first ? at : at + 1 > first + count ? at + 1 - count : first, count];
    rows = keep(rows, focus.r);
    cols = keep(cols, focus.c);
    tell(focus);
    o.say?.(describe(focus));
    o.pick?.(focus.r, focus.c);
    speak();
    draw();
  }

  function zoom(factor, x = 0.5, y = 0.5) {
    if (!o.zoomable) return;
    rows = zoomed(rows, o.rows, factor, y);
    cols = zoomed(cols, o.cols, factor, x);
    draw();
  }

  function reset() {
    rows = [0, o.rows];
    cols = [0, o.cols];
    draw();
  }

  const listen = (kind, f, more) => canvas.addEventListener(kind, f, { signal: off.signal, ...more });
  listen("pointermove", (event) => {
    if (drag && (rows[1] < o.rows || cols[1] < o.cols)) {
      const shift = ([first, count], total, by) => [Math.min(Math.max(first - by * count, 0), total - count), count];
      cols = shift(cols, o.cols, (event.offsetX - drag.x) / canvas.clientWidth);
      rows = shift(rows, o.rows, (event.offsetY - drag.y) / canvas.clientHeight);
      drag = { x: event.offsetX, y: event.offsetY, moved: true };
      draw();
      return;
    }
    tell(cellAt(event.offsetX, event.offsetY));
  });
  listen("pointerleave", () => tell(document.activeElement === canvas ? focus : null));
  listen("pointerdown", (event) => (drag = { x: event.offsetX, y: event.offsetY, moved: false }));
  globalThis.addEventListener("pointerup", () => (drag &&= null), { signal: off.signal });
  listen("pointerup", (event) => {
    const cell = drag && !drag.moved && cellAt(event.offsetX, event.offsetY);
    if (cell) go(cell.r, cell.c);
  });
  listen("dblclick", reset);
  listen("focus", () => {
    speak();
    tell(focus);
    draw();
  });
  listen("blur", () => {
    tell(null);
    draw();
  });
  listen("wheel", (event) => {
    if (!o.zoomable || !(event.ctrlKey || event.metaKey || document.activeElement === canvas)) return;
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, event.offsetX / canvas.clientWidth, event.offsetY / canvas.clientHeight);
  }, { passive: false });
  listen("keydown", (event) => {
    if (event.altKey || event.metaKey || event.ctrlKey) return;
    const { r, c } = focus;
    const jump = Math.max(1, Math.round(o.rows / 10));
    const to = {
      ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1], Home: [r, 0],
      End: [r, o.cols - 1], PageUp: [r - jump, c], PageDown: [r + jump, c], Enter: [r, c], " ": [r, c],
    }[event.key];
    if (to) go(...to);
    else if (event.key === "+" || event.key === "=") zoom(0.6, (c + 0.5 - cols[0]) / cols[1], (r + 0.5 - rows[0]) / rows[1]);
    else if (event.key === "-") zoom(1 / 0.6);
    else if (event.key === "0") reset();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  const resize = globalThis.ResizeObserver && new ResizeObserver(draw);
  resize?.observe(canvas);
  tell(null);
  speak();
  draw();

  return {
    /** New options; the picture is made again where cells or colours may differ. */
    update(changes = {}) {
      const before = o;
      o = { ...o, ...changes };
      if (o.rows !== before.rows || o.cols !== before.cols) {
        rows = [0, o.rows];
        cols = [0, o.cols];
      }
      if (["rows", "cols", "value", "masked", "scale"].some((key) => key in changes)) picture = null;
      if (changes.selected) focus = { r: o.selected.row ?? focus.r, c: o.selected.col ?? focus.c };
      focus = { r: Math.min(focus.r, o.rows - 1), c: Math.min(focus.c, o.cols - 1) };
      if (o.readout && document.activeElement !== canvas) tell(null);
      speak();
      draw();
    },
    reset,
    cellAt,
    view: () => ({ rows, cols }),
    destroy() {
      off.abort();
      resize?.disconnect();
    },
  };
}
