"""The chat format: ids as OpenAI's own library makes them, what is typed is text, any reply can be read."""

from __future__ import annotations

import lzma
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_harmony import (
    Author,
    Conversation,
    DeveloperContent,
    HarmonyEncodingName,
    ReasoningEffort,
    RenderConversationConfig,
    Role,
    SystemContent,
    load_harmony_encoding,
)
from openai_harmony import Message as Theirs

from gptoss_lab.text import harmony
from gptoss_lab.text.harmony import Message, Reader
from gptoss_lab.text.tokens import HARMONY_SPECIAL, RANKS, encoding

ENCODING = encoding("o200k_harmony")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """OpenAI's library, which finds the ranks in a folder."""
    folder = tmp_path_factory.mktemp("ranks")
    packed = (RANKS / "o200k_base.tiktoken.xz").read_bytes()
    (folder / "o200k_base.tiktoken").write_bytes(lzma.decompress(packed))
    before = os.environ.get("TIKTOKEN_ENCODINGS_BASE")
    os.environ["TIKTOKEN_ENCODINGS_BASE"] = str(folder)
    try:
        yield load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    finally:
        if before is None:
            del os.environ["TIKTOKEN_ENCODINGS_BASE"]
        else:
            os.environ["TIKTOKEN_ENCODINGS_BASE"] = before


def theirs(message: Message) -> Theirs:
    """The same message as a value of the library."""
    if message.role in ("system", "developer", "user", "assistant"):
        made = Theirs.from_role_and_content(Role(message.role), message.content)
    else:
        made = Theirs.from_author_and_content(Author.new(Role.TOOL, message.role), message.content)
    for what in ("channel", "recipient", "content_type"):
        if getattr(message, what) is not None:
            made = getattr(made, f"with_{what}")(getattr(message, what))
    return made


def ours(message: Theirs) -> Message:
    """A message of the library as one of ours."""
    content = "".join(part.text for part in message.content)
    return Message(
        message.author.role.value, content, message.channel, message.recipient, message.content_type
    )


def said(channel: str, content: str) -> Message:
    return Message("assistant", content, channel)


CALL = Message("assistant", '{"city": "Lima"}', "commentary", "functions.weather", "<|constrain|>json")
RESULT = Message("functions.weather", '{"sun": true}', "commentary", "assistant")
ASKED, MORE = Message("user", "¿Qué tiempo hace en Lima? 日本 😀"), Message("user", "And then?\n\n  Tell me.")
TALKS = {
    "a question": [ASKED],
    "answered, and another": [ASKED, said("analysis", "hm"), said("final", "Sun."), MORE],
    "without thoughts": [ASKED, said("final", "Sun."), MORE, said("final", "Rain."), MORE],
    "a tool was called": [ASKED, said("analysis", "I ask."), CALL, RESULT],
    "a call with a plain type": [ASKED, Message("assistant", "{}", "commentary", "functions.f", "json")],
    "an empty answer": [ASKED, said("final", ""), MORE],
    "no channel": [ASKED, Message("assistant", "Sun."), MORE],
    "stopped while it thought": [ASKED, said("analysis", "hm"), MORE],
    "all control tokens typed": [Message("user", " ".join(HARMONY_SPECIAL))],
}


@pytest.mark.parametrize("effort", harmony.EFFORTS)
@pytest.mark.parametrize("date", [None, "2026-11-26"])
def test_the_system_message_is_the_librarys(library, effort, date):
    content = SystemContent.new().with_reasoning_effort(ReasoningEffort(effort.capitalize()))
    if date:
        content = content.with_conversation_start_date(date)
    them = library.render(Theirs.from_role_and_content(Role.SYSTEM, content))
    assert harmony.ids_of(harmony.system(effort, date), ENCODING) == them


def test_identity_and_cutoff_can_be_said(library):
    content = SystemContent.new().with_model_identity("You are Bo.").with_knowledge_cutoff("2020-01")
    them = library.render(Theirs.from_role_and_content(Role.SYSTEM, content))
    assert harmony.render([harmony.system(identity="You are Bo.", cutoff="2020-01")], ENCODING) == them


def test_an_effort_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="effort='huge'; expected one of low, medium, high"):
        harmony.system("huge")


@pytest.mark.parametrize("text", ["Be brief.", "Sé breve.\n\nTwo lines <|end|>"])
def test_the_developers_message_is_the_librarys(library, text):
    content = DeveloperContent.new().with_instructions(text)
    them = library.render(Theirs.from_role_and_content(Role.DEVELOPER, content))
    assert harmony.ids_of(harmony.developer(text), ENCODING) == them


@pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)
def test_conversations_are_rendered_as_the_library_renders_them(library, talk):
    whole = [harmony.system("low", "2026-11-26"), harmony.developer("Be brief."), *talk]
    them = Conversation.from_messages([theirs(message) for message in whole])
    everything = RenderConversationConfig(auto_drop_analysis=False)
    assert harmony.render(whole, ENCODING) == library.render_conversation(them, config=everything)
    assert harmony.prompt(whole, ENCODING) == library.render_conversation_for_completion(them, Role.ASSISTANT)


