"""Conversations over one cache: turns give what running all anew would give, and nothing said is lost."""

from __future__ import annotations

import pytest
import torch
import toys
from toys import one_thread  # noqa: F401

from gptoss_lab import generation
from gptoss_lab.conversation import Conversation
from gptoss_lab.model import Cache, Transformer
from gptoss_lab.text import harmony
from gptoss_lab.text.tokens import encoding

ENCODING = encoding("o200k_harmony")
THOUGHT = "<|channel|>analysis<|message|>Which book?<|end|><|start|>assistant"
ANSWER = "<|channel|>final<|message|>Jane Austen ☀️<|return|>"


@pytest.fixture(scope="module")
def model() -> Transformer:
    """A toy with gpt-oss's vocabulary, whose windows of 5 forget soon."""
    config = toys.gpt_oss(
        name="toy-chat", vocab_size=201088, vocab_used=200019, context=900, stop_ids=(200002, 199999, 200012)
    )
    made = toys.random_model(config)
    made.tokenizer = ENCODING
    return made


def scripted(monkeypatch: pytest.MonkeyPatch, *replies: str, seen: list | None = None) -> None:
    """Let the model say these replies, one after another; `seen` gets the logits of every step."""
    ids = iter([t for said in replies for t in ENCODING.encode(said, allowed_special="all")])

    def pick(row, *sampling):
        if seen is not None:
            seen.append(row.clone())
        return next(ids)

    monkeypatch.setattr(generation, "pick", pick)


def from_scratch(model: Transformer, ids: list[int], said: str) -> list[torch.Tensor]:
    """The logits before each token of a reply, everything run at once."""
    reply = ENCODING.encode(said, allowed_special="all")
    logits = toys.run(model, torch.tensor([ids + reply[:-1]]), last=len(reply))
    return [generation.usable(row, model.config.vocab_used) for row in logits[0]]


def test_turns_see_what_a_run_of_the_whole_conversation_sees(model, monkeypatch):
    """The cache is set back past the answer's thoughts, rings included: logits are those of a run anew."""
    seen: list[torch.Tensor] = []
    replies = [THOUGHT + ANSWER, ANSWER, THOUGHT + ANSWER]
    scripted(monkeypatch, *replies, seen=seen)
    talk = Conversation(model, instructions="Be brief.", context=700)
    ran: list[int] = []
    for said, text in zip(replies, ("Who wrote Emma?", "And when?", "A third <|end|> question")):
        before = list(talk.messages)
        reply = talk.ask(text)
        list(reply)
        ran.append(reply.pace.prompt)
        prompt = harmony.prompt([*talk.opening, *before, harmony.Message("user", text)], ENCODING)
        expected = from_scratch(model, prompt, said)
        assert len(seen) == len(expected)
        for ours, anew in zip(seen, expected):
            used = slice(0, model.config.vocab_used)
            assert torch.allclose(ours[used], anew[used], rtol=1e-4, atol=1e-4)
        seen.clear()
    assert ran[0] > 60 and max(ran[1:]) < 30, ran  # later turns run the answer and the question alone
    assert [m.channel for m in talk.messages if m.role == "assistant"] == [
        "analysis", "final", "final", "analysis", "final"
    ]  # fmt: skip


def test_a_reply_comes_by_channel_and_as_text(model, monkeypatch):
    scripted(monkeypatch, THOUGHT + ANSWER)
    reply = Conversation(model).ask("Who wrote Emma?")
    pieces = list(reply)
    for channel, whole in (("analysis", "Which book?"), ("final", "Jane Austen ☀️")):
        assert "".join(text for where, text in pieces if where == channel) == whole
    assert (reply.text, reply.calls) == ("Jane Austen ☀️", [])


def test_a_call_of_a_tool_ends_the_reply_and_is_told(model, monkeypatch):
    scripted(monkeypatch, "<|channel|>commentary to=functions.f<|message|>{}<|call|>")
    talk = Conversation(model)
    reply = talk.ask("weather?")
    list(reply)
    assert reply.calls == ["functions.f"] and reply.text == ""
    assert talk.messages[-1].recipient == "functions.f"


