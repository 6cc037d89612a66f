// Keys of the explorer, and its place in a page's address: what a key selects, how the selection is written
// and read.

/** What the explorer's keys do, for those who ask. */
export const keysInWords = `Tab goes from part to part; arrows move inside tokens, tabs and maps.
[ ] or L l  previous and next layer      { } or H h  previous and next head
, . or T t  previous and next token      E e  previous and next expert
In a map: arrows move the selection, Page Up/Down and Home/End jump, + − zoom (or Ctrl or Cmd and the
wheel), 0 shows all.
In Steps: n p  next and previous step    Escape closes the guided tour
Letters count while the focus is inside the explorer; on a page the other keys count everywhere.`;

const keysMoves = {
  "[": ["layer", -1], "]": ["layer", 1], L: ["layer", -1], l: ["layer", 1],
  "{": ["head", -1], "}": ["head", 1], H: ["head", -1], h: ["head", 1],
  ",": ["token", -1], ".": ["token", 1], T: ["token", -1], t: ["token", 1],
  E: ["expert", -1], e: ["expert", 1],
};

/** [what, by] that a key moves, or null. Alt (and Control with it) may be held for brackets alone: many
 *  keyboards write them so. */
export function keysMove({ key, ctrlKey, metaKey, altKey }) {
  const written = altKey && "[]{}".includes(key);
  return !metaKey && (written || !(ctrlKey || altKey)) ? keysMoves[key] ?? null : null;
}

const keysPlace = ["layer", "head", "token", "expert", "key", "step"];

/** A view and a selection as the end of an address: "#view=attention&layer=2&head=3". */
export function placeWritten(view, selection) {
  const told = keysPlace.filter((name) => Number.isInteger(selection[name]));
  return `#${[`view=${view}`, ...told.map((name) => `${name}=${selection[name]}`)].join("&")}`;
}

/** The same read back: { view, selection }; whatever else stands there is passed over. */
export function placeRead(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const selection = {};
  for (const name of keysPlace) {
    if (/^\d{1,9}$/.test(given.get(name) ?? "")) selection[name] = Number(given.get(name));
  }
  return { view: given.get("view") ?? undefined, selection };
}
