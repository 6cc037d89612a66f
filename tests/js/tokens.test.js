// Tokens in words, keys and addresses, and the picture of a heat map.
import assert from "node:assert/strict";
import { test } from "node:test";
import { heatLevels, heatPooled } from "../../gptoss_lab/views/static/heat_picture.js";
import { keysMove, placeRead, placeWritten } from "../../gptoss_lab/views/static/keys.js";
import { charactersOf, quoted, readText, textTail } from "../../gptoss_lab/views/static/tokens.js";

test("what runs from right to left is isolated in its quotation marks, other words stand as they are", () => {
  assert.equal(quoted("·king"), "“·king”");
  assert.equal(quoted("على"), "“\u2068على\u2069”");
  assert.equal(quoted("שלום"), "“\u2068שלום\u2069”");
});

test("bytes are told the character that they belong to, across tokens and within one", () => {
  assert.deepEqual(charactersOf(["The", "⟨D9⟩", "⟨85⟩", "·⟨F0⟩⟨9F⟩", "⟨91⟩", "⟨8B⟩"]), ["", "م", "م", "👋", "👋", "👋"]);
  assert.deepEqual(charactersOf(["⟨D9⟩", "x", "⟨85⟩"]), ["", "", ""], "a sign stands between");
  assert.deepEqual(charactersOf(["⟨D9⟩⟨85⟩⟨D8⟩", "⟨B1⟩"]), ["مر", "ر"]);
  assert.deepEqual(charactersOf(["⟨FF⟩", "⟨D9⟩", "⟨85⟩"]), ["", "م", "م"], "a byte that begins nothing is passed over");
});

test("a text of bytes is read again, as far as they make characters", () => {
  assert.equal(readText("The ⟨D9⟩⟨85⟩⟨D8⟩⟨B1⟩!"), "The مر!");
  assert.equal(readText("half ⟨D9⟩"), "half ⟨D9⟩");
  assert.equal(readText("⟨41⟩"), "⟨41⟩", "an ASCII byte never stands so");
  assert.equal(textTail(["a", "b", "⟨F0⟩", "⟨9F⟩", "⟨91⟩", "⟨8B⟩", "c"], 3), "👋c", "the end does not begin inside a character");
  assert.equal(textTail(["13", "14"], 6, " "), "13 14 ");
});

test("keys select; Alt may be held for brackets alone", () => {
  const key = (name, more = {}) => keysMove({ key: name, ctrlKey: false, metaKey: false, altKey: false, ...more });
  assert.deepEqual([key("]"), key("l"), key("{"), key("H"), key("."), key("e")],
    [["layer", 1], ["layer", 1], ["head", -1], ["head", -1], ["token", 1], ["expert", 1]]);
  assert.deepEqual(key("[", { altKey: true }), ["layer", -1]);
  assert.deepEqual(key("}", { altKey: true, ctrlKey: true }), ["head", 1], "AltGr");
  assert.deepEqual([key("l", { altKey: true }), key("]", { ctrlKey: true }), key("[", { metaKey: true }), key("x")], [null, null, null, null]);
});

test("a place is written into the address and read back, and nothing else is", () => {
  const hash = placeWritten("steps", { token: 4, layer: 1, head: 0, expert: 2, key: undefined, step: 3 });
  assert.equal(hash, "#view=steps&layer=1&head=0&token=4&expert=2&step=3");
  assert.deepEqual(placeRead(hash), { view: "steps", selection: { layer: 1, head: 0, token: 4, expert: 2, step: 3 } });
  assert.deepEqual(placeRead("#token=-1&layer=x&head=1.5&other=7"), { view: undefined, selection: {} });
  assert.deepEqual(placeRead(""), { view: undefined, selection: {} });
});

test("where a pixel holds many cells the strongest shows, and none is lost", () => {
  const values = Array.from({ length: 100 }, (_, n) => (n === 37 ? 1 : 0.1));
  const levels = heatLevels({ rows: 10, cols: 10, value: (r, c) => values[10 * r + c], masked: (r, c) => c > r, scale: { lo: 0, hi: 1 } });
  assert.equal(levels[1], -1);
  const seen = heatLevels({ rows: 10, cols: 10, value: (r, c) => values[10 * r + c], scale: { lo: 0, hi: 1 } });
  const small = heatPooled(seen, [10, 10], [0, 10], [0, 10], [3, 4]);
  assert.deepEqual([small.high, small.wide, small.levels.length], [3, 4, 12]);
  assert.deepEqual([...small.levels].map((v, n) => [v, n]).filter(([v]) => v === 255), [[255, 7]], "row 3 of 10 is in the second of 3, column 7 in the fourth of 4");
  assert.deepEqual([...heatPooled(seen, [10, 10], [3, 2], [6, 2], [9, 9]).levels], [26, 255, 26, 26], "zoomed in: a point a cell");
  const both = heatPooled(Int16Array.of(120, 10, 200, 130), [1, 4], [0, 1], [0, 4], [1, 2], true);
  assert.deepEqual([...both.levels], [10, 200], "two ways: the farthest from the middle");
});
