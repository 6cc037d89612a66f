// The frame's arithmetic: how numbers are stored and read, how the selection keeps within limits, what is shown of it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { bandStart, colours, Data, escapeText, limitsOfBoth, percent, Store, Values } from "../../gptoss_lab/views/static/core.js";
import { labelStep, readable, shareOf, zoomed } from "../../gptoss_lab/views/static/scale.js";

const soon = () => new Promise((done) => setTimeout(done, 5));

function u16(numbers) {
  return new Uint8Array(Uint16Array.from(numbers).buffer);
}

test("a band of three keys stores 1, 2, 3, 3, … numbers a row", () => {
  assert.deepEqual([0, 1, 2, 3, 4, 5].map((t) => bandStart(t, 3)), [0, 1, 3, 6, 9, 12]);
  assert.deepEqual([0, 1, 2, 3].map((t) => bandStart(t, 9)), [0, 1, 3, 6]);
});

test("values of a band are read at their keys, and masked elsewhere", () => {
  const about = { axes: ["H", "T", "S"], shape: [2, 4, 4], kind: "u16", offset: 0, count: 18, lo: 0.5, step: 0.25, hole: 65535, nothing: 0, band: 3 };
  const codes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 65535, 18];
  const v = new Values(about, u16(codes));
  assert.equal(v.at(0, 0, 0), 0.5);
  assert.equal(v.at(0, 3, 1), 0.5 + 6 * 0.25);
  assert.equal(v.at(1, 0, 0), 0.5 + 10 * 0.25);
  assert.equal(v.at(1, 3, 3), 0.5 + 18 * 0.25);
  assert.ok(v.masked(0, 3, 0) && v.masked(0, 0, 1) && v.masked(1, 3, 2) && !v.masked(0, 3, 1));
  assert.equal(v.at(0, 0, 1), 0);
  assert.deepEqual([...v.row(1, 3)], [0, 4.5, 0, 5]);
  assert.deepEqual([...v.row(0)].slice(4, 8), [0.75, 1, 0, 0]);
  assert.throws(() => v.at(2, 0, 0), RangeError);
  assert.throws(() => v.at(0, 0), RangeError);
});

test("scores that are masked are minus infinity", () => {
  const about = { axes: ["T", "S"], shape: [2, 2], kind: "u16", offset: 0, count: 3, lo: -1, step: 1, hole: 65535, nothing: null, band: 2 };
  assert.deepEqual([...new Values(about, u16([0, 1, 2])).row()], [-1, -Infinity, 0, 1]);
});

test("numbers are found where they lie, also in a view that begins at an odd byte", () => {
  const whole = new Uint8Array(9);
  whole.set(u16([7, 8, 9, 300]), 1);
  const payload = { config: { n_layers: 1, n_heads: 2, n_experts: null }, labels: ["a", "b"], arrays: { x: { axes: ["T", "D"], shape: [2, 2], kind: "u16", offset: 0, count: 4, lo: 0, step: 1 } } };
  const data = new Data(payload, new DataView(whole.buffer, 1));
  assert.deepEqual([...data.get("x").row(1)], [9, 300]);
  assert.equal(data.has("y"), false);
  assert.throws(() => data.get("y"), /not in this trace/);
  assert.deepEqual(data.limits, { token: 2, layer: 1, head: 2, expert: 1 });
});

test("what is not here was left out of what was sent, or never kept", () => {
  const data = new Data({ config: {}, labels: [], arrays: {}, left_out: ["attention.q of layers 0, 1"] }, new ArrayBuffer(0));
  assert.match(data.lacks("blocks.*.attention.q"), /^attention\.q would not fit/);
  assert.match(data.lacks("blocks.*.attention.q_normed"), /^This trace lacks blocks\.\*\.attention\.q_normed/);
});

