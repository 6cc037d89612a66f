// Edit and compare: change the model, run the same text again, and see both: how the text goes on, what is expected next
// at every token, and any view before and after. In a notebook every switch runs the real model; a page shows what was
// recorded. The second run is `env.beside`, a Data of its own; what stands between the two is in it as compare.*.

import { canPress, el, percent } from "./core.js";
import { readable } from "./heatmap.js";
import { panelShade } from "./step_panels.js";
import { quoted, textTail, tokenStrip } from "./tokens.js";

/** A change with one place [layer or null, number] of `field` put in or taken out; experts are never in both lists. */
export function changeToggled(change, field, layer, number) {
  const same = ([l, n]) => l === layer && n === number;
  const had = (change[field] ?? []).some(same);
  const next = { ...change, [field]: [...(change[field] ?? []).filter((p) => !same(p)), ...(had ? [] : [[layer, number]])] };
  const other = { forbid: "force", force: "forbid" }[field];
  if (other && !had) next[other] = (change[other] ?? []).filter(([l, n]) => n !== number || (l !== layer && l !== null && layer !== null));
  return next;
}

/** What is changed, piece by piece: [{ words, without }], `without` being the change less this piece. */
export function changePieces(change) {
  const where = (layer) => (layer === null ? "" : ` of layer ${layer}`);
  const pieces = [];
  for (const [field, what, verb] of [["forbid", "expert", "forbidden"], ["force", "expert", "forced"], ["heads_off", "head", "off"]]) {
    for (const [layer, n] of change[field] ?? []) {
      pieces.push({ words: `${what} ${n}${where(layer)} ${verb}`, without: changeToggled(change, field, layer, n) });
    }
  }
  const sinks = change.sinks_off ?? [];
  if (sinks === true) pieces.push({ words: "sinks off", without: { ...change, sinks_off: [] } });
  else for (const l of sinks) pieces.push({ words: `sinks of layer ${l} off`, without: { ...change, sinks_off: sinks.filter((m) => m !== l) } });
  const { window: w = "same", experts_per_token: k = null } = change;
  if (w !== "same") pieces.push({ words: w === null ? "no windows" : `window of ${w}`, without: { ...change, window: "same" } });
  if (k !== null) pieces.push({ words: `${k} expert${k === 1 ? "" : "s"} a token`, without: { ...change, experts_per_token: null } });
  return pieces;
}

/** How many characters two texts have in common at their beginning, counted in whole characters. */
export function commonStart(a, b) {
  const [first, second] = [[...a], [...b]];
  let n = 0;
  while (n < first.length && n < second.length && first[n] === second[n]) n++;
  return first.slice(0, n).join("").length;
}

/** What a comparison shows at every token: { likeliest: [[id before, id after], …], turned: tokens whose likeliest next
 *  token changed, most: the token with the largest divergence, divergence: bits at every token }. */
export function compareFound(beside) {
  const [ids, before, after] = ["ids", "before", "after"].map((name) => beside.get(`compare.${name}`));
  const divergence = Array.from(beside.get("compare.divergence").row());
  const best = (row) => row.reduce((at, v, n) => (v > row[at] ? n : at), 0);
  const likeliest = divergence.map((_, t) => [before, after].map((side) => ids.at(t, best([...side.row(t)]))));
  return {
    likeliest, divergence,
    turned: likeliest.flatMap(([was, is], t) => (was === is ? [] : [t])),
    most: divergence.indexOf(Math.max(...divergence)),
  };
}

const compareScales = [0.05, 0.1, 0.25, 0.5]; // what a full bar stands for: the least that holds all that is shown

