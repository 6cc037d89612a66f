"""The tap: silent it adds nothing, recording it changes nothing, and what it kept stays as it was."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from stripped import stripped_package
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from toys import (
    BATCH,
    FORMS,
    KEYS,
    every_form,
    gather,
    gpt2,
    gpt_oss,
    one_thread,
    qwen3,
    random_model,
    random_tokens,
    record,
    run,
)

from gptoss_lab import points
from gptoss_lab.model import (
    Cache,
    Transformer,
)
from gptoss_lab.tap import SILENT, Recorder

pytestmark = pytest.mark.usefixtures(one_thread.__name__)


def same(name: str) -> object:
    """An edit that changes nothing."""
    return lambda value, here: value


# ---- silent: no operation more


@pytest.fixture(scope="module")
def untapped(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The model's own source, without its taps."""
    return stripped_package(tmp_path_factory.mktemp("stripped"))


def without_taps(model: Transformer, untapped: ModuleType) -> torch.nn.Module:
    twin = untapped.Transformer(model.config)
    twin.load_state_dict(model.state_dict())
    for mine, theirs in zip(model.blocks, twin.blocks):
        if model.config.n_experts:
            theirs.experts.few = mine.experts.few
    return twin.eval().requires_grad_(False)


def compiled_graph(model: torch.nn.Module, tokens: Tensor) -> list[torch.fx.Node]:
    """The operations of the one graph that torch.compile makes of the model; fullgraph refuses a second."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.append([node for node in graph.graph.nodes if node.op.startswith("call")])
        return graph.forward

    torch._dynamo.reset()
    with torch.no_grad():
        torch.compile(model, backend=backend, fullgraph=True)(tokens)
    (graph,) = graphs
    return graph


class EagerOperations(TorchDispatchMode):
    """Writes down every operation that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, object]] = []

    def __torch_dispatch__(self, function, types, arguments=(), named=None):  # type: ignore[no-untyped-def]
        result = function(*arguments, **(named or {}))
        self.log.append((str(function), getattr(result, "shape", None)))
        return result


@pytest.mark.parametrize("family", [gpt2, gpt_oss, qwen3], ids=lambda family: family.__name__)
def test_silent_tap_adds_no_operation_to_a_compiled_graph(family, untapped):
    model = gather(random_model(family(n_layers=1)))
    tokens = random_tokens(model.config)
    tapped, plain = compiled_graph(model, tokens), compiled_graph(without_taps(model, untapped), tokens)
    assert [(node.op, str(node.target)) for node in tapped] == [(node.op, str(node.target)) for node in plain]
    assert len(tapped) > 50
    assert [str(node) for node in tapped if not node.users] == [], "computed, and used by nothing"


@every_form
def test_silent_tap_adds_no_operation_to_an_eager_pass(family, form, untapped):
    model = FORMS[form](random_model(family()))
    tokens, twin = random_tokens(model.config), without_taps(model, untapped)
    with EagerOperations() as tapped:
        logits = run(model, tokens)
    with EagerOperations() as plain:
        untapped_logits = run(twin, tokens)
    assert tapped.log == plain.log
    assert torch.equal(untapped_logits, logits)
    assert len(plain.log) > 200


def test_silent_tap_is_itself_everywhere():
    value = torch.ones(2)
    assert SILENT("any", value) is value
    assert SILENT.within("blocks.0") is SILENT and SILENT.at(value, value) is SILENT
    assert not SILENT.wants("any")


# ---- recording: the same bits


@every_form
def test_with_and_without_a_recorder_the_bits_are_the_same(family, form):
    model = FORMS[form](random_model(family()))
    tokens = random_tokens(model.config)
    plain = run(model, tokens)
    everything = list(points.names(model.config))
    assert torch.equal(record(model, tokens, everything)["logits"], plain)
    assert torch.equal(run(model, tokens, tap=Recorder()), plain)
    for name in everything[
        : everything.index("blocks.1.attention.norm")
    ]:  # alone: none needs another to be asked for
        assert torch.equal(run(model, tokens, tap=Recorder([name])), plain), name


@every_form
def test_edits_that_change_nothing_leave_the_bits(family, form):
    model = FORMS[form](random_model(family()))
    tokens = random_tokens(model.config)
    edits = {name: same(name) for name in points.names(model.config)}
    assert torch.equal(record(model, tokens, "logits", edits)["logits"], run(model, tokens))


@every_form
def test_decoding_with_a_recorder_gives_the_same_bits(family, form):
    model = FORMS[form](random_model(family()))
    tokens = random_tokens(model.config, count=KEYS)

    def decode(tap):  # type: ignore[no-untyped-def]
        cache = Cache(model.config, KEYS, BATCH)
        first = run(model, tokens[:, :4], tap=tap, cache=cache)
        return torch.cat(
            [first, *(run(model, tokens[:, t : t + 1], tap=tap, cache=cache) for t in range(4, KEYS))], dim=1
        )

    assert torch.equal(decode(Recorder(points.names(model.config))), decode(SILENT))


# ---- keeping: nothing changes later


@every_form
def test_nothing_kept_is_changed_later_in_place(family, form):
    model = FORMS[form](random_model(family(window=5) if family is not gpt2 else family()))
    tokens = random_tokens(model.config, count=KEYS)
    seen: list[tuple[str, Tensor, Tensor]] = []

    def store(name: str, value: Tensor, positions: Tensor | None, keys: Tensor | None) -> None:
        for what, tensor in (("value", value), ("positions", positions), ("keys", keys)):
            if tensor is not None:
                seen.append((f"{what} of {name}", tensor, tensor.clone()))

    tap = Recorder(points.names(model.config), store=store)
    run(model, tokens, tap=tap)
    cache = Cache(model.config, KEYS + 7, BATCH)
    run(model, tokens[:, :8], tap=tap, cache=cache)  # past the window, so that the ring comes round
    for t in range(8, KEYS):
        run(model, tokens[:, t : t + 1], tap=tap, cache=cache)
    run(model, tokens[:, :7], tap=tap, cache=cache)
    assert len(seen) > 8 * len(points.names(model.config))
    assert {what for what, now, then in seen if not torch.equal(now, then)} == set()


def test_watch_of_everything_gives_the_models_own_logits(tmp_path: Path):
    trace = pytest.importorskip("gptoss_lab.trace")
    model = random_model(gpt_oss())
    tokens = random_tokens(model.config)
    kept = trace.watch(model, tokens)
    assert list(kept.values) == list(points.names(model.config))
    assert torch.equal(kept["logits"], run(model, tokens))
