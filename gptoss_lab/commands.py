"""What each command of `gptoss-lab` does with its options: one function each, which returns the exit status.

Rooms are opened inside the functions, so that `gptoss-lab --help` loads none of them.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import Config
    from .model import Transformer
    from .study.edits import Change


def change_of(args: argparse.Namespace) -> Change:
    """The change that the options of `add_change` describe."""
    from .study.edits import SAME, Change

    window = {None: SAME, "none": None}.get(args.window, args.window)
    if args.window not in (None, "none"):
        if not args.window.isdecimal():
            raise ValueError(f"--window {args.window!r}; expected a number of keys, or none")
        window = int(args.window)
    return Change(
        args.forbid_expert, args.force_expert, args.head_off, args.no_sinks, window, args.experts_per_token
    )


def require_place(out: Path | None, format: str | None = None) -> None:
    """ValueError unless the file of `--out` can be written, over no tensors but those of this `format`."""
    from .files import spare_weights, writable

    if out is not None:
        writable(out)
        spare_weights(out, format)


def read_prompt(given: str) -> str:
    """The prompt, or standard input for '-'."""
    text = sys.stdin.read() if given == "-" else given
    if not text:
        raise ValueError("the prompt is empty: give at least one token")
    return text


def as_prompt(text: str, model: Transformer) -> str | list[int]:
    """The prompt as a model takes it: where that has no tokenizer, "5 17 3" or "[5, 17, 3]" are ids."""
    ids = text.strip().strip("[]").replace(",", " ").split()
    return [int(one) for one in ids] if model.tokenizer is None and all(map(str.isdecimal, ids)) else text


def run_generate(args: argparse.Namespace) -> int:
    """Print the continuation as it comes, then on standard error how fast it came."""
    prompt = read_prompt(args.prompt)
    from .generation import generate
    from .machine import light
    from .pace import Pace
    from .terminal import Line, printable
    from .weights import load

    where = {"device": args.device, "embedding_device": args.embedding_device}
    model = load(args.model, memory_limit=args.memory_limit, **where)
    run = generate(
        model, as_prompt(prompt, model), max_tokens=args.max_tokens, temperature=args.temperature,
        seed=args.seed, stop=args.stop, top_k=args.top_k, top_p=args.top_p, memory_limit=args.memory_limit,
    )  # fmt: skip
    status, line = 0, Line()
    pace, steer = Pace(model, run, tell=line.prompt), not sys.stdout.isatty()
    try:
        with light(model):
            for token in pace:
                line.clear()
                if not args.json:
                    print(token.text if steer else printable(token.text), end="", flush=True)
    except KeyboardInterrupt:
        status = 130
    line.clear()
    if args.json:
        tokens = [{"id": token.id, "text": token.text, "logprob": token.logprob} for token in run.tokens]
        about = {"model": args.model, "prompt": prompt, "seed": args.seed, "temperature": args.temperature}
        finish = run.finish if status == 0 else "interrupted"
        said = {**about, "text": run.so_far, "finish": finish, "tokens": tokens, "statistics": pace.figures()}
        plain = (sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")
        told = json.dumps(said, ensure_ascii=plain)  # which spells out \x1b, but no control from \x7f on
        print(re.sub(r"[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", told))
    else:
        print(flush=True)
        print(f"{'stopped; ' if status else ''}{pace.report()}", file=sys.stderr)
    return status


def run_chat(args: argparse.Namespace) -> int:
    """Converse until /quit or the end of the input."""
    from datetime import date

    from .chat import converse
    from .conversation import Conversation
    from .weights import load

    where = {"device": args.device, "embedding_device": args.embedding_device}
    talk = Conversation(
        load(args.model, memory_limit=args.memory_limit, **where), args.effort, args.instructions,
        date.today().isoformat(), args.context, args.seed, args.memory_limit,
    )  # fmt: skip
    sampling = {name: getattr(args, name) for name in ("max_tokens", "temperature", "top_k", "top_p")}
    return converse(talk, sampling, args.show_analysis)


def run_trace(args: argparse.Namespace) -> int:
    """Watch the text, save the trace, list what it holds."""
    given = read_prompt(args.prompt)
    from .opened import FORMAT

    require_place(args.out, FORMAT)
    folder = args.out.resolve().parent
    from . import points
    from .cost import human
    from .trace import as_tokens, refuse_too_long, watch
    from .weights import load

    model = load(args.model, args.device, embedding_device=args.embedding_device)
    keep = args.keep or "*"
    prompt = as_prompt(given, model)
    tokens = as_tokens(model, prompt).shape[1]
    refuse_too_long(model, tokens)
    needed = sum(
        points.trace_bytes(points.match(keep, model.config), model.config, 1, tokens, tokens).values()
    )
    if (free := shutil.disk_usage(folder).free) < needed + 1_000_000:
        raise ValueError(
            f"the trace takes {human(needed)}, but {str(folder)!r} has {human(free)} free; keep fewer points "
            "(--keep) or write elsewhere (--out)"
        )
    trace = watch(model, prompt, keep=keep)
    path = trace.save(args.out)
    print(f"{' '.join(trace.labels)}\n{trace.caption}")
    for name in trace:
        print(f"{name:<36}{trace.axes(name):<10}{' '.join(str(n) for n in trace[name].shape)}")
    print(f"{path}: {human(path.stat().st_size)}")
    return 0


def run_explore(args: argparse.Namespace) -> int:
    """Write the page: one file that needs no network."""
    given = None if args.prompt is None else read_prompt(args.prompt)
    require_place(args.out)
    from . import views
    from .cost import human
    from .trace import watch
    from .views.page import made, write
    from .views.tour import TEXT
    from .weights import load

    change = change_of(args)
    where = {"device": args.device, "embedding_device": args.embedding_device}
    model = load(args.model, **where)
    prompt = as_prompt(TEXT if given is None else given, model)
    if change or args.beside is not None:
        beside = None if args.beside is None else load(args.beside, **where)
        found = views.compared(model, prompt, change, beside)
        print(f"before: {found.texts[0]!r}\nafter ({found.words}): {found.texts[1]!r}")
        source, left_out = made(found, None, None, args.limit)
    else:
        trace = watch(model, prompt, keep=views.keep_for(model.config), last=1)
        source, left_out = made(trace, model, None, args.limit)
    path = write(args.out, source)
    if left_out:
        told = f"left out, to stay within {human(int(args.limit))}: {'; '.join(left_out)}"
        print(f"{told} (--limit {4 * args.limit:g} has room for more)")
    print(f"{path}: {human(path.stat().st_size)}; open it in a browser")
    return 0


def run_points(args: argparse.Namespace) -> int:
    """List names, axes and meanings; equal blocks once."""
    from . import points

    config = config_named(args.model)
    matched, told = points.match(args.glob, config), set()
    catalogue = points.names(config)
    print(f"{config.name}: {len(matched)} points in {config.n_layers} layers (N)")
    for name in matched:
        general = points.general(name)
        if general not in told:
            told.add(general)
            print(f"{general:<34}{catalogue[name].axes:<10}{catalogue[name].meaning}")
    return 0


def run_cost(args: argparse.Namespace) -> int:
    """Print the figures of each model, and what it takes of a device where one is named; with --json a list
    of them."""
    from .config import NAMED
    from .cost import figures, table

    if args.context < 1:
        raise ValueError(f"--context {args.context}; expected at least 1")
    if args.device is None and (args.dtype or args.embedding_device):
        raise ValueError("--dtype and --embedding-device are for a device: add --device cuda, mps or cpu")
    configs = [config_named(name) for name in args.model or NAMED]
    if args.json:
        told = [figures(config, args.context) for config in configs]
        if args.device:
            told = [one | {args.device: on_device(config, args)[0]} for one, config in zip(told, configs)]
        print(json.dumps(told))
        return 0
    said = []
    for config in configs:
        more = "\n" + on_device(config, args)[1] if args.device else ""
        said.append(table(config, args.context) + more)
    print("\n\n".join(said))
    return 0


def run_doctor(args: argparse.Namespace) -> int:
    """Say what this machine is and what runs on it."""
    from .doctor import examine, words

    found = examine()
    print(json.dumps(found) if args.json else words(found))
    return 0


def on_device(config: Config, args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """What the model takes of the device that is named; and, where it is here, what that has. As JSON has it,
    and as lines of text."""
    from .cost import device_figures, device_table, human
    from .weights.plans import FAST, products_on

    apart = args.embedding_device == "cpu" and args.device != "cpu"
    if apart and config.tied:
        raise ValueError(f"the embedding of {config.name} is its read-out too: leave --embedding-device out")
    products, here = products_on(args.device, args.dtype)
    fast = args.device == "cpu" and config.name in FAST and args.dtype in (None, "stored")
    told = device_figures(config, args.device, args.context, products, not apart, fast)
    said = device_table(args.device, told)
    if here is None:
        return told, said
    more = f"\n  here            {human(here[0])} free of {human(here[1])}"
    return told | {"bytes_free_here": here[0]}, said + more


def run_bench(args: argparse.Namespace) -> int:
    """Measure and print tables; status 1 where parts are left to do."""
    from .bench.asking import asked_for
    from .bench.running import bench

    if args.minutes is not None and args.out is None:
        raise ValueError("--minutes stops early and goes on later: name a file for the results with --out")
    require_place(args.out)
    asked = asked_for(
        args.model, args.beside, args.limit, args.whole, args.rounds, args.gguf, args.device, args.threads,
        args.kernels,
    )  # fmt: skip
    command = ["gptoss-lab", *sys.argv[1:]]
    found = bench(asked, args.out, command, args.minutes, args.fresh, args.plan)
    return int(bool(found["left"]) and not args.plan)


def run_download(args: argparse.Namespace) -> int:
    """Fetch a published model, with progress; Ctrl-C keeps what came."""
    from .weights.hub import download
    from .weights.places import find

    folder = download(args.name, to=args.to, revision=args.revision)
    try:
        by_name = find(args.name)[1].samefile(folder)
    except ValueError:
        by_name = False
    print(f"load it: lab.load({args.name if by_name else str(folder)!r})")
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Print what was checked and write the report; status 1 where a check failed."""
    from .study.verify import verify

    require_place(args.out)
    return int(not verify(args.model, args.out, windows=args.windows, device=args.device)["passed"])


