"""Models on a pretended device (see `pretended`): the same bits, nothing mixed, little that crosses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from pretended import DEVICE, Machine, MixedDevices, Pretended
from toy_checkpoints import model_of
from toys import one_thread  # noqa: F401

import gptoss_lab as lab
from gptoss_lab import cli, cost
from gptoss_lab.config import NAMED, Config
from gptoss_lab.model import Cache, Transformer, attend_fused
from gptoss_lab.study.compare import compare
from gptoss_lab.study.edits import Change
from gptoss_lab.weights import devices, load, loading, plans, save
from gptoss_lab.weights.mxfp4 import PackedStack

CONFIGS = {
    "gpt-oss": toys.mxfp4(stored="bfloat16"),
    "gpt2": toys.gpt2(d_model=24, n_heads=4, n_kv_heads=4),
    "qwen3-moe": toys.qwen3(stored="bfloat16"),
}
DTYPES = ["stored", torch.float32, torch.bfloat16, torch.float16]
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
PROMPT = [5, 17, 3, 28, 11]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine whose device `load` takes for one that is there."""
    monkeypatch.setattr(loading, "usable", torch.device)
    return Machine()


def both(machine: Machine, folder: Path, **how: Any) -> tuple[Transformer, Transformer]:
    """The model of a folder on the CPU, and on the device."""
    embedding = how.pop("embedding_device", None)
    here = load(folder, **how)
    with machine:
        return here, load(folder, device=DEVICE, embedding_device=embedding, **how)


def test_the_machine_notices_what_it_is_there_to_notice() -> None:
    with Machine() as machine:
        there, here = torch.ones(3).to(DEVICE), torch.ones(3)
        assert isinstance(there, Pretended) and there.device == DEVICE and (there + 1).device == DEVICE
        assert isinstance(torch.tensor([1], device=DEVICE), Pretended)
        for mix in (lambda: there + here, lambda: torch.cat((there, here)), lambda: there[here.long()]):
            with pytest.raises(MixedDevices):
                mix()
        with pytest.raises((TypeError, RuntimeError)):
            there.numpy()
        machine.start()
        assert float(there.sum()) == 3 and there.cpu().tolist() == [1, 1, 1] and bool((there > 0).all())
        assert sum(machine.asked.values()) == 2
        assert machine.crossed == [("down", 12)]
        machine.start()
        before = machine.alive
        large = torch.zeros(1000, device=DEVICE)
        assert machine.alive == before + 4000
        part = large[10:]
        del large
        assert machine.alive == before + 4000 and part[0] == 0
        del part
        assert machine.alive == before and machine.peak >= before + 4000


@pytest.mark.parametrize("apart", [False, True], ids=["embedding there", "embedding here"])
@every_dtype
@every_config
def test_the_bits_are_those_of_the_cpu(
    config: Config, dtype: Any, apart: bool, machine: Machine, tmp_path: Path
) -> None:
    folder = save(model_of(config), tmp_path / "model")
    if apart and config.tied:
        with pytest.raises(ValueError, match="its read-out too"):
            load(folder, device=DEVICE, embedding_device="cpu")
        return
    here, there = both(machine, folder, dtype=dtype, embedding_device="cpu" if apart else None)
    assert there.device == DEVICE and (there.token_embedding.device == DEVICE) != apart
    weights = there.state_dict(keep_vars=True)
    assert all(weight.device == DEVICE for name, weight in weights.items() if name != "token_embedding")
    many, lone = toys.random_tokens(config), toys.random_tokens(config, 1, 1)
    with torch.no_grad():
        wanted = [here(many), here(lone), here(many, last=2)]
        with machine:
            got = [there(many), there(lone), there(many, last=2)]
            assert all(logits.device == DEVICE for logits in got)
            assert all(map(torch.equal, wanted, [logits.cpu() for logits in got]))
    tap = {"keep": "*", "temperature": 0.8, "max_tokens": 6}
    alone = lab.generate(here, PROMPT, **tap)
    alone.trace  # noqa: B018
    with machine:
        run = lab.generate(there, PROMPT, **tap)
        assert [token.id for token in run.tokens] == [] and run.text == alone.text
        assert run.tokens == alone.tokens
        traces = [(run.trace, alone.trace), (lab.watch(there, PROMPT), lab.watch(here, PROMPT))]
    for found, like in traces:
        assert list(found) == list(like) and torch.equal(found.tokens, like.tokens)
        assert all(torch.equal(found[name], like[name]) for name in like)
        assert all(type(value) is torch.Tensor for value in (found.tokens, *found.values.values()))


