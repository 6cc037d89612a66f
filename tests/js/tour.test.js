// The guided tour's arithmetic, and its five answers, on traces made by hand.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Data } from "../../gptoss_lab/views/static/core.js";
import {
  tourAsked, tourBack, tourBeyond, tourChance, tourChanges, tourChoices, tourDice, tourForbidden, tourGaps, tourLanguage,
  tourLanguages, tourLoad, tourMove, tourReach, tourRuns, tourSeen, tourShared, tourSinks,
} from "../../gptoss_lab/views/static/tour.js";
import { tourOnly, tourPlan, tourQuestions, tourSpanish, tourWhere } from "../../gptoss_lab/views/static/tour_questions.js";

const VIEWS = ["experts", "attention", "positions", "steps"];
const near = (a, b, within = 1e-6) => assert.ok(Math.abs(a - b) < within, `${a} is not ${b}`);

/** A Data over arrays written out: points {name: [axes, shape, numbers, window]}; with a window, numbers are the band's. */
function made(points, { text = [], config = {}, extra = {}, source = "by hand" } = {}) {
  const arrays = {};
  const all = [];
  for (const [name, [axes, shape, numbers, band]] of Object.entries(points)) {
    arrays[name] = { axes: axes.split(" "), shape, kind: "f32", offset: 4 * all.length, count: numbers.length, lo: 0, step: 1, hole: -9, ...(band ? { band, nothing: 0 } : {}) };
    all.push(...numbers);
  }
  const windows = config.windows ?? [null];
  const whole = { name: "toy", n_layers: windows.length, n_heads: 2, n_kv_heads: 1, n_experts: 4, context: 64, sinks: true, ...config, windows };
  return new Data({ config: whole, labels: text, text, source, arrays, extra, views: VIEWS }, Float32Array.from(all).buffer);
}

const letters = (many) => Array.from({ length: many }, (_, n) => String.fromCharCode(97 + n));

// --- the text --------------------------------------------------------------------------------------------------------------

test("a sentence's language is told by its little words and signs, or not at all", () => {
  assert.equal(tourLanguage("Y dijo el rey al pueblo."), "Spanish");
  assert.equal(tourLanguage("¿Cómo?"), "Spanish");
  assert.equal(tourLanguage("The king said to the people."), "English");
  assert.equal(tourLanguage("def king(n): return n + 1"), "Python");
  assert.equal(tourLanguage("    total += number"), "Python");
  assert.equal(tourLanguage("In a hole (it was a dark one) he sat = no code"), "Python", "an = between words is taken for code");
  assert.equal(tourLanguage("Anna, Otto."), null);
  assert.equal(tourLanguage("17 + 25"), null);
  assert.equal(tourLanguage(""), null);
});

test("every token has the language of the sentence that its first sign stands in", () => {
  const text = ["The", " king", " said", ".", " Y", " di", "jo", " el", " rey", ".\n", "def", " f", "():", "\n", "    ", "return", " 1"];
  const names = { E: "English", S: "Spanish", P: "Python" };
  assert.deepEqual(tourLanguages(text), [..."EEEESSSSSSPPPPPPP"].map((letter) => names[letter]));
  assert.deepEqual(tourLanguages([]), []);
  assert.deepEqual(tourLanguages([" "]), [null]);
});

test("runs of tokens are found and told with their text", () => {
  assert.deepEqual(tourRuns([false, true, true, false, true]), [[1, 2], [4, 4]]);
  const data = made({}, { text: ["The", " king", ".", " El", " rey", "."] });
  assert.deepEqual(tourSpanish(data), [false, false, false, true, true, true]);
  assert.equal(tourWhere(data, tourSpanish(data)), "3 to 5, “El rey.”");
});

// --- experts ---------------------------------------------------------------------------------------------------------------

/** Six tokens, two layers, four experts, two kept: in layer 1 expert 3 answers exactly tokens 3, 4 and 5. */
const picks = [[0, 1, 0, 1, 1, 0, 0, 1, 2, 1, 1, 0], [0, 1, 1, 2, 2, 0, 3, 1, 0, 3, 3, 2]];
const six = () => made({
  "blocks.0.experts.choice": ["T K", [6, 2], picks[0]],
  "blocks.1.experts.choice": ["T K", [6, 2], picks[1]],
}, { text: letters(6), config: { windows: [null, null] } });
const later = [false, false, false, true, true, true];

