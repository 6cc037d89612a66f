// The block's diagram of the Steps view: the whole walk as a row of halves, and one block opened, with the part that is
// spoken of in its colour.

import { el, svg } from "./core.js";

const diagramKinds = { embedding: "residual", attention: "query", experts: "experts", mlp: "experts",
  readout: "output" };

/** The colour of a kind of step. */
export function diagramInk(kind) {
  return `var(--gl-${diagramKinds[kind]})`;
}

/** The walk as a row: the embedding, two halves for every block, the read-out. Returns { node, update(step) }. */
export function diagramWalk(steps, go) {
  const wide = 1000 / (steps.length + 1); // the ends are half as wide again
  let x = 0;
  const cells = steps.map((step, n) => {
    const width = wide * (step.layer === null ? 1.5 : 1);
    const second = step.kind === "experts" || step.kind === "mlp";
    const gap = second ? 0 : 2;
    const words = step.layer === null ? (n ? "read-out" : "embedding") : `block ${step.layer}, ${step.kind}`;
    const cell = svg("rect", { x: x + gap, y: 18, width: Math.max(width - gap - (second ? 0 : 1), 1), height: 16,
      rx: 2.5,
      fill: diagramInk(step.kind), "vector-effect": "non-scaling-stroke", onclick: () => go(n), style: { cursor: "pointer" } },
        svg("title", {}, words));
    const room = 2 * wide > 26 || (step.layer ?? 0) % 5 === 0;
    const label = step.kind === "attention" ? room && `${step.layer}` : step.layer === null && wide > 40
      && (n ? "read-out" : "embed");
    const name = label && svg("text",
      { x: x + (step.kind === "attention" ? wide : width / 2), y: 12, "text-anchor": "middle" }, label);
    x += width;
    return { cell, name };
  });
  const node = svg("svg", { class: "gl-steps-walk", viewBox: "0 0 1000 38", preserveAspectRatio: "none",
    "aria-hidden": "true" },
    cells.map(({ cell }) => cell));
  const names = el("div", { class: "gl-steps-names", "aria-hidden": "true" }, cells.map(({ name }) =>
    name && el("span", { style: name.textContent === "read-out" ? { right: "0", transform: "none" } : { left: `${name.getAttribute("x") / 10}%` } },
      name.textContent)));
  return {
    node: el("div", { class: "gl-steps-walkway" }, names, node),
    update(step) {
      cells.forEach(({ cell }, n) => {
        cell.setAttribute("stroke", n === step ? "var(--gl-pick)" : "var(--gl-muted)"); // a pale cell is seen by its frame
        cell.setAttribute("stroke-width", n === step ? 3 : 1);
        cell.setAttribute("fill-opacity", n === step ? 1 : n < step ? 0.62 : 0.24);
      });
    },
  };
}

function diagramBox(x, y, width, height, words, ink) {
  const frame = svg("rect", { x, y, width, height, rx: 7 });
  const lines = words.map((line, n) => svg("text",
    { x: x + width / 2, y: y + height / 2, dy: `${0.35 + 1.15 * (n - (words.length - 1) / 2)}em`, "text-anchor": "middle" }, line));
  return { node: svg("g", {}, frame, lines), light: (on) => {
    frame.setAttribute("fill", on ? ink : "var(--gl-page)");
    frame.setAttribute("fill-opacity", on ? 0.28 : 1);
    frame.setAttribute("stroke", on ? ink : "var(--gl-line)");
    frame.setAttribute("stroke-width", on ? 2.6 : 1.4);
    for (const line of lines) {
      line.setAttribute("fill", on ? "var(--gl-ink)" : "var(--gl-muted)");
      line.setAttribute("font-weight", on ? 650 : 400);
    }
  } };
}

function diagramWire(d, ink) {
  const path = svg("path", { d, fill: "none", "stroke-linejoin": "round" });
  return { node: path, light: (on) => {
    path.setAttribute("stroke", on ? ink : "var(--gl-line)");
    path.setAttribute("stroke-width", on ? 3 : 1.6);
  } };
}