export function mountCompare(root, data, store, env) {
  let change = {};
  let other = "";
  let found = null;
  let sides = [];
  let busy = false;
  let asked = 0; // wishes so far

  const status = el("div", { class: "gl-compare-status", role: "status", "aria-live": "polite" });
  const controls = el("div", { class: "gl-compare-controls" });
  const chips = el("div", { class: "gl-compare-chips", role: "group", "aria-label": "what is changed" });
  const body = el("div", { class: "gl-compare-body" });
  const node = el("div", { class: "gl-compare" }, controls, chips, status, body);
  root.append(el("div", { class: "gl-view" }, node));

  // --- the switches -----------------------------------------------------------------------------------------------------

  const quiet = (select) => {
    select.addEventListener("keydown", (event) => event.stopPropagation());
    return select;
  };
  const scope = quiet(el("select", { "aria-label": "in which layers experts and sinks are changed", onchange: label }));
  const buttons = {};
  const button = (key, act) => (buttons[key] = el("button", { type: "button", onclick: act }));
  const scoped = () => (scope.value === "layer" ? store.get().layer : null);
  const window_ = quiet(el("select", { onchange: () => make({ ...change, window: JSON.parse(window_.value) }) }));
  const kept = quiet(el("select", { onchange: () => make({ ...change, experts_per_token: JSON.parse(kept.value) }) }));
  const models = quiet(el("select", { onchange: () => make(change, models.value) }));
  const layerOf = () => store.get().layer;

  function switches() {
    const { config } = data;
    const groups = [];
    const group = (name, ...parts) => groups.push(el("div", { class: "gl-compare-group" }, el("span", { class: "gl-quiet" }, name), parts));
    if (config.n_experts || config.sinks) group("in", scope);
    if (config.n_experts) {
      group("expert", button("forbid", () => make(changeToggled(change, "forbid", scoped(), store.get().expert))),
        button("force", () => make(changeToggled(change, "force", scoped(), store.get().expert))));
    }
    group("head", button("head", () => make(changeToggled(change, "heads_off", layerOf(), store.get().head))));
    if (config.sinks) group("sinks", button("sinks", toggleSinks));
    group("window", window_);
    if (config.n_experts) group("experts a token", kept);
    if ((env.others ?? []).length) group("beside", models);
    controls.replaceChildren(...groups, button("undo", () => make({}, "")));
    buttons.undo.textContent = "Undo all";
    const widths = [1, 2, 4, 8, 16, 32, 64, 128].filter((w) => w < config.context && w !== config.window);
    const asIs = config.window ? `as it is (${config.window})` : "as it is (none)";
    fillSelect(window_, [["same", asIs], ...(config.window ? [[null, "none"]] : []), ...widths.map((w) => [w, String(w)])], "window of the windowed layers");
    const K = config.experts_per_token;
    fillSelect(kept, [[null, `as it is (${K})`], ...Array.from({ length: Math.min(config.n_experts || 1, 16) }, (_, n) => n + 1).filter((n) => n !== K).map((n) => [n, String(n)])], "experts that answer for a token");
    models.replaceChildren(...["", ...(env.others ?? [])].map((name) => el("option", { value: name }, name || "the same model")));
    models.setAttribute("aria-label", "the model that stands beside this one");
  }

  function fillSelect(select, choices, name) {
    select.replaceChildren(...choices.map(([value, text]) => el("option", { value: JSON.stringify(value) }, text)));
    select.setAttribute("aria-label", name);
  }

  function toggleSinks() {
    const layer = scoped();
    const off = change.sinks_off ?? [];
    if (layer === null) return make({ ...change, sinks_off: off === true ? [] : true });
    const all = off === true ? Array.from({ length: data.config.n_layers }, (_, n) => n) : off;
    make({ ...change, sinks_off: all.includes(layer) ? all.filter((n) => n !== layer) : [...all, layer] });
  }

  /** What the buttons say: they act on the selection, so they name it. */
  function label() {
    if (!env.compare) return;
    const { layer, head, expert } = store.get();
    const has = (field, l, n) => (change[field] ?? []).some(([a, b]) => a === l && b === n);
    const at = scoped();
    const set = (key, text, on) => {
      if (!buttons[key]) return;
      buttons[key].textContent = text;
      buttons[key].setAttribute("aria-pressed", String(on));
    };
    if (scope.children.length !== 2) scope.replaceChildren(el("option", { value: "all" }, "every layer"), el("option", { value: "layer" }));
    scope.children[1].textContent = `layer ${layer} alone`;
    set("forbid", `forbid ${expert}`, has("forbid", at, expert));
    set("force", `force ${expert}`, has("force", at, expert));
    set("head", `switch off head ${head} of layer ${layer}`, has("heads_off", layer, head));
    const off = change.sinks_off ?? [];
    set("sinks", "switch off", off === true || (at !== null && off.includes(at)));
    canPress(buttons.undo, changePieces(change).length || other);
    const { window: keys = "same" } = change; // null is a window too: none
    window_.value = JSON.stringify(keys);
    kept.value = JSON.stringify(change.experts_per_token ?? null);
    if (![...models.options].some((one) => one.value === other)) models.append(el("option", { value: other }, other)); // one that came later
    models.value = other;
  }

  /** Draws anew; the focus stays with what stands where it was, or else goes to the first switch. */
  function keepingFocus(drawn) {
    const had = node.getRootNode().activeElement;
    const way = [];
    for (let at = had; at !== node && node.contains(at); at = at.parentNode) way.unshift([...at.parentNode.children].indexOf(at));
    drawn();
    if (!way.length || had.isConnected) return;
    const place = way.reduce((at, n) => at.children[Math.min(n, at.children.length - 1)] ?? at, node);
    place.focus();
    if (node.getRootNode().activeElement !== place) controls.querySelector("select, button").focus();
  }

  /** Wishes for a change, which the switches show at once. While one runs, the newest waits; the refusal of the newest
   *  brings back what ran, that of another is passed over. */
  async function make(next, beside = other) {
    if (!env.compare) return;
    [change, other] = [next, beside];
    asked++;
    label();
    if (busy) return;
    busy = true;
    node.setAttribute("aria-busy", "true");
    status.classList.remove("gl-bad");
    for (let running = -1; running !== asked; ) {
      running = asked;
      const began = performance.now();
      try {
        await env.compare(change, other);
        status.textContent = found ? `${told()} (${((performance.now() - began) / 1000).toFixed(2)} s)` : "Nothing is changed now.";
      } catch (error) {
        if (running !== asked) continue;
        [change, other] = ran();
        status.textContent = error.message;
        status.classList.add("gl-bad");
        label();
      }
    }
    busy = false;
    node.removeAttribute("aria-busy");
  }

  /** The change and the model of the run that is shown. */
  function ran() {
    const { extra } = env.beside ?? {};
    return extra ? [extra["compare.change"], extra["compare.other"]] : [{}, ""];
  }

  // --- what was found ---------------------------------------------------------------------------------------------------

  function told() {
    const many = found.turned.length;
    const where = found.turned.length ? `, most at token ${found.most} ${quoted(data.labels[found.most])}` : "";
    const mean = found.divergence.reduce((a, b) => a + b, 0) / found.divergence.length;
    return `The likeliest next token is another at ${many} of ${data.tokens} tokens; predictions moved by ${readable(mean)} bits ` +
      `on average${where}.`;
  }

  let strip = null;
  let rows = [];
  const choices = el("div", { class: "gl-compare-views", role: "group", "aria-label": "view before and after" });
  const pair = el("div", { class: "gl-compare-pair" });
  const nextTitle = el("h3", { class: "gl-compare-next" });
  const heads = [el("span"), el("span")];
  const words = () => env.beside?.extra["compare.words"] ?? "";

  function build() {
    const { beside } = env;
    sides.forEach((side) => side.view?.destroy());
    sides = [];
    status.classList.remove("gl-bad");
    if (!beside) {
      if (!busy) [change, other] = ran();
      found = null;
      chips.replaceChildren();
      status.textContent = "";
      body.replaceChildren(el("p", { class: "gl-absent" }, env.compare
        ? "Nothing is changed yet. Choose an expert or a head above (or in a map), then forbid it, force it, switch it off; or take other windows, another number of experts, another model. The same text runs again, and both runs stand side by side here."
        : "This page holds one run. A page with two: gptoss-lab explore TEXT --forbid-expert 5 --out page.html. In a notebook, lab.explore(model) changes the model while you look."));
      label();
      return;
    }
    if (!busy) [change, other] = ran(); // while one runs, a newer wish may be shown
    found = compareFound(beside);
    chips.replaceChildren(el("span", { class: "gl-quiet" }, "Changed: "),
      ...(ran()[1] ? [chip(`${ran()[1]} in place of ${data.config.name}`, () => make(change, ""))] : []),
      ...changePieces(ran()[0]).map((piece) => chip(piece.words, () => make(piece.without))));
    const texts = beside.extra["compare.texts"];
    const same = commonStart(...texts);
    const text = (title, words_) => el("div", { class: "gl-compare-text" }, el("h3", {}, title),
      el("p", {}, el("span", { class: "gl-quiet" }, `…${textTail(data.text, 6, beside.extra["compare.between"])}`), words_.slice(0, same), words_.length > same ? el("mark", {}, words_.slice(same)) : null));
    strip = tokenStrip(data.labels, (token) => store.set({ token }), "tokens, darker to brighter by how much the prediction after them moved");
    const most = Math.max(...found.divergence);
    const shades = panelShade(found.divergence.map((v) => Math.sqrt(v / (most || 1))), 1, () => "");
    strip.update({ ...shades, titles: found.divergence.map((v) => `${readable(v)} bits`) });
    const count = beside.get("compare.ids").shape[1];
    rows = Array.from({ length: count }, () => {
      const [name, was, is] = [el("b"), bar(), bar()];
      return { name, was, is, node: el("div", { class: "gl-compare-row", role: "listitem" }, name, was.node, is.node) };
    });
    const list = el("div", { role: "list", class: "gl-compare-list" },
      el("div", { class: "gl-compare-row gl-quiet", "aria-hidden": "true" }, el("span", {}, "next token"), heads),
      rows.map((row) => row.node));
    choices.replaceChildren(...Object.keys(env.mounts).map((name) => el("button", { type: "button", "data-view": name, onclick: () => show(name) }, data.payload.titles[name] ?? name)));
    body.replaceChildren(
      el("div", { class: "gl-compare-top" },
        el("div", { class: "gl-compare-left" }, text("Before, the text goes on", texts[0]), text(`After (${words()}), it goes on`, texts[1]),
          el("h3", {}, "Where the prediction moved", el("span", { class: "gl-quiet" }, most ? `  brightest: ${readable(most)} bits, at token ${found.most}` : "  nowhere")), strip.node),
        el("div", { class: "gl-compare-left" }, nextTitle, list)),
      choices, pair);
    status.textContent = told();
    label();
    show(env.memory.compared ?? Object.keys(env.mounts).find((name) => !data.missing[name] && !beside.missing[name]) ?? "attention");
    draw();
  }

  function chip(text, drop) {
    return el("span", { class: "gl-compare-chip" }, text,
      env.compare ? el("button", { type: "button", "aria-label": `undo: ${text}`, title: "undo", onclick: drop }, "×") : null);
  }

  function bar() {
    const [fill, share] = [el("i"), el("span")];
    return { fill, share, node: el("span", { class: "gl-compare-bar" }, el("span", { class: "gl-compare-track" }, fill), share) };
  }

  /** One view, drawn from both runs with one selection and on one scale: each is given the other's numbers as `twin`. */
  function show(name) {
    env.memory.compared = name;
    sides.forEach((side) => side.view?.destroy());
    [...choices.children].forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.view === name)));
    sides = [[data, `Before: ${data.config.name}`, { ...env, twin: env.beside }],
      [env.beside, `After: ${words()}`, { ...env, say: undefined, twin: data }]].map(([of, title, around]) => {
      const place = el("div", { class: "gl-panel gl-compare-view" });
      return { of, place, around, node: el("section", { class: "gl-compare-side", "aria-label": title }, el("h3", {}, title), place) };
    });
    pair.replaceChildren(...sides.map((side) => side.node));
    for (const side of sides) {
      const why = side.of.missing[name];
      if (why) side.place.append(el("p", { class: "gl-absent" }, `This view has nothing to show here: ${why}`));
      else side.view = env.mounts[name](side.place, side.of, store, side.around);
    }
  }

  function draw() {
    if (!env.beside || !found) return;
    const { token } = store.get();
    const { beside } = env;
    strip.update({ selected: token });
    const [ids, before, after] = ["ids", "before", "after"].map((name) => beside.get(`compare.${name}`));
    const follows = token + 1 < data.tokens ? `; the text goes on with ${quoted(data.labels[token + 1])}` : "";
    nextTitle.replaceChildren(`What is expected after token ${token} ${quoted(data.labels[token])}`,
      el("span", { class: "gl-quiet" }, `  moved by ${readable(found.divergence[token])} bits${follows}`));
    const largest = Math.max(...before.row(token), ...after.row(token));
    const full = compareScales.find((scale) => largest <= scale) ?? 1;
    heads.forEach((head, n) => (head.textContent = `${["before", "after"][n]}, 0 to ${percent(full)}`));
    rows.forEach((row, n) => {
      const name = beside.extra["compare.labels"][ids.at(token, n)] ?? String(ids.at(token, n));
      row.name.textContent = name;
      for (const [side, values] of [[row.was, before], [row.is, after]]) {
        side.fill.style.width = `${(100 * values.at(token, n)) / full}%`;
        side.share.textContent = percent(values.at(token, n));
      }
      row.node.setAttribute("aria-label", `${name}: ${percent(before.at(token, n))} before, ${percent(after.at(token, n))} after`);
    });
  }

  const offStore = store.on(() => {
    label();
    draw();
  });
  const offBeside = env.onBeside?.(() => keepingFocus(build));
  if (env.compare) switches();
  else controls.hidden = true;
  build();
  return {
    step: (by) => sides[0]?.view?.step?.(by),
    destroy() {
      offStore();
      offBeside?.();
      sides.forEach((side) => side.view?.destroy());
      root.replaceChildren();
    },
  };
}