test("the gap is the share of tokens inside less that of those outside, largest first", () => {
  const gaps = tourGaps(tourChoices(six()), 4, later);
  assert.deepEqual(gaps[0], { layer: 1, expert: 3, inside: 1, outside: 0, gap: 1 });
  assert.equal(gaps.length, 8);
  near(gaps.find(({ layer, expert }) => layer === 1 && expert === 0).inside, 1 / 3);
  near(gaps.find(({ layer, expert }) => layer === 1 && expert === 0).outside, 2 / 3);
  for (const layer of [0, 1]) near(gaps.filter((one) => one.layer === layer).reduce((sum, { inside }) => sum + inside, 0), 2);
});

test("a layer that was not sent is passed over", () => {
  const data = made({ "blocks.1.experts.choice": ["T K", [6, 2], picks[1]] }, { text: letters(6), config: { windows: [null, null] } });
  assert.deepEqual(tourChoices(data).map(({ layer }) => layer), [1]);
});

test("chance deals the label over words, the same in every run, and is at most 1", () => {
  const choices = tourChoices(six());
  const chance = tourChance(choices, 4, later, letters(6), 60, 3);
  assert.deepEqual(chance, tourChance(choices, 4, later, letters(6), 60, 3));
  assert.ok(chance.typical > 0.4 && chance.typical < chance.high && chance.high <= 1, JSON.stringify(chance));
});

test("chance keeps a word's tokens together: where one word is one side, every deal finds the same gap", () => {
  const choice = { layer: 0, kept: 1, picks: Float32Array.of(0, 1, 0, 1, 0, 1) };
  const chance = tourChance([choice], 2, [true, false, true, false, true, false], ["x", "y", "x", "y", "x", "y"], 40);
  assert.deepEqual(chance, { typical: 1, high: 1 });
});

test("dice are even and repeat", () => {
  const dice = tourDice(7);
  const thrown = Array.from({ length: 4000 }, dice);
  near(thrown.reduce((a, b) => a + b, 0) / 4000, 0.5, 0.02);
  assert.ok(thrown.every((v) => v >= 0 && v < 1) && new Set(thrown).size > 3990);
  assert.equal(tourDice(7)(), thrown[0]);
});

test("words that stand on both sides are counted on each", () => {
  const words = [",", "a", ",", ",", "b", "a"];
  assert.deepEqual(tourShared(tourChoices(six()), later, words, 1, 3), { words: [",", "a"], inside: [2, 2], outside: [0, 3] });
});

test("load and who asked", () => {
  const choices = tourChoices(six());
  near(tourLoad(choices, 4).reduce((a, b) => a + b, 0), 1);
  near(tourLoad(choices, 4)[3], 3 / 24);
  assert.deepEqual(tourAsked(choices, 6, 3), [0, 0, 0, 1, 1, 1]);
  assert.deepEqual(tourAsked(choices, 6, 1), [2, 2, 1, 2, 1, 1]);
});

// --- attention -------------------------------------------------------------------------------------------------------------

/** Four tokens; layer 0 has a window of 2, layer 1 none. Rows of layer 0 sum to 1 less the sink. */
const banded = [[1, 0.9, 0.1, 0.8, 0.1, 0.7, 0.2], [0.5, 0.1, 0.3, 0.1, 0.4, 0.1, 0.5]];
const dense = [[1, 0.5, 0.5, 0.2, 0.2, 0.6, 0.1, 0.2, 0.3, 0.4], [1, 0, 1, 0, 0, 1, 0.5, 0.5, 0, 0]];
const sinks = [[0, 0, 0.1, 0.1], [0.5, 0.6, 0.5, 0.4]];
const looking = (more = {}) => made({
  "blocks.0.attention.pattern": ["H T S", [2, 4, 4], banded.flat(), 2],
  "blocks.0.attention.sink": ["H T", [2, 4], sinks.flat()],
  "blocks.1.attention.pattern": ["H T S", [2, 4, 4], dense.flat(), 4],
  "blocks.1.attention.sink": ["H T", [2, 4], [0, 0, 0, 0, 0, 0, 0, 0]],
}, { text: letters(4), config: { windows: [2, null], ...more } });

