"""Harmony, the chat format of gpt-oss: messages to ids, and ids to messages as they come.

    <|start|>user<|message|>Who wrote it?<|end|>
    <|start|>assistant<|channel|>analysis<|message|>Which book is meant?<|end|>
    <|start|>assistant<|channel|>final<|message|>Jane Austen.<|return|>

A message has a role, perhaps a recipient and a channel, and a content. Whatever a person or a model has
*said* is encoded as ordinary text: `<|end|>` in a user's message is seven characters, not the end. A prompt
for the reply ends with `<|start|>assistant`, and the model goes on from there.

Agrees id for id with OpenAI's `openai-harmony`, but for earlier analysis (see `without_old_thoughts`).
Declarations of functions are not made here: messages to and from functions are rendered and read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import tiktoken

from .tokens import TextStream, encode

EFFORTS = ("low", "medium", "high")
CHANNELS = ("analysis", "commentary", "final")
IDENTITY = "You are ChatGPT, a large language model trained by OpenAI."
CUTOFF = "2024-06"
LONGEST_ROLE = 24  # letters after which a header that has no mark is none
MARKS = ("start", "channel", "constrain", "message", "end", "return", "call")


@dataclass(frozen=True)
class Message:
    """One message. role: system, developer, user, assistant, or a tool's name (functions.weather).

    channel: analysis, commentary or final, for what an assistant says; recipient: whom it is for, as a tool;
    content_type: what a content for a tool is, as "<|constrain|>json".
    """

    role: str
    content: str
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None


def system(
    effort: str = "medium", date: str | None = None, identity: str = IDENTITY, cutoff: str = CUTOFF
) -> Message:
    """The system message: identity, dates (YYYY-MM-DD, or none), how long to think, which channels there are.

    ValueError for an effort that is none of low, medium and high.
    """
    if effort not in EFFORTS:
        raise ValueError(f"effort={effort!r}; expected one of {', '.join(EFFORTS)}")
    today = f"\nCurrent date: {date}" if date else ""
    channels = f"# Valid channels: {', '.join(CHANNELS)}. Channel must be included for every message."
    return Message(
        "system", f"{identity}\nKnowledge cutoff: {cutoff}{today}\n\nReasoning: {effort}\n\n{channels}"
    )


def developer(instructions: str) -> Message:
    """The developer's message: what is elsewhere called the system prompt."""
    return Message("developer", f"# Instructions\n\n{instructions}")


def speaks(encoding: Any) -> bool:
    """Whether an encoding has the control tokens of harmony: only a model with these can have learned it."""
    return encoding is not None and {f"<|{mark}|>" for mark in MARKS} <= encoding.special_tokens_set


def render(messages: Iterable[Message], encoding: tiktoken.Encoding) -> list[int]:
    """The ids of messages, one after another, each ended: by `<|call|>` what is said to a tool, the rest by
    `<|end|>`.
    """
    return [token for message in messages for token in ids_of(message, encoding)]


def prompt(messages: Sequence[Message], encoding: tiktoken.Encoding) -> list[int]:
    """The ids after which the assistant's reply comes; what was thought in turns before is left out."""
    start = [encoding.encode_single_token("<|start|>"), *encode("assistant", encoding)]
    return render(without_old_thoughts(messages), encoding) + start


def without_old_thoughts(messages: Sequence[Message]) -> list[Message]:
    """The messages without the analysis of turns that came to an answer, as gpt-oss was trained to see them.

    A turn is what lies between two messages of the user. Where it has no final message yet (a call of a tool
    is under way, or it was stopped) its analysis stays. openai-harmony leaves out only what stands before the
    first final message of all, and nothing unless the last reply is final.
    """
    kept: list[Message] = []
    turn: list[Message] = []
    for message in [*messages, None]:
        if message is None or message.role == "user":
            answered = any(one.channel == "final" for one in turn)
            kept += [one for one in turn if not (answered and one.channel == "analysis")]
            turn = []
        if message is not None:
            turn.append(message)
    return kept


