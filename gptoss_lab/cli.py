"""The command `gptoss-lab`: generate, trace, explore, points, cost, download, verify, train.

A user's mistake is answered in one line on standard error, with exit status 2; Ctrl-C keeps what was made,
with 130.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__

if TYPE_CHECKING:
    from .config import Config
    from .study.edits import Change


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="gptoss-lab", description="Understand gpt-oss: generate, trace, count and train."
    )
    top.add_argument("--version", action="version", version=f"gptoss-lab {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    generate = commands.add_parser("generate", help="continue a text, token by token")
    generate.add_argument("--prompt", required=True, help="the text to continue ('-' reads standard input)")
    add_model(generate)
    generate.add_argument("--max-tokens", type=int, default=64, metavar="N")
    generate.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0 (the default): the likeliest token"
    )
    generate.add_argument("--top-k", type=int, metavar="K", help="sample from the K likeliest")
    generate.add_argument(
        "--top-p", type=float, metavar="P", help="sample from the fewest that reach probability P"
    )
    generate.add_argument("--seed", type=int, default=0, metavar="S")
    generate.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text (repeatable)"
    )
    generate.add_argument(
        "--json", action="store_true", help="print one JSON object with ids and log-probabilities"
    )
    generate.add_argument(
        "--memory-limit", type=float, metavar="BYTES", help="refuse what would take more, as 16e9"
    )
    generate.set_defaults(run=run_generate)

    trace = commands.add_parser("trace", help="run a text once and save chosen points")
    trace.add_argument("prompt", help="the text to run ('-' reads standard input)")
    add_model(trace)
    trace.add_argument(
        "--keep", action="append", metavar="GLOB", help="points to keep (repeatable; default: all)"
    )
    trace.add_argument("--out", type=Path, default=Path("trace.safetensors"), metavar="FILE")
    trace.set_defaults(run=run_trace)

    explore = commands.add_parser("explore", help="run a text once, write the explorer over it as a page")
    explore.add_argument(
        "prompt", nargs="?", help="the text to run ('-' reads standard input; default: the guided tour's)"
    )
    add_model(explore)
    explore.add_argument("--out", type=Path, default=Path("explorer.html"), metavar="FILE")
    add_change(explore)
    explore.set_defaults(run=run_explore)

    points = commands.add_parser("points", help="list the points of a model")
    points.add_argument("glob", nargs="?", default="*", help="only those that match, as 'blocks.0.experts.*'")
    add_model(points)
    points.set_defaults(run=run_points)

    cost = commands.add_parser("cost", help="parameters, bytes and FLOP of a model, from its config alone")
    cost.add_argument(
        "model", nargs="*", metavar="MODEL", help="names or folders (default: every known model)"
    )
    cost.add_argument(
        "--context", type=int, default=8192, metavar="N", help="tokens of context for cache and work"
    )
    cost.set_defaults(run=run_cost)

    download = commands.add_parser(
        "download", help="fetch a published model, or go on with what was interrupted"
    )
    download.add_argument("name", metavar="NAME", help="gpt-oss-20b, gpt2, qwen3-30b-a3b, ...")
    download.add_argument(
        "--to", type=Path, metavar="FOLDER", help="where (GPTOSS_LAB_HOME/NAME, or the hub's cache)"
    )
    download.add_argument(
        "--revision", metavar="R", help="a branch, tag or commit, whose own hashes then count"
    )
    download.set_defaults(run=run_download)

    verify = commands.add_parser(
        "verify", help="check a model's files, numbers, bits per byte and a continuation"
    )
    verify.add_argument("model", metavar="NAME|FOLDER")
    verify.add_argument("--out", type=Path, metavar="FILE", help="the report (verify-NAME.json)")
    verify.add_argument(
        "--windows", type=int, default=2, metavar="N", help="windows of held-out text a domain (2)"
    )
    verify.add_argument("--device", default="cpu", metavar="D", help="cpu (the default), cuda, mps")
    verify.set_defaults(run=run_verify)

    train = commands.add_parser(
        "train", help="train a miniature on the shipped corpora, or run the ladder from GPT-2 to gpt-oss"
    )
    train.add_argument("recipe", help="mini-oss or mini-gpt2; or ladder: the queue of all its runs")
    train.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where checkpoints and the model go (runs/RECIPE)"
    )
    train.add_argument("--minutes", type=float, metavar="M", help="train for about this long")
    train.add_argument("--steps", type=int, metavar="N", help="or for this many steps")
    train.add_argument("--seed", type=int, metavar="S", help="0, if not said")
    train.add_argument("--threads", type=int, metavar="N", help="processor threads; 1 beside other work")
    train.add_argument(
        "--fresh", action="store_true", help="start again instead of resuming what FOLDER holds"
    )
    train.add_argument("--plan", action="store_true", help="ladder: print the runs and their hours, no more")
    train.add_argument("--only", metavar="GLOB", help="ladder: only models with such names, as 'without-*'")
    train.set_defaults(run=run_train)
    return top


def add_model(command: argparse.ArgumentParser) -> None:
    """The option that says which model."""
    command.add_argument(
        "--model", default="mini-oss", metavar="NAME|FOLDER", help="a known name or a folder (mini-oss)"
    )


def add_change(command: argparse.ArgumentParser) -> None:
    """The options that put a second run beside the first."""
    change = command.add_argument_group("a second run beside the first: the same text, after a change")
    for option, what in (
        ("--forbid-expert", "an expert that never answers"),
        ("--force-expert", "an expert that always answers"),
        ("--head-off", "a head whose answer is zero"),
    ):
        change.add_argument(
            option, action="append", default=[], type=place, metavar="[LAYER:]N",
            help=f"{what}, in one layer or in all (repeatable)",
        )  # fmt: skip
    change.add_argument("--no-sinks", action="store_true", help="sinks take nothing")
    change.add_argument("--window", metavar="N|none", help="keys that a query of a windowed layer sees")
    change.add_argument("--experts-per-token", type=int, metavar="K", help="how many answer for a token")
    change.add_argument("--beside", metavar="NAME|FOLDER", help="another model, with the same tokenizer")


def place(said: str) -> tuple[int | None, int]:
    """An expert or a head, as 5 (in every layer) or 3:5 (in layer 3)."""
    layer, colon, number = said.rpartition(":")
    try:
        return (int(layer) if colon else None), int(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{said!r}; expected a number, or LAYER:NUMBER as in 3:5") from None


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    for stream in (sys.stdout, sys.stderr):  # what a terminal has no character for comes as \u23ce
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    args = parser().parse_args(argv)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("\ngptoss-lab: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has closed it
        sys.stderr.close()
        return 0
    except (ValueError, OSError, MemoryError) as error:
        print(f"gptoss-lab: {error}", file=sys.stderr)
        return 2
