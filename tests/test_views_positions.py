"""The renderer's scores, from what the browser is sent, against the scores that the model computed."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
import torch
from toys import FAMILIES, random_model, random_tokens

from gptoss_lab.trace import watch
from gptoss_lab.views.page import STATIC
from gptoss_lab.views.payload import pack

NODE = shutil.which("node")
SCORES = """
import { readFileSync } from "node:fs";
const [folder, header, block] = process.argv.slice(1);
const { Data } = await import(`${folder}/core.js`);
const { positionsHands, positionsScoreParts, positionsSum } = await import(`${folder}/rotation.js`);
const data = new Data(JSON.parse(readFileSync(header, "utf8")), readFileSync(block));
const { n_layers, n_heads, n_kv_heads, frequencies, concentration, qk_norm } = data.config;
const of = (layer, side) => data.get(`blocks.${layer}.attention.${side}${qk_norm ? "_normed" : ""}`);
const scores = [];
for (let layer = 0; layer < n_layers; layer++) for (let head = 0; head < n_heads; head++)
  for (let t = 0; t < data.tokens; t++) for (let s = 0; s < data.tokens; s++) {
    const q = positionsHands(of(layer, "q").row(t, head));
    const k = positionsHands(of(layer, "k").row(s, Math.floor(head / (n_heads / n_kv_heads))));
    scores.push(positionsSum(positionsScoreParts(q, k, frequencies, concentration, t - s)));
  }
console.log(JSON.stringify(scores));
"""


@pytest.mark.skipif(NODE is None, reason="node runs the renderer's mathematics, and is not installed")
@pytest.mark.parametrize("family", ["gpt-oss", "qwen3-moe", "on the road"])
def test_the_browser_finds_the_models_own_scores(family, tmp_path):
    """Every layer, head, query and key, to the 16 bits that q and k travel in."""
    model = random_model(FAMILIES[family]())
    tokens = random_tokens(model.config, batch=1)
    trace = watch(model, tokens, keep="blocks.*.attention.*")
    normed = [f"blocks.{n}.attention.{side}_normed" for n in range(model.config.n_layers) for side in "qk"]
    extra = {name: ("T H C", trace[name][0]) for name in normed if name in trace}
    header, block = pack(trace, model, ["positions"], extra)
    sent = [tmp_path / "header.json", tmp_path / "block"]
    sent[0].write_text(json.dumps(header))
    sent[1].write_bytes(block)
    command = [NODE, "--input-type=module", "-e", SCORES, STATIC, *sent]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    T = tokens.shape[1]
    found = torch.tensor(json.loads(done.stdout)).reshape(-1, model.config.n_heads, T, T)
    wanted = torch.stack([trace[f"blocks.{n}.attention.scores"][0] for n in range(model.config.n_layers)])
    seen = wanted.isfinite()
    assert seen.any(-1).all()
    torch.testing.assert_close(found[seen], wanted[seen], rtol=0, atol=2e-3)
