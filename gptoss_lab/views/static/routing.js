// Routing: what one layer's router made of every token: who was chosen, who carries the load, how close the choice was.
//
// margin = the smallest chosen logit − the largest that missed; 0 is a tie, below 0 an edited choice.

/** One layer's routing: { tokens, experts, weight(e, t) (NaN where not chosen), share(e, t) over all experts, logit(e, t),
 *  chosen(t) → [{expert, weight}] best first, load (share of choices), carried (share of weight), margin[t], missed[t],
 *  reach: the largest logit, by size }. */
export function routing(data, layer) {
  const [logits, choice, weight] = ["logits", "choice", "weight"].map((name) => data.get(`blocks.${layer}.experts.${name}`));
  const [tokens, experts] = logits.shape;
  const kept = choice.shape[1];
  const [z, picks, shares] = [logits.row(), choice.row(), weight.row()];
  const grid = new Float32Array(tokens * experts).fill(NaN);
  const all = new Float32Array(tokens * experts);
  const load = new Float32Array(experts);
  const carried = new Float32Array(experts);
  const margin = new Float32Array(tokens);
  const missed = new Int32Array(tokens).fill(-1);
  for (let t = 0; t < tokens; t++) {
    const mine = z.subarray(t * experts, (t + 1) * experts);
    const top = mine.reduce((a, b) => Math.max(a, b), -Infinity);
    const total = mine.reduce((sum, v) => sum + Math.exp(v - top), 0);
    for (let e = 0; e < experts; e++) all[t * experts + e] = Math.exp(mine[e] - top) / total;
    let lowest = Infinity;
    for (let k = 0; k < kept; k++) {
      const e = picks[t * kept + k];
      const w = shares[t * kept + k];
      grid[t * experts + e] = (grid[t * experts + e] || 0) + w;
      load[e] += 1 / (tokens * kept);
      carried[e] += w / tokens;
      lowest = Math.min(lowest, mine[e]);
    }
    let best = -Infinity;
    for (let e = 0; e < experts; e++) {
      if (Number.isNaN(grid[t * experts + e]) && mine[e] > best) [best, missed[t]] = [mine[e], e];
    }
    margin[t] = missed[t] < 0 ? Infinity : lowest - best;
  }
  return {
    tokens, experts, kept, load, carried, margin, missed,
    reach: z.reduce((m, v) => (Number.isFinite(v) ? Math.max(m, Math.abs(v)) : m), 0),
    weight: (e, t) => grid[t * experts + e],
    share: (e, t) => all[t * experts + e],
    logit: (e, t) => z[t * experts + e],
    chosen: (t) => Array.from({ length: kept }, (_, k) => ({ expert: picks[t * kept + k], weight: shares[t * kept + k] })),
  };
}

/** A margin in words: "1.44", "less than 0.01"; below zero where an edit chose against the logits. */
export function marginOf(margin) {
  const size = Math.abs(margin);
  return size < 0.005 ? "less than 0.01" : `${margin < 0 ? "−" : ""}${size.toFixed(2)}`;
}
