// The guided tour's five questions in words: what to do, what to predict, and the answer with its evidence.
//
// A question: { id, title, view, absent(data, env) → why this model has no such question, or null; poor(data) → why these numbers do not
// answer it, or null; start(data) → a selection, or null; ask(data) → what to do; fields(data, env) → [{name, label, options or
// number: [lowest, highest], linked, first}]; answer(data, guess, env) → { verdict, lines: [[name, text]], select } or a
// promise of it }. A linked field follows the shared selection: what is selected in the view is the prediction. No answer
// is stored: each is computed from the `Data` that the views draw.

import { percent } from "./core.js";
import { quoted, readText } from "./tokens.js";
import {
  tourAsked, tourBack, tourBeyond, tourChance, tourChanges, tourChoices, tourForbidden, tourGaps, tourLanguages, tourLeftOut,
  tourLoad, tourReach, tourRuns, tourShared, tourSinks,
} from "./tour.js";

const tourLayers = (data) => ({
  name: "layer", label: "layer", linked: true,
  options: data.config.windows.map((window, n) => [n, `${n} · ${window ? `window ${window}` : "dense"}`]),
});
const tourNumbers = (name, many, more = {}) => ({ name, label: name, options: Array.from({ length: many }, (_, n) => [n, String(n)]), ...more });
const tourToken = (data, t) => `token ${t} ${quoted(data.labels[t])}`;
const tourPoints = (share) => `${(100 * share).toFixed(Math.abs(share) < 0.0995 ? 1 : 0)} points`;
const tourGuessed = (number, unit = "") => (number === undefined ? "" : `You said ${Number(number.toPrecision(4))}${unit && ` ${unit}`}.`);
const tourHead = ({ layer, head }) => `Layer ${layer}, head ${head}`;
const tourHas = (data, point) => data.config.windows.some((_, n) => data.has(`blocks.${n}.${point}`));
/** What was not sent and so not counted, as a line of an answer; none where all is there. */
const tourNotCounted = (data, point) => {
  const layers = tourLeftOut(data, point);
  if (!layers.length) return [];
  const [whose, were] = layers.length > 1 ? [`layers ${layers.join(", ")}`, "were"] : [`layer ${layers[0]}`, "was"];
  return [["Left out", `${whose} ${were} left out of what was sent (${point}), and so not counted.`]];
};
const tourNoExperts = (data) => (data.config.n_experts ? null : `${data.config.name} has no experts: one MLP answers for every token`);
const tourLacks = (point) => `the numbers shown here lack blocks.N.${point}`;

/** The tokens of a text that are taken for Spanish, as booleans. */
export function tourSpanish(data) {
  return tourLanguages(data.text).map((language) => language === "Spanish");
}

/** The runs of tokens in words: "31 to 65, “Había una vez un … todas las otras.”"; of many, the first three. */
export function tourWhere(data, inside) {
  const runs = tourRuns(inside).map(([first, last]) => {
    const text = [...readText(data.text.slice(first, last + 1).join("")).trim()];
    return `${first} to ${last}, ${quoted(text.length > 34 ? `${text.slice(0, 16).join("")} … ${text.slice(-14).join("")}` : text.join(""))}`;
  });
  return runs.slice(0, 3).join(", ") + (runs.length > 3 ? ` and ${runs.length - 3} more parts` : "");
}

/** The token inside to which an expert's answer counts most; −1 where it answers none. */
function tourClearest(data, inside, { layer, expert }) {
  const [choice, weight] = ["choice", "weight"].map((name) => data.get(`blocks.${layer}.experts.${name}`));
  const weights = inside.map((is, t) => {
    const k = is ? choice.row(t).indexOf(expert) : -1;
    return k < 0 ? -1 : weight.at(t, k);
  });
  const most = Math.max(...weights);
  return most < 0 ? -1 : weights.indexOf(most);
}

