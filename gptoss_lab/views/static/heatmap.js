// A heat map on canvas: one picture of rows x columns, drawn once a change, crisp at any zoom and pixel ratio.
//
// Pointer: move to read a value, click to pick, drag to move about when zoomed, wheel with Ctrl or Cmd to zoom (without, the
// page scrolls), double click to see all. Keys: arrows move and pick, Page Up and Down and Home and End jump, + and - zoom,
// 0 shows all.

import { colours } from "./core.js";
import { heatCanvas, heatLevels, heatPooled } from "./heat_picture.js";
import { labelStep, readable, zoomed } from "./scale.js";

export { labelStep, legend, readable, shareOf, zoomed } from "./scale.js";

/** Draws into `canvas` and answers to pointer and keys. options:
 *
 *  rows, cols, value(r, c), masked(r, c)?     the cells; masked ones are hatched (or plain grey with plainMask)
 *  scale {lo, hi, gamma, map, unit}           map: cividis (default), viridis, differences
 *  name                                       what the map shows, for screen readers
 *  describe(r, c, number|null) -> text        one cell in words; `readout`: a node that shows it, `resting` else
 *  pick(r, c), say(text)                      called for clicks and keys
 *  selected {row, col}                        outlined: a row, a column, or a cell where both are given
 *  rowLabels, colLabels, margin {left, right, top, bottom}    labels are written at the left and below, where they fit
 *  overlay(ctx, box)                          draws above; box {x(c), y(r), cell: [w, h], left, top, width, height}
 *  spanOf(c) -> [first, count] or null        columns that are one: one label, one stop for the keys; null: nothing is there
 *  viewed({rows, cols})                       called after each drawing with what is in view: [first, count] of both
 *  centre() -> column                         what buttons zoom about; else the selected cell
 *  zoomable                                   false for small multiples
 *
 *  Returns { update(changes), zoom(factor), reset(), cellAt(x, y), at(), view(), destroy() }; x and y in pixels of the canvas.
 */