test("the head that looks at the previous token is found, with the even look and the middling query", () => {
  const heads = tourBack(looking());
  const [best] = heads;
  assert.deepEqual([best.layer, best.head, best.queries, best.strongest, best.middle], [0, 0, 3, 3, 2]);
  near(best.share, 0.8);
  near(best.even, 0.5);
  const other = heads.find(({ layer, head }) => layer === 1 && head === 0);
  near(other.share, (0.5 + 0.2 + 0.3) / 3);
  near(other.even, (1 / 2 + 1 / 3 + 1 / 4) / 3);
  assert.equal(other.strongest, 1, "a tie counts as strongest");
  near(tourBack(looking(), 0).find(({ layer, head }) => layer === 0 && head === 0).share, (1 + 0.1 + 0.1 + 0.2) / 4);
});

test("a window of two sees one key before the query, a dense layer all", () => {
  const data = looking();
  const [window, all] = [0, 1].map((n) => data.get(`blocks.${n}.attention.pattern`));
  assert.deepEqual(tourSeen(window), [1, 2, 2, 2]);
  assert.deepEqual(tourSeen(all), [1, 2, 3, 4]);
  assert.deepEqual(tourReach(window), { back: 1, query: 3, key: 2 });
  assert.deepEqual(tourReach(all), { back: 3, query: 3, key: 0 });
});

test("what goes farther back than the window is counted over queries that have it", () => {
  const all = looking().get("blocks.1.attention.pattern");
  near(tourBeyond(all, 1), (0.2 + 0.1 + 0.2 + 0 + 0.5 + 0.5) / 4);
  near(tourBeyond(looking().get("blocks.0.attention.pattern"), 1), 0);
  assert.equal(tourBeyond(all, 3), null);
});

test("sinks are averaged as the view does, with the even share and the token nearest to the mean", () => {
  const [best, second] = tourSinks(looking());
  assert.deepEqual([best.layer, best.head, best.window], [0, 1, 2]);
  near(best.share, 0.5);
  near(best.even, (1 / 2 + 3 * (1 / 3)) / 4);
  assert.deepEqual([best.most.token, best.least.token, best.near.token], [1, 3, 0]);
  near(second.share, 0.05);
  const row = looking().get("blocks.0.attention.pattern").row(1, 1);
  near(row.reduce((a, b) => a + b, 0) + best.most.share, 1);
});

// --- before and after ------------------------------------------------------------------------------------------------------

/** Two steps, three tokens, two likeliest; what counts is the last step. */
const said = (ids, probability, more = {}, text = letters(3)) => made({
  "steps.ids": ["N T K", [2, 3, 2], [0, 0, 0, 0, 0, 0, ...ids]],
  "steps.probability": ["N T K", [2, 3, 2], [0, 0, 0, 0, 0, 0, ...probability]],
  "steps.own": ["N T", [2, 3], [0, 0, 0, ...(more.own ?? [0.5, 0.25, -9])]],
  "blocks.0.experts.choice": ["T K", [3, 2], more.choice ?? [0, 1, 2, 1, 3, 2]],
}, { text, extra: more.extra, ...more });

test("a move is the largest change that the two lists prove", () => {
  near(tourMove([5, 6], [0.6, 0.2], [6, 5], [0.5, 0.3]), 0.3);
  near(tourMove([5, 6], [0.6, 0.2], [7, 6], [0.4, 0.1]), 0.5);
  near(tourMove([5, 6], [0.6, 0.2], [7, 6], [0.9, 0.05]), 0.7);
  assert.equal(tourMove([5, 6], [0.6, 0.2], [5, 6], [0.6, 0.2]), 0);
});

test("what changed is counted at the last step, where it moved most, and what follows", () => {
  const before = said([1, 2, 3, 4, 5, 6], [0.5, 0.3, 0.6, 0.1, 0.9, 0.05]);
  const after = said([1, 2, 4, 3, 5, 6], [0.4, 0.3, 0.5, 0.2, 0.9, 0.05], { own: [0.3, 0.15, -9] });
  const c = tourChanges(before, after);
  assert.deepEqual([c.tokens, c.changed, c.most], [3, [1], 1]);
  near(c.move, (0.1 + 0.4 + 0) / 3);
  near(c.follows.before, 0.375);
  near(c.follows.after, 0.225);
});

