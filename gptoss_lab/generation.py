"""Generating text: the prompt once, then one token at a time, each from the logits of the last.

    run = generate(model, "Once upon a time", max_tokens=64)
    for token in run:                       # Token(id, text, logprob), as it goes
        print(token.text, end="")
    run.text, run.trace                     # afterwards

Sampling follows Holtzman et al. (arXiv 1904.09751) for top-p; temperature 0 takes the likeliest token.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from . import points
from .model import Cache, Transformer
from .tap import SILENT, Edit, Recorder, Tap, force_eager
from .text import tokens as text
from .trace import LIMIT, Trace, as_tokens, edits_by_name, label, refuse_too_much, source_of
from .weights.plans import cache_dtype, check_run, prompt_pass

CHUNK = 512  # prompt tokens a pass, at most: bounds the memory of a long prompt


@dataclass(frozen=True)
class Token:
    """One generated token: its id, the text that became certain with it, and its log-probability.

    text: may be empty (half a character, a possible stop string) and may belong to earlier tokens; the texts
    of a run join
    to run.text. logprob: natural log of the probability in the model's own distribution (temperature 1,
    nothing cut off).
    """

    id: int
    text: str
    logprob: float


class Run:
    """A generation under way. Iterating yields Tokens as they are made; iterating again starts with those
    made before.

    text, trace, finish: make what is left first. so_far: the text made up to now. finish: "stop" (a stop id
    or string), "length" (max_tokens) or "interrupted". prompt: the ids given. trace: None unless `keep` was
    given; its T axis is the tokens that were run (the prompt and all but the last generated one), its logits
    those that each token was drawn from.
    """

    def __init__(self, prompt: Tensor, steps: Iterator[Token], recording: Recording | None) -> None:
        self.prompt, self.tokens = prompt, list[Token]()
        self._trace: Trace | None = None
        self._steps, self._recording, self._finish = steps, recording, ""

    def __iter__(self) -> Iterator[Token]:
        yield from list(self.tokens)
        while (token := self._next()) is not None:
            yield token

    def _next(self) -> Token | None:
        try:
            self.tokens.append(next(self._steps))
        except StopIteration as end:
            self._finish = self._finish or end.value or "interrupted"
            return None
        except BaseException:
            self._finish = "interrupted"
            raise
        return self.tokens[-1]

    def _complete(self) -> Run:
        while not self._finish and self._next() is not None:
            pass
        return self

    @property
    def so_far(self) -> str:
        """The text made up to now."""
        return "".join(token.text for token in self.tokens)

    @property
    def text(self) -> str:
        """The whole text (without the prompt); makes what is left first."""
        return self._complete().so_far

    @property
    def finish(self) -> str:
        """Why it ended; makes what is left first."""
        return self._complete()._finish

    @property
    def trace(self) -> Trace | None:
        """What `keep` asked for, over prompt and decoding; makes what is left first."""
        self._complete()
        if self._recording:
            self._trace = self._recording.trace([t.id for t in self.tokens])
            self._recording = None  # its pieces are joined, and let go
        return self._trace

    def __repr__(self) -> str:
        return f"<Run: {len(self.tokens)} tokens so far: {self.so_far[-60:]!r}>"


def generate(
    model: Transformer,
    prompt: str | Iterable[int] | Tensor,
    max_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    stop: str | int | Iterable[str | int] = (),
    keep: str | Iterable[str] | None = None,
    edit: Mapping[str, Edit] | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    cache: bool = True,
    limit: int = LIMIT,
    memory_limit: int | float | None = None,
) -> Run:
    """Continue a prompt (text or ids) for up to `max_tokens` tokens; a Run that yields Tokens as they are
    made.

    temperature: 0 takes the likeliest; top_k, top_p: sample from the k likeliest, from the fewest that reach
    probability p.
    stop: strings (the text ends before them) and ids, beside the model's own stop ids. keep, edit, limit: as
    in `watch`, on every token while decoding. cache=False runs the whole text again for each token: the same
    tokens, slowly. memory_limit: bytes; a run that takes more (weights, cache, work) is refused.

    ValueError before anything runs: an empty prompt, one that with max_tokens exceeds the context, values out
    of range, too little memory.
    """
    ids = as_tokens(model, prompt)
    require_range(ids, max_tokens, temperature, top_k, top_p, seed)
    total = ids.shape[1] + max_tokens
    if total > model.config.context:
        raise ValueError(
            f"{ids.shape[1]} tokens of prompt and {max_tokens} to come exceed the context of "
            f"{model.config.context} tokens of {model.config.name}: shorten the prompt or max_tokens"
        )
    chunk = min(CHUNK, prompt_pass(model, total))
    if memory_limit is not None:
        check_run(memory_limit, model, context=total, tokens=min(ids.shape[1], chunk))
    several = isinstance(stop, Iterable) and not isinstance(stop, str | bytes)
    stops: list[Any] = [*stop] if several else [stop]  # type: ignore[misc]
    if any(not isinstance(s, str | int) or s == "" for s in stops):
        raise ValueError(f"stop={stops!r}; expected texts (not empty) and ids")
    recording = None
    if keep is not None:
        recording = Recording(model, ids, points.match(keep, model.config), edit, chunk)
        if not cache:
            raise ValueError("keep needs the cache: without it every token runs the whole text again")
        sizes = points.trace_bytes(recording.kept, model.config, 1, total - 1, total - 1, last=max_tokens)
        refuse_too_much(sizes, limit, f"up to {total - 1} tokens")
    tap: Tap = SILENT
    if recording or edit:
        store = recording.store if recording else None
        tap = Recorder(recording.kept if recording else (), edits_by_name(edit, model.config), store)
    generator = torch.Generator(device="cpu").manual_seed(int(seed))
    held = Cache(model.config, total, 1, cache_dtype(model), model.device) if cache else None
    logits = decode(model, ids, held, tap, chunk)
    return Run(ids, sample(model, logits, max_tokens, temperature, top_k, top_p, generator, stops), recording)


def require_range(
    ids: Tensor, max_tokens: int, temperature: float, top_k: int | None, top_p: float | None, seed: int
) -> None:
    """ValueError that names the argument that is out of range."""
    if ids.shape[0] != 1:
        raise ValueError(f"{ids.shape[0]} prompts; generate continues one at a time")
    for name, value in {"max_tokens": max_tokens, "top_k": top_k, "seed": seed}.items():
        if not isinstance(value, Integral) and (name, value) != ("top_k", None):
            raise ValueError(f"{name}={value!r}; expected a whole number")
    for name, number in {"temperature": temperature, "top_p": top_p}.items():
        if not isinstance(number, Real) and (name, number) != ("top_p", None):
            raise ValueError(f"{name}={number!r}; expected a number")
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed={seed}; expected a whole number from -2^63 to 2^64 - 1")
    if max_tokens < 1:
        raise ValueError(f"max_tokens={max_tokens}; expected at least 1")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature}; expected 0 (the likeliest token) or above")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k}; expected at least 1, or None")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p}; expected above 0 and at most 1, or None")


def decode(
    model: Transformer, ids: Tensor, cache: Cache | None, tap: Tap, chunk: int
) -> Generator[Tensor, int, None]:
    """The logits V after the prompt, `chunk` tokens of it a pass, then after each id that is sent in.

    Gradients are off during a pass alone: between two, whoever iterates may do as he likes.
    """
    new, before = ids, ids[:, :0]
    while True:
        with torch.no_grad(), force_eager():
            if cache is None:
                before = torch.cat((before, new), dim=1)
                logits = model(before, last=1, tap=tap)
            else:
                *earlier, newest = new.split(chunk, dim=1)
                for part in earlier:
                    model(part, last=0, cache=cache, tap=tap)
                logits = model(newest, last=1, cache=cache, tap=tap)
        chosen = yield logits[0, -1]
        new = torch.tensor([[chosen]])


def sample(
    model: Transformer,
    logits: Generator[Tensor, int, None],
    max_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator,
    stops: list[str | int],
) -> Generator[Token, None, str]:
    """Tokens from logits; the generator's return value says why it ended."""
    stop_ids = {*model.config.stop_ids, *(s for s in stops if isinstance(s, int))}
    stop_texts = [s for s in stops if isinstance(s, str)]
    words, held = text.TextStream(model.tokenizer), ""
    row = next(logits)
    for made in range(1, max_tokens + 1):
        row = usable(row, model.config.vocab_used)
        chosen = pick(row, temperature, top_k, top_p, generator)
        logprob = float(row.log_softmax(-1)[chosen])
        ended = chosen in stop_ids
        held += "" if ended else words.push(chosen)
        if ended or made == max_tokens:
            held += words.flush()
        found = [at for s in stop_texts if (at := held.find(s)) >= 0]
        if found:
            yield Token(chosen, held[: min(found)], logprob)
            return "stop"
        if ended or made == max_tokens:
            yield Token(chosen, held, logprob)
            return "stop" if ended else "length"
        certain = len(held) - longest_start(held, stop_texts)
        yield Token(chosen, held[:certain], logprob)
        held = held[certain:]
        row = logits.send(chosen)
    raise AssertionError