function diagramPlus(x, ink) {
  const ring = svg("circle", { cx: x, cy: 112, r: 12, fill: "var(--gl-page)" });
  const cross = svg("path", { d: `M${x - 6} 112H${x + 6}M${x} 106V118` });
  return { node: svg("g", {}, ring, cross), light: (on) => [ring, cross].forEach((part) => {
    part.setAttribute("stroke", on ? ink : "var(--gl-muted)");
    part.setAttribute("stroke-width", on ? 3 : 1.6);
  }) };
}

/** One block opened: norm → attention → + → norm → router → experts → +. Returns { node, update(step) }. */
export function diagramBlock(config) {
  const experts = Boolean(config.n_experts);
  const [see, say] = ["embedding", "readout"].map(diagramInk);
  const [look, think] = ["attention", "experts"].map(diagramInk);
  const attention = diagramBox(264, 26, 130, 52, ["attention", ""], look);
  const parts = {
    embedding: [diagramBox(12, 88, 104, 48, ["embedding"], see)],
    attention: [diagramWire("M168 112V52H190M240 52H264M394 52H424V100", look),
      diagramBox(190, 32, 50, 40, ["norm"], look), attention, diagramPlus(424, look)],
    experts: experts
      ? [diagramWire("M458 112V52H476M526 52H544M612 52H632M758 52H786V100", think),
        diagramBox(476, 32, 50, 40, ["norm"], think),
        diagramBox(544, 32, 68, 40, ["router"], think), diagramBox(640, 18, 118, 52, [], think),
          diagramBox(636, 22, 118, 52, [], think),
        diagramBox(632, 26, 118, 52, [`${config.experts_per_token} of ${config.n_experts}`, "experts"], think),
          diagramPlus(786, think)]
      : [diagramWire("M458 112V52H476M526 52H560M730 52H786V100", think), diagramBox(476, 32, 50, 40, ["norm"], think),
        diagramBox(560, 26, 170, 52, ["MLP", `${config.d_ff} neurons`], think), diagramPlus(786, think)],
    readout: [diagramBox(846, 90, 54, 44, ["norm"], say), diagramBox(908, 88, 90, 48, ["unembed"], say)],
  };
  const stream = svg("path",
    { d: "M116 112H846M900 112H908", stroke: "var(--gl-residual)", "stroke-width": 3.5, fill: "none" });
  const title = svg("text", { x: 160, y: 146, fill: "var(--gl-muted)" });
  const dot = svg("circle", { cy: 112, r: 7, fill: "var(--gl-pick)", stroke: "var(--gl-page)", "stroke-width": 2 });
  const node = svg("svg", { class: "gl-steps-block", viewBox: "0 0 1000 158", role: "img" },
    svg("rect", { x: 148, y: 4, width: 670, height: 150, rx: 12, fill: "var(--gl-panel)", stroke: "var(--gl-line)" }),
      stream,
    Object.values(parts).flat().map((part) => part.node), title, dot);
  return {
    node,
    update({ kind, layer }, nearest) {
      const room = layer ?? nearest;
      const window = config.windows[room];
      for (const [name, list] of Object.entries(parts)) for (const part of list) part.light(name === kind
        || (name === "experts" && kind === "mlp"));
      attention.node.querySelectorAll("text")[1].textContent = window ? `window of ${window}` : "dense";
      title.textContent = `block ${room}: the residual runs straight through, and each half adds to it`;
      dot.setAttribute("cx", { embedding: 132, attention: 441, experts: 804, mlp: 804, readout: 832 }[kind]);
      node.setAttribute("aria-label",
        `Diagram of block ${room}: norm, attention (${window ? `window of ${window}` : "dense"}), plus, norm, ` +
        `${experts ? "router, experts" : "MLP"}, plus. Now at: ${kind}.`);
    },
  };
}
