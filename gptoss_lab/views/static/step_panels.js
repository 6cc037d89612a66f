// The panels of the Steps view: what attention looked at, which experts answered, how the residual moved, and what the
// model would say if it stopped here. Each is made once for a trace and then only told what to show.

import { colours, el, percent, svg } from "./core.js";
import { heatmap, readable } from "./heatmap.js";
import { marginOf } from "./routing.js";
import { quoted } from "./tokens.js";
import { stepsChange, stepsMargin, stepsReach, stepsTop } from "./walk.js";

/** Colours for the tokens of a text from shares of 0 to `most` (or null), by square roots where `rooted`, as in Attention:
 *  { shade, ink, titles }. `none(t)`: what a token without a share is titled. */
export function panelShade(shares, most, name, rooted = false, none = () => "not seen") {
  const rgb = shares.map((s) => (s === null || !Number.isFinite(s) ? null
    : colours.at("cividis", Math.min(1, s / (most || 1)) ** (rooted ? 0.5 : 1))));
  return {
    shade: rgb.map((c) => c && `rgb(${c.join(" ")})`), ink: rgb.map((c) => c && colours.inkOn(c)),
    titles: shares.map((s, t) => (s === null || !Number.isFinite(s) ? none(t) : name(s))),
  };
}

/** What every head looks at from one token: a row of the pattern each, and its top tokens in words. */
export function panelAttention(data, pick) {
  const { n_heads: heads, n_kv_heads: groups } = data.config;
  const rows = 24;
  const canvas = el("canvas", { class: "gl-steps-heads", style: { height: `${rows * heads}px` } });
  const readout = el("div", { class: "gl-read" });
  const words = Array.from({ length: heads }, (_, h) => el("div", { class: "gl-steps-looks", onclick: () => pick(h) }));
  const node = el("div", {},
    el("div", { class: "gl-steps-scroll" }, el("div", { class: "gl-steps-both" }, canvas, el("div", {}, words))),
    readout);
  let map = null;
  return {
    node,
    /** Shows the pattern of a layer from one token; returns the chosen head's row, sink and three top tokens. */
    update({ layer, token, head }) {
      const pattern = data.get(`blocks.${layer}.attention.pattern`);
      const sink = data.has(`blocks.${layer}.attention.sink`) ? data.get(`blocks.${layer}.attention.sink`) : null;
      const own = Array.from({ length: heads }, (_, h) => pattern.row(h, token));
      const changes = {
        rows: heads, cols: data.tokens, value: (h, s) => own[h][s], masked: (h, s) => pattern.masked(h, token, s),
        scale: { lo: 0, hi: 1, gamma: 0.5, unit: "share" }, selected: { row: head },
        describe: (h, s, v) => `head ${h} (key/value head ${Math.floor((h * groups) / heads)}) looks at ${s} ` +
          `${quoted(data.labels[s])}: ${v === null ? "may not be seen" : percent(v)}`,
      };
      if (!map) map = heatmap(canvas,
        { ...changes, name: "attention from the chosen token, a row a head", pick, readout, zoomable: false,
        resting: "Each row is a head; brighter: more attention. Click a row or use the arrow keys.",
        margin: { left: 58 }, rowLabels: own.map((_, h) => `head ${h}`) });
      else map.update(changes);
      const tops = own.map((row) => stepsTop(row, 3).filter((s) => row[s] >= 0.005));
      words.forEach((word, h) => {
        const looks = tops[h].map((s) => el("span", {}, el("b", {}, data.labels[s]), ` ${percent(own[h][s])}`));
        word.replaceChildren(el("span", {}, looks),
          ...(sink ? [el("span", { class: "gl-steps-sink" }, `sink ${percent(sink.at(h, token))}`)] : []));
        word.classList.toggle("chosen", h === head);
      });
      return { row: own[head], sink: sink?.at(head, token), tops: tops[head],
        seen: (s) => !pattern.masked(head, token, s) };
    },
    destroy: () => map?.destroy(),
  };
}