const tourQuestionSpanish = {
  id: "spanish", title: "Which experts fire on Spanish?", view: "experts",
  absent: tourNoExperts,
  poor(data) {
    if (!tourHas(data, "experts.weight")) return tourLacks("experts.choice or .weight");
    const many = tourSpanish(data).filter(Boolean).length;
    if (Math.min(many, data.tokens - many) >= 8) return null;
    return `${many} of this text's ${data.tokens} tokens are plainly Spanish; 8 of them and 8 others are the least from which to tell`;
  },
  start: () => null,
  ask: (data) => `Below, tokens run across and experts down. Taken for Spanish: tokens ${tourWhere(data, tourSpanish(data))}. ` +
    "Find the layer and the expert that is bright there and dark elsewhere. Select it below or choose it here.",
  fields: (data) => [tourLayers(data), tourNumbers("expert", data.config.n_experts, { linked: true })],
  answer(data, guess) {
    const [inside, choices, E] = [tourSpanish(data), tourChoices(data), data.config.n_experts];
    const many = inside.filter(Boolean).length;
    const gaps = tourGaps(choices, E, inside);
    const chance = tourChance(choices, E, inside, data.labels);
    const [best] = gaps;
    const beyond = gaps.filter(({ gap }) => gap > chance.high);
    const said = ({ layer, expert }) => `layer ${layer}, expert ${expert}`;
    const shares = (one) => `${percent(one.inside)} of the Spanish tokens, ${percent(one.outside)} of the others`;
    const mine = gaps.find(({ layer, expert }) => layer === guess.layer && expert === guess.expert);
    const right = mine && beyond.includes(mine);
    const shared = tourShared(choices, inside, data.labels, best.layer, best.expert);
    const enough = Math.min(shared.inside[1], shared.outside[1]) >= 5;
    const token = tourClearest(data, inside, best);
    return {
      verdict: !beyond.length ? "No expert stands out from chance in this text."
        : mine === best ? `Right: ${said(best)}, more than any other.`
          : right ? `Yes, ${said(mine)} does; ${said(best)} does more.` : `Most of all ${said(best)}.`,
      lines: [
        ["Share", `${said(best)} answers ${shares(best)} (${many} and ${data.tokens - many} tokens; even: ${percent(choices[0].kept / E)}).` +
          (mine && mine !== best ? ` Yours: ${shares(mine)}.` : "")],
        ["Chance", `the label “Spanish” dealt at random over the words, 200 times: the largest gap of any expert is ${tourPoints(chance.typical)} on average, ` +
          `at most ${tourPoints(chance.high)} in 19 of 20. Here it is ${tourPoints(best.gap)}` +
          `${beyond.length > 1 ? `; beyond chance too: ${beyond.slice(1, 4).map(said).join("; ")}` : ""}.`],
        ["Beware", "routing follows the word as much as the language. " + (enough
          ? `On words that stand on both sides (${shared.words.slice(0, 4).map(quoted).join(" ")}) it answers ${shared.inside.join(" of ")} in Spanish, ${shared.outside.join(" of ")} elsewhere.`
          : "Too few words stand on both sides to tell the two apart in this text.")],
        ...tourNotCounted(data, "experts.choice"),
      ],
      select: { layer: best.layer, expert: best.expert, ...(token >= 0 ? { token } : {}) },
    };
  },
};

const tourQuestionPrevious = {
  id: "previous", title: "Which head looks at the previous token?", view: "attention",
  absent: () => null,
  poor: (data) => (!tourHas(data, "attention.pattern") ? tourLacks("attention.pattern")
    : data.tokens < 8 ? `this text has ${data.tokens} tokens; 8 are the least from which to tell` : null),
  start: () => null,
  ask: () => "A head that looks one token back draws a bright line just below the diagonal. Walk the layers with [ and ], " +
    "compare the small pictures of the heads, and select the clearest line below, or choose it here.",
  fields: (data) => [tourLayers(data), tourNumbers("head", data.config.n_heads, { linked: true })],
  answer(data, guess) {
    const heads = tourBack(data);
    const [best, second] = heads;
    const rank = heads.findIndex(({ layer, head }) => layer === guess.layer && head === guess.head);
    const mine = heads[rank];
    const itself = tourBack(data, 0).find(({ layer, head }) => layer === best.layer && head === best.head).share;
    return {
      verdict: rank === 0 ? `Right: ${tourHead(best)}.`
        : `${best.share < 0.5 ? "No head gives it most of its attention. Nearest: " : ""}${tourHead(best)}.`,
      lines: [
        ["Share", `it gives the previous token ${percent(best.share)} of its attention on average, and more than any other key at ${best.strongest} of ${best.queries} queries; ` +
          `the token itself gets ${percent(itself)}.` + (mine && rank > 0 ? ` Yours: ${percent(mine.share)}, place ${rank + 1} of ${heads.length}.` : "")],
        ["Baseline", `a head that looked evenly at all it may see would give it ${percent(best.even)}.` +
          (second ? ` Next: ${tourHead(second).toLowerCase()}, with ${percent(second.share)}.` : "")],
        ["Selected", `${tourToken(data, best.middle)}, a middling case: half of the queries give more, half less.`],
        ...tourNotCounted(data, "attention.pattern"),
      ],
      select: { layer: best.layer, head: best.head, token: best.middle },
    };
  },
};

