// Walking: the steps of a model, half a block at a time, and what each half did to the residual.
//
//   embedding → (attention, then experts or MLP) for every block → the read-out
//
// Step 0 is the embedding, 1 + 2n attention in block n, 2 + 2n its experts, 2L + 1 the read-out.

/** The steps of a model: what happens, in which block, and the names of the residual before and after. */
export function stepsOf(nLayers, hasExperts) {
  const steps = [{ kind: "embedding", layer: null, before: null, after: "embedding" }];
  for (let n = 0; n < nLayers; n++) {
    const [enters, mid, leaves] = [steps.at(-1).after, `blocks.${n}.residual_mid`, `blocks.${n}.residual`];
    steps.push({ kind: "attention", layer: n, before: enters, after: mid });
    steps.push({ kind: hasExperts ? "experts" : "mlp", layer: n, before: mid, after: leaves });
  }
  return [...steps, { kind: "readout", layer: null, before: steps.at(-1).after, after: steps.at(-1).after }];
}

/** The step of a block that is at the same half as the present one: where another view's choice of layer leads. */
export function stepsAtLayer(step, layer) {
  return 2 * layer + (step > 0 && step % 2 === 0 ? 2 : 1);
}

/** How far a vector moved: lengths of before, added and after, and the cosine between before and after. */
export function stepsChange(before, after) {
  let [bb, aa, ab, dd] = [0, 0, 0, 0];
  for (let i = 0; i < after.length; i++) {
    const d = after[i] - before[i];
    bb += before[i] * before[i];
    aa += after[i] * after[i];
    ab += before[i] * after[i];
    dd += d * d;
  }
  const cosine = bb > 0 && aa > 0 ? Math.min(1, Math.max(-1, ab / Math.sqrt(aa * bb))) : NaN;
  return { before: Math.sqrt(bb), after: Math.sqrt(aa), added: Math.sqrt(dd), cosine };
}

/** The places of the `count` largest numbers, largest first; equal ones in order; NaN and −∞ never. */
export function stepsTop(values, count) {
  const places = Array.from(values, (_, i) => i).filter((i) => values[i] > -Infinity);
  return places.sort((a, b) => values[b] - values[a] || a - b).slice(0, count);
}

/** The lowest logit among the chosen experts minus the highest among the others, and whose they are: how nearly another
 *  one was chosen; below zero where an edit chose against the logits, null where nobody was left to choose. */
export function stepsMargin(logits, chosen) {
  const order = stepsTop(logits, logits.length);
  const [last, missed] = [order.filter((e) => chosen.includes(e)).at(-1), order.find((e) => !chosen.includes(e))];
  return last === undefined || missed === undefined ? null : { last, missed, margin: logits[last] - logits[missed] };
}

/** A size that colours may end at: the largest but for the most extreme share of the numbers, so that one channel
 *  does not turn all others white. */
export function stepsReach(values, share = 0.01) {
  const sizes = Float32Array.from(values, Math.abs).sort();
  return sizes[Math.max(0, Math.ceil(sizes.length * (1 - share)) - 1)] || 1;
}
