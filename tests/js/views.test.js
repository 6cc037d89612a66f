// What Experts and Attention compute before they draw.
import assert from "node:assert/strict";
import { test } from "node:test";
import { bandEdge, headGroups, mostLooked, sinkColumns } from "../../gptoss_lab/views/static/attention.js";
import { marginOf, routing } from "../../gptoss_lab/views/static/routing.js";

/** Two tokens, four experts, two kept. */
function toy(logits, choice, weight) {
  const points = { logits: [logits, [2, 4]], choice: [choice, [2, 2]], weight: [weight, [2, 2]] };
  return { get: (name) => { const [values, shape] = points[name.split(".").at(-1)]; return { shape, row: () => Float32Array.from(values) }; } };
}

test("load, margin and the expert that just missed", () => {
  const r = routing(toy([3, 1, 2, 0, 0, 5, 4.5, 4], [0, 2, 1, 2], [0.75, 0.25, 0.6, 0.4]), 0);
  assert.deepEqual([...r.load], [0.25, 0.25, 0.5, 0]);
  assert.deepEqual([...r.carried].map((v) => Math.round(1000 * v)), [375, 300, 325, 0]);
  assert.deepEqual([...r.missed], [1, 3]);
  assert.deepEqual([...r.margin], [1, 0.5]);
  assert.equal(r.weight(2, 0), 0.25);
  assert.ok(Number.isNaN(r.weight(1, 0)));
  assert.deepEqual(r.chosen(1).map(({ expert }) => expert), [1, 2]);
  const total = [0, 1, 2, 3].reduce((sum, e) => sum + r.share(e, 0), 0);
  assert.ok(Math.abs(total - 1) < 1e-6);
  assert.ok(Math.abs(r.share(0, 0) - Math.exp(3) / (Math.exp(3) + Math.exp(1) + Math.exp(2) + 1)) < 1e-6);
});

test("a choice that was forced against the logits has a margin below zero", () => {
  const r = routing(toy([3, 1, 2, 0, 0, 5, 4.5, 4], [3, 2, 1, 2], [0.5, 0.5, 0.6, 0.4]), 0);
  assert.equal(r.margin[0], -3);
  assert.equal(r.missed[0], 0);
});

test("six heads over two key/value heads are two groups of three neighbours", () => {
  assert.deepEqual(headGroups(6, 2), [[0, 1, 2], [3, 4, 5]]);
  assert.deepEqual(headGroups(3, 3), [[0], [1], [2]]);
});

test("the sink's columns come first, then a gap, then every key once", () => {
  const c = sinkColumns(66, true);
  const keys = Array.from({ length: c.total }, (_, n) => c.keyOf(n));
  assert.deepEqual(keys.filter((k) => k !== null && k >= 0), Array.from({ length: 66 }, (_, n) => n));
  assert.equal(keys.filter((k) => k === -1).length, 3);
  assert.equal(keys[c.columnOf(10)], 10);
  assert.deepEqual(sinkColumns(5, false).keyOf(0), 0);
  assert.deepEqual([0, 2, 3, 4].map(c.spanOf), [[0, 3], [0, 3], null, [4, 1]], "the sink is one stop, the gap none");
});

test("what is looked at most includes the sink, largest first", () => {
  const told = mostLooked([0.1, 0.004, 0.4], 0.3, 3);
  assert.deepEqual(told.map(({ key }) => key), [2, -1, 0]);
  assert.deepEqual(mostLooked([1], null).map(({ key }) => key), [0]);
});

test("a window of three begins two keys back, and its edge where it first hides a key", () => {
  assert.deepEqual(bandEdge(5, 3), [[1, 3], [1, 4], [2, 4], [2, 5]]);
  assert.deepEqual(bandEdge(3, 3), []);
});

test("a margin is said to two decimals, and a near tie as one", () => {
  assert.deepEqual([1.444, 0.0041, -3, -0.001].map(marginOf), ["1.44", "less than 0.01", "−3.00", "less than 0.01"]);
});