const tourWindowed = (data) => data.config.windows.map((window, layer) => ({ window, layer }))
  .filter(({ window, layer }) => window && data.has(`blocks.${layer}.attention.pattern`));

const tourQuestionWindow = {
  id: "window", title: "How far does a window layer see?", view: "attention",
  absent: (data) => (data.config.windows.some(Boolean) ? null : `every layer of ${data.config.name} is dense: none has a window`),
  poor: (data) => (tourWindowed(data).length ? null : tourLacks("attention.pattern in a layer with a window")),
  start: (data) => ({ layer: tourWindowed(data)[0].layer, token: data.tokens - 1 }),
  ask: (data) => `On the left is layer ${tourWindowed(data)[0].layer}, which has a window; hatched keys are out of its sight. Take the last ` +
    "token and follow its row to the left, to the blue edge, or read the shaded text below the map.",
  fields: (data) => [{ name: "back", label: "tokens that it sees before itself", number: [0, data.config.context] }],
  answer(data, guess) {
    const { layer, window } = tourWindowed(data)[0];
    const reach = tourReach(data.get(`blocks.${layer}.attention.pattern`));
    const cut = reach.back === window - 1 && reach.key > 0; // the edge is in the picture
    const dense = data.config.windows.findIndex((other, n) => !other && data.has(`blocks.${n}.attention.pattern`));
    const far = dense < 0 ? null : tourBeyond(data.get(`blocks.${dense}.attention.pattern`), window - 1);
    const most = window - 1;
    const said = `${most} token${most === 1 ? "" : "s"} before itself`;
    return {
      verdict: guess.back === most ? `Right: ${said}.`
        : guess.back === window ? `One less, ${most}: the window of ${window} counts the token itself.` : `${said}: a window of ${window} counts the token too.`,
      lines: [
        ["Seen", cut ? `${tourToken(data, reach.query)} sees back to ${tourToken(data, reach.key)}, ${reach.back} before it, and not to ${tourToken(data, reach.key - 1)}.`
          : `this text is too short to show it: the farthest pair is ${reach.back} apart, and no key is cut off. The number is the config's.`],
        ["Dense", far === null ? "no dense layer and no text long enough here to compare with."
          : `in layer ${dense}, which is dense, heads send ${percent(far)} of their attention farther back than ${most} where the text allows it. The window layer cannot.`],
        ["Beware", `one layer sees ${most} back; the layer above reads tokens that have already read others, so a stack reaches farther.`],
      ],
      select: { layer, token: reach.query, ...(cut ? { key: reach.key } : {}) },
    };
  },
};