def test_a_part_that_stays_behind_is_found(machine: Machine, tmp_path: Path) -> None:
    folder = save(model_of(CONFIGS["gpt-oss"]), tmp_path / "model")
    _, there = both(machine, folder)
    with machine:
        there.blocks[1].attention.frequencies = there.blocks[1].attention.frequencies.cpu()
    with machine, torch.no_grad(), pytest.raises(MixedDevices):
        there(toys.random_tokens(there.config))


@every_dtype
def test_a_decoded_token_sends_one_row_up_and_its_logits_down(
    dtype: Any, machine: Machine, tmp_path: Path
) -> None:
    config = CONFIGS["gpt-oss"]
    folder = save(model_of(config), tmp_path / "model")
    for embedding, up in ((None, 8), ("cpu", config.d_model * (4 if dtype == torch.float32 else 2))):
        _, there = both(machine, folder, dtype=dtype, embedding_device=embedding)
        with machine:
            run = lab.generate(there, PROMPT, max_tokens=20, memory_limit=2e9)
            steps = iter(run)
            next(steps)
            machine.start()
            next(steps)
            assert machine.crossed == [("up", up), ("down", 4 * config.vocab_size)], embedding
            assert not machine.asked, "the program waits for the device more than once a token"
            operations = machine.operations
            machine.start()
            next(steps)
            assert machine.operations == operations


def test_a_prompt_asks_once_a_layer_how_many_tokens_each_expert_has(machine: Machine, tmp_path: Path) -> None:
    config = CONFIGS["gpt-oss"]
    _, there = both(machine, save(model_of(config), tmp_path / "model"), dtype="stored")
    with machine, torch.no_grad():
        machine.start()
        there(toys.random_tokens(config, 1, 9), last=1)
    assert machine.crossed == [("up", 9 * 8), *[("down", 8 * config.n_experts)] * config.n_layers]
    assert not machine.asked


WIDE = dict(d_model=96, d_ff=160, d_head=16, vocab_size=3000, context=600, stored="bfloat16")
SHAPES = {
    "gpt-oss": toys.mxfp4(n_heads=16, n_kv_heads=4, **WIDE),
    "qwen3-moe": toys.qwen3(n_heads=16, n_kv_heads=4, **WIDE),
    "many experts": toys.mxfp4(n_heads=4, n_kv_heads=2, experts_per_token=5, **WIDE),
}


@every_dtype
@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_the_device_holds_what_was_counted_and_works_in_no_more(
    config: Config, dtype: Any, machine: Machine, tmp_path: Path
) -> None:
    folder = save(model_of(config), tmp_path / "model")
    _, there = both(machine, folder, dtype=dtype, embedding_device="cpu")
    weights = there.state_dict(keep_vars=True)
    held = sum(weight.nbytes for name, weight in weights.items() if name != "token_embedding")
    tables = sum(part.pairs.nbytes + part.factors.nbytes for part in there.modules()
                 if isinstance(part, PackedStack))  # fmt: skip
    turns = sum(block.attention.frequencies.nbytes for block in there.blocks)
    assert machine.alive == held + tables + turns
    products = str(there.unembed.compute).removeprefix("torch.")
    widened = dtype != torch.float32 and cost.widens(config, fast=False)
    few = [(0, 4), (500, 3)] if dtype != torch.float32 else []  # in float32 not counted
    for before, new in ((0, 1), (0, 64), (400, 1), (300, 128), *few):
        tokens = toys.random_tokens(config, batch=1, count=before + new)
        with machine, torch.no_grad():
            cache = Cache(config, before + new, 1, plans.cache_dtype(there), DEVICE)
            kept = cost.cache_bytes(config, before + new, 2 if products == "bfloat16" else 4)
            places = sum(8 * layer.size for layer in cache.layers)
            assert machine.alive == held + tables + turns + kept + places
            if before:
                there(tokens[:, :before], last=0, cache=cache)
            machine.start()
            there(tokens[:, before:], last=1, cache=cache)
            took, said = machine.peak - machine.alive, cost.work_bytes(
                config, new, before + new, widened, products)  # fmt: skip
            assert 0 < took <= said, (before, new)
            assert took > 0.3 * said or new < 128, "the arithmetic says far too much"
            del cache