test("one selection for two runs stays within both, and reaches the experts of the one that has any", () => {
  const run = (n_layers, n_heads, n_experts) => new Data({ config: { n_layers, n_heads, n_experts }, labels: ["a", "b"], arrays: {} }, new ArrayBuffer(0));
  const [dense, few, many] = [run(6, 4, null), run(2, 8, 4), run(9, 9, 16)];
  assert.deepEqual(limitsOfBoth(few, null), { token: 2, layer: 2, head: 8, expert: 4 });
  assert.deepEqual(limitsOfBoth(few, dense), { token: 2, layer: 2, head: 4, expert: 4 });
  assert.deepEqual(limitsOfBoth(dense, many), { token: 2, layer: 6, head: 4, expert: 16 });
  assert.deepEqual(limitsOfBoth(many, few), { token: 2, layer: 2, head: 8, expert: 4 });
});

test("the selection stays within limits and tells its listeners once", async () => {
  const store = new Store({ token: 5, layer: 2, head: 3, expert: 4 });
  await soon();
  let told = [];
  const off = store.on((now) => told.push(now));
  store.set({ token: 99 });
  store.set({ token: -4, layer: 1 });
  store.set({ head: 2.9, step: "attention" });
  assert.deepEqual(store.get(), { token: 0, layer: 1, head: 2, expert: 0, step: "attention" });
  await soon();
  assert.equal(told.length, 1);
  store.set({ layer: 1 });
  await soon();
  assert.equal(told.length, 1, "nothing changed, nobody is told");
  store.limit({ token: 5, layer: 1, head: 1, expert: 1 });
  assert.equal(store.get().layer, 0);
  off();
  store.set({ token: 3 });
  await soon();
  assert.equal(told.filter((now) => now.token === 3).length, 0);
});

test("colour maps begin and end where the published ones do, and grow lighter", () => {
  assert.deepEqual(colours.at("cividis", 0), [0x00, 0x22, 0x4e]);
  assert.deepEqual(colours.at("cividis", 1), [0xfe, 0xe8, 0x38]);
  assert.deepEqual(colours.at("cividis", 7), colours.at("cividis", 1));
  for (const map of ["cividis", "viridis"]) {
    const light = Array.from({ length: 256 }, (_, n) => colours.at(map, n / 255)).map(([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b);
    assert.ok(light.every((v, n) => n === 0 || v >= light[n - 1] - 0.6), map);
  }
  assert.equal(colours.inkOn([0, 34, 78]), "#fff");
  assert.equal(colours.inkOn([254, 232, 56]), "#000");
});

test("text for files is escaped", () => {
  assert.equal(escapeText(`</script><b a="x" c='y'>&`), "&lt;/script&gt;&lt;b a=&quot;x&quot; c=&#39;y&#39;&gt;&amp;");
});

test("numbers are written as people read them", () => {
  assert.deepEqual([0, 0.00001, 0.0004, 0.041, 0.4137, 1].map(percent), ["0 %", "<0.01 %", "0.04 %", "4.1 %", "41 %", "100 %"]);
  assert.deepEqual([0, -0.5, 1234.5, -Infinity, 3.14159].map((v) => readable(v)), ["0", "−0.500", "1235", "−∞", "3.14"]);
});

test("zooming keeps the cell under the pointer in place and ends at the edges", () => {
  const [first, count] = zoomed([0, 100], 100, 0.5, 0.25);
  assert.deepEqual([first, count], [12.5, 50]);
  assert.equal(first + 0.25 * count, 25);
  assert.deepEqual(zoomed([12.5, 50], 100, 10), [0, 100]);
  assert.deepEqual(zoomed([96, 4], 100, 0.5), [96, 4]);
  assert.deepEqual(zoomed([0, 2], 2, 0.5), [0, 2]);
});

test("labels keep clear of each other", () => {
  assert.equal(labelStep(20, 14), 1);
  assert.equal(labelStep(3.3, 14), 8);
  assert.ok(labelStep(3.3, 14) * 3.3 >= 14);
});

test("a square-root scale opens up small shares", () => {
  assert.equal(shareOf(0.04, { lo: 0, hi: 1, gamma: 0.5 }), 0.2);
  assert.equal(shareOf(2, { lo: 0, hi: 1 }), 1);
  assert.equal(shareOf(0, { lo: -2, hi: 2 }), 0.5);
});
