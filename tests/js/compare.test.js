// What Edit and compare computes before it draws.
import assert from "node:assert/strict";
import { test } from "node:test";
import { changePieces, changeToggled, commonStart, compareFound } from "../../gptoss_lab/views/static/compare.js";

test("a place is put in and taken out again, and nothing else changes", () => {
  const once = changeToggled({ window: null }, "heads_off", 3, 2);
  assert.deepEqual(once, { window: null, heads_off: [[3, 2]] });
  assert.deepEqual(changeToggled(once, "heads_off", 3, 2).heads_off, []);
  assert.deepEqual(changeToggled(once, "heads_off", 2, 3).heads_off, [[3, 2], [2, 3]]);
});

test("an expert that is forbidden is no longer forced where the two would meet", () => {
  const forced = { force: [[null, 5], [1, 4], [2, 5]] };
  assert.deepEqual(changeToggled(forced, "forbid", 2, 5).force, [[1, 4]]);
  assert.deepEqual(changeToggled(forced, "forbid", 0, 5).force, [[1, 4], [2, 5]]);
  assert.deepEqual(changeToggled(forced, "forbid", null, 4).force, [[null, 5], [2, 5]]);
});

test("a change is told piece by piece, each with the way back", () => {
  const change = { forbid: [[null, 5]], force: [[2, 1]], heads_off: [[0, 3]], sinks_off: [1, 4], window: null, experts_per_token: 1 };
  const pieces = changePieces(change);
  assert.deepEqual(pieces.map(({ words }) => words), ["expert 5 forbidden", "expert 1 of layer 2 forced", "head 3 of layer 0 off",
    "sinks of layer 1 off", "sinks of layer 4 off", "no windows", "1 expert a token"]);
  assert.deepEqual(pieces[0].without, { ...change, forbid: [] });
  assert.deepEqual(pieces[3].without.sinks_off, [4]);
  assert.equal(pieces[5].without.window, "same");
  assert.equal(pieces[6].without.experts_per_token, null);
  assert.deepEqual(changePieces({ sinks_off: true, window: 4 }).map(({ words }) => words), ["sinks off", "window of 4"]);
  assert.deepEqual(changePieces({}), []);
});

test("texts are compared by whole characters", () => {
  assert.equal(commonStart("un rey", "un rato"), 4);
  assert.equal(commonStart("a\u{1f600}", "a\u{1f601}"), 1); // both begin with the same surrogate
  assert.equal(commonStart("", "x"), 0);
  assert.equal(commonStart("same", "same"), 4);
});

/** Two tokens, three next tokens each. */
function beside() {
  const points = {
    ids: [[7, 8, 9, 7, 8, 9], [2, 3]], before: [[0.6, 0.3, 0.1, 0.2, 0.5, 0.1], [2, 3]],
    after: [[0.2, 0.7, 0.1, 0.1, 0.6, 0.1], [2, 3]], divergence: [[0.9, 0.05], [2]],
  };
  return { get(name) {
    const [values, shape] = points[name.split(".").at(-1)];
    return {
      shape, at: (t, n) => values[t * shape[1] + n],
      row: (...t) => Float32Array.from(t.length ? values.slice(t[0] * shape[1], (t[0] + 1) * shape[1]) : values),
    };
  } };
}

test("a comparison says where the likeliest next token turned, and where predictions moved most", () => {
  const found = compareFound(beside());
  assert.deepEqual(found.likeliest, [[7, 8], [8, 8]]);
  assert.deepEqual(found.turned, [0]);
  assert.equal(found.most, 0);
  assert.ok(Math.abs(found.divergence[0] - 0.9) < 1e-6);
});
