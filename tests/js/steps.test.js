// The Steps view's mathematics: the walk through the blocks, and what it says about each step.
import assert from "node:assert/strict";
import test from "node:test";
import {
  stepsAtLayer, stepsChange, stepsMargin, stepsOf, stepsReach, stepsTop,
} from "../../gptoss_lab/views/static/walk.js";

test("every block is two steps, and each takes the residual from where the last one left it", () => {
  const steps = stepsOf(3, true);
  assert.deepEqual(steps.map((s) => s.kind), ["embedding", "attention", "experts", "attention", "experts", "attention",
    "experts", "readout"]);
  assert.deepEqual(steps[1], { kind: "attention", layer: 0, before: "embedding", after: "blocks.0.residual_mid" });
  assert.deepEqual(steps[4], { kind: "experts", layer: 1, before: "blocks.1.residual_mid", after: "blocks.1.residual" });
  for (let i = 1; i < steps.length; i++) assert.equal(steps[i].before, steps[i - 1].after);
  assert.equal(steps.at(-1).before, "blocks.2.residual");
  assert.equal(stepsOf(2, false)[2].kind, "mlp");
});

test("choosing another layer elsewhere keeps the half that one was looking at", () => {
  const steps = stepsOf(4, true);
  for (const [from, to] of [[0, 5], [1, 5], [2, 6], [7, 5], [8, 6], [9, 5]]) {
    assert.equal(stepsAtLayer(from, 2), to);
    assert.equal(steps[to].layer, 2);
  }
});

test("a residual's change is told by lengths and a cosine", () => {
  const change = stepsChange([3, 4, 0], [3, 4, 12]);
  assert.deepEqual(change, { before: 5, after: 13, added: 12, cosine: 5 / 13 });
  assert.equal(stepsChange([1, 2], [2, 4]).cosine, 1);
  assert.equal(stepsChange([1, 0], [-2, 0]).cosine, -1);
  assert.ok(Number.isNaN(stepsChange([0, 0], [1, 0]).cosine));
});

test("the top places leave out what is masked, and ties keep their order", () => {
  assert.deepEqual(stepsTop([0.1, 0.5, 0.5, -Infinity, NaN, 0.2], 3), [1, 2, 5]);
  assert.deepEqual(stepsTop(Float32Array.of(-3, -1), 5), [1, 0]);
});

test("the margin is between the last expert chosen and the first one missed", () => {
  assert.deepEqual(stepsMargin([1, 4, 2.5, 3], [1, 3]), { last: 3, missed: 2, margin: 0.5 });
  assert.deepEqual(stepsMargin([-Infinity, 4, 2.5, 3], [3, 2]), { last: 2, missed: 1, margin: -1.5 }, "forced");
  assert.deepEqual(stepsMargin([-Infinity, 4, 2.5, 3], [1, 3]), { last: 3, missed: 2, margin: 0.5 }, "one forbidden");
  assert.equal(stepsMargin([1, 2], [1, 0]), null);
  assert.equal(stepsMargin([-Infinity, 2, 1], [1, 2]), null);
});

test("colours end where all but the most extreme channels end", () => {
  const channels = Array.from({ length: 200 }, (_, i) => (i % 2 ? 1 : -1) * (i + 1) / 100);
  channels[7] = -50; // one of gpt-oss's outlier channels
  assert.ok(Math.abs(stepsReach(channels) - 1.99) < 1e-6);
  assert.equal(stepsReach([-3, 1], 0), 3);
  assert.equal(stepsReach([0, 0]), 1);
});
