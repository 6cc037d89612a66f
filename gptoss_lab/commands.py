"""What each command of `gptoss-lab` does with its options: one function each, which returns the exit status.

Rooms are opened inside the functions, so that `gptoss-lab --help` loads none of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import Config
    from .study.edits import Change


def change_of(args: argparse.Namespace) -> Change:
    """The change that the options of `add_change` describe."""
    from .study.edits import SAME, Change

    window = args.window or SAME
    if window not in (SAME, "none") and not window.isdigit():
        raise ValueError(f"--window {window}; expected a number of keys, or none")
    return Change(
        args.forbid_expert, args.force_expert, args.head_off, args.no_sinks,
        int(window) if window.isdigit() else None if window == "none" else window, args.experts_per_token,
    )  # fmt: skip


def read_prompt(given: str) -> str:
    """The prompt, or standard input for '-'."""
    text = sys.stdin.read() if given == "-" else given
    if not text:
        raise ValueError("the prompt is empty: give at least one token")
    return text


def run_generate(args: argparse.Namespace) -> int:
    """Print the continuation as it comes."""
    prompt = read_prompt(args.prompt)
    from .generation import generate
    from .weights import load

    run = generate(
        load(args.model, memory_limit=args.memory_limit), prompt, max_tokens=args.max_tokens,
        temperature=args.temperature, top_k=args.top_k, top_p=args.top_p, seed=args.seed, stop=args.stop,
        memory_limit=args.memory_limit,
    )  # fmt: skip
    status = 0
    try:
        for token in run:
            if not args.json:
                print(token.text, end="", flush=True)
    except KeyboardInterrupt:
        status = 130
    if args.json:
        tokens = [{"id": token.id, "text": token.text, "logprob": token.logprob} for token in run.tokens]
        about = {"model": args.model, "prompt": prompt, "seed": args.seed, "temperature": args.temperature}
        finish = run.finish if status == 0 else "interrupted"
        said = {**about, "text": run.so_far, "finish": finish, "tokens": tokens}
        plain = (sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")
        print(json.dumps(said, ensure_ascii=plain))
    else:
        print()
    return status


def run_trace(args: argparse.Namespace) -> int:
    """Watch the text, save the trace, list what it holds."""
    prompt = read_prompt(args.prompt)
    folder = args.out.resolve().parent
    if not folder.is_dir():
        raise ValueError(f"no folder {str(args.out.parent)!r} to write {args.out.name!r} into; make it first")
    from . import points
    from .cost import human
    from .trace import as_tokens, watch
    from .weights import load

    model, keep = load(args.model), args.keep or "*"
    tokens = as_tokens(model, prompt).shape[1]
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
    prompt = None if args.prompt is None else read_prompt(args.prompt)
    from . import views
    from .cost import human
    from .trace import watch
    from .views.tour import TEXT
    from .weights import load

    model, change = load(args.model), change_of(args)
    prompt = TEXT if prompt is None else prompt
    if change or args.beside:
        found = views.compared(model, prompt, change, load(args.beside) if args.beside else None)
        print(f"before: {found.texts[0]!r}\nafter ({found.words}): {found.texts[1]!r}")
        path = views.export_html(found, args.out)
    else:
        trace = watch(model, prompt, keep=views.keep_for(model.config), last=1)
        path = views.export_html(trace, args.out, model=model)
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
    """Print the figures of each model."""
    from .config import NAMED
    from .cost import table

    if args.context < 1:
        raise ValueError(f"--context {args.context}; expected at least 1")
    names = args.model or list(NAMED)
    print("\n\n".join(table(config_named(name), args.context) for name in names))
    return 0


def run_bench(args: argparse.Namespace) -> int:
    """Measure and print tables; status 1 where parts are left to do."""
    from .bench.asking import asked_for
    from .bench.running import bench

    if args.minutes is not None and args.out is None:
        raise ValueError("--minutes stops early and goes on later: name a file for the results with --out")
    asked = asked_for(
        args.model, args.beside, args.limit, args.whole, args.rounds, args.gguf, args.device, args.threads
    )
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

    return int(not verify(args.model, args.out, windows=args.windows, device=args.device)["passed"])


def run_train(args: argparse.Namespace) -> int:
    """Train, with progress; Ctrl-C saves. The ladder's status is 0 when every run is in, else 1."""
    folder = args.out or Path("runs") / args.recipe
    one, all_runs = ("minutes", "steps", "seed", "fresh"), ("plan", "only")
    for option in one if args.recipe == "ladder" else all_runs:
        if getattr(args, option) not in (None, False):
            kind = "one model; every run of the ladder has its own" if option in one else "the ladder"
            raise ValueError(f"--{option} is for {kind}; leave it out for {args.recipe!r}")
    if args.recipe == "ladder":
        from .training.queue import run_queue

        left = run_queue(folder, args.only or "*", args.threads, plan_only=args.plan)
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
