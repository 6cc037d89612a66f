// The guided tour's arithmetic: five questions are answered from the numbers that the views show, each with its baseline.
//
// Nothing here draws. Every function takes a `Data` (core.js), or arrays, and returns plain numbers. Shares are 0 to 1,
// tokens, layers, heads and experts are counted from 0. A layer whose points were not sent is passed over.

// --- the text --------------------------------------------------------------------------------------------------------------

const tourWords = {
  Spanish: "de la que el en y los se del las un por con una su para al lo como más pero sus le ya este porque esta entre " +
    "cuando muy sobre también hasta hay donde quien desde todo nos todos uno les ni contra otros ese eso ellos esto antes " +
    "qué yo otro otras era había fue tenía es si mi te dijo rey día",
  English: "the and of to in that was it his is with as for had you not be her on at by which have from this him but all " +
    "she they were my are there so an would when who what said into then them out if upon will do their",
};
const tourLists = Object.fromEntries(Object.entries(tourWords).map(([name, words]) => [name, new Set(words.split(" "))]));
const tourCode = /^\s*(def |class |return\b|import |from \w+ import |(for|while|if|elif|with) .+:\s*$|(else|try):|print\(|@\w)|\w\s*[-+*/]?=\s*\w|\w\(\w*\)/;

/** The language of one sentence or line: "Spanish", "English", "Python", or null where it is not plain. */
export function tourLanguage(sentence) {
  if (tourCode.test(sentence)) return "Python";
  const words = sentence.toLowerCase().match(/\p{L}+/gu) ?? [];
  const counts = Object.entries(tourLists).map(([name, list]) => [name, words.filter((word) => list.has(word)).length]);
  if (/[ñáéíóú¿¡]/i.test(sentence)) counts[0][1] += 1;
  const [[name, most], [, next]] = counts.sort((a, b) => b[1] - a[1]);
  return most > next ? name : null;
}

/** The language of every token, guessed a sentence (or a line) at a time from its little words and signs. */
export function tourLanguages(text) {
  const whole = text.join("");
  const ends = [...whole.matchAll(/[.!?]["»)]?\s+|\n+/g)].map((found) => found.index + found[0].length);
  const starts = [0, ...ends.filter((end) => end < whole.length)];
  const languages = starts.map((start, n) => tourLanguage(whole.slice(start, starts[n + 1])));
  let at = 0;
  return text.map((piece) => {
    const first = at + Math.max(piece.search(/\S/), 0); // a token's leading space belongs to the word after it
    at += piece.length;
    return languages[starts.findLastIndex((start) => start <= first)];
  });
}

/** The runs of tokens for which `inside` holds: [[first, last], …]. */
export function tourRuns(inside) {
  const runs = [];
  inside.forEach((is, t) => {
    if (is && inside[t - 1]) runs.at(-1)[1] = t;
    else if (is) runs.push([t, t]);
  });
  return runs;
}

// --- experts ---------------------------------------------------------------------------------------------------------------

/** Every recorded layer's choices: [{layer, kept, picks}], picks T x K experts in a row. */
export function tourChoices(data) {
  const layers = Array.from({ length: data.config.n_layers }, (_, n) => n);
  return layers.filter((n) => data.has(`blocks.${n}.experts.choice`)).map((layer) => {
    const choice = data.get(`blocks.${layer}.experts.choice`);
    return { layer, kept: choice.shape[1], picks: choice.row() };
  });
}

/** For every expert of every layer the share of the tokens inside, and of those outside, that it answers; largest gap
 *  first: [{layer, expert, inside, outside, gap}]. */
export function tourGaps(choices, experts, inside) {
  const many = inside.filter(Boolean).length;
  const all = [];
  for (const { layer, kept, picks } of choices) {
    const counts = [new Float64Array(experts), new Float64Array(experts)];
    inside.forEach((is, t) => { for (let k = 0; k < kept; k++) counts[is ? 1 : 0][picks[t * kept + k]] += 1; });
    for (let expert = 0; expert < experts; expert++) {
      const [within, without] = [counts[1][expert] / many, counts[0][expert] / (inside.length - many)];
      all.push({ layer, expert, inside: within, outside: without, gap: within - without });
    }
  }
  return all.sort((a, b) => b.gap - a.gap);
}

/** Numbers from 0 to 1 that are the same in every run (mulberry32). */
export function tourDice(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** What chance makes of the largest gap: the label "inside" is dealt at random over the distinct words, all of a word's
 *  tokens together, until as many tokens have it. { typical: the mean of the largest gap, high: 19 of 20 are at most this }.
 *  It is the largest over all experts and layers, as the answer is. */
export function tourChance(choices, experts, inside, words, deals = 200, seed = 1) {
  const dice = tourDice(seed);
  const distinct = [...new Set(words)];
  const many = inside.filter(Boolean).length;
  const counts = new Map();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  const largest = Array.from({ length: deals }, () => {
    for (let n = distinct.length - 1; n > 0; n--) {
      const other = Math.floor(dice() * (n + 1));
      [distinct[n], distinct[other]] = [distinct[other], distinct[n]];
    }
    const dealt = new Set();
    let left = many;
    for (const word of distinct) {
      if (counts.get(word) > left) continue;
      dealt.add(word);
      left -= counts.get(word);
    }
    return dealt.size ? tourGaps(choices, experts, words.map((word) => dealt.has(word)))[0].gap : 0;
  }).sort((a, b) => a - b);
  return { typical: largest.reduce((a, b) => a + b, 0) / deals, high: largest[Math.ceil(0.95 * deals) - 1] };
}

/** How often an expert answers the words that stand on both sides: { words, inside: [answered, of], outside: [answered, of] }. */
export function tourShared(choices, inside, words, layer, expert) {
  const [within, without] = [true, false].map((side) => new Set(words.filter((_, t) => inside[t] === side)));
  const both = new Set([...within].filter((word) => without.has(word)));
  const { kept, picks } = choices.find((one) => one.layer === layer);
  const found = { words: [...both], inside: [0, 0], outside: [0, 0] };
  words.forEach((word, t) => {
    if (!both.has(word)) return;
    const side = inside[t] ? found.inside : found.outside;
    side[1] += 1;
    if (picks.slice(t * kept, (t + 1) * kept).includes(expert)) side[0] += 1;
  });
  return found;
}

/** Each expert's share of all choices, layers together: Float64Array. */
export function tourLoad(choices, experts) {
  const load = new Float64Array(experts);
  const all = choices.reduce((sum, { picks }) => sum + picks.length, 0);
  for (const { picks } of choices) for (const expert of picks) load[expert] += 1 / all;
  return load;
}

/** For every token, in how many layers it asked an expert. */
export function tourAsked(choices, tokens, expert) {
  return Array.from({ length: tokens }, (_, t) => choices.filter(({ kept, picks }) => picks.slice(t * kept, (t + 1) * kept).includes(expert)).length);
}

// --- attention -------------------------------------------------------------------------------------------------------------

/** The layers whose point of this name was not sent. */
export function tourLeftOut(data, point) {
  return data.config.windows.map((_, layer) => layer).filter((layer) => !data.has(`blocks.${layer}.${point}`));
}

function tourPatterns(data) {
  return data.config.windows.map((window, layer) => ({ layer, window, name: `blocks.${layer}.attention.pattern` }))
    .filter(({ name }) => data.has(name)).map((one) => ({ ...one, pattern: data.get(one.name) }));
}

/** How many keys each query may see: T numbers. The heads of a layer see alike. */
export function tourSeen(pattern) {
  const [T, S] = pattern.shape.slice(-2);
  const { seen } = pattern.square(0);
  return Array.from({ length: T }, (_, t) => seen.subarray(t * S, (t + 1) * S).reduce((a, b) => a + b, 0));
}

/** Every head's attention to the key `back` places before the query, largest mean first: [{layer, head, share (the mean over
 *  queries), strongest (how many look there most), queries, even (an even look at all that may be seen), middle (the
 *  query whose share is the median)}]. */
export function tourBack(data, back = 1) {
  const all = [];
  for (const { layer, pattern } of tourPatterns(data)) {
    const [heads, T, S] = pattern.shape;
    const counts = tourSeen(pattern);
    const queries = Array.from({ length: T }, (_, t) => t).filter((t) => t >= back && counts[t] > back);
    const even = queries.reduce((sum, t) => sum + 1 / counts[t], 0) / queries.length;
    for (let head = 0; head < heads; head++) {
      const { values } = pattern.square(head);
      const shares = queries.map((t) => values[t * S + t - back]);
      const strongest = queries.filter((t, n) => values.subarray(t * S, (t + 1) * S).every((v) => v <= shares[n])).length;
      const order = queries.map((_, n) => n).sort((a, b) => shares[a] - shares[b]);
      const middle = order.length ? queries[order[order.length >> 1]] : 0;
      all.push({ layer, head, share: shares.reduce((a, b) => a + b, 0) / shares.length, strongest, queries: queries.length, even, middle });
    }
  }
  return all.sort((a, b) => b.share - a.share);
}

/** How far back a layer's queries may look in this text: { back, query, key } of the farthest pair that is not masked. */
export function tourReach(pattern) {
  const [T, S] = pattern.shape.slice(-2);
  const { seen } = pattern.square(0);
  let far = { back: 0, query: 0, key: 0 };
  for (let t = 0; t < T; t++) {
    const key = seen.subarray(t * S, (t + 1) * S).indexOf(1);
    if (key >= 0 && t - key >= far.back) far = { back: t - key, query: t, key };
  }
  return far;
}

/** The share of attention that goes farther back than `back`, over all heads and the queries that have so many tokens
 *  before them; null where the text is too short. */
export function tourBeyond(pattern, back) {
  const [heads, T, S] = pattern.shape;
  let [sum, many] = [0, 0];
  for (let head = 0; head < heads; head++) {
    const { values } = pattern.square(head);
    for (let t = back + 1; t < T; t++, many++) for (let key = 0; key < t - back; key++) sum += values[t * S + key];
  }
  return many ? sum / many : null;
}

/** What every head leaves to its sink, counted from the sinks alone, largest mean first: [{layer, head, window, share, most: {token, share}, least, near, even}].
 *  near: the query that is nearest to the mean; even: the share of a key if all that are seen and the sink got alike. */
export function tourSinks(data) {
  const all = [];
  for (const [layer, window] of data.config.windows.entries()) {
    if (!data.has(`blocks.${layer}.attention.sink`)) continue;
    const counts = Array.from({ length: data.tokens }, (_, t) => Math.min(t + 1, window ?? Infinity)); // keys that are seen
    const even = counts.reduce((sum, n) => sum + 1 / (n + 1), 0) / counts.length;
    const sink = data.get(`blocks.${layer}.attention.sink`);
    for (let head = 0; head < sink.shape[0]; head++) {
      const shares = Array.from(sink.row(head));
      const share = shares.reduce((a, b) => a + b, 0) / shares.length;
      const order = shares.map((value, token) => ({ token, share: value })).sort((a, b) => b.share - a.share);
      const near = order.reduce((best, one) => (Math.abs(one.share - share) < Math.abs(best.share - share) ? one : best));
      all.push({ layer, head, window, even, share, most: order[0], least: order.at(-1), near });
    }
  }
  return all.sort((a, b) => b.share - a.share);
}

// --- before and after ------------------------------------------------------------------------------------------------------

/** The likeliest next tokens at the end of the model: { ids(t) → K ids, shares(t) → K probabilities }. */
function tourSaid(data) {
  const [ids, probability] = ["ids", "probability"].map((name) => data.get(`steps.${name}`));
  const last = ids.shape[0] - 1;
  return { ids: (t) => Array.from(ids.row(last, t)), shares: (t) => Array.from(probability.row(last, t)) };
}

/** How far one token's next-token probabilities moved: the largest change of any token in either list. One that stands in
 *  one list alone has in the other at most that list's last probability, so the true change is this or more. */
export function tourMove(ids, shares, idsAfter, sharesAfter) {
  const one = (id, p, others, theirs) => {
    const at = others.indexOf(id);
    return at < 0 ? Math.max(p - Math.min(...theirs), 0) : Math.abs(p - theirs[at]);
  };
  return Math.max(...ids.map((id, n) => one(id, shares[n], idsAfter, sharesAfter)),
    ...idsAfter.map((id, n) => one(id, sharesAfter[n], ids, shares)));
}

/** What a change did to the predictions at the tokens that both texts begin with: { tokens, changed: [those whose likeliest next
 *  token is another], moves: T, move: their mean, most: where it is largest, follows: the mean probability of the token that the text goes on
 *  with, before and after, or null }. */
export function tourChanges(before, after) {
  const differs = before.labels.findIndex((label, t) => label !== after.labels[t]);
  const tokens = differs < 0 ? before.tokens : differs;
  const [was, is] = [tourSaid(before), tourSaid(after)];
  const all = Array.from({ length: tokens }, (_, t) => t);
  const moves = all.map((t) => tourMove(was.ids(t), was.shares(t), is.ids(t), is.shares(t)));
  const changed = all.filter((t) => was.ids(t)[0] !== is.ids(t)[0]);
  const follows = (data) => {
    const own = data.get("steps.own");
    const shares = Array.from(own.row(own.shape[0] - 1)).slice(0, tokens).filter((p) => p >= 0); // the last has none
    return shares.reduce((a, b) => a + b, 0) / shares.length;
  };
  const known = [before, after].every((data) => data.has("steps.own"));
  return {
    tokens, changed, moves, move: moves.reduce((a, b) => a + b, 0) / tokens, most: moves.indexOf(Math.max(...moves)),
    follows: known ? { before: follows(before), after: follows(after) } : null,
  };
}

/** The experts that answered somewhere before and nowhere after: what the change forbade, as far as choices tell. */
export function tourForbidden(before, after) {
  const answered = [before, after].map((data) => new Set(tourChoices(data).flatMap(({ picks }) => [...picks])));
  return answered[1].size ? [...answered[0]].filter((expert) => !answered[1].has(expert)).sort((a, b) => a - b) : [];
}