const tourQuestionSink = {
  id: "sink", title: "What does the sink take?", view: "attention",
  absent: (data) => (data.config.sinks ? null : `${data.config.name} has no sinks: all of a head's attention goes to tokens`),
  poor: (data) => (!tourHas(data, "attention.sink") || !tourHas(data, "attention.pattern") ? tourLacks("attention.sink or .pattern")
    : data.tokens < 8 ? `this text has ${data.tokens} tokens; 8 are the least from which to tell` : null),
  start: () => null,
  ask: () => "The framed column left of each map is the sink: what a head leaves to no token. Above each map stands the head's average. " +
    "Find the head that leaves most; predict how much that is.",
  fields: (data) => [tourLayers(data), tourNumbers("head", data.config.n_heads, { linked: true }),
    { name: "share", label: "its sink takes, %", number: [0, 100] }],
  answer(data, guess) {
    const sinks = tourSinks(data);
    const [best] = sinks;
    const mean = (list) => list.reduce((sum, { share }) => sum + share, 0) / list.length;
    const kinds = [["window", sinks.filter(({ window }) => window)], ["dense", sinks.filter(({ window }) => !window)]].filter(([, list]) => list.length);
    const mine = sinks.find(({ layer, head }) => layer === guess.layer && head === guess.head);
    const near = Math.abs(guess.share - 100 * best.share) <= 10;
    const pattern = `blocks.${best.layer}.attention.pattern`;
    const row = data.has(pattern) ? data.get(pattern).row(best.head, best.near.token).reduce((a, b) => a + b, 0) : 1 - best.near.share;
    return {
      verdict: (mine === best ? (near ? `Right: ${tourHead(best)}, ${percent(best.share)}` : `The right head; its sink takes ${percent(best.share)}`)
        : `${tourHead(best)}: ${percent(best.share)}${mine ? `. Your head's sink takes ${percent(mine.share)}` : ""}`) + `. ${tourGuessed(guess.share, "%")}`,
      lines: [
        ["Share", `the attention that this head gives to no token, on average over ${data.tokens} queries; most at ${tourToken(data, best.most.token)}, ${percent(best.most.share)}; ` +
          `least at ${tourToken(data, best.least.token)}, ${percent(best.least.share)}.`],
        ["Baseline", `a sink that counted as one key among all that are seen would take ${percent(best.even)}. All ${sinks.length} heads: ${percent(mean(sinks))}` +
          `${kinds.length > 1 ? ` (${kinds.map(([kind, list]) => `${kind} layers ${percent(mean(list))}`).join(", ")})` : ""}.`],
        ["Sum", `at ${tourToken(data, best.near.token)} the keys get ${percent(row)} and the sink ${percent(best.near.share)}. The sink has no value vector: what it takes makes the head's output smaller.`],
        ...tourNotCounted(data, "attention.sink"),
      ],
      select: { layer: best.layer, head: best.head, token: best.near.token },
    };
  },
};

/** Whether a second run is the same model without one expert and with no other change: as it says, or as its choices tell. */
export function tourOnly(data, after, expert) {
  const change = after.extra["compare.change"];
  if (!change) return tourForbidden(data, after).includes(expert);
  const { forbid, window = "same", ...others } = change;
  return !after.extra["compare.other"] && JSON.stringify(forbid) === `[[null,${expert}]]` &&
    window === "same" && Object.values(others).every((what) => what === null || what === false || what.length === 0);
}

const tourQuestionForbid = {
  id: "forbid", title: "What changes when expert n is forbidden?", view: "compare",
  absent: tourNoExperts,
  poor(data, env) {
    if (!tourHas(data, "experts.choice")) return tourLacks("experts.choice");
    if (!data.has("steps.ids")) return "the likeliest next tokens are not among what was sent (they belong to Steps)";
    return env.compare || env.beside ? null : "a page cannot run the model, and this one holds no second run. lab.explore(model) in a notebook runs it; " +
      "gptoss-lab explore TEXT --forbid-expert 5 --out page.html records it (5: any expert)";
  },
  start: () => null,
  ask(data, env) {
    const load = tourLoad(tourChoices(data), data.config.n_experts);
    const busiest = load.indexOf(Math.max(...load));
    return `Expert n is forbidden in every layer: the router takes the next best. ${env.compare ? `The busiest here is expert ${busiest}, with ${percent(load[busiest])} of all choices.`
      : "One run is recorded beside this one."} At how many of the ${data.tokens} tokens will the likeliest next token be another, and by how much do the probabilities move?`;
  },
  fields(data, env) {
    const load = tourLoad(tourChoices(data), data.config.n_experts);
    const recorded = env.compare || !env.beside ? [] : tourForbidden(data, env.beside);
    const first = recorded[0] ?? load.indexOf(Math.max(...load));
    const n = tourNumbers("expert", data.config.n_experts, { label: "n", first });
    return [env.compare ? n : { ...n, options: (recorded.length ? recorded : [first]).map((e) => [e, String(e)]) },
      { name: "changed", label: "tokens that change", number: [0, data.tokens] },
      { name: "move", label: "probabilities move, points", number: [0, 100] }];
  },
  async answer(data, guess, env) {
    if (env.compare) await env.compare({ forbid: [guess.expert] });
    const after = env.beside;
    if (!after) throw new Error("the run without the expert did not arrive");
    if (!after.has("steps.ids")) throw new Error("the run without the expert holds no likeliest next tokens: keep the points of Steps in both");
    const c = tourChanges(data, after);
    if (!c.tokens) throw new Error("the two runs do not begin with the same token: they cannot be compared");
    const [choices, E] = [tourChoices(data), data.config.n_experts];
    const asked = tourAsked(choices, data.tokens, guess.expert);
    const used = asked.map((many, t) => ({ many, t })).filter(({ t }) => t < c.tokens);
    const [users, others] = [used.filter(({ many }) => many), used.filter(({ many }) => !many)];
    const hit = (list) => list.filter(({ t }) => c.changed.includes(t)).length;
    const first = users[0]?.t;
    const only = tourOnly(data, after, guess.expert);
    const many = c.changed.length;
    const near = Math.abs(guess.changed - many) <= Math.max(1, c.tokens / 10);
    const nearMove = Math.abs(guess.move - 100 * c.move) <= Math.max(2, 25 * c.move); // within two points, or a quarter
    const bits = after.has("compare.divergence") ? Array.from(after.get("compare.divergence").row()).slice(0, c.tokens) : null;
    const moved = bits ? bits.indexOf(Math.max(...bits)) : c.most;
    return {
      verdict: `${near ? "Close: " : ""}${many} of ${c.tokens} tokens get another likeliest next token. ${tourGuessed(guess.changed)} ` +
        `${nearMove ? "Close: p" : "P"}robabilities move by ${tourPoints(c.move)} on average. ${tourGuessed(guess.move)}`,
      lines: [
        ["Where", `most at ${tourToken(data, c.most)}: a probability moves by ${tourPoints(c.moves[c.most])}` +
          `${moved === c.most ? "" : ` (by the whole distribution, in bits as below, most at ${tourToken(data, moved)})`}.` + (c.follows
          ? ` The token that really follows had ${percent(c.follows.before)} on average and has ${percent(c.follows.after)}.` : "")],
        ["Who", !only ? `not counted: the second run does not forbid expert ${guess.expert} alone (${after.extra["compare.words"] || after.source}).`
          : first === undefined ? `no token asked expert ${guess.expert} in this text: nothing could change.`
            : `${hit(users)} of the ${users.length} tokens that asked expert ${guess.expert} in some layer change, ${hit(others)} of the ${others.length} that did not: those only read the others. ` +
              (first ? `The first to ask it is ${tourToken(data, first)}; nothing can change before.` : "The first token already asks it.")],
        ["Beware", `expert ${guess.expert} stands for ${choices.length} experts, one a layer, with ${percent(tourLoad(choices, E)[guess.expert])} of all choices. ` +
          "A move is the largest change among the likeliest tokens listed."],
      ],
      select: { expert: guess.expert, token: c.most },
    };
  },
};

/** The tour, in order. */
export const tourQuestions = [tourQuestionSpanish, tourQuestionPrevious, tourQuestionWindow, tourQuestionSink, tourQuestionForbid];

/** The questions for this model and these views, and what is left out with its reason: { asked, left: [[title, why]] }. */
export function tourPlan(data, views) {
  const here = tourQuestions.filter(({ view }) => views.includes(view) || (view === "compare" && views.includes("experts") && views.includes("steps")));
  const left = here.map((question) => [question.title, question.absent(data)]).filter(([, why]) => why);
  return { asked: here.filter((question) => !question.absent(data)), left };
}