/** Which experts answered, with what weight, and who was just missed; below, the router's logit for every expert. */
export function panelExperts(data, pick) {
  const { n_experts: count, experts_per_token: kept } = data.config;
  const rows = Array.from({ length: kept }, () => {
    const [name, bar, share] = [el("span", {}), el("i", {}), el("span", {})];
    const row = el("button", { type: "button", class: "gl-steps-answer" }, name,
      el("span", { class: "gl-steps-track" }, bar), share);
    row.addEventListener("click", () => pick(Number(row.dataset.expert)));
    return { row, name, bar, share };
  });
  const missed = el("p", { class: "gl-quiet" });
  const wide = 600 / count;
  const bars = Array.from({ length: count },
    (_, e) => svg("rect", { x: e * wide + 1, width: Math.max(wide - 2, 1), onclick: () => pick(e),
    style: { cursor: "pointer" } }, svg("title", {})));
  const zero = svg("line", { x1: 0, x2: 600, stroke: "var(--gl-muted)" });
  const chart = svg("svg", { class: "gl-steps-logits", viewBox: "0 0 600 110", preserveAspectRatio: "none",
    role: "img" }, bars, zero);
  const names = el("div", { class: "gl-steps-names" },
    bars.map((_, e) => (wide > 16 || e % 8 === 0)
    && el("span", { style: { left: `${(100 * (e + 0.5)) / count}%` } }, `${e}`)));
  const node = el("div", {}, rows.map(({ row }) => row), missed,
    el("h4", {}, "The router's logits; the chosen are filled"), chart, names);
  return {
    node,
    /** Whether a layer's router is there to be shown. */
    has: (layer) => ["logits", "choice", "weight"].every((name) => data.has(`blocks.${layer}.experts.${name}`)),
    /** Shows one token's experts; returns [expert, weight] of those that answered, and the margin to the next. */
    update({ layer, token, expert }) {
      const [logits, choice, weight] = ["logits", "choice",
        "weight"].map((name) => data.get(`blocks.${layer}.experts.${name}`).row(token));
      const answered = Array.from(choice, (e, k) => [e, weight[k]]);
      rows.forEach(({ row, name, bar, share }, k) => {
        const [e, w] = answered[k];
        row.dataset.expert = e;
        row.setAttribute("aria-pressed", String(e === expert));
        name.textContent = `expert ${e}`;
        bar.style.width = `${100 * w}%`;
        share.textContent = percent(w);
        row.setAttribute("aria-label", `expert ${e}, weight ${percent(w)}`);
      });
      const near = stepsMargin(logits, choice);
      missed.textContent = !near ? "No other expert could have been chosen here."
        : near.margin < 0 ? `Chosen against the logits: expert ${near.missed} is ${marginOf(-near.margin)} above expert ${near.last}.`
          : `Just missed: expert ${near.missed}, its logit ${marginOf(near.margin)} below that of expert ${near.last}.`;
      const finite = logits.filter(Number.isFinite); // an edit forbids an expert with −∞
      const [low, high] = [Math.min(0, ...finite), Math.max(0, ...finite)];
      const y = (v) => 106 - ((v - low) / (high - low || 1)) * 102;
      bars.forEach((bar, e) => {
        const chosen = choice.includes(e);
        const forbidden = !Number.isFinite(logits[e]);
        const end = forbidden ? 110 : y(logits[e]);
        bar.setAttribute("y", Math.min(end, y(0)));
        bar.setAttribute("height", Math.max(Math.abs(end - y(0)), 1));
        bar.setAttribute("fill", chosen ? "var(--gl-experts)" : forbidden ? "var(--gl-masked)" : "var(--gl-page)");
        bar.setAttribute("stroke-dasharray", forbidden ? "4 3" : "none");
        bar.setAttribute("stroke", e === expert ? "var(--gl-pick)" : chosen ? "var(--gl-experts)" : "var(--gl-muted)");
        bar.setAttribute("stroke-width", e === expert ? 2.5 : 1);
        bar.setAttribute("vector-effect", "non-scaling-stroke");
        bar.firstChild.textContent = `expert ${e}: ${forbidden ? "forbidden (−∞)" : readable(logits[e])}`;
      });
      zero.setAttribute("y1", y(0));
      zero.setAttribute("y2", y(0));
      chart.setAttribute("aria-label",
        `Router's logits: ${stepsTop(logits, kept + 1).map((e) => `expert ${e} ${readable(logits[e])}`).join(", ")}`);
      return { answered, near };
    },
  };
}

/** The residual before, what was added, and after: every channel, the lengths, and the cosine. `twin`: another run, drawn on
 *  the same scale. */