def ids_of(message: Message, encoding: tiktoken.Encoding) -> list[int]:
    """The ids of one message, from `<|start|>` to its end. ValueError for a text that `encode` refuses."""
    mark, plain = encoding.encode_single_token, partial(encode, encoding=encoding)
    ids = [mark("<|start|>"), *plain(message.role)]
    if message.recipient is not None:
        ids += plain(f" to={message.recipient}")
    if message.channel is not None:
        ids += [mark("<|channel|>"), *plain(message.channel)]
    if message.content_type is not None:
        said = message.content_type.removeprefix("<|constrain|>")
        if said == message.content_type:
            ids += plain(f" {said}")
        else:
            ids += [*plain(" "), mark("<|constrain|>"), *plain(said)]
    ids += [mark("<|message|>"), *plain(message.content)]
    to_a_tool = message.role == "assistant" and message.recipient is not None
    return [*ids, mark("<|call|>" if to_a_tool else "<|end|>")]


class Reader:
    """A reply, id by id: what it says on which channel, and its messages. It never raises: a model now and
    then leaves out a mark or a channel, and what it meant is then guessed.

        reader = Reader(encoding)
        for token in tokens:
            channel, said = reader.push(token)      # text that is complete now, and where it belongs
        channel, said = reader.close()              # what was held back
        reader.messages                             # all of them

    A reply begins after `<|start|>assistant`, in a header. A reply without any header is taken for its
    content, and a mark that cannot stand inside a content ends it. What names no channel counts as final, or,
    to a tool, as commentary; its message says None.
    """

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        self.marks = {encoding.encode_single_token(f"<|{mark}|>"): mark for mark in MARKS}
        self.encoding, self.messages = encoding, list[Message]()
        self.begin("assistant")

    def begin(self, role: str) -> None:
        """A header, of which the role may be known."""
        self.message, self.inside = Message(role, ""), False
        self.header, self.words = "", TextStream(self.encoding)

    @property
    def opens(self) -> bool:
        """Whether this is the very beginning, where a header may have been left out."""
        return not self.messages and bool(self.message.role)

    def push(self, token: int) -> tuple[str, str]:
        """Channel and content that is complete with this id; "" within headers and characters."""
        mark = self.marks.get(token)
        if mark is None:
            return self.take(self.words.push(token))
        if mark in ("start", "end", "return", "call"):
            said = self.close()
            self.begin("" if mark == "start" else "assistant")
        elif self.inside:  # the next message, its start forgotten
            said = self.close()
            self.header = f"<|{mark}|>"
        else:
            said = self.take(self.words.flush())
            self.header += f"<|{mark}|>"
        if mark == "message":
            self.message, self.inside = self.read_header(), True
        return said

    def take(self, said: str) -> tuple[str, str]:
        """Add text to the content, or to the header."""
        if not self.inside:
            self.header, said = self.header + said, ""
            if self.opens and len(self.header) > LONGEST_ROLE and not re.search(r"<\||^ ?to=", self.header):
                self.inside, said = True, self.header
        self.message = replace(self.message, content=self.message.content + said)
        return self.message.channel or ("commentary" if self.message.recipient else "final"), said

    def read_header(self) -> Message:
        """A message without content: role, recipient, channel and type from its header."""
        role, *channels = self.header.removesuffix("<|message|>").split("<|channel|>")
        words = channels[-1].replace("<|constrain|>", " <|constrain|>").split() if channels else []
        to = [part.removeprefix("to=") for part in (*role.split(), *words) if part.startswith("to=")]
        named = [part for part in role.split() if not part.startswith("to=")]
        kind = [part for part in words if not part.startswith("to=")]
        return Message(
            self.message.role or (named[0] if named else "assistant"), "", kind[0] if kind else None,
            to[-1] if to else None, " ".join(kind[1:]) or None,
        )  # fmt: skip

    def close(self) -> tuple[str, str]:
        """End the message under way, if there is one; the text that was held back, and its channel."""
        said = self.take(self.words.flush())
        if not self.inside and self.opens:
            said = self.without_header()
        if self.inside:
            self.messages.append(self.message)
        self.begin("assistant")
        return said

    def without_header(self) -> tuple[str, str]:
        """A reply that never said `<|message|>`: all of it is content, but for a channel's name."""
        _, *channels = self.header.split("<|channel|>")
        text, channel = (channels[-1] if channels else self.header).strip(), None
        for known in CHANNELS if channels else ():
            if text.startswith(known):
                text, channel = text.removeprefix(known).strip(), known
        if not text:
            return "final", ""
        self.message, self.inside = Message("assistant", "", channel), True
        return self.take(text)
