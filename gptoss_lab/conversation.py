"""A conversation with a model that speaks harmony, turn by turn, over one cache.

    talk = Conversation(model, effort="low", instructions="Answer in one sentence.")
    reply = talk.ask("Who wrote Emma?")
    for channel, said in reply:
        print(said, end="")                 # analysis, commentary, final
    reply.end()                             # whatever came is now part of the conversation

A turn runs only what is new. The next prompt begins with the last one, and goes on with the answer without
its analysis; so the cache is set back to the end of the last prompt, which for windowed layers, whose rings
forget, means a copy of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .generation import CHUNK, Run, decode, require_range, sample
from .model import Cache, Transformer
from .pace import Pace, Tell
from .tap import SILENT
from .text import harmony
from .weights.plans import cache_dtype, check_run, prompt_pass

CONTEXT = 8192  # tokens that a conversation may have, if not said


@dataclass(frozen=True)
class Mark:
    """A place in the course of a cache: the ids that it had seen, and its rings as they were."""

    ids: list[int]
    rings: dict[int, tuple[Tensor, Tensor, Tensor]]

    @classmethod
    def of(cls, cache: Cache, ids: list[int]) -> Mark:
        """The place where the cache is now, after `ids`. Layers that never forget need no copy."""
        rings = {
            n: (layer.k.clone(), layer.v.clone(), layer.positions.clone())
            for n, layer in enumerate(cache.layers)
            if layer.size < cache.length
        }
        return cls(list(ids), rings)

    def restore(self, cache: Cache) -> None:
        """Set the cache back to this place."""
        cache.tokens = len(self.ids)
        for n, layer in enumerate(cache.layers):
            layer.seen = len(self.ids)
            if n in self.rings:
                for now, then in zip((layer.k, layer.v, layer.positions), self.rings[n]):
                    now.copy_(then)


class Conversation:
    """What has been said, and the cache that goes with it.

    effort: low, medium or high; instructions: what is elsewhere called a system prompt; date: today's, as
    YYYY-MM-DD, or none; context: the most tokens, at most the model's own (if not said, at most 8192).
    ValueError for a model that does not speak harmony, and where `memory_limit` (bytes) does not hold such a
    conversation.
    """

    def __init__(
        self,
        model: Transformer,
        effort: str = "medium",
        instructions: str | None = None,
        date: str | None = None,
        context: int | None = None,
        seed: int = 0,
        memory_limit: float | None = None,
    ) -> None:
        name = model.config.name
        if not harmony.speaks(model.tokenizer):
            raise ValueError(
                f"{name} does not speak harmony, the chat format of gpt-oss-20b and gpt-oss-120b: its "
                f"tokenizer has no <|start|>, <|channel|> and so on. It can continue a text: gptoss-lab "
                f"generate --model {name} --prompt TEXT"
            )
        context = min(CONTEXT, model.config.context) if context is None else context
        if not 1 <= context <= model.config.context:
            raise ValueError(f"context={context}; expected 1 to {model.config.context}, {name}'s own")
        self.model, self.context = model, context
        self.chunk = min(CHUNK, context, prompt_pass(model, context))
        if memory_limit is not None:
            check_run(memory_limit, model, context=context, tokens=self.chunk)
        self.opening = [harmony.system(effort, date)]
        if instructions:
            self.opening.append(harmony.developer(instructions))
        self.generator = torch.Generator(device="cpu").manual_seed(seed)
        self.reset()

    def reset(self) -> None:
        """Forget what has been said."""
        self.messages: list[harmony.Message] = []
        self.cache = Cache(self.model.config, self.context, 1, cache_dtype(self.model), self.model.device)
        self.mark = Mark([], {})

    def ask(
        self,
        text: str,
        max_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        tell: Tell | None = None,
    ) -> Reply:
        """Say something; the reply, which comes as it is iterated. tell: how far the prompt is (see `Pace`).

        max_tokens: the most that the reply may have, thoughts included; if not said, what the context leaves.
        ValueError where the conversation has no room left; nothing is then said.
        """
        asked = harmony.Message("user", text)
        ids = harmony.prompt([*self.opening, *self.messages, asked], self.model.tokenizer)
        room = self.context - len(ids)
        if room < 1:
            raise ValueError(
                f"the conversation has {len(ids)} tokens with this, of {self.context}: /reset forgets what "
                "was said; --context N makes room for more"
            )
        most = room if max_tokens is None else min(max_tokens, room)
        require_range(torch.tensor([ids]), most, temperature, top_k, top_p, 0)
        if ids[: len(self.mark.ids)] != self.mark.ids:
            self.mark = Mark([], {})
        self.mark.restore(self.cache)
        new = torch.tensor([ids[len(self.mark.ids) :]])
        marks = [self.model.tokenizer.encode_single_token(mark) for mark in ("<|return|>", "<|call|>")]
        logits = decode(self.model, new, self.cache, SILENT, self.chunk)
        tokens = sample(self.model, logits, most, temperature, top_k, top_p, self.generator, marks)
        self.messages.append(asked)
        return Reply(self, ids, Pace(self.model, Run(new, tokens, None), tell=tell))


class Reply:
    """A reply under way. Iterating yields (channel, text); `end` makes what came part of the conversation."""

    def __init__(self, talk: Conversation, ids: list[int], pace: Pace) -> None:
        self.talk, self.ids, self.pace = talk, ids, pace
        self.reader, self.ended = harmony.Reader(talk.model.tokenizer), False

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for n, token in enumerate(self.pace):
            if n == 0:  # the cache holds the prompt and nothing else
                self.talk.mark = Mark.of(self.talk.cache, self.ids)
            yield self.reader.push(token.id)
        yield self.end()

    def end(self) -> tuple[str, str]:
        """Keep what was said, also where it was stopped; the text that was held back, and its channel."""
        if self.ended:
            return "final", ""
        self.ended = True
        said = self.reader.close()
        self.talk.messages += self.reader.messages
        return said

    @property
    def text(self) -> str:
        """What was said on the final channel so far."""
        done = [message.content for message in self.reader.messages if message.channel in ("final", None)]
        return "".join(done)

    @property
    def calls(self) -> list[str]:
        """The tools that the reply asks for."""
        return [message.recipient for message in self.reader.messages if message.recipient]