export function heatmap(canvas, options) {
  let o = { scale: {}, selected: {}, margin: {}, zoomable: true, spanOf: (c) => [c, 1], describe: (r, c, v) => `row ${r}, column ${c}: ${readable(v)}`, ...options };
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

  /** The canvas's size in CSS pixels, measured when it changes: asking at each drawing would lay the page out each time. */
  let size = null;
  function measured() {
    if (!size?.w || !size.h) size = { w: canvas.clientWidth, h: canvas.clientHeight, font: getComputedStyle(canvas).fontFamily };
    return size;
  }

  /** The cells' place on the canvas, in CSS pixels. */
  function area() {
    const { left = 0, right = 0, top = 0, bottom = 0 } = o.margin;
    const { w, h } = measured();
    return { left, top, width: Math.max(w - left - right, 1), height: Math.max(h - top - bottom, 1) };
  }

  /** Cells → pixels of a canvas of its own, and where in it the view lies. Of cells smaller than a pixel the strongest shows. */
  function pictured(width, height) {
    picture ??= { levels: heatLevels(o) };
    const { levels } = picture;
    if (rows[1] <= height && cols[1] <= width) {
      picture.all ??= heatCanvas(levels, o.rows, o.cols, o.scale.map);
      return [picture.all, cols[0], rows[0], cols[1], rows[1]];
    }
    const name = `${rows} ${cols} ${width} ${height}`;
    if (picture.name !== name) {
      const { levels: strongest, high, wide } = heatPooled(levels, [o.rows, o.cols], rows, cols, [height, width], o.scale.map === "differences");
      Object.assign(picture, { name, part: heatCanvas(strongest, high, wide, o.scale.map) });
    }
    return [picture.part, 0, 0, picture.part.width, picture.part.height];
  }

  function hatch(ctx, { left, top, width, height }) {
    ctx.fillStyle = colours.of(canvas, o.plainMask ? "unchosen" : "masked");
    ctx.fillRect(left, top, width, height);
    if (o.plainMask) return;
    ctx.strokeStyle = colours.of(canvas, "hatch");
    ctx.lineWidth = 1;
    ctx.beginPath();
    for (let x = left - height; x < left + width; x += 7) {
      ctx.moveTo(x, top + height);
      ctx.lineTo(x + height, top);
    }
    ctx.stroke();
  }

  function draw() {
    const ratio = globalThis.devicePixelRatio || 1;
    if (!measured().w || !size.h || !o.rows || !o.cols) return;
    const [w, h] = [Math.round(size.w * ratio), Math.round(size.h * ratio)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    const ctx = canvas.getContext("2d");
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, size.w, size.h);
    ctx.imageSmoothingEnabled = false;
    const place = area();
    ctx.save();
    ctx.beginPath();
    ctx.rect(place.left, place.top, place.width, place.height);
    ctx.clip();
    if (o.masked) hatch(ctx, place);
    const [image, ...part] = pictured(Math.ceil(place.width * ratio), Math.ceil(place.height * ratio));
    ctx.drawImage(image, ...part, place.left, place.top, place.width, place.height);
    const cell = [place.width / cols[1], place.height / rows[1]];
    const box = { ...place, cell, x: (c) => place.left + (c - cols[0]) * cell[0], y: (r) => place.top + (r - rows[0]) * cell[1] };
    o.overlay?.(ctx, box);
    ctx.restore();
    outline(ctx, box);
    write(ctx, box);
    o.viewed?.({ rows, cols });
  }

  function outline(ctx, box) {
    const { row, col } = o.selected;
    const [cw, ch] = box.cell;
    const right = box.left + box.width;
    const bottom = box.top + box.height;
    const frame = (x, y, w, h, width) => {
      const [x1, y1, x2, y2] = [Math.max(x, box.left), Math.max(y, box.top), Math.min(x + w, right), Math.min(y + h, bottom)];
      if (x2 <= x1 || y2 <= y1) return; // zoomed out of view
      for (const [stroke, line] of [[colours.of(canvas, "page"), width + 2], [colours.of(canvas, "pick"), width]]) {
        ctx.strokeStyle = stroke;
        ctx.lineWidth = line;
        ctx.strokeRect(x1, y1, x2 - x1, y2 - y1);
      }
    };
    const spare = Math.max(0, (7 - ch) / 2); // a thin row is framed from outside, or its frame would hide it
    if (row !== undefined && col !== undefined) frame(box.x(col), box.y(row), cw, ch, 2);
    else if (row !== undefined) frame(box.left, box.y(row) - spare, box.width, ch + 2 * spare, 2);
    else if (col !== undefined) frame(box.x(col), box.top, cw, box.height, 2);
    if (isFocused()) {
      ctx.setLineDash([4, 3]);
      const [first, count] = o.spanOf(focus.c) ?? [focus.c, 1];
      frame(box.x(first), box.y(focus.r), count * cw, ch, 1);
      ctx.setLineDash([]);
    }
  }

  /** Labels beside the cells: all, or one in 2, 4, 8, … where they would touch; the selected one always. Each stands at the
   *  middle of what is seen of its cell. */
  function write(ctx, box) {
    const { left = 0, bottom = 0 } = o.margin;
    const { font } = measured();
    const each = (labels, [first, count], size, need, chosen, spanOf, put) => {
      const step = labelStep(size, need);
      for (let n = Math.max(0, Math.floor(first)); n < Math.min(labels.length, first + count); n++) {
        const span = spanOf(n);
        if (!span || (n > span[0] && n > first)) continue;
        const [from, to] = [Math.max(span[0], first), Math.min(span[0] + span[1], first + count)];
        const middle = (from + to) / 2;
        const near = chosen !== undefined && n !== chosen && Math.abs(middle - 0.5 - chosen) * size < need;
        if (n !== chosen && ((span[1] === 1 && n % step) || near)) continue;
        if (to - from < span[1] && (to - from) * size < need) continue; // too little of it is seen
        ctx.font = `${n === chosen ? "700" : "400"} 12px ${font}`;
        ctx.fillStyle = colours.of(canvas, n === chosen ? "ink" : "muted");
        put(fitted(ctx, labels[n], need === 14 ? left - 8 : bottom - 8), middle);
      }
    };
    ctx.textBaseline = "middle";
    if (o.rowLabels && left) {
      ctx.textAlign = "right";
      each(o.rowLabels, rows, box.cell[1], 14, o.selected.row, (r) => [r, 1], (text, middle) => ctx.fillText(text, left - 6, box.y(middle)));
    }
    if (o.colLabels && bottom) {
      each(o.colLabels, cols, box.cell[0], 14.5, o.selected.col, o.spanOf, (text, middle) => {
        ctx.save();
        ctx.translate(box.x(middle), box.top + box.height + 6);
        ctx.rotate(-Math.PI / 2);
        ctx.textAlign = "right";
        ctx.fillText(text, 0, 0);
        ctx.restore();
      });
    }
  }

  const fits = new Map();

  /** As much of a label as there is room for, measured once. */
  function fitted(ctx, text, room) {
    const key = `${ctx.font} ${room} ${text}`;
    if (fits.has(key)) return fits.get(key);
    let short = text;
    while (short.length > 1 && ctx.measureText(short === text ? text : `${short}…`).width > room) short = short.slice(0, -1);
    fits.set(key, short === text ? text : `${short}…`);
    return fits.get(key);
  }

  const isFocused = () => canvas.getRootNode().activeElement === canvas;

  function cellAt(x, y) {
    const place = area();
    const c = Math.floor(cols[0] + ((x - place.left) / place.width) * cols[1]);
    const r = Math.floor(rows[0] + ((y - place.top) / place.height) * rows[1]);
    const inside = x >= place.left && y >= place.top && x < place.left + place.width && y < place.top + place.height;
    return inside && r >= 0 && r < o.rows && c >= 0 && c < o.cols ? { r, c } : null;
  }

  const describe = ({ r, c }) => o.describe(r, c, o.masked?.(r, c) ? null : o.value(r, c));

  function tell(cell) {
    if (o.readout) o.readout.textContent = cell ? describe(cell) : (o.resting ?? "");
  }

  const speak = () => canvas.setAttribute("aria-label", `${o.name ?? "heat map"}. ${describe(focus)}`);

  /** Moves what is in view as little as shows a row and a column; undefined ones do not count. */
  function follow(r, c) {
    const keep = ([first, count], at) => (at === undefined ? [first, count] : [at < first ? at : at + 1 > first + count ? at + 1 - count : first, count]);
    [rows, cols] = [keep(rows, r), keep(cols, c)];
  }

  /** The column beside one, `by` 1 or −1: columns that are one are left at once, empty ones are passed over. */
  function besides(c, by) {
    const span = o.spanOf(c) ?? [c, 1];
    let next = by > 0 ? span[0] + span[1] : span[0] - 1;
    while (next > 0 && next < o.cols - 1 && !o.spanOf(next)) next += by;
    return o.spanOf(Math.min(Math.max(next, 0), o.cols - 1))?.[0] ?? c;
  }

  function go(r, c) {
    focus = { r: Math.min(Math.max(r, 0), o.rows - 1), c: Math.min(Math.max(c, 0), o.cols - 1) };
    follow(focus.r, focus.c);
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

  /** Zooms about the cell where the keys are, or the one that the view names where they are elsewhere. */
  function zoomHere(factor) {
    const share = ([first, count], at) => Math.min(Math.max((at + 0.5 - first) / count, 0), 1);
    zoom(factor, share(cols, isFocused() ? focus.c : o.centre?.() ?? focus.c), share(rows, focus.r));
  }

  function reset() {
    rows = [0, o.rows];
    cols = [0, o.cols];
    draw();
  }

  const listen = (kind, f, more) => canvas.addEventListener(kind, f, { signal: off.signal, ...more });
  listen("pointermove", (event) => {
    if (drag && o.zoomable && (rows[1] < o.rows || cols[1] < o.cols)) {
      const place = area();
      const shift = ([first, count], total, by) => [Math.min(Math.max(first - by * count, 0), total - count), count];
      cols = shift(cols, o.cols, (event.offsetX - drag.x) / place.width);
      rows = shift(rows, o.rows, (event.offsetY - drag.y) / place.height);
      drag = { x: event.offsetX, y: event.offsetY, moved: drag.moved || Math.hypot(event.offsetX - drag.x, event.offsetY - drag.y) > 2 };
      draw();
      return;
    }
    tell(cellAt(event.offsetX, event.offsetY) ?? (isFocused() ? focus : null));
  });
  listen("pointerleave", () => tell(isFocused() ? focus : null));
  listen("pointerdown", (event) => (drag = { x: event.offsetX, y: event.offsetY, moved: false }));
  listen("pointerup", (event) => {
    const cell = drag && !drag.moved && cellAt(event.offsetX, event.offsetY);
    if (cell && o.spanOf(cell.c)) go(cell.r, cell.c);
  });
  globalThis.addEventListener("pointerup", () => (drag = null), { signal: off.signal });
  listen("dblclick", reset);
  for (const [kind, cell] of [["focus", () => focus], ["blur", () => null]]) {
    listen(kind, () => {
      speak();
      tell(cell());
      draw();
    });
  }
  listen("wheel", (event) => {
    if (!o.zoomable || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    const place = area();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, (event.offsetX - place.left) / place.width, (event.offsetY - place.top) / place.height);
  }, { passive: false });
  listen("keydown", (event) => {
    if (event.altKey || event.metaKey || event.ctrlKey) return;
    const { r, c } = focus;
    const jump = Math.max(1, Math.round(o.rows / 10));
    const to = {
      ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, besides(c, -1)], ArrowRight: [r, besides(c, 1)], Home: [r, 0],
      End: [r, o.cols - 1], PageUp: [r - jump, c], PageDown: [r + jump, c], Enter: [r, c], " ": [r, c],
    }[event.key];
    if (to) go(...to);
    else if (event.key === "+" || event.key === "=") zoomHere(0.6);
    else if (event.key === "-") zoomHere(1 / 0.6);
    else if (event.key === "0") reset();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  const resize = globalThis.ResizeObserver && new ResizeObserver(() => {
    size = null;
    draw();
  });
  resize?.observe(canvas);
  tell(null);
  speak();

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
      const { row, col } = o.selected;
      if (changes.selected) focus = { r: row ?? focus.r, c: col ?? focus.c };
      if (row !== before.selected.row || col !== before.selected.col) follow(row, col);
      focus = { r: Math.min(focus.r, o.rows - 1), c: Math.min(focus.c, o.cols - 1) };
      tell(isFocused() ? focus : null);
      speak();
      draw();
    },
    zoom: zoomHere,
    reset,
    cellAt,
    at: () => focus,
    view: () => ({ rows, cols }),
    destroy() {
      off.abort();
      resize?.disconnect();
    },
  };
}
