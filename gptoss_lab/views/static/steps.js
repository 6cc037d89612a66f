// Steps: the prompt walked half a block at a time, next and previous.
//
// At each step: where we are in the block, what this half did (what attention looked at, which experts answered), how
// the residual of the chosen token moved, and the likeliest next tokens so far. Needs embedding, blocks.*.residual_mid
// and .residual; uses attention.pattern and .sink, experts.logits, .choice and .weight, and early read-outs
// (views/steps.py). What was left out of a large page is said where it would stand.

import { canPress, el, percent } from "./core.js";
import { diagramBlock, diagramInk, diagramWalk } from "./block_diagram.js";
import { panelAttention, panelExperts, panelNext, panelResidual, panelShade } from "./step_panels.js";
import { readable } from "./heatmap.js";
import { quoted, tokenStrip } from "./tokens.js";
import { stepsAtLayer, stepsChange, stepsOf } from "./walk.js";

const stepsStyle = `
.gl-steps { display: grid; gap: 10px; }
.gl-steps h4 { margin: 8px 0 3px; font-size: 13px; font-weight: 600; }
.gl-steps h3 .gl-quiet { font-weight: 400; }
.gl-steps b { font: 600 13px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre; }
.gl-steps-nav { display: grid; grid-template-columns: auto auto minmax(0, 1fr); gap: 8px; align-items: end; }
.gl-steps-where { min-width: 0; }
.gl-steps-where input { width: 100%; min-height: 0; height: 16px; padding: 0; margin: 0;
  accent-color: var(--gl-pick); display: block; }
.gl-steps-walk { display: block; width: 100%; height: 30px; margin-top: -14px; }
.gl-steps-names { position: relative; height: 16px; font-size: 11.5px; color: var(--gl-muted); }
.gl-steps-names span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.gl-steps-block { display: block; width: 100%; max-width: 1000px; margin: 0 auto; font-size: 13px; }
.gl-steps-found { min-height: 2.9em; }
.gl-steps-main { display: grid; grid-template-columns: minmax(0, 1.35fr) minmax(0, 1fr); gap: 12px 24px; }
.gl-steps-did > h3 { border-left: 4px solid var(--did); padding-left: 8px; margin-bottom: 6px; }
.gl-steps-scroll { max-height: 250px; overflow-y: auto; }
.gl-steps-both { display: grid; grid-template-columns: minmax(0, 1.2fr) minmax(0, 1fr); gap: 10px; }
.gl-steps-looks { height: 24px; display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: 10px;
  align-items: center; white-space: nowrap; font-size: 12.5px; cursor: pointer; padding: 0 6px; border-radius: 4px; }
.gl-steps-looks.chosen { background: var(--gl-hover); }
.gl-steps-looks > span:first-child { display: flex; flex-wrap: wrap; gap: 0 10px; height: 20px; overflow: hidden; }
.gl-steps-sink::before { content: ""; display: inline-block; width: 9px; height: 9px; border-radius: 2px;
  background: var(--gl-sink); margin-right: 5px; }
.gl-root .gl-steps-answer { display: grid; grid-template-columns: 84px 1fr 7.5ch; white-space: nowrap; gap: 10px; align-items: center;
  width: 100%; text-align: left; border-color: transparent; background: none; }
.gl-root .gl-steps-answer[aria-pressed=true] { border-color: var(--gl-pick); }
.gl-steps-answer > span:last-child, .gl-steps-next > span:last-child { text-align: right; }
.gl-steps-track { background: var(--gl-masked); border-radius: 3px; height: 12px; overflow: hidden; }
.gl-steps-track i { display: block; height: 100%; background: var(--gl-experts); }
.gl-steps-logits { display: block; width: 100%; height: 110px; }
.gl-steps-channels { height: 84px; }
.gl-steps-tells .gl-read { height: 40px; white-space: normal; }
.gl-steps section + section { margin-top: 14px; }
.gl-steps .gl-strip { max-height: 148px; }
.gl-steps-told { min-height: 1.5em; }
.gl-steps-columns { display: grid; grid-template-columns: 1fr 1fr; gap: 0 20px; }
.gl-steps-columns h4 { margin-top: 0; color: var(--gl-muted); font-weight: 400; }
.gl-steps-next { display: grid; grid-template-columns: minmax(0, 1fr) 34% 7.5ch; gap: 8px; align-items: center;
  height: 24px; white-space: nowrap; }
.gl-steps-next b { overflow: hidden; text-overflow: ellipsis; }
.gl-steps-next i { background: var(--gl-output); border: 1px solid var(--gl-ink); box-sizing: border-box;
  min-width: 2px; border-radius: 3px; }
.gl-steps-next.real b { text-decoration: underline; text-decoration-thickness: 2px; text-underline-offset: 3px; }
@container gl-view (max-width: 980px) {
  .gl-steps-block { font-size: 16px; }
  .gl-steps-main { grid-template-columns: minmax(0, 1fr); }
  .gl-steps-both { grid-template-columns: minmax(0, 1fr) minmax(0, 1.25fr); }
  .gl-steps-tells { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 12px 24px; }
  .gl-steps .gl-steps-tells > section { margin: 0; }
  .gl-steps-tells h3 .gl-quiet { display: block; }
  .gl-steps-columns { gap: 0 14px; }
  .gl-steps-next { grid-template-columns: minmax(0, 1fr) 22% 7.5ch; gap: 6px; }
  .gl-steps-told { min-height: 2.9em; }
}
@container gl-view (max-width: 720px) { .gl-steps-found { min-height: 4.4em; } }
@container gl-view (max-width: 560px) {
  .gl-steps-tells { grid-template-columns: minmax(0, 1fr); }
}
`;

