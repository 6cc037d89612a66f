// Rotations: a head's channels as hands that turn with the position, and what turning does to a score.
//
//   pair i of a vector x is the hand (x[i], x[i + C/2]); at position p it turns by the angle p·f[i]
//   f[i] = θ^(−2i/C), slowed by YaRN; both ends of a score are stretched by YaRN's concentration c
//   score(distance) = c²/√C · Σ_i |q_i| |k_i| cos(angle between the hands + distance·f[i])
//
// Sources: RoPE, arXiv 2104.09864; YaRN, arXiv 2309.00071. Agrees with gptoss_lab/model/rope.py.

/** The pairs, as fractional indices, that turn beta_fast and beta_slow times within the original context. */
export function positionsRampEnds(dHead, theta, yarn) {
  const pairThatTurns = (times) =>
    ((dHead / 2) * Math.log(yarn.original_context / (times * 2 * Math.PI))) / Math.log(theta);
  const [low, high] = [pairThatTurns(yarn.beta_fast), pairThatTurns(yarn.beta_slow)];
  return yarn.rounded ? [Math.floor(low), Math.ceil(high)] : [low, high];
}

/** Radians a token of each of the C/2 pairs, fastest first; yarn null for plain RoPE. */
export function positionsFrequencies(dHead, theta, yarn = null) {
  const plain = Array.from({ length: dHead / 2 }, (_, i) => theta ** (-(2 * i) / dHead));
  if (!yarn) return plain;
  const [low, high] = positionsRampEnds(dHead, theta, yarn);
  return plain.map((f, i) => {
    const slowed = Math.min(1, Math.max(0, (i - low) / Math.max(high - low, 1e-3)));
    return (slowed * f) / yarn.factor + (1 - slowed) * f;
  });
}

/** What YaRN multiplies cos and sin by, at every length; 1 without it. */
export function positionsConcentration(yarn) {
  return yarn ? 0.1 * Math.log(yarn.factor) + 1 : 1;
}

/** A vector's hands as [x[i], x[i + C/2]], one for each pair. */
export function positionsHands(x) {
  const half = x.length / 2;
  return Array.from({ length: half }, (_, i) => [x[i], x[i + half]]);
}

/** The hands turned to a position: [[x, y], …] in, the same out. */
export function positionsTurn(hands, position, frequencies, concentration = 1) {
  return hands.map(([x, y], i) => {
    const cos = Math.cos(position * frequencies[i]) * concentration;
    const sin = Math.sin(position * frequencies[i]) * concentration;
    return [x * cos - y * sin, y * cos + x * sin];
  });
}

/** For each pair, what stands before cos and sin of distance·f[i]: [[dot, cross], …], 1/√C and c² within. */
function positionsWeights(qHands, kHands, concentration) {
  const scale = concentration ** 2 / Math.sqrt(2 * qHands.length);
  return qHands.map(([qx, qy], i) => {
    const [kx, ky] = kHands[i];
    return [scale * (qx * kx + qy * ky), scale * (qx * ky - qy * kx)];
  });
}

/** What each pair adds to the score of a query so many tokens after a key: C/2 numbers. */
export function positionsScoreParts(qHands, kHands, frequencies, concentration, distance) {
  const weights = positionsWeights(qHands, kHands, concentration);
  return weights.map(([dot, cross],
    i) => dot * Math.cos(distance * frequencies[i]) + cross * Math.sin(distance * frequencies[i]));
}

/** The scores at distances 0, step, 2·step, … up to `reach`; `pairs` picks which pairs count (all by default). */
export function positionsCurve(qHands, kHands, frequencies, concentration, reach, step = 1, pairs = null) {
  const weights = positionsWeights(qHands, kHands, concentration);
  const scores = new Float64Array(Math.floor(reach / step) + 1);
  for (const i of pairs ?? weights.keys()) {
    const [dot, cross] = weights[i];
    for (let n = 0; n < scores.length; n++) {
      scores[n] += dot * Math.cos(n * step * frequencies[i]) + cross * Math.sin(n * step * frequencies[i]);
    }
  }
  return scores;
}

/** Tokens that one full turn takes, pair by pair. */
export function positionsWavelengths(frequencies) {
  return frequencies.map((f) => (2 * Math.PI) / f);
}

/** How many pairs YaRN leaves as they are, slows in part, and slows by the whole factor. */
export function positionsStretched(frequencies, plain) {
  const ratio = plain.map((f, i) => f / frequencies[i]);
  const most = Math.max(...ratio);
  const kept = ratio.filter((r) => Math.abs(r - 1) < 1e-3).length;
  const whole = most < 1.001 ? 0 : ratio.filter((r) => Math.abs(r / most - 1) < 1e-3).length;
  return { kept, partly: ratio.length - kept - whole, whole, factor: Number(most.toPrecision(6)) };
}

/** Up to eight pairs spread from the fastest to the slowest. */
export function positionsSpread(count, most = 8) {
  const shown = Math.min(count, most);
  return Array.from({ length: shown }, (_, n) => Math.round((n * (count - 1)) / Math.max(shown - 1, 1)));
}

/** Round numbers that divide an axis from low to high into about `count` parts. */
export function positionsTicks(low, high, count = 5) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const ticks = Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, n) => (first + n) * step);
  return ticks.map((t) => Number(t.toPrecision(12)));
}

/** The sum of a list. */
export function positionsSum(numbers) {
  let total = 0;
  for (const n of numbers) total += n;
  return total;
}
