// The guided tour as a strip above the tabs: a question, a prediction, then the answer with its evidence.
//
// It opens the view that a question needs and moves the one selection. While it is open it stands in place of the text's
// tokens. Questions and answers have a least height, so that the views below stay where they are; what needs more moves them.
// Focus goes to the question when another is shown, so that it is read out; the answer is a live region.

import { el } from "./core.js";
import { tourPlan } from "./tour_questions.js";

/** The tour's button and strip. `store`: the shared selection; `env`: what views get; `open(view)` shows a view, `run(text)`
 *  runs a prompt where a kernel is there; `toggled(open)` is told when it opens and closes. Returns { button, node, close() →
 *  whether there was anything to close, update(data), destroy }. */
export function mountTour({ store, env, open, run, toggled }) {
  let data = null;
  let plan = { asked: [], left: [] };
  let at = 0;
  let told = []; // per question: { guess, answer, words } as far as the reader has come
  let fields = [];
  let seen = {}; // the selection when the question was shown: what differs from it was chosen

  const tourCanOpen = (view) => data.payload.views.includes(view) || (view === "compare" && Boolean(env.compare || env.beside));

  const button = el("button", { type: "button", class: "gl-tour-open", "aria-expanded": "false", onclick: () => (node.hidden ? begin() : close()) }, "Guided tour");
  const title = el("h2", { tabindex: -1 });
  const count = el("span", { class: "gl-quiet" });
  const back = el("button", { type: "button", onclick: () => show(at - 1, true) }, "← Previous");
  const next = el("button", { type: "button", onclick: () => show(at + 1, true) }, "Next →");
  const shut = el("button", { type: "button", onclick: close, title: "Escape closes too" }, "Close");
  const ask = el("p");
  const form = el("form", { class: "gl-tour-fields", onsubmit: (event) => { event.preventDefault(); reveal(); } });
  const propose = el("button", { type: "button", onclick: runText }, "Run the tour's text");
  const left = el("p", { class: "gl-quiet" });
  const answer = el("div", { class: "gl-tour-answer", role: "status", "aria-live": "polite", "aria-label": "answer" });
  const node = el("section", { class: "gl-tour", "aria-label": "guided tour", hidden: true, onkeydown: key },
    el("div", { class: "gl-tour-head" }, count, title, back, next, shut),
    el("div", { class: "gl-tour-body" }, el("div", { class: "gl-tour-ask", tabindex: 0, role: "group", "aria-label": "what to do" }, ask, form, propose, left), answer));
  const off = store.on(follow);

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") close();
    else if (!/^(INPUT|SELECT)$/.test(event.target.tagName)) return;
    event.stopPropagation(); // a notebook has shortcuts of its own
  }

  function toggle(opened) {
    node.hidden = !opened;
    button.setAttribute("aria-expanded", String(opened));
    toggled?.(opened);
  }

  function begin() {
    toggle(true);
    show(at, true);
  }

  function close() {
    if (node.hidden) return false;
    toggle(false);
    button.focus();
    return true;
  }

  /** Shows a question as far as it was answered, in its view. */
  function show(asked, focus = false) {
    at = Math.min(Math.max(asked, 0), plan.asked.length - 1);
    const question = plan.asked[at];
    const poor = question.poor(data, env);
    told[at] ??= { guess: {} };
    count.textContent = `Question ${at + 1} of ${plan.asked.length}`;
    title.textContent = question.title;
    back.disabled = at === 0;
    next.disabled = at === plan.asked.length - 1;
    ask.textContent = poor ? `This cannot be answered here: ${poor}.` : question.ask(data, env);
    fields = poor ? [] : question.fields(data, env).map((about) => control(about));
    form.hidden = Boolean(poor);
    form.replaceChildren(el("span", {}, "Your prediction:"), ...fields.map((field) => field.node), el("button", { type: "submit", class: "gl-tour-show" }, "Show me"));
    propose.hidden = !data.payload.tour || !env.canRun || data.payload.tour === data.text.join("");
    left.textContent = at === 0 && plan.left.length ? `Left out: ${plan.left.map(([name, why]) => `${name} (${why})`).join(" ")}` : "";
    write(told[at].answer);
    if (tourCanOpen(question.view)) open(question.view);
    store.set({ key: undefined, ...(told[at].answer?.select ?? (poor ? null : question.start(data))) });
    seen = store.get();
    if (focus) title.focus();
  }

  /** A choice or a number. One that is linked shows and moves the shared selection. */
  function control({ name, label, options, number, linked, first }) {
    const { guess } = told[at];
    if (guess[name] === undefined && first !== undefined) guess[name] = first;
    const input = options
      ? el("select", {}, first === undefined ? el("option", { value: "" }, "?") : null, options.map(([value, text]) => el("option", { value }, text)))
      : el("input", { type: "number", min: number[0], max: number[1], step: "any", required: true });
    if (options) input.required = true;
    input.value = guess[name] ?? "";
    input.addEventListener(options ? "change" : "input", () => {
      guess[name] = input.value === "" ? undefined : Number(input.value);
      if (linked && guess[name] !== undefined) store.set({ [name]: guess[name] });
    });
    return { name, linked, input, node: el("label", {}, `${label} `, input) };
  }

  /** What the reader selects in the view becomes the prediction, until the answer is shown. */
  function follow(now) {
    const linked = fields.filter((field) => field.linked);
    const moved = linked.some(({ name }) => now[name] !== seen[name]);
    seen = now;
    if (node.hidden || !moved || told[at]?.answer) return;
    for (const { name, input } of linked) {
      told[at].guess[name] = now[name];
      input.value = String(now[name]);
    }
  }

  function write(given) {
    answer.classList.toggle("gl-bad", Boolean(given?.failed));
    if (!given) return answer.replaceChildren(el("p", { class: "gl-quiet" }, "The answer comes here, counted from the numbers below. Predict first."));
    answer.replaceChildren(el("p", { class: "gl-tour-verdict" }, given.verdict),
      ...(given.lines ?? []).map(([name, text]) => el("p", {}, el("b", {}, `${name}: `), text)));
  }

  async function reveal() {
    const [question, state, asked] = [plan.asked[at], told[at], at];
    write({ verdict: "Counting …" });
    try {
      state.answer = await question.answer(data, state.guess, env);
    } catch (error) {
      state.answer = null;
      if (asked === at) write({ verdict: `No answer: ${error.message}.`, failed: true });
      return;
    }
    if (told[asked] !== state || asked !== at || node.hidden) return;
    write(state.answer);
    if (tourCanOpen(question.view)) open(question.view);
    store.set(state.answer.select);
    seen = store.get();
  }

  function runText() {
    title.focus();
    run(data.payload.tour);
  }

  return {
    button, node, close,
    /** Another trace: questions and answers begin again, at the question where the reader was. */
    update(given) {
      const same = data && data.source === given.source && data.labels.join("\n") === given.labels.join("\n");
      const id = plan.asked[at]?.id;
      data = given;
      plan = tourPlan(data, data.payload.views);
      button.hidden = plan.asked.length === 0;
      if (same) return;
      told = [];
      at = Math.max(plan.asked.findIndex((question) => question.id === id), 0);
      if (button.hidden) toggle(false);
      else if (!node.hidden) show(at);
    },
    destroy: off,
  };
}