@every_dtype
def test_loading_needs_no_second_copy(dtype: Any, machine: Machine, tmp_path: Path) -> None:
    folder = save(model_of(SHAPES["gpt-oss"]), tmp_path / "model")
    _, there = both(machine, folder, dtype=dtype)
    largest = max(weight.nbytes for weight in there.state_dict(keep_vars=True).values())
    assert machine.alive < machine.peak <= machine.alive + 4 * largest


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("table", [True, False])
@every_config
def test_the_bytes_of_weights_are_counted_from_the_config_alone(
    config: Config, dtype: str, table: bool, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "SMALL", 0)  # as if it were too large for float32
    if config.tied and not table:
        return
    _, there = both(machine, save(model_of(config), tmp_path / "model"), dtype=getattr(torch, dtype))
    found = {weight.data_ptr(): weight.nbytes for name, weight in there.state_dict(keep_vars=True).items()
             if table or name != "token_embedding"}  # fmt: skip
    biases = sum(bias.nbytes - 2 * bias.numel() for name, bias in there.named_parameters()
                 if name.endswith("bias"))  # fmt: skip
    assert sum(found.values()) - biases * (dtype == "float16") == cost.held_bytes(config, dtype, table)


def test_studies_and_views_work_over_a_model_on_a_device(machine: Machine, tmp_path: Path) -> None:
    here = lab.load("mini-oss")
    text = "Once upon a time"
    with machine:
        there = lab.load("mini-oss", device=DEVICE, embedding_device="cpu")
        trace = lab.watch(there, text, last=1)
        pages = [lab.export_html(one_trace, tmp_path / f"{name}.html", model=model)
                 for name, one_trace, model in (("there", trace, there),
                                                ("here", lab.watch(here, text, last=1), here))]  # fmt: skip
        change = Change([(None, 1)], [(2, 3)], [(1, 0)], True, 16, 2)
        found = [compare(model, text, change) for model in (here, there)]
        assert repr(found[0]) == repr(found[1])
        narrower = there.with_config(window=8)
        assert narrower.device == DEVICE and narrower(trace.tokens).device == DEVICE
    assert pages[0].read_text("utf-8") == pages[1].read_text("utf-8")


def test_an_edit_may_give_back_what_a_trace_holds(machine: Machine, tmp_path: Path) -> None:
    folder = save(model_of(CONFIGS["gpt-oss"]), tmp_path / "model")
    here, there = both(machine, folder)
    other = lab.watch(here, [9, 8, 7, 6, 5])
    patch = {"blocks.1.residual": lambda value, at: other["blocks.1.residual"]}
    narrow = {"blocks.*.attention.visible": lambda value, at: value.cpu() & False}
    for edit in (patch, narrow):
        with machine:
            found = lab.watch(there, PROMPT, edit=edit)["logits"]
        assert torch.equal(found, lab.watch(here, PROMPT, edit=edit)["logits"])


def test_the_fused_form_takes_what_a_cache_in_bfloat16_holds(tmp_path: Path) -> None:
    folder = save(model_of(CONFIGS["gpt-oss"]), tmp_path / "model")
    model = load(folder, dtype=torch.bfloat16)
    wanted = [token.id for token in lab.generate(model, PROMPT, max_tokens=9)]
    for block in model.blocks:
        block.attention.attend = attend_fused
    assert len([token.id for token in lab.generate(model, PROMPT, max_tokens=9)]) == len(wanted)


@pytest.mark.parametrize(("capability", "hip", "chosen"), [
    ((7, 5), None, torch.float16), ((8, 0), None, torch.bfloat16), ((9, 0), None, torch.bfloat16),
    ((7, 0), None, torch.float16), ((9, 0), "6.2", torch.bfloat16),
])  # fmt: skip
def test_a_card_multiplies_in_what_it_has(
    capability: tuple[int, int], hip: str | None, chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert devices.precision(torch.device("cuda:0")) == chosen
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *version: version > (14, 0))
    assert devices.precision(torch.device("mps")) == torch.float16
    assert devices.precision(torch.device("cpu")) == "stored"


@pytest.mark.parametrize("chosen", [torch.bfloat16, torch.float16])
def test_a_large_model_takes_the_precision_of_its_device(
    chosen: torch.dtype, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "SMALL", 0)
    monkeypatch.setattr(loading, "precision", lambda device: chosen if device == DEVICE else "stored")
    folder = save(model_of(CONFIGS["gpt-oss"]), tmp_path / "model")
    here, there = both(machine, folder)
    assert here.unembed.compute == torch.float32 and there.unembed.compute == chosen
    with machine:
        assert lab.watch(there, PROMPT).source["products"] == str(chosen).removeprefix("torch.")