def test_all_earlier_thoughts_are_left_out_and_those_of_an_open_turn_stay(library):
    first, second = [said("analysis", "a"), said("final", "A")], [said("analysis", "b"), said("final", "B")]
    talk = [ASKED, *first, ASKED, *second, ASKED, said("analysis", "c"), CALL, RESULT]
    kept = harmony.without_old_thoughts(talk)
    assert [m.content for m in kept if m.channel == "analysis"] == ["c"]
    assert [m for m in talk if m.channel != "analysis"] == [m for m in kept if m.content != "c"]
    them = Conversation.from_messages([theirs(message) for message in talk[:7]])
    rendered = library.decode(library.render_conversation_for_completion(them, Role.ASSISTANT))
    assert "<|message|>b<|end|>" in rendered  # where the library differs, as docstrings say
    assert "<|message|>b<|end|>" not in ENCODING.decode(harmony.prompt(talk[:7], ENCODING))


@pytest.mark.parametrize("name", ["<|end|>", "<|start|>system<|message|>", "<|reserved_200999|>"])
@pytest.mark.parametrize("role", ["user", "assistant", "developer", "functions.f"])
def test_a_control_token_that_is_said_is_text(name, role):
    ids = harmony.ids_of(Message(role, f"say {name} twice {name}"), ENCODING)
    control = set(HARMONY_SPECIAL.values())
    found = [token for token in ids if token in control]
    assert found == [ENCODING.encode_single_token(f"<|{mark}|>") for mark in ("start", "message", "end")]
    assert ENCODING.decode(ids).count(name) >= 2


def reply(text: str) -> tuple[list[Message], list[tuple[str, str]]]:
    """What a reader makes of a reply: its messages, and the pieces as they came."""
    reader = Reader(ENCODING)
    pieces = [reader.push(token) for token in ENCODING.encode(text, allowed_special="all")]
    pieces.append(reader.close())
    return reader.messages, pieces


WELL_FORMED = [
    "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Sun. ☀️<|return|>",
    "<|channel|>final<|message|><|return|>",
    "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>",
    " to=functions.f<|channel|>commentary <|constrain|>json<|message|>{}<|call|>",
    " to=functions.f<|channel|>commentary json<|message|>{}<|call|>",
    "<|channel|>commentary to=functions.f<|message|>{}<|call|>",
    "<|channel|>analysis<|message|>a<|end|><|start|>assistant to=f<|channel|>analysis<|message|>1<|call|>",
    "<|message|>no channel<|end|>",
    "<|channel|>final<|message|>cut off in the mid",
]


@pytest.mark.parametrize("text", WELL_FORMED)
def test_replies_are_read_as_the_library_reads_them(library, text):
    ids = ENCODING.encode(text, allowed_special="all")
    them = library.parse_messages_from_completion_tokens(ids, Role.ASSISTANT)
    assert reply(text)[0] == [ours(message) for message in them]


MALFORMED = {
    "hello": [Message("assistant", "hello")],
    "hello<|return|>": [Message("assistant", "hello")],
    "<|channel|>final hello<|return|>": [said("final", "hello")],
    "<|channel|>final": [],
    "": [],
    "<|return|>": [],
    "<|start|>assistant": [],
    "<|start|>assistant<|channel|>final<|message|>b<|return|>": [said("final", "b")],
    "<|channel|><|channel|>final<|message|>b<|return|>": [said("final", "b")],
    "<|channel|>analysis<|message|>a<|channel|>final<|message|>b<|return|>": [
        said("analysis", "a"),
        said("final", "b"),
    ],
    "<|channel|>analysis<|message|>a<|start|>assistant<|channel|>final<|message|>b<|return|>": [
        said("analysis", "a"),
        said("final", "b"),
    ],
    "<|channel|>final<|message|>a<|message|>b<|return|>": [said("final", "a"), Message("assistant", "b")],
    "<|channel|>final<|constrain|>json<|message|>{}<|return|>": [
        Message("assistant", "{}", "final", None, "<|constrain|>json")
    ],
}


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_reply_is_read_as_well_as_can_be(text):
    assert reply(text)[0] == MALFORMED[text]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.integers(199990, 201087), st.integers(0, 300), st.sampled_from(
    [200006, 200005, 200008, 200007, 200003, 200002, 200012, 35644, 17196]
)), max_size=30))  # fmt: skip
def test_no_ids_whatever_make_the_reader_raise(ids):
    reader = Reader(ENCODING)
    pieces = [*(reader.push(token) for token in ids), reader.close()]
    assert "".join(text for _, text in pieces) == "".join(message.content for message in reader.messages)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(harmony.CHANNELS), st.text(max_size=40)), min_size=1, max_size=4))
def test_what_is_rendered_is_read_again_piece_by_piece(messages):
    given_ = [said(channel, content) for channel, content in messages]
    reader = Reader(ENCODING)
    pieces = [*(reader.push(token) for token in harmony.render(given_, ENCODING)[2:]), reader.close()]
    assert reader.messages == given_
    for channel in harmony.CHANNELS:
        whole = "".join(message.content for message in given_ if message.channel == channel)
        assert "".join(text for where, text in pieces if where == channel) == whole


def test_a_reply_without_a_header_comes_as_it_is_made():
    text = "The sun shines on the house and on the garden, all day long."
    messages, pieces = reply(text)
    assert messages == [Message("assistant", text)]
    assert len([piece for _, piece in pieces if piece]) > 5


def test_only_gpt_oss_encoding_speaks_harmony():
    assert harmony.speaks(ENCODING)
    assert not any(harmony.speaks(other) for other in (None, encoding("mini"), encoding("gpt2")))


def test_a_text_that_tiktoken_cannot_cut_is_refused_wherever_it_stands():
    gap = " " * 1_500_000 + "a"
    for message in (Message("user", gap), Message("assistant", "", recipient=gap), harmony.developer(gap)):
        with pytest.raises(ValueError, match="a run of 200000 spaces or more; shorten it"):
            harmony.prompt([message], ENCODING)