def usable(row: Tensor, vocab_used: int | None) -> Tensor:
    """Logits V on the CPU, -inf where the id stands for nothing; ValueError where nothing can be drawn."""
    row = row.float().cpu().clone()
    if row.isnan().any():
        raise ValueError(
            "the logits are NaN: an edit, or the weights, put NaN or infinity into the forward pass"
        )
    if vocab_used is not None:
        row[vocab_used:] = float("-inf")
    if not row.max().isfinite():
        raise ValueError(
            f"the largest logit is {float(row.max())}, from which no probabilities follow: an edit, or the "
            "weights, put infinity there. To force a token, lower the logits of all others"
        )
    return row


def pick(
    row: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> int:
    """One id from logits V. Temperature first, then top-k, then top-p of what is left."""
    if temperature == 0:
        return int(row.argmax())
    below = (row - row.max()).double() / temperature  # 0 for the likeliest, however small the temperature
    scaled, order = below.float().sort(descending=True, stable=True)
    if top_k is not None:
        scaled = scaled[:top_k]
    share = scaled.softmax(-1)
    if top_p is not None:
        share = share[: 1 + int((share.cumsum(-1) < top_p).sum())]
    return int(order[torch.multinomial(share, 1, generator=generator)])


def longest_start(held: str, stop_texts: list[str]) -> int:
    """How many last characters of `held` may be the start of a stop string."""
    starts = (n for s in stop_texts for n in range(min(len(s) - 1, len(held)), 0, -1) if held.endswith(s[:n]))
    return max(starts, default=0)


class Recording:
    """Collects what a recorder keeps, pass after pass, and joins it to one trace by position."""

    def __init__(
        self, model: Transformer, ids: Tensor, kept: list[str], edit: Mapping[str, Edit] | None, chunk: int
    ) -> None:
        self.model, self.ids, self.kept, self.edit, self.chunk = model, ids, kept, edit, chunk
        self.parts: dict[str, list[tuple[Tensor, Tensor | None]]] = {name: [] for name in kept}

    def store(self, name: str, value: Tensor, positions: Tensor | None, keys: Tensor | None) -> None:
        """Keep one pass's value, with the positions of its keys."""
        self.parts[name].append((value, keys))

    def trace(self, generated: list[int]) -> Trace:
        """One trace of prompt and decoding, to be made once; of whole passes alone, if it was interrupted."""
        passes = min((len(parts) for parts in self.parts.values()), default=0)
        prompt, chunk = self.ids.shape[1], self.chunk
        chunks = -(-prompt // chunk)
        total = min(passes * chunk, prompt) + max(passes - chunks, 0)
        sizes = [min(chunk, prompt - n * chunk) if n < chunks else 1 for n in range(passes)]
        run = torch.cat((self.ids, self.ids.new_tensor([generated])), dim=1)[:, :total]
        values = {name: self.joined(name, passes, total) for name in self.kept} if passes else {}
        return Trace(
            run,
            label(self.model, run[0].tolist()),
            source_of(self.model, self.edit, self.kept, sizes, cached=True),
            values,
        )

    def joined(self, name: str, passes: int, total: int) -> Tensor:
        """The passes of one point along T, which are let go; axis S is spread to all `total` positions."""
        axes = points.axes(name).split()
        parts = self.parts.pop(name)[:passes]
        rows = [value if "S" not in axes else spread(name, value, keys, total) for value, keys in parts]
        return torch.cat(rows, dim=axes.index("T'" if "T'" in axes else "T"))


def spread(name: str, value: Tensor, keys: Tensor | None, total: int) -> Tensor:
    """A value whose last axis is the keys that a cache held → the keys at all positions; what was not held is
    not seen.
    """
    assert keys is not None
    nothing = float("-inf") if name.endswith("scores") else 0
    whole = torch.full((*value.shape[:-1], total), nothing, dtype=value.dtype, device=value.device)
    return whole.index_copy(-1, keys[0].to(value.device), value)
