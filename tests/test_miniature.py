"""The miniatures as they are shipped: small, read by transformers too, and the same models there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import gptoss_lab as lab
from gptoss_lab.weights import PackedStack

FOLDER = Path(lab.__file__).parent / "assets" / "mini-oss"
README = Path(lab.__file__).parents[1] / "README.md"
TEXTS = {
    "English": "The king said to the people of Egypt, and the people answered the king.",
    "Spanish": "Y dijo Dios: Sea la luz: y fué la luz. Y vió Dios que la luz era buena.",
    "Python": 'def area(width, height):\n    """The area."""\n    return width * height\n',
    "arithmetic": "12 + 7 = 19\n",
}


@pytest.fixture(scope="module")
def transformers_model():
    """The same folder in transformers, float32, experts unpacked."""
    from transformers import AutoModelForCausalLM, Mxfp4Config

    return AutoModelForCausalLM.from_pretrained(
        FOLDER,
        dtype=torch.float32,
        attn_implementation="eager",
        quantization_config=Mxfp4Config(dequantize=True),
    ).eval()


def test_it_is_gpt_oss_in_small_and_at_most_8_mb():
    config = lab.load("mini-oss").config
    assert (
        config.family == "gpt-oss" and config.sinks and config.yarn and config.n_experts and not config.tied
    )
    assert config.windows == (32, None) * 3
    assert config.n_heads > config.n_kv_heads > 1
    assert config.context >= 256 and config.stored_experts == "mxfp4"
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 8_000_000


def test_the_readme_tells_the_loss_of_the_shipped_weights():
    log = json.loads((FOLDER / "training.json").read_text("utf-8"))
    bits, words = log["bits_per_byte"]["as stored, 256 tokens"], " ".join(README.read_text("utf-8").split())
    least, most = (end(bits, key=bits.__getitem__) for end in (min, max))
    mean = sum(bits.values()) / len(bits)
    assert (f"mini-oss stands at {mean:.2f} bits per byte of held-out text in windows of 256 tokens, the "
            f"mean of six domains from {bits[least]:.2f} ({least}) to {bits[most]:.2f} ({most}), after "
            f"{log['tokens'] / 1e6:.1f} M tokens") in words  # fmt: skip


@pytest.mark.parametrize("language", TEXTS)
def test_transformers_reads_the_same_tokens_and_gives_the_same_logits(language, transformers_model):
    from transformers import AutoTokenizer

    model, text = lab.load("mini-oss"), TEXTS[language] * 3  # past the window of 32
    trace = lab.watch(model, text, keep="logits")
    assert AutoTokenizer.from_pretrained(FOLDER)(text)["input_ids"] == trace.tokens[0].tolist()
    assert trace.tokens.shape[1] > 32 or language == "arithmetic"
    with torch.no_grad():
        theirs = transformers_model(trace.tokens).logits
    # logits reach 30 here, so the bound is relative for what is beyond one
    apart = (trace["logits"] - theirs).abs() / theirs.abs().clamp(min=1)
    assert float(apart.max()) <= 2e-5


def test_packed_experts_give_the_logits_of_unpacked_ones():
    packed, unpacked = lab.load("mini-oss", dtype="stored"), lab.load("mini-oss")
    assert isinstance(packed.blocks[0].experts.gate_up, PackedStack)
    assert not isinstance(unpacked.blocks[0].experts.gate_up, PackedStack)
    logits = [lab.watch(model, TEXTS["English"], keep="logits")["logits"] for model in (packed, unpacked)]
    assert torch.equal(*logits)


def test_it_knows_which_language_it_is_speaking():
    model = lab.load("mini-oss")

    def nats(text):
        trace = lab.watch(model, text, keep="logits")
        scores = trace["logits"][0, :-1].log_softmax(-1)
        return -float(scores.gather(-1, trace.tokens[0, 1:, None]).mean())

    english, spanish = "And he said to the people of the", "Y dijo al pueblo de la"
    assert nats(english + " city") < nats(english + " ciudad")
    assert nats(spanish + " ciudad") < nats(spanish + " city")


def test_mini_gpt2_is_gpt2_in_small_and_as_many_parameters_work_on_a_token():
    oss, gpt2 = (lab.load(name).config for name in ("mini-oss", "mini-gpt2"))
    assert (gpt2.family, gpt2.norm, gpt2.positions, gpt2.activation) == ("gpt2", "layer", "learned", "gelu")
    assert gpt2.tied and gpt2.bias and not gpt2.sinks and gpt2.windows == (None,) * 6 and gpt2.context == 256
    assert lab.cost.active_parameters(gpt2) == pytest.approx(lab.cost.active_parameters(oss), rel=0.05)
    folder = FOLDER.parent / "mini-gpt2"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 8_000_000
    seen = [json.loads((FOLDER.parent / name / "training.json").read_text("utf-8"))["tokens"]
            for name in ("mini-oss", "mini-gpt2")]  # fmt: skip
    assert seen[0] == seen[1]


@pytest.mark.parametrize("language", TEXTS)
def test_transformers_gives_the_same_logits_for_mini_gpt2(language):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, text = FOLDER.parent / "mini-gpt2", TEXTS[language] * 3
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    trace = lab.watch(lab.load("mini-gpt2"), text, keep="logits")
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == trace.tokens[0].tolist()
    with torch.no_grad():
        found = theirs.eval()(trace.tokens).logits
    assert float(((trace["logits"] - found).abs() / found.abs().clamp(min=1)).max()) <= 2e-5
