// The explorer: a prompt, its tokens, one selection, and the views in tabs. The notebook's widget and the page both run it.

import { Data, Store, canPress, el, limitsOfBoth } from "./core.js";
import { mountAttention } from "./attention.js";
import { mountCompare } from "./compare.js";
import { mountExperts } from "./experts.js";
import { keysInWords, keysMove, placeWritten } from "./keys.js";
import { mountPositions } from "./positions.js";
import { mountSteps } from "./steps.js";
import { quoted, readText, tokenStrip } from "./tokens.js";
import { mountTour } from "./tour_strip.js";

const explorerMounts = { experts: mountExperts, attention: mountAttention, positions: mountPositions, steps: mountSteps };
const explorerCompare = "compare"; // a tab of its own: it needs a second run, or a kernel to make one

/** "dark" or "light": what the notebook says (JupyterLab, VS Code), else the system. */
export function themeHere() {
  const { body } = document;
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false" ? "dark" : "light";
  const kind = body.dataset.vscodeThemeKind;
  if (kind) return kind.includes("light") ? "light" : "dark";
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

/** Everything in `root`. env: { canRun, canChange, others, send(message) → Promise, beside, whole: true where nothing else is on
 *  the page, so that keys but letters count everywhere and the address tells the place }; returns { update(data, beside), updateBeside(beside), destroy(), store }.
 *
 *  Views find in their env: say(text), theme, and for comparing: beside (the second run as Data, or null),
 *  onBeside(f) → forget, compare(change, other) → Promise where a kernel answers, others, mounts (the views by name), memory
 *  (what views remember while they are closed), and inside Edit and compare: twin (the other run, for common scales). */
export function mountExplorer(root, data, store, env = {}) {
  const off = new AbortController();
  const word = el("div", { class: "gl-word", role: "status", "aria-live": "polite" });
  const spoken = el("div", { class: "gl-hidden", "aria-live": "polite" });
  const besideListeners = new Set();
  const inside = {
    ...env, theme: themeHere(), say: (text) => (spoken.textContent = text),
    beside: env.beside ?? null, mounts: explorerMounts, memory: {},
    compare: env.canChange ? (change, other = "") => env.send({ type: "compare", change, other }) : undefined,
    onBeside: (listener) => {
      besideListeners.add(listener);
      return () => besideListeners.delete(listener);
    },
  };
  const name = `gl-${Math.random().toString(36).slice(2, 8)}`;
  let shown = null;
  let view = null;
  let running = false;
  let placing = 0;

  // the prompt
  const prompt = el("textarea", { "aria-label": "prompt", rows: 2, spellcheck: "false", placeholder: "Type a text to run through the model" });
  const run = el("button", { type: "button", onclick: runPrompt, title: "Enter runs, Shift+Enter begins a line" }, "Run");
  const box = el("div", { class: "gl-prompt", hidden: !env.canRun }, prompt, run);
  prompt.addEventListener("keydown", (event) => {
    event.stopPropagation(); // the notebook has shortcuts of its own
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      runPrompt();
    }
  });

  async function runPrompt() {
    if (running) return;
    running = true;
    canPress(run, false);
    word.className = "gl-word";
    word.textContent = "Running …";
    const began = performance.now();
    try {
      const answer = await env.send({ type: "run", prompt: prompt.value });
      word.textContent = `${data.tokens} token${data.tokens === 1 ? "" : "s"} in ${((performance.now() - began) / 1000).toFixed(2)} s${answer?.seconds === undefined ? "" : `, of which the model ran ${answer.seconds.toFixed(2)} s`}`;
    } catch (error) {
      word.className = "gl-word gl-bad";
      word.textContent = error.message;
    } finally {
      running = false;
      canPress(run, true);
    }
  }

  // the selection
  const heading = el("h1");
  const source = el("span", { class: "gl-quiet" });
  const warning = el("p", { class: "gl-word gl-bad", role: "alert" });
  const strips = el("div");
  let strip = null;
  const here = el("span", { class: "gl-here" });
  const chooser = (key, label) => {
    const select = el("select", { onchange: () => store.set({ [key]: Number(select.value) }) });
    select.addEventListener("keydown", (event) => event.stopPropagation());
    return { key, select, node: el("label", {}, label, select) };
  };
  const choosers = [chooser("layer", "layer"), chooser("head", "head"), chooser("expert", "expert")];
  const before = el("button", { type: "button", "aria-label": "previous token", onclick: () => store.set({ token: store.get().token - 1 }) }, "◀");
  const after = el("button", { type: "button", "aria-label": "next token", onclick: () => store.set({ token: store.get().token + 1 }) }, "▶");
  const tour = mountTour({ store, env: inside, toggled: (opened) => (strips.hidden = opened), open: (view) => view !== shown && open(view), run: (text) => { prompt.value = text; return runPrompt(); } });
  const bar = el("div", { class: "gl-bar", role: "group", "aria-label": "selection" }, before, after, here, choosers.map((one) => one.node), tour.button);

  // the views
  const tabs = el("div", { class: "gl-tabs", role: "tablist", "aria-label": "views" });
  const panel = el("div", { class: "gl-panel", role: "tabpanel", id: `${name}-panel`, tabindex: -1 });
  const copy = el("button", { type: "button", class: "gl-copy", onclick: copyCode }, "Copy the code for this view");
  const code = el("pre", { tabindex: 0 });
  const shownCode = el("details", {}, el("summary", {}, "Code for this view"), code);
  const told = el("pre");
  const leftOut = el("p", { class: "gl-quiet" });
  const foot = el("div", { class: "gl-foot" }, leftOut, shownCode,
    el("details", {}, el("summary", {}, "This text in words"), told),
    el("details", {}, el("summary", {}, "Keys"), el("pre", {}, keysInWords)));
  root.classList.add("gl-root");
  root.replaceChildren(el("div", { class: "gl-top" }, heading, source, word), warning, box, strips, bar, tour.node, tabs, panel, foot, spoken);

  function open(asked, focus = false) {
    if (view) view.destroy();
    view = null;
    shown = asked;
    [...tabs.querySelectorAll("[role=tab]")].forEach((tab) => {
      const is = tab.dataset.view === asked;
      tab.setAttribute("aria-selected", String(is));
      tab.tabIndex = is ? 0 : -1;
      if (is && focus) tab.focus();
      if (is) panel.setAttribute("aria-labelledby", tab.id);
    });
    panel.replaceChildren();
    const mount = asked === explorerCompare ? mountCompare : explorerMounts[asked];
    const why = data.missing[asked];
    if (why) panel.append(el("p", { class: "gl-absent" }, `This view has nothing to show here: ${why}`));
    else if (!mount) panel.append(el("p", { class: "gl-absent" }, `This version has no view called ${asked}.`));
    else {
      try {
        view = mount(panel, data, store, inside);
      } catch (error) {
        console.error(error);
        panel.replaceChildren(el("p", { class: "gl-absent" }, `This view cannot be drawn: ${error.message}`));
      }
    }
    showCode();
    root.dataset.view = asked;
    tellPlace();
  }

  /** On a page, the address tells what is shown, so that a reload comes back to it. */
  function tellPlace() {
    if (!env.whole || !shown) return;
    clearTimeout(placing); // browsers refuse an address that changes too often
    placing = setTimeout(() => {
      try {
        history.replaceState(null, "", placeWritten(shown, store.get()));
      } catch {} // a page inside another may have no address of its own
    }, 200);
  }

  const codeOf = (name) => (name === explorerCompare ? inside.beside?.code[name] : data.code[name]) ?? "";

  function showCode() {
    code.textContent = codeOf(shown);
    shownCode.hidden = copy.hidden = !codeOf(shown);
  }

  /** The names of the tabs, in order. */
  function tabNames() {
    return [...data.payload.views, ...(inside.compare || inside.beside ? [explorerCompare] : [])];
  }

  /** Another second run, or none: what can be selected, and what is missing. */
  function setBeside(next) {
    inside.beside = next;
    store.limit(limitsOfBoth(data, next));
    const { config } = data;
    const { layer, head, expert } = store.limits;
    const each = config.n_heads / config.n_kv_heads;
    const names = {
      layer: config.windows.slice(0, layer).map((window, n) => `${n} · ${window ? `window ${window}` : "dense"}`),
      head: Array.from({ length: head }, (_, h) => (each > 1 ? `${h} · kv ${Math.floor(h / each)}` : `${h}`)),
      expert: config.n_experts || next?.config.n_experts ? Array.from({ length: expert }, (_, e) => String(e)) : [],
    };
    for (const { key, select, node } of choosers) {
      select.replaceChildren(...names[key].map((text, value) => el("option", { value }, text)));
      select.value = String(store.get()[key]);
      node.hidden = names[key].length === 0;
    }
    const odd = [data.noNumbers, next?.noNumbers && `The second run: ${next.noNumbers}`].filter(Boolean);
    warning.textContent = odd.join(" ");
    warning.hidden = odd.length === 0;
    const [mine, its] = [data, next].map((one) => one?.leftOut.join("; "));
    leftOut.textContent = mine && mine === its ? `Left out of both runs, because it would not fit: ${mine}.`
      : [mine && `Left out, because it would not fit: ${mine}.`, its && `Left out of the second run: ${its}.`].filter(Boolean).join(" ");
  }

  async function copyCode() {
    const text = codeOf(shown);
    try {
      await navigator.clipboard.writeText(text);
      word.className = "gl-word";
      word.textContent = "The code is on the clipboard: paste it into a cell.";
    } catch {
      shownCode.open = true;
      getSelection().selectAllChildren(code);
      word.textContent = "The clipboard is closed to this page: the code is selected below, copy it from there.";
    }
  }

  tabs.addEventListener("keydown", (event) => {
    const all = tabNames();
    const at = all.indexOf(shown);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined || event.target.getAttribute("role") !== "tab") return;
    event.preventDefault();
    event.stopPropagation();
    open(all[(to + all.length) % all.length], true);
  });
  // Jupyter's commands take keys (arrows, letters) before the element in focus does, unless it says otherwise.
  globalThis.addEventListener("keydown", ({ target, ctrlKey, metaKey, altKey }) => {
    if (root.contains(target)) target.toggleAttribute("data-lm-suppress-shortcuts", !(ctrlKey || metaKey || altKey));
  }, { capture: true, signal: off.signal });
  (env.whole ? document : root).addEventListener("keydown", (event) => {
    if (/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
    // speech input types letters: they count only where the focus is in the explorer (WCAG 2.1.4)
    if (/^[a-z]$/i.test(event.key) && !root.contains(event.target)) return;
    const moves = keysMove(event);
    const plain = !(event.ctrlKey || event.metaKey || event.altKey);
    const by = plain && view?.step ? { n: 1, p: -1 }[event.key] : undefined;
    if (moves) store.set({ [moves[0]]: store.get()[moves[0]] + moves[1] });
    else if (by) view.step(by);
    else if (!(plain && event.key === "Escape" && tour.close())) return;
    event.preventDefault();
    event.stopPropagation();
  }, { signal: off.signal });

  function choose() {
    const now = store.get();
    strip.update({ selected: now.token });
    tellPlace();
    here.replaceChildren(`token ${now.token} of 0–${data.tokens - 1}: `, el("b", {}, data.labels[now.token]),
      now.token + 1 < data.tokens ? el("span", { class: "gl-quiet" }, "  then ", el("b", {}, data.labels[now.token + 1])) : "");
    for (const { key, select } of choosers) select.value = String(now[key]);
    canPress(before, now.token > 0);
    canPress(after, now.token < data.tokens - 1);
  }

  function fill(next, beside = null) {
    data = next;
    setBeside(beside);
    heading.textContent = data.config.name;
    source.textContent = `Source: ${data.source}`;
    strip = tokenStrip(data.labels, (token) => store.set({ token }));
    strips.replaceChildren(strip.node);
    told.textContent = `Text: ${quoted(data.payload.prompt || readText(data.text.join("")))}\n\n${data.payload.summary ?? ""}`;
    if (data.payload.prompt !== undefined && document.activeElement !== prompt) prompt.value = data.payload.prompt;
    const all = tabNames();
    tabs.replaceChildren(...all.map((key) => el("button", { type: "button", role: "tab", class: "gl-tab", id: `${name}-${key}`, "data-view": key,
      "aria-controls": `${name}-panel`, onclick: () => open(key) }, key === explorerCompare ? "Edit and compare" : data.payload.titles[key] ?? key)), copy);
    choose();
    open(all.includes(shown) ? shown : all.includes(env.view) ? env.view : all[0]);
    tour.update(data);
  }

  function theme() {
    inside.theme = root.dataset.theme = themeHere();
  }

  function themed() {
    const was = inside.theme;
    theme();
    if (was !== inside.theme && shown) open(shown);
  }

  const watcher = new MutationObserver(themed);
  watcher.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-vscode-theme-kind"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themed, { signal: off.signal });
  theme();
  const forget = store.on(choose);
  fill(data, env.beside);
  return {
    store,
    update: fill,
    updateBeside(next) {
      setBeside(next);
      for (const listener of [...besideListeners]) listener(next);
      showCode();
    },
    destroy() {
      forget();
      tour.destroy();
      clearTimeout(placing);
      off.abort();
      watcher.disconnect();
      view?.destroy();
      root.replaceChildren();
    },
  };
}