def run_train(args: argparse.Namespace) -> int:
    """Train, with progress; Ctrl-C saves. The ladder's status is 0 when every run asked for is in, else 1."""
    from .training.recipes import RECIPES

    if args.recipe not in (*RECIPES, "ladder"):
        raise ValueError(f"no recipe {args.recipe!r}; there are {', '.join(RECIPES)}, and ladder")
    folder = args.out or Path("runs") / args.recipe
    one, all_runs = ("minutes", "steps", "seed", "fresh"), ("plan", "only", "results")
    for option in one if args.recipe == "ladder" else all_runs:
        if getattr(args, option) not in (None, False):
            kind = "one model; every run of the ladder has its own" if option in one else "the ladder"
            raise ValueError(f"--{option} is for {kind}; leave it out for {args.recipe!r}")
    if args.recipe == "ladder":
        from .training.queue import RESULTS, run_queue

        into = args.results or RESULTS
        left = run_queue(folder, args.only or "*", args.threads, plan_only=args.plan, into=into)
        return int(left > 0 and not args.plan)
    from .training.train import train

    more = {"seed": args.seed or 0, "resume": not args.fresh, "threads": args.threads}
    train(args.recipe, folder, args.minutes, args.steps, **more)
    return 0


def config_named(name: str) -> Config:
    """The config of a known name, or of a folder's config.json; no weights are needed."""
    from .config import NAMED
    from .weights.checkpoint import config_of
    from .weights.places import find

    if name in NAMED:
        return NAMED[name]
    known, folder = find(name)
    return config_of(folder, known)