test("only the tokens that both texts begin with are compared", () => {
  const before = said([1, 2, 3, 4, 5, 6], [0.5, 0.3, 0.6, 0.1, 0.9, 0.05]);
  const after = said([1, 2, 4, 3, 9, 8], [0.5, 0.3, 0.6, 0.1, 0.9, 0.05], {}, ["a", "b", "x"]);
  assert.deepEqual(tourChanges(before, after).changed, [1]);
  assert.equal(tourChanges(before, said([1, 2, 4, 3, 9, 8], [1, 0, 1, 0, 1, 0], {}, ["x", "b", "c"])).tokens, 0);
});

test("a forbidden expert is one that answered before and nowhere after; a recorded change is read exactly", () => {
  const before = said([1, 2, 3, 4, 5, 6], [0.5, 0.3, 0.6, 0.1, 0.9, 0.05]);
  const after = said([1, 2, 3, 4, 5, 6], [0.5, 0.3, 0.6, 0.1, 0.9, 0.05], { choice: [0, 1, 0, 1, 3, 0] });
  assert.deepEqual(tourForbidden(before, after), [2]);
  assert.deepEqual(tourForbidden(before, before), []);
  assert.ok(tourOnly(before, after, 2) && !tourOnly(before, after, 1));
  const change = { forbid: [[null, 2]], force: [], heads_off: [], sinks_off: [], window: "same", experts_per_token: null };
  const told = (more, other = "") => said([1, 2, 3, 4, 5, 6], [0.5, 0.3, 0.6, 0.1, 0.9, 0.05], { extra: { "compare.change": { ...change, ...more }, "compare.other": other } });
  assert.ok(tourOnly(before, told({}), 2));
  for (const more of [{ forbid: [[0, 2]] }, { forbid: [[null, 2], [null, 1]] }, { heads_off: [[0, 1]] }, { sinks_off: true }, { window: null }, { experts_per_token: 3 }]) {
    assert.ok(!tourOnly(before, told(more), 2), JSON.stringify(more));
  }
  assert.ok(!tourOnly(before, told({}, "mini-gpt2"), 2));
});

// --- the questions ---------------------------------------------------------------------------------------------------------

const question = (id) => tourQuestions.find((one) => one.id === id);
const whole = (given) => `${given.verdict} ${given.lines.map(([, text]) => text).join(" ")}`;

test("a model without experts, windows or sinks is asked what it can be asked, and told why not the rest", () => {
  const gpt2 = made({}, { text: letters(4), config: { name: "mini-gpt2", n_experts: null, sinks: false, windows: [null] } });
  const { asked, left } = tourPlan(gpt2, VIEWS);
  assert.deepEqual(asked.map(({ id }) => id), ["previous"]);
  assert.deepEqual(left.map(([, why]) => why.replace(/^.*mini-gpt2 /, "")), ["has no experts: one MLP answers for every token",
    "is dense: none has a window", "has no sinks: all of a head's attention goes to tokens", "has no experts: one MLP answers for every token"]);
  assert.deepEqual(tourPlan(looking(), VIEWS).asked.map(({ id }) => id), ["spanish", "previous", "window", "sink", "forbid"]);
  assert.deepEqual(tourPlan(looking(), ["attention"]).asked.map(({ id }) => id), ["previous", "window", "sink"]);
  assert.deepEqual(tourPlan(looking(), ["positions"]).asked, []);
});

/** Sixteen words of English and sixteen of Spanish, routed by language in layer 1 and evenly in layer 0. */
function bilingual(byLanguage = true) {
  const dice = tourDice(5);
  const text = ["the", " king", " was", " in", " that", " house", " with", " Ana", ",", " and", " they", " had", " not", " the", " end", ".",
    " el", " rey", " que", " era", " una", " casa", " con", " Ana", ",", " y", " los", " otros", " muy", " del", " fin", "."];
  const choice = (spanish, t) => (byLanguage ? (spanish ? [3, t % 3] : [t % 3, (t + 1) % 3]) : [[0, 1], [1, 2], [2, 3], [3, 0]][Math.floor(4 * dice())]);
  const choices = text.flatMap((_, t) => choice(t >= 16, t));
  const weight = text.flatMap((_, t) => (t === 20 ? [0.9, 0.1] : [0.6, 0.4]));
  const even = text.flatMap((_, t) => [t % 4, (t + 2) % 4]);
  return made({
    "blocks.0.experts.choice": ["T K", [32, 2], even], "blocks.0.experts.weight": ["T K", [32, 2], weight],
    "blocks.1.experts.choice": ["T K", [32, 2], choices], "blocks.1.experts.weight": ["T K", [32, 2], weight],
  }, { text, config: { windows: [null, null] } });
}

