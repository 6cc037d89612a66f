// Tokens as people read them: quoted, in a row of buttons, and with the characters that their bytes belong to.
//
// A token may end inside a character; its label then shows bytes, as ⟨D9⟩. What runs from right to left is isolated, so
// that it does not turn round the numbers and signs beside it.

import { coreSoon, el } from "./core.js";

const tokensRightToLeft = new RegExp( // Hebrew to Arabic, their forms, and the marks that turn a line
  "[\\u0590-\\u08ff\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069\\ufb1d-\\ufdff\\ufe70-\\ufefc" +
  "\\u{10800}-\\u{10fff}\\u{1e800}-\\u{1efff}]", "u");
const tokensBytes = /⟨([89A-F][0-9A-F])⟩/g; // bytes below 80 are characters of their own

/** A label that leaves the order of what stands around it alone. */
export function isolated(label) {
  return tokensRightToLeft.test(label) ? `\u2068${label}\u2069` : label;
}

/** A label in quotation marks. */
export function quoted(label) {
  return `“${isolated(label)}”`;
}

/** How many bytes a character has that begins with this one; 1 for one that begins none. */
function tokensLength(lead) {
  return lead >= 0xf0 && lead < 0xf8 ? 4 : lead >= 0xe0 && lead < 0xf0 ? 3 : lead >= 0xc2 && lead < 0xe0 ? 2 : 1;
}

/** The character of several bytes, or null where they make none. */
function tokensCharacter(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(bytes));
  } catch {
    return null;
  }
}

/** For every token the characters of which it holds some bytes, "" where it holds none: "⟨D9⟩", "⟨85⟩" → "م", "م". */
export function charactersOf(labels) {
  const bytes = []; // every byte of the text that stands alone: { byte, token, joins the one before }
  labels.forEach((label, token) => {
    let end = token && bytes.at(-1)?.token === token - 1 && bytes.at(-1).last ? 0 : -1;
    for (const found of label.matchAll(tokensBytes)) {
      const joined = found.index === end;
      end = found.index + 4;
      bytes.push({ byte: parseInt(found[1], 16), token, joined, last: end === label.length });
    }
  });
  const found = labels.map(() => "");
  for (let n = 0; n < bytes.length; n++) {
    const run = bytes.slice(n, n + tokensLength(bytes[n].byte));
    if (run.length < 2 || !run.slice(1).every((one) => one.joined)) continue;
    const character = tokensCharacter(run.map((one) => one.byte));
    if (character === null) continue;
    for (const token of new Set(run.map((one) => one.token))) found[token] += character;
    n += run.length - 1;
  }
  return found;
}

/** A text whose bytes are characters again, where they make some. */
export function readText(text) {
  return text.replace(/(?:⟨[89A-F][0-9A-F]⟩)+/g, (run) => {
    const bytes = Uint8Array.from(run.matchAll(tokensBytes), (found) => parseInt(found[1], 16));
    return tokensCharacter(bytes) ?? run;
  });
}

/** The end of a text given token by token: its last `count` tokens, and those before that belong to the same character. */
export function textTail(text, count, between = "") {
  const parts = charactersOf(text);
  let first = Math.max(text.length - count, 0);
  while (first && parts[first] && parts[first] === parts[first - 1]) first--;
  return readText([...text.slice(first), ""].join(between));
}

/** Scrolls `node` alone, never the page, until `cell` is seen: in the next frame, when asking for places costs nothing. */
export function inView(node, cell) {
  if (!cell) return;
  coreSoon(() => {
    const [top, bottom] = [cell.offsetTop, cell.offsetTop + cell.offsetHeight];
    const hidden = top < node.scrollTop || bottom > node.scrollTop + node.clientHeight;
    if (hidden) node.scrollTop = (top + bottom - node.clientHeight) / 2;
  });
}

/** The tokens of a text in a row of buttons that wraps. `pick(token)` when one is chosen by pointer or arrow keys.
 *
 *  Returns { node, update({selected, shade, titles, ink}) }: `shade` holds a colour (or null) for each token, `ink` the
 *  colour of its letters; a title says first which character a token's bytes belong to. One token is in the tab order, as
 *  in every list of this kind; arrows, Home and End move.
 */
export function tokenStrip(labels, pick, name = "tokens of the text") {
  let selected = 0;
  let shownOnce = false;
  const parts = charactersOf(labels).map((character) => character && `part of ${quoted(character)}`);
  const cells = labels.map((label, t) => el("button", { type: "button", class: "gl-token", role: "option",
    tabindex: -1, "data-token": t, title: parts[t] || null, onclick: () => choose(t) }, label));
  const node = el("div", { class: "gl-strip", role: "listbox", "aria-label": name,
    "aria-orientation": "horizontal", onkeydown: move }, cells);

  function choose(t, focus = false) {
    const next = Math.min(Math.max(t, 0), cells.length - 1);
    if (focus) cells[next]?.focus();
    pick(next);
  }

  function move(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
    const to = step ? selected + step : event.key === "Home" ? 0 : event.key === "End" ? cells.length - 1 : null;
    if (to === null || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    selected = Math.min(Math.max(to, 0), cells.length - 1);
    choose(selected, true);
  }

  function update({ selected: now = selected, shade, ink, titles } = {}) {
    cells.forEach((cell, t) => {
      const is = t === now;
      if ((cell.getAttribute("aria-selected") === "true") !== is || !cell.hasAttribute("aria-selected")) {
        cell.setAttribute("aria-selected", String(is));
        cell.tabIndex = is ? 0 : -1;
      }
      if (shade) {
        cell.style.backgroundColor = shade[t] ?? "";
        cell.style.color = ink?.[t] ?? "";
      }
      if (titles) cell.title = [parts[t], titles[t]].filter(Boolean).join(": ");
    });
    if (now !== selected || !shownOnce) inView(node, cells[now]);
    shownOnce = true;
    selected = now;
  }

  update();
  return { node, update };
}
