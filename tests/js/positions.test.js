// The Positions view's mathematics against gptoss_lab.model.rope.
//
// The goldens are what Python gives; made with torch in float32 (hence the tolerances), as in
//   from gptoss_lab.model.rope import frequencies, rotate, ramp_ends, concentration; from gptoss_lab.config import Yarn
//   frequencies(64, 150000.0, Yarn()); frequencies(32, 10000.0, Yarn(factor=4.0, original_context=256))
//   f = frequencies(8, 100.0, Yarn(4.0, 64, 8.0, 1.0)); c = concentration(Yarn(4.0))
//   turned = lambda x, p: rotate(x.view(1, 1, 1, 8), torch.tensor([[p]]), f, c)
//   score = (turned(q, m) * turned(k, n)).sum() / 8 ** 0.5
import assert from "node:assert/strict";
import test from "node:test";
import {
  positionsConcentration, positionsCurve, positionsFrequencies, positionsHands, positionsRampEnds,
  positionsScoreParts, positionsSpread, positionsStretched, positionsTicks, positionsTurn, positionsWavelengths,
} from "../../gptoss_lab/views/static/rotation.js";
import { positionsCount } from "../../gptoss_lab/views/static/dials.js";

const GPT_OSS = { factor: 32, original_context: 4096, beta_fast: 32, beta_slow: 1, rounded: false };
const MINI = { factor: 4, original_context: 256, beta_fast: 32, beta_slow: 1, rounded: false };
const TOY = { factor: 4, original_context: 64, beta_fast: 8, beta_slow: 1, rounded: false };
const Q = [1, -2, 0.5, 3, -1, 0.25, 2, 0.75];
const K = [-0.5, 1, 2, -1.5, 0.75, -3, 1, 0.5];

const close = (got, want, relative = 2e-6) =>
  assert.ok(Math.abs(got - want) <= relative * Math.max(Math.abs(want), 1e-12), `${got} is not ${want}`);
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

test("gpt-oss-20b's frequencies are those of the model", () => {
  const f = positionsFrequencies(64, 150000, GPT_OSS);
  assert.equal(f.length, 32);
  const golden = { 0: 1, 8: 0.0508132726, 9: 0.0317056961, 12: 0.00679495931, 17: 1.29318694e-4, 18: 3.83088118e-5,
    31: 3.0235114e-7 };
  for (const [i, want] of Object.entries(golden)) close(f[i], want);
  const [low, high] = positionsRampEnds(64, 150000, GPT_OSS);
  close(low, 8.092779115512402, 1e-14);
  close(high, 17.39802450158856, 1e-14);
  close(positionsConcentration(GPT_OSS), 1.3465735902799727, 1e-15);
});

test("the miniature's frequencies are those of the model", () => {
  const golden = [1, 0.5216859, 0.25397229, 0.1206667, 0.055398636, 0.024147727, 0.009639943, 0.0044456986, 0.0024999999,
    0.0014058533, 7.9056947e-4, 4.4456985e-4, 2.5e-4, 1.4058533e-4, 7.9056947e-5, 4.4456985e-5];
  positionsFrequencies(32, 10000, MINI).forEach((f, i) => close(f, golden[i]));
  close(positionsConcentration(MINI), 1.138629436111989, 1e-15);
});

test("without YaRN nothing is stretched", () => {
  positionsFrequencies(8, 10000).forEach((f, i) => close(f, 10 ** -i));
  assert.equal(positionsConcentration(null), 1);
});

test("rounded ramp ends give other frequencies", () => {
  const rounded = { ...TOY, rounded: true };
  assert.deepEqual(positionsRampEnds(8, 100, rounded), [0, 3]);
  const golden = [1, 0.23717081546783447, 0.04999999701976776, 0.007905694656074047];
  positionsFrequencies(8, 100, rounded).forEach((f, i) => close(f, golden[i]));
});

test("a vector turns as the model turns it", () => {
  const f = positionsFrequencies(8, 100, TOY);
  const turned = positionsTurn(positionsHands(Q), 7, f, positionsConcentration(TOY));
  const golden = [1.6064796447753906, -0.47363054752349854, 0.1532379686832428, 3.36342453956604, -0.11035102605819702,
    -2.2455759048461914, 2.3423376083374023, 1.0416030883789062];
  turned.forEach(([x, y], i) => { close(x, golden[i], 1e-5); close(y, golden[i + 4], 1e-5); });
});

test("the score depends on the distance alone and is the model's", () => {
  const f = positionsFrequencies(8, 100, TOY);
  const c = positionsConcentration(TOY);
  const golden = [[7, 7, -2.34916615486145], [7, 4, 0.5248231291770935], [40, 3, 0.16480764746665955],
    [300, 45, 2.313722610473633]];
  for (const [m, n, want] of golden) {
    close(sum(positionsScoreParts(positionsHands(Q), positionsHands(K), f, c, m - n)), want, 1e-4);
    const q = positionsTurn(positionsHands(Q), m, f, c).flat();
    const k = positionsTurn(positionsHands(K), n, f, c).flat();
    close(sum(q.map((v, i) => v * k[i])) / Math.sqrt(8), want, 1e-4);
  }
});

test("the curve is the score at every distance, and its parts add up", () => {
  const f = positionsFrequencies(8, 100, TOY);
  const [q, k] = [positionsHands(Q), positionsHands(K)];
  const curve = positionsCurve(q, k, f, 1.2, 40, 4);
  assert.equal(curve.length, 11);
  curve.forEach((score, n) => close(score, sum(positionsScoreParts(q, k, f, 1.2, 4 * n)), 1e-9));
  const fast = positionsCurve(q, k, f, 1.2, 40, 4, [0, 1]);
  const slow = positionsCurve(q, k, f, 1.2, 40, 4, [2, 3]);
  curve.forEach((score, n) => close(fast[n] + slow[n], score, 1e-9));
  const [, , two, three] = positionsScoreParts(q, k, f, 1.2, 12);
  close(slow[3], two + three, 1e-9);
});

test("YaRN leaves the fast pairs alone and slows the slow ones whole", () => {
  const plain = positionsFrequencies(64, 150000);
  assert.deepEqual(positionsStretched(positionsFrequencies(64, 150000, GPT_OSS), plain),
    { kept: 9, partly: 9, whole: 14, factor: 32 });
  assert.deepEqual(positionsStretched(plain, plain), { kept: 32, partly: 0, whole: 0, factor: 1 });
  const wave = positionsWavelengths(plain);
  close(wave[0], 2 * Math.PI, 1e-15);
  assert.ok(wave.every((tokens, i) => i === 0 || tokens > wave[i - 1]));
});

test("ticks are round and within the axis", () => {
  assert.deepEqual(positionsTicks(0, 100), [0, 20, 40, 60, 80, 100]);
  assert.deepEqual(positionsTicks(-1.3, 2.1), [-1, 0, 1, 2]);
  assert.deepEqual(positionsTicks(0, 1000, 4), [0, 250, 500, 750, 1000]);
  assert.deepEqual(positionsTicks(3, 3), [3]);
});

test("the pairs shown go from the fastest to the slowest", () => {
  assert.deepEqual(positionsSpread(16), [0, 2, 4, 6, 9, 11, 13, 15]);
  assert.deepEqual(positionsSpread(3), [0, 1, 2]);
  assert.deepEqual(positionsSpread(1), [0]);
});

test("lengths are written to three digits", () => {
  assert.deepEqual([2 * Math.PI, 44700.4, 999600, 20780912].map(positionsCount), ["6.28", "44,700", "1M", "20.8M"]);
});