export function panelResidual(data, twin = null) {
  const canvas = el("canvas", { class: "gl-steps-channels" });
  const readout = el("div", { class: "gl-read" });
  const told = el("p", { class: "gl-steps-told" });
  const node = el("div", {}, told, canvas, readout);
  let map = null;
  return {
    node,
    /** Shows one token's residual around a step; returns the change, or null where there is nothing before. */
    update({ step, token }) {
      canvas.style.visibility = readout.style.visibility = data.has(step.after) ? "visible" : "hidden";
      if (!data.has(step.after)) {
        told.textContent = `'${step.after}' is not among what was sent.`;
        return null;
      }
      const after = data.get(step.after).row(token);
      const before = step.before !== step.after && data.has(step.before) ? data.get(step.before).row(token) : null;
      const change = stepsChange(before ?? after, after);
      const lines = [before, before && after.map((v, i) => v - before[i]), after];
      const reach = Math.max(...[data, twin].filter((one) => one?.has(step.after) && token < one.tokens).map((one) =>
        stepsReach([step.after, before && step.before].flatMap((name) => (name && one.has(name) ? [...one.get(name).row(token)] : [])))));
      const names = ["before", "added", "after"];
      const changes = {
        rows: 3, cols: after.length, value: (r, c) => lines[r][c], masked: (r) => !lines[r], selected: {},
        scale: { lo: -reach, hi: reach, map: "differences" },
        describe: (r, c, v) => `channel ${c}, ${names[r]}: ${v === null ? "nothing yet" : readable(v)}`,
      };
      if (!map) map = heatmap(canvas,
        { ...changes, name: "the residual's channels", readout, rowLabels: names, margin: { left: 58 },
        resting: `${after.length} channels; blue below zero, red above, full colour from ±${readable(reach)}.` });
      else map.update({ ...changes,
        resting: `${after.length} channels; blue below zero, red above, full colour from ±${readable(reach)}.` });
      told.textContent = before
        ? `Length ${readable(change.before)} → ${readable(change.after)}; added ${readable(change.added)}; ` +
          `cosine with before ${change.cosine.toFixed(3)}.`
        : `Length ${readable(change.after)}.`;
      return before ? change : null;
    },
    destroy: () => map?.destroy(),
  };
}

/** The five likeliest next tokens before and after the step, and what the text really goes on with. */
export function panelNext(data) {
  const has = data.has("steps.ids");
  const count = has ? data.get("steps.ids").shape[2] : 0;
  const column = (name) => {
    const head = el("h4", {}, name);
    const rows = Array.from({ length: count }, () => {
      const [label, bar, share] = [el("b", {}), el("i", {}), el("span", {})];
      return { node: el("div", { class: "gl-steps-next" }, label, el("span", { class: "gl-steps-track" }, bar),
        share), label, bar, share };
    });
    return { node: el("div", {}, head, rows.map((row) => row.node)), head, rows };
  };
  const [left, right] = [column("before"), column("after")];
  const own = el("p", { class: "gl-steps-told" });
  const node = has ? el("div", {}, el("div", { class: "gl-steps-columns" }, left.node, right.node), own)
    : el("p", { class: "gl-quiet" },
      "This trace was packed without its model, so the residuals were not read out early: give the model too.");
  const read = (n, token) => {
    const [ids, shares] = ["steps.ids", "steps.probability"].map((name) => data.get(name).row(n, token));
    return Array.from(ids, (id, k) => ({ id, label: data.extra["steps.labels"]?.[id] ?? `${id}`, share: shares[k] }));
  };
  function show({ head, rows }, found, follows) {
    head.style.visibility = found ? "visible" : "hidden";
    rows.forEach(({ node: line, label, bar, share }, k) => {
      line.style.visibility = found ? "visible" : "hidden";
      if (!found) return;
      label.textContent = found[k].label;
      bar.style.width = `${100 * found[k].share}%`;
      share.textContent = percent(found[k].share);
      line.classList.toggle("real", found[k].label === follows);
    });
  }
  return {
    node,
    /** n: the read-out after the step; before: the one before it, or null. Returns the two likeliest labels. */
    update({ n, before, token }) {
      if (!has) return null;
      const [was, is] = [before === null ? null : read(before, token), read(n, token)];
      const follows = token + 1 < data.tokens ? data.labels[token + 1] : null;
      show(left, was, follows);
      show(right, is, follows);
      const share = (at) => percent(Math.max(0, data.get("steps.own").at(at, token)));
      own.replaceChildren(...(follows === null ? ["The text ends here."]
        : ["The text goes on with ", el("b", {}, follows),
          `: ${before === null ? "" : `${share(before)} → `}${share(n)}.`]));
      return { was: was?.[0].label ?? null, is: is[0].label };
    },
  };
}