/** The widget, as anywidget calls it: the same explorer, whose prompts go to the kernel and whose numbers come from it. */
function render({ model, el: place }) {
  const read = () => new Data(model.get("header"), model.get("block"));
  const readBeside = () => (model.get("beside").format ? new Data(model.get("beside"), model.get("beside_block")) : null);
  const waiting = new Map();
  let asked = 0;
  const send = (message) => new Promise((resolve, reject) => {
    const id = ++asked;
    const late = setTimeout(() => {
      waiting.delete(id);
      reject(new Error("The kernel has not answered for a minute. If it is busy, what it makes appears here when it is done; if it does not run, run the cell again."));
    }, 60_000);
    waiting.set(id, (answer) => {
      clearTimeout(late);
      if (answer.error) reject(new Error(answer.error));
      else resolve(answer);
    });
    model.send({ ...message, id });
  });
  const answered = (message) => {
    waiting.get(message.id)?.(message);
    waiting.delete(message.id);
  };
  const root = document.createElement("div");
  place.append(root);
  const data = read();
  const made = mountExplorer(root, data, new Store(data.limits, { token: data.tokens - 1 }), {
    canRun: model.get("can_run"), canChange: model.get("can_change"), others: model.get("others"), view: model.get("view"),
    beside: readBeside(), send,
  });
  let news = null; // both headers may change in one message: they are read together, once
  const changed = (header) => () => {
    if (news) return (news.header ||= header);
    news = { header };
    return queueMicrotask(() => {
      const all = news.header;
      news = null;
      if (all) made.update(read(), readBeside());
      else made.updateBeside(readBeside());
    });
  };
  const [all, second] = [changed(true), changed(false)];
  model.on("msg:custom", answered);
  model.on("change:header", all);
  model.on("change:beside", second);
  return () => {
    model.off("msg:custom", answered);
    model.off("change:header", all);
    model.off("change:beside", second);
    made.destroy();
  };
}

export default { render };