@pytest.mark.parametrize("after", [0, 1, 3, 9, 12])
def test_a_reply_that_is_stopped_is_kept_and_the_next_turn_is_sound(model, monkeypatch, after):
    ids = ENCODING.encode(THOUGHT + ANSWER, allowed_special="all")
    made: list[int] = []

    def pick(row, *sampling):
        if len(made) == after:
            raise KeyboardInterrupt
        made.append(ids[len(made)])
        return made[-1]

    talk = Conversation(model)
    monkeypatch.setattr(generation, "pick", pick)
    reply = talk.ask("Who wrote Emma?")
    with pytest.raises(KeyboardInterrupt):
        list(reply)
    reply.end()
    reader = harmony.Reader(ENCODING)
    for token in made:
        reader.push(token)
    reader.close()
    assert talk.messages == [harmony.Message("user", "Who wrote Emma?"), *reader.messages]

    seen: list[torch.Tensor] = []
    scripted(monkeypatch, ANSWER, seen=seen)
    before = list(talk.messages)
    list(talk.ask("Go on."))
    prompt = harmony.prompt([*talk.opening, *before, harmony.Message("user", "Go on.")], ENCODING)
    for ours, anew in zip(seen, from_scratch(model, prompt, ANSWER), strict=True):
        assert torch.allclose(ours[:200019], anew[:200019], rtol=1e-4, atol=1e-4)


def test_a_prompt_that_is_stopped_half_way_leaves_no_trace(model, monkeypatch):
    monkeypatch.setattr("gptoss_lab.conversation.CHUNK", 16)
    talk, passes = Conversation(model), []

    def stop(block, inputs, output):
        passes.append(block)
        if len(passes) == 2:
            raise KeyboardInterrupt

    hook = model.blocks[1].register_forward_hook(stop)
    reply = talk.ask("Who wrote Emma?")
    with pytest.raises(KeyboardInterrupt):
        list(reply)
    hook.remove()
    reply.end()
    assert 0 < reply.pace.figures()["prompt_tokens"] < reply.pace.prompt
    talk.messages.clear()
    seen: list[torch.Tensor] = []
    scripted(monkeypatch, ANSWER, seen=seen)
    list(talk.ask("Who wrote Emma?"))
    prompt = harmony.prompt([*talk.opening, harmony.Message("user", "Who wrote Emma?")], ENCODING)
    assert torch.allclose(seen[0][:200019], from_scratch(model, prompt, ANSWER)[0][:200019], atol=1e-4)


def test_after_a_reset_nothing_is_known(model, monkeypatch):
    scripted(monkeypatch, ANSWER, ANSWER)
    talk = Conversation(model)
    list(talk.ask("one"))
    talk.reset()
    reply = talk.ask("two")
    list(reply)
    assert [message.content for message in talk.messages] == ["two", "Jane Austen ☀️"]
    assert reply.pace.prompt == len(reply.ids)


def test_a_conversation_that_is_full_says_so_and_says_nothing_else(model, monkeypatch):
    scripted(monkeypatch, "<|channel|>final<|message|>" + "x " * 300)
    talk = Conversation(model, context=120)
    reply = talk.ask("Who wrote Emma?")
    list(reply)
    assert len(reply.ids) + len(reply.pace.run.tokens) == 120
    assert reply.pace.run.finish == "length" and reply.text.startswith("x x")
    before = list(talk.messages)
    with pytest.raises(ValueError, match=r"of 120: /reset forgets.*--context N makes room"):
        talk.ask("And when?")
    assert talk.messages == before


@pytest.mark.parametrize("changes", [dict(context=0), dict(context=901), dict(effort="huge")])
def test_what_cannot_be_is_refused(model, changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        Conversation(model, **changes)


def test_a_memory_limit_counts_the_whole_context(model):
    with pytest.raises(ValueError, match="cache of 900 tokens"):
        Conversation(model, context=900, memory_limit=1e6)


def test_a_model_that_does_not_speak_harmony_is_refused_with_a_way_on(mini_oss):
    with pytest.raises(ValueError, match="mini-oss does not speak harmony.*generate --model mini-oss"):
        Conversation(mini_oss)


def test_windows_as_long_as_the_context_need_no_copies(model):
    from gptoss_lab.conversation import Mark

    assert Mark.of(Cache(model.config, 5), [1]).rings == {}
    assert list(Mark.of(Cache(model.config, 6), [1]).rings) == [0, 2]
