// What a heat map shows when it is zoomed, on a canvas that draws nothing.
import assert from "node:assert/strict";
import { test } from "node:test";
import { heatmap } from "../../gptoss_lab/views/static/heatmap.js";

/** A map of 8 x 100 cells with cell (6, 80) selected: { map, press(key), focus(is) }. */
function toy(options) {
  const heard = {};
  let focused = false;
  const canvas = {
    addEventListener: (kind, f) => (heard[kind] = f), setAttribute() {}, classList: { add() {} }, clientWidth: 0, clientHeight: 0,
    getRootNode: () => ({ activeElement: focused ? canvas : null }),
  };
  globalThis.getComputedStyle = () => ({ fontFamily: "" });
  globalThis.addEventListener = () => {};
  const map = heatmap(canvas, { rows: 8, cols: 100, value: () => 0, selected: { row: 6, col: 80 }, ...options });
  const press = (key) => heard.keydown({ key, preventDefault() {}, stopPropagation() {} });
  return { map, press, focus: (is) => (focused = is) };
}

/** The view is [first, count] of rows and of columns, to rounding. */
function shows(map, rows, cols) {
  const { rows: r, cols: c } = map.view();
  [...r, ...c].forEach((v, n) => assert.ok(Math.abs(v - [...rows, ...cols][n]) < 1e-9, `${r}; ${c}`));
}

test("keys and buttons zoom about the selection, and out comes back from in", () => {
  const { map, press, focus } = toy();
  const once = [[6.5 - 6.5 * 0.6, 4.8], [80.5 - 80.5 * 0.6, 60]];
  const twice = [[2.6 + (4.8 - 4) * (3.9 / 4.8), 4], [80.5 - 80.5 * 0.36, 36]];
  for (const keys of [true, false]) {
    focus(keys);
    const [near, far] = keys ? [() => press("+"), () => press("-")] : [() => map.zoom(0.6), () => map.zoom(1 / 0.6)];
    near();
    shows(map, ...once);
    near();
    shows(map, ...twice);
    far();
    assert.ok(Math.abs(map.view().cols[0] - once[1][0]) < 1e-9);
    far();
    shows(map, [0, 8], [0, 100]);
  }
});

test("the column that a view names may be the first one", () => {
  const { map, focus } = toy({ centre: () => 0 });
  map.zoom(0.6);
  assert.ok(Math.abs(map.view().cols[0] - 0.5 * 0.4) < 1e-9, `${map.view().cols}`);
  map.reset();
  focus(true); // the keys are on the map: its own cell counts
  map.zoom(0.6);
  assert.ok(Math.abs(map.view().cols[0] - 80.5 * 0.4) < 1e-9, `${map.view().cols}`);
});
