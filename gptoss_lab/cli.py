"""The command `gptoss-lab`: generate, chat, trace, explore, points, cost, doctor, bench, download, verify,
train.

A user's mistake, or a lack of memory, is answered in one line on standard error, with exit status 2; Ctrl-C
keeps what was made, with 130.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from . import __version__
from .commands import (
    run_bench,
    run_chat,
    run_cost,
    run_doctor,
    run_download,
    run_explore,
    run_generate,
    run_points,
    run_trace,
    run_train,
    run_verify,
)
from .mistakes import in_a_line
from .terminal import printable


class Parser(argparse.ArgumentParser):
    """One that says how to write a value which looks like an option."""

    def error(self, message: str) -> NoReturn:
        """Show the usage and a line, and leave with status 2."""
        if message.startswith("argument -") and message.endswith("expected one argument"):
            option = message.removeprefix("argument ").split(":")[0].split("/")[0]
            message += f" (one that begins with - is written behind {option}=)"
        super().error(message)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = Parser(
        prog="gptoss-lab", description="Understand gpt-oss: generate, trace, count and train."
    )
    top.add_argument("--version", action="version", version=f"gptoss-lab {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    generate = commands.add_parser("generate", help="continue a text, token by token")
    generate.add_argument("--prompt", required=True, help="the text to continue ('-' reads standard input)")
    add_model(generate)
    add_device(generate)
    generate.add_argument("--max-tokens", type=int, default=64, metavar="N")
    add_sampling(generate, temperature=0.0)
    generate.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text (repeatable)"
    )
    generate.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object with ids, log-probabilities and statistics",
    )
    generate.set_defaults(run=run_generate)

    chat = commands.add_parser("chat", help="converse with gpt-oss in the terminal")
    add_model(chat, "gpt-oss-20b")
    add_device(chat)
    chat.add_argument(
        "--effort", choices=("low", "medium", "high"), default="medium", help="how long to think (medium)"
    )
    chat.add_argument("--instructions", metavar="TEXT", help="what holds for all answers")
    chat.add_argument(
        "--show-analysis", action="store_true", help="show what it thinks, dimmed, before its answer"
    )
    chat.add_argument("--max-tokens", type=int, metavar="N", help="of an answer, thoughts included")
    chat.add_argument(
        "--context", type=int, metavar="N", help="tokens of the whole conversation (8192)"
    )
    add_sampling(chat, temperature=1.0)
    chat.set_defaults(run=run_chat)

    trace = commands.add_parser("trace", help="run a text once and save chosen points")
    trace.add_argument("prompt", help="the text to run ('-' reads standard input)")
    add_model(trace)
    add_device(trace)
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
    add_device(explore)
    explore.add_argument("--out", type=Path, default=Path("explorer.html"), metavar="FILE")
    explore.add_argument(
        "--limit", type=amount, default=5e6, metavar="BYTES",
        help="of the page; what does not fit is left out, and told (5e6)",
    )  # fmt: skip
    add_change(explore)
    explore.set_defaults(run=run_explore)

    points = commands.add_parser("points", help="list the points of a model")
    points.add_argument("glob", nargs="?", default="*", help="only those that match, as 'blocks.0.experts.*'")
    add_model(points)
    points.set_defaults(run=run_points)

    cost = commands.add_parser(
        "cost", help="parameters, bytes, FLOP, cache and trace of a model, from its config alone"
    )
    cost.add_argument(
        "model", nargs="*", metavar="MODEL", help="names or folders (default: every known model)"
    )
    cost.add_argument(
        "--context", type=int, default=8192, metavar="N", help="tokens of context (8192, or the model's own)"
    )
    cost.add_argument("--json", action="store_true", help="print a JSON list, sizes in bytes")
    cost.add_argument("--device", choices=["cpu", "cuda", "mps"], help="the most it takes of such a device")
    cost.add_argument(
        "--embedding-device", choices=["cpu"], help="with --device: leave the embedding in main memory"
    )
    cost.add_argument(
        "--dtype", choices=["stored", "bfloat16", "float16"],
        help="with --device: weights and products (as `load` chooses)",
    )  # fmt: skip
    cost.set_defaults(run=run_cost)

    doctor = commands.add_parser(
        "doctor",
        help="what this machine is, which models run on it and how fast: plain text, to be sent",
        description="A few seconds of measuring; no network. On the first run kernels are compiled and kept.",
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(run=run_doctor)

    bench = commands.add_parser("bench", help="how fast a model runs here, beside others and the machine")
    add_bench(bench)
    bench.set_defaults(run=run_bench)

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
    train.add_argument(
        "--plan", action="store_true",
        help="ladder: print the runs and their hours, and train nothing (models whose speed with as many "
        "threads was not recorded yet are timed for a few steps)",
    )  # fmt: skip
    train.add_argument("--only", metavar="GLOB", help="ladder: only models with such names, as 'without-*'")
    train.add_argument(
        "--results", type=Path, metavar="FOLDER",
        help="ladder: look for results there and put them there, so that runs are made again (the package's)",
    )  # fmt: skip
    train.set_defaults(run=run_train)
    return top


def add_model(command: argparse.ArgumentParser, default: str = "mini-oss") -> None:
    """The option that says which model."""
    command.add_argument(
        "--model", default=default, metavar="NAME|FOLDER", help=f"a known name or a folder ({default})"
    )


def add_sampling(command: argparse.ArgumentParser, temperature: float) -> None:
    """The options that say how tokens are chosen, and within what memory."""
    command.add_argument(
        "--temperature", type=float, default=temperature, metavar="T",
        help=f"0: always the likeliest token ({temperature:g})",
    )  # fmt: skip
    command.add_argument("--top-k", type=int, metavar="K", help="sample from the K likeliest")
    command.add_argument(
        "--top-p", type=float, metavar="P", help="sample from the fewest that reach probability P"
    )
    command.add_argument("--seed", type=int, default=0, metavar="S")
    command.add_argument(
        "--memory-limit", type=amount, metavar="BYTES", help="refuse what would take more, as 16e9"
    )


def add_device(command: argparse.ArgumentParser) -> None:
    """The options that say where the model computes."""
    command.add_argument("--device", default="cpu", metavar="D", help="cpu (the default), cuda, cuda:1, mps")
    command.add_argument(
        "--embedding-device", metavar="D", help="cpu: leave the embedding in main memory"
    )  # fmt: skip


def add_bench(bench: argparse.ArgumentParser) -> None:
    """The options of `bench`."""
    bench.add_argument(
        "model", nargs="?", default="mini-oss", metavar="NAME|FOLDER", help="a name or a folder (mini-oss)"
    )
    bench.add_argument(
        "--beside", action="append", default=[], metavar="PEER",
        help="llama.cpp, llama.cpp-mapped (nothing repacked), transformers, transformers-loop (repeatable)",
    )  # fmt: skip
    bench.add_argument("--gguf", type=Path, metavar="FILE", help="llama.cpp's file; written if not there")
    bench.add_argument(
        "--limit", action="append", default=[], type=amount, metavar="BYTES",
        help="memory of each side, as 16e9; each further one: decoding within it (repeatable; Linux)",
    )  # fmt: skip
    bench.add_argument("--whole", action="store_true", help="all that docs/performance.md holds")
    bench.add_argument("--rounds", type=int, metavar="N", help="turns of all sides (1; 5 beside others)")
    bench.add_argument("--device", default="cpu", metavar="D", help="cpu (the default), cuda, mps")
    bench.add_argument("--threads", type=int, metavar="N", help="processor threads (all cores)")
    bench.add_argument(
        "--kernels", choices=("exact", "fast"), help="ours: as load(kernels=…); fast keeps weights as stored"
    )
    bench.add_argument("--out", type=Path, metavar="FILE", help="JSON, which the same command goes on with")
    bench.add_argument("--minutes", type=float, metavar="M", help="begin no further part after M minutes")
    bench.add_argument("--fresh", action="store_true", help="start again, whatever --out holds")
    bench.add_argument("--plan", action="store_true", help="print the parts and their seconds, no more")


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


def amount(said: str) -> float:
    """Bytes, as 16e9."""
    try:
        return float(said)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{said!r}; expected a number of bytes, as 16e9") from None


def place(said: str) -> tuple[int | None, int]:
    """An expert or a head, as 5 (in every layer) or 3:5 (in layer 3)."""
    layer, colon, number = said.rpartition(":")
    try:
        return (int(layer) if colon else None), int(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{said!r}; expected a number, or LAYER:NUMBER as in 3:5") from None


def import_torch() -> None:
    """Import torch, and take a Ctrl-C when it is there: inside, it may be lost or end in a dump."""
    asked: list[int] = []
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is ignored, or somebody's
    ours = ours and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
    try:
        from . import machine  # noqa: F401  which imports torch
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if asked:
        raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed, as by `<&-`: nothing comes from there, and what goes is lost
            setattr(sys, name, open(os.devnull, mode))
    for stream in (sys.stdout, sys.stderr):  # what a terminal has no character for comes as \u23ce
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    args = parser().parse_args(argv)
    try:
        import_torch()
        return int(args.run(args))
    except KeyboardInterrupt:
        print("\ngptoss-lab: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has closed it: what was asked for is not done
        sys.stderr.close()
        return 141  # as a shell tells of a program that SIGPIPE ended
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        if (told := in_a_line(error)) is None:
            raise
        print(f"gptoss-lab: {printable(told)}", file=sys.stderr)
        return 2