test("Spanish: the expert, its shares, chance, and the words that both sides have", () => {
  const data = bilingual();
  assert.equal(question("spanish").poor(data), null);
  assert.match(question("spanish").ask(data), /tokens 16 to 31, “el rey que era u … s muy del fin\.”/);
  const right = question("spanish").answer(data, { layer: 1, expert: 3 });
  assert.equal(right.verdict, "Right: layer 1, expert 3, more than any other.");
  assert.match(right.lines[0][1], /answers 100 % of the Spanish tokens, 0 % of the others \(16 and 16 tokens; even: 50 %\)/);
  assert.match(right.lines[1][1], /largest gap of any expert is \d+ points on average, at most \d+ points in 19 of 20\. Here it is 100 points/);
  assert.match(right.lines[2][1], /Too few words/);
  assert.deepEqual(right.select, { layer: 1, expert: 3, token: 20 });
  assert.match(question("spanish").answer(data, { layer: 0, expert: 0 }).verdict, /Most of all layer 1, expert 3/);
});

test("Spanish: where routing does not follow the language, or there is none, the tour says so", () => {
  const [best] = tourGaps(tourChoices(bilingual(false)), 4, tourSpanish(bilingual(false)));
  assert.ok(best.gap > 0.1, "one expert answers more often in Spanish, by chance");
  assert.match(question("spanish").answer(bilingual(false), { layer: 1, expert: 3 }).verdict, /No expert stands out from chance/);
  assert.match(question("spanish").poor(six()), /lack blocks\.N\.experts\.choice/);
  const english = made({ "blocks.0.experts.weight": ["T K", [4, 2], Array(8).fill(0.5)] }, { text: ["the", " king", " was", " it"] });
  assert.match(question("spanish").poor(english), /0 of this text's 4 tokens are plainly Spanish/);
});

test("previous, window and sink: right and wrong predictions are told apart, and the selection moves", () => {
  const data = looking();
  assert.match(question("previous").poor(data), /4 tokens; 8 are the least/);
  const previous = question("previous").answer(data, { layer: 0, head: 0 });
  assert.match(whole(previous), /^Right: Layer 0, head 0\. it gives the previous token 80 % .* at 3 of 3 queries; .* would give it 50 %/);
  assert.deepEqual(previous.select, { layer: 0, head: 0, token: 2 });
  assert.match(whole(question("previous").answer(data, { layer: 0, head: 1 })), /^Layer 0, head 0\..*Yours: 10 %, place 3 of 4/);
  const window = (back) => question("window").answer(data, { back });
  assert.match(window(1).verdict, /^Right: 1 token before itself/);
  assert.match(window(2).verdict, /^One less, 1: the window of 2 counts the token itself/);
  assert.match(whole(window(9)), /token 3 “d” sees back to token 2 “c”, 1 before it, and not to token 1 “b”.* send 38 % of their attention farther back than 1/);
  assert.deepEqual(window(1).select, { layer: 0, token: 3, key: 2 });
  const sink = question("sink").answer(data, { layer: 0, head: 1, share: 45 });
  assert.match(whole(sink), /^Right: Layer 0, head 1, 50 %\. You said 45 %\..*most at token 1 “b”, 60 %; least at token 3 “d”, 40 %.*would take 3[78] %.*All 4 heads: 14 % \(window layers 28 %, dense layers 0 %\).*token 0 “a” the keys get 50 % and the sink 50 %/);
  assert.match(question("sink").answer(data, { layer: 0, head: 1, share: 5 }).verdict, /^The right head; its sink takes 50 %\. You said 5 %\./);
  assert.match(whole(question("sink").answer(data, { layer: 0, head: 0, share: 5 })), /^Layer 0, head 1: 50 %\. Your head's sink takes 5\.0 %\. You said 5 %\./);
});

test("sinks are counted from the sinks alone, and the answers say which layers were left out", () => {
  const tall = (more) => made({
    "blocks.0.attention.pattern": ["H T S", [2, 4, 4], banded.flat(), 2],
    "blocks.0.attention.sink": ["H T", [2, 4], sinks.flat()],
    "blocks.1.attention.sink": ["H T", [2, 4], [0.9, 0.9, 0.9, 0.9, 0, 0, 0, 0]], ...more,
  }, { text: letters(4), config: { windows: [2, null] } });
  const [best, ...others] = tourSinks(tall());
  assert.deepEqual([best.layer, best.head, others.length], [1, 0, 3]);
  near(best.even, (1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 4);
  const sink = whole(question("sink").answer(tall(), { layer: 1, head: 0, share: 88 }));
  assert.match(sink, /^Right: Layer 1, head 0, 90 %\. You said 88 %\..*All 4 heads: 36 %.*the keys get 10 % and the sink 90 %/);
  assert.ok(!/left out/.test(sink), "no sink was");
  assert.match(whole(question("previous").answer(tall(), { layer: 0, head: 0 })), /layer 1 was left out of what was sent \(attention\.pattern\), and so not counted/);
  assert.ok(!/left out/.test(whole(question("previous").answer(looking(), { layer: 0, head: 0 }))));
});

test("window: a text too short to show the edge is said to be so", () => {
  const data = made({ "blocks.0.attention.pattern": ["H T S", [1, 2, 2], [1, 0.5, 0.5], 2] }, { text: ["a", "b"], config: { windows: [32], n_heads: 1 } });
  const given = question("window").answer(data, { back: 31 });
  assert.match(whole(given), /^Right: 31 .*too short to show it: the farthest pair is 1 apart.*no dense layer/);
  assert.equal("key" in given.select, false);
});

test("forbid: the run is asked of the kernel where there is one, read where it was recorded, else said how to record it", async () => {
  const before = said([1, 2, 3, 4, 5, 6], [0.5, 0.3, 0.6, 0.1, 0.9, 0.05]);
  const after = said([1, 2, 4, 3, 5, 6], [0.4, 0.3, 0.5, 0.2, 0.9, 0.05], { choice: [0, 1, 0, 1, 3, 0] });
  const forbid = question("forbid");
  assert.match(forbid.poor(before, {}), /cannot run the model.*--forbid-expert 5/);
  const asked = [];
  const env = { beside: null, async compare(change) { asked.push(change); env.beside = after; } };
  assert.equal(forbid.poor(before, env), null);
  assert.equal(forbid.fields(before, env)[0].first, 1, "the busiest, the first of equals");
  const live = await forbid.answer(before, { expert: 2, changed: 1, move: 10 }, env);
  assert.deepEqual(asked, [{ forbid: [2] }]);
  assert.match(whole(live), /^Close: 1 of 3 tokens get another likeliest next token\. You said 1\. Probabilities move by 17 points on average\. You said 10\..*most at token 1 “b”: a probability moves by 40 points.*1 of the 2 tokens that asked expert 2 .* change, 0 of the 1 that did not.*first to ask it is token 1 “b”/);
  assert.ok(!/second run does not forbid/.test(whole(live)));
  assert.deepEqual(live.select, { expert: 2, token: 1 });
  assert.match((await forbid.answer(before, { expert: 2, changed: 1, move: 16 }, env)).verdict, /Close: probabilities move by 17 points on average\. You said 16\.$/);
  const bits = said([1, 2, 4, 3, 5, 6], [0.4, 0.3, 0.5, 0.2, 0.9, 0.05], { choice: [0, 1, 0, 1, 3, 0] });
  Object.assign(bits, { has: (name) => name === "compare.divergence" || after.has(name), get: (name) => (name === "compare.divergence" ? { row: () => [0.1, 0.2, 0.9] } : after.get(name)) });
  assert.match(whole(await forbid.answer(before, { expert: 2, changed: 1, move: 1 }, { beside: bits })), /most at token 1 “b”: a probability moves by 40 points \(by the whole distribution, in bits as below, most at token 2 “c”\)/);
  const recorded = { beside: after };
  assert.deepEqual(forbid.fields(before, recorded)[0].options, [[2, "2"]]);
  assert.equal((await forbid.answer(before, { expert: 2, changed: 90, move: 1 }, recorded)).verdict.startsWith("Close"), false);
  assert.match(whole(await forbid.answer(before, { expert: 1, changed: 0, move: 1 }, recorded)), /second run does not forbid expert 1 alone \(by hand\)/);
  await assert.rejects(forbid.answer(before, { expert: 2, changed: 0, move: 0 }, { beside: made({}, { text: letters(3) }) }), /no likeliest next tokens/);
});