def test_what_does_not_fit_on_a_device_is_refused(machine: Machine, tmp_path: Path) -> None:
    folder = save(model_of(SHAPES["gpt-oss"]), tmp_path / "model")
    with machine, pytest.raises(ValueError, match="the driver, a guess 800.*embedding_device='cpu'.*smaller"):
        load(folder, device=DEVICE, dtype="stored", memory_limit=5e8)
    assert machine.peak == 0
    _, there = both(machine, folder, dtype=torch.bfloat16, embedding_device="cpu")
    with machine, pytest.raises(ValueError, match="weights .*cache of 12 .*memory_limit"):
        lab.generate(there, PROMPT, max_tokens=7, memory_limit=8e8)


def test_prompts_go_in_smaller_passes_the_longer_the_context() -> None:
    config = NAMED["gpt-oss-20b"]
    sizes = [cost.pass_tokens(config, context, "bfloat16") for context in (512, 2048, 8192, 131_072)]
    assert sizes[0] == cost.PASS and sizes == sorted(sizes, reverse=True) and sizes[-1] == 8
    for tokens, context in zip(sizes[:3], (512, 2048, 8192)):
        assert cost.work_bytes(config, tokens, context) <= cost.PASS_BYTES


def test_cost_says_what_a_card_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cost", "gpt-oss-20b", "--device", "cuda", "--context", "8192"]) == 0
    whole = capsys.readouterr().out
    assert "products in bfloat16" in whole and "cache of 8,192 tokens" in whole and "from 16 GB on" in whole
    assert cli.main(["cost", "gpt-oss-20b", "--device", "cuda", "--embedding-device", "cpu"]) == 0
    apart = capsys.readouterr().out
    sums = [int(said.split("together")[1].split()[0].replace(",", "")) for said in (whole, apart)]
    assert sums[0] - sums[1] == 2 * 201_088 * 2880  # the table, in bfloat16
    assert cli.main(["cost", "gpt-oss-20b", "--device", "cuda", "--dtype", "stored"]) == 0
    assert "from 24 GB on" in capsys.readouterr().out  # the read-out widened to float32 takes 2.3 GB
    assert cli.main(["cost", "mini-oss", "--device", "mps", "--context", "256"]) == 0
    assert "products in float32" in capsys.readouterr().out
    for wrong in (["gpt2", "--device", "cuda", "--embedding-device", "cpu"], ["gpt2", "--dtype", "float16"]):
        assert cli.main(["cost", *wrong]) == 2
        assert capsys.readouterr().err.startswith("gptoss-lab: ")


def test_cost_says_what_a_card_that_is_here_has(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (15_100_000_000, 15_800_000_000))
    assert cli.main(["cost", "gpt-oss-20b", "--device", "cuda"]) == 0
    said = capsys.readouterr().out
    assert "products in float16" in said and "15.1 GB free of 15.8 GB" in said


def test_commands_take_a_device(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = ["generate", "--prompt", "Once", "--max-tokens", "3", "--json", "--device", "cpu"]
    assert cli.main([*said, "--embedding-device", "cpu"]) == 0
    assert len(json.loads(capsys.readouterr().out)["tokens"]) == 3
    for command in (said[:-1], ["trace", "Once", "--device"], ["explore", "Once", "--device"]):
        assert cli.main([*command, "cuda:99"]) == 2
        assert "cuda" in capsys.readouterr().err


def test_a_long_prompt_goes_in_passes_and_gives_the_same_run(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SHAPES["gpt-oss"]
    here, there = both(machine, save(model_of(config), tmp_path / "model"))
    prompt = toys.random_tokens(config, 1, 50)[0].tolist()
    monkeypatch.setattr(cost, "PASS_BYTES", cost.work_bytes(config, 16, 59))
    assert plans.prompt_pass(here, 59) == cost.PASS and plans.prompt_pass(there, 59) == 16
    wanted = lab.generate(here, prompt, max_tokens=9, keep="blocks.*.residual").trace
    with machine:
        found = lab.generate(there, prompt, max_tokens=9, keep="blocks.*.residual").trace
    assert torch.equal(found.tokens, wanted.tokens)
    assert all(torch.allclose(found[name], wanted[name], atol=1e-4) for name in wanted)
