// The page: one run, or two, read from the blocks of its source; nothing else is on it.

import { Data, Store } from "./core.js";
import { mountExplorer, themeHere } from "./explorer.js";
import { placeRead } from "./keys.js";

/** What two blocks of a page hold, as JSON and as base64: a Data, or null where there are none. */
function readBlocks(name) {
  const header = document.getElementById(`${name}header`);
  if (!header) return null;
  const packed = atob(document.getElementById(`${name}block`).textContent.trim());
  return new Data(JSON.parse(header.textContent), Uint8Array.from(packed, (c) => c.charCodeAt(0)));
}

/** The page: one run, or two. */
export function mountPage() {
  const data = readBlocks("gptoss-lab-");
  const beside = readBlocks("gptoss-lab-beside-");
  const root = document.getElementById("gptoss-lab");
  const set = () => (document.documentElement.dataset.theme = themeHere());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", set);
  set();
  const first = new Store(data.limits, { token: data.tokens - 1 });
  const place = placeRead(location.hash);
  first.set(place.selection);
  const view = place.view ?? (beside ? "compare" : undefined);
  globalThis.gptossLab = mountExplorer(root, data, first, { beside, whole: true, view });
}