/** Mounts the view. The step is part of the shared selection (`step`), and follows `layer` when others change it. */
export function mountSteps(root, data, store, env = {}) {
  let view = null;
  let lastLayer = store.get().layer;
  let said = "";

  function build(now) {
    view?.attention.destroy();
    view?.residual.destroy();
    const c = now.config;
    const steps = stepsOf(c.n_layers, Boolean(c.n_experts));
    view = null;
    root.replaceChildren(el("style", {}, stepsStyle));
    if (!steps.some((step) => now.has(step.after))) {
      root.append(el("p", { class: "gl-absent" },
        "This trace holds no residuals: keep embedding, blocks.*.residual_mid and .residual, and watch again."));
      return;
    }
    const walk = diagramWalk(steps, go);
    const block = diagramBlock(c);
    const range = el("input",
      { type: "range", min: 0, max: steps.length - 1, step: 1, "aria-label": "step",
      oninput: () => go(Number(range.value)) });
    const previous = el("button", { type: "button", onclick: () => go(current() - 1) }, "← previous");
    const next = el("button", { type: "button", onclick: () => go(current() + 1) }, "next →");
    const found = el("p", { class: "gl-steps-found", "data-found": "steps" });
    const attention = panelAttention(now, (head) => store.set({ head }));
    const experts = c.n_experts ? panelExperts(now, (expert) => store.set({ expert })) : null;
    const residual = panelResidual(now, env.twin);
    const following = panelNext(now);
    const title = el("h3", {});
    const body = el("div", {});
    const shaded = el("h4", {});
    const strip = tokenStrip(now.labels, (token) => store.set({ token }), "tokens of the text, shaded by this step");
    // as high as the higher of its two kinds, so that what stands below keeps its place: headings and text, then the rows
    const rows = Math.max(Math.min(24 * c.n_heads, 250) + 21, c.n_experts ? 31 * c.experts_per_token + 174 : 0);
    const did = el("section", { class: "gl-steps-did", style: { "min-height": `${204 + rows}px` } }, title, body, shaded, strip.node);
    root.append(el("div", { class: "gl-view" }, el("div", { class: "gl-steps", onkeydown: key },
      el("div", { class: "gl-steps-nav" }, previous, next, el("div", { class: "gl-steps-where" }, walk.node, range)),
      block.node, found,
      el("div", { class: "gl-steps-main" }, did,
        el("div", { class: "gl-steps-tells" }, el("section", {},
          el("h3", {}, "The five likeliest next tokens so far ",
          el("span", { class: "gl-quiet" }, "read out early, as if this were the last residual")), following.node),
          el("section", {}, el("h3", {}, "The residual of the chosen token"), residual.node))))));
    view = { now, steps, walk, block, range, previous, next, found, attention, experts, residual, following, title,
      body, shaded, strip, did, moves: new Map(), twins: new Map() };
    const { layer } = store.get();
    const at = current();
    const elsewhere = steps[at].layer !== null && steps[at].layer !== layer; // chosen while another view was shown
    if (elsewhere) store.set({ step: stepsAtLayer(at, layer) });
    draw();
  }

  const current = () => Math.min(Math.max(Math.trunc(store.get().step ?? 0) || 0, 0), view.steps.length - 1);

  function go(step) {
    const to = Math.min(Math.max(step, 0), view.steps.length - 1);
    const layer = view.steps[to].layer ?? store.get().layer;
    lastLayer = layer;
    store.set({ step: to, layer });
  }

  function key(event) {
    if (event.target.tagName === "INPUT") return event.stopPropagation(); // a notebook has shortcuts of its own
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key]; // n and p are the explorer's
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    go(current() + by);
  }

  /** What attention, the experts or nothing did: fills the left panel; returns shares for the text and words. */
  function did(step, { token, head, expert }) {
    const { now } = view;
    const label = (t) => quoted(now.labels[t]);
    if (step.kind === "attention" && now.has(`blocks.${step.layer}.attention.pattern`)) {
      const { row, sink, tops, seen } = view.attention.update({ layer: step.layer, token, head });
      const window = now.config.windows[step.layer];
      return {
        title: `What attention looked at from ${label(token)} (${window ? `a window of ${window}` : "dense"})`,
        node: view.attention.node, shaded: `The text as head ${head} sees it`,
        shares: Array.from(row, (v, s) => (seen(s) ? v : null)), most: 1, rooted: true, name: percent,
        words: `head ${head} looks most at ` +
          (tops.length ? `${label(tops[0])} (${percent(row[tops[0]])})` : "nothing") +
          (sink === undefined ? "" : `, its sink takes ${percent(sink)}`),
      };
    }
    if (step.kind === "experts" && view.experts?.has(step.layer)) {
      const { answered } = view.experts.update({ layer: step.layer, token, expert });
      const [choice, weight] = ["choice", "weight"].map((name) => now.get(`blocks.${step.layer}.experts.${name}`));
      const shares = now.labels.map((_, t) => {
        const k = choice.row(t).indexOf(expert);
        return k < 0 ? null : weight.at(t, k);
      });
      return {
        title: `Which experts answered at ${label(token)}`, node: view.experts.node,
        shaded: `The text by the weight of expert ${expert}: chosen at ${shares.filter((s) => s !== null).length} of ` +
          `${shares.length} tokens`, shares, most: 1, name: percent, none: () => `expert ${expert} not chosen`,
        words: `${answered.map(([e, w]) => `expert ${e} answers with ${percent(w)}`).join(", ")}`,
      };
    }
    const words = {
      embedding: ["Each token becomes a vector",
        now.config.frequencies?.length ? "the token's row of the embedding table starts the residual"
          : "the token's row of the embedding table and its position's own row start the residual"],
      readout: ["The last residual is read out", "norm and unembedding turn the residual into a score for every token"],
      mlp: ["One dense MLP answers for every token", `${now.config.d_ff} neurons answer`],
      attention: ["Attention", "its pattern is not among what was sent"],
      experts: ["Experts", "the router's values are not among what was sent"],
    }[step.kind];
    const before = step.before !== step.after && now.has(step.before) && now.has(step.after);
    const owned = step.kind === "readout" && now.has("steps.own");
    const shares = owned ? Array.from(now.get("steps.own").row(view.steps.length - 2), (v) => (v >= 0 ? v : null))
      : moves(step);
    const most = owned ? 1 : Math.max(...shares, ...(env.twin?.tokens === now.tokens ? moves(step, env.twin) : []));
    return {
      title: words[0], node: null, words: words[1], shares, most, none: (t) => (owned && t === now.tokens - 1 ? "nothing follows" : "not sent"),
      shaded: owned ? "The text by the probability given to the token that follows"
        : before ? "The text by how much was added to each token, against its length"
          : now.has(step.after) ? "The text by the length of each token's vector" : "The text",
      name: owned ? percent : (v) => v.toFixed(2),
    };
  }

  /** For every token: how much a step added, in lengths of what was there; the length where nothing came before. */
  function moves(step, run = view.now) {
    const known = run === view.now ? view.moves : view.twins;
    if (!known.has(step)) {
      const of = (name, t) => run.get(name).row(t);
      known.set(step, run.labels.map((_, t) => {
        if (!run.has(step.after)) return null;
        const after = of(step.after, t);
        if (step.before === step.after || !run.has(step.before)) return stepsChange(after, after).after;
        const change = stepsChange(of(step.before, t), after);
        return change.added / change.before;
      }));
    }
    return known.get(step);
  }

  function draw() {
    if (!view) return;
    const { steps, now } = view;
    const selection = store.get();
    const n = current();
    const step = steps[n];
    view.walk.update(n);
    view.block.update(step, n === 0 ? 0 : now.config.n_layers - 1);
    view.range.value = n;
    const where = step.layer === null ? (n ? "Read-out" : "Embedding")
      : `Block ${step.layer}, ${step.kind === "mlp" ? "MLP" : step.kind}`;
    view.range.setAttribute("aria-valuetext", where);
    canPress(view.previous, n > 0);
    canPress(view.next, n < steps.length - 1);
    const shown = did(step, selection);
    if (view.body.firstChild !== shown.node) view.body.replaceChildren(...(shown.node ? [shown.node] : []));
    view.title.textContent = shown.title;
    view.did.style.setProperty("--did", diagramInk(step.kind));
    view.shaded.textContent = shown.shaded;
    view.strip.update({ selected: selection.token, ...panelShade(shown.shares, shown.most, shown.name, shown.rooted, shown.none) });
    const change = view.residual.update({ step, token: selection.token });
    const last = n === steps.length - 1;
    const words = view.following.update({ n: last ? n - 1 : n, before: last || n === 0 ? null : n - 1,
      token: selection.token });
    const moved = change ? ` The residual of ${quoted(now.labels[selection.token])} goes from length ` +
      `${readable(change.before)} to ${readable(change.after)}, cosine ${change.cosine.toFixed(3)}.` : "";
    const nextWord = !words ? "" : words.was === null ? ` Likeliest next so far: ${quoted(words.is)}.`
      : words.was === words.is ? ` The likeliest next token stays ${quoted(words.is)}.`
      : ` The likeliest next token turns from ${quoted(words.was)} to ${quoted(words.is)}.`;
    const sentence = `${where}: ${shown.words}.${moved}${nextWord}`;
    view.found.textContent = sentence;
    if (said !== sentence) env.say?.(sentence);
    said = sentence;
  }

  const off = store.on(({ layer }) => {
    if (!view) return;
    const n = current();
    if (layer !== lastLayer && view.steps[n].layer !== layer) store.set({ step: stepsAtLayer(n, layer) });
    lastLayer = layer;
    draw();
  });
  build(data);
  return {
    update: build,
    step: (by) => view && go(current() + by),
    destroy() {
      off();
      view?.attention.destroy();
      view?.residual.destroy();
      root.replaceChildren();
    },
  };
}
