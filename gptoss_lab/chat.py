"""`gptoss-lab chat`: a conversation in the terminal.

Answers go to standard output, everything else (progress, what the keys do, tokens a second) to standard
error. Lines may also come from a file or a pipe.
"""

from __future__ import annotations

import io
import sys
from typing import Any

from .conversation import Conversation, Reply
from .mistakes import in_a_line
from .terminal import Line, has_colour, printable

HELP = "/reset forgets what was said, /quit or Ctrl-D ends, Ctrl-C stops an answer"
DIM, PLAIN = "\x1b[2m", "\x1b[0m"


def note(text: str) -> None:
    """Tell the person, not the output."""
    print(printable(text), file=sys.stderr, flush=True)


def next_line() -> str | None:
    """What the person says next; None at the end."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.rstrip("\r\n") if line else None
    try:
        import readline  # noqa: F401  # arrows and history; not on every system
    except ImportError:
        pass
    while True:
        try:
            return input("> ")
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            note(f"\n{HELP}")


def show(reply: Reply, line: Line, analysis: bool) -> None:
    """Print a reply as it comes; what it thinks only if `analysis`, else how much that is."""
    before, thoughts, dim = "", 0, has_colour(sys.stdout)
    for channel, said in reply:
        line.clear()
        if channel != "final" and not analysis:
            thoughts += 1
            line.write(f"{channel}: {thoughts} tokens (--show-analysis shows them)")
            continue
        if not said:
            continue
        if channel != before:
            end = PLAIN if dim else ""
            head = "" if channel == "final" and not before else f"[{printable(channel)}] "
            print(f"{end if before else ''}{chr(10) if before else ''}", end="")
            print(f"{DIM if dim and channel != 'final' else ''}{head}", end="")
            before = channel
        print(printable(said), end="", flush=True)
    print(PLAIN if dim and before not in ("", "final") else "", flush=True)


def answer(talk: Conversation, text: str, sampling: dict[str, Any], analysis: bool) -> None:
    """One turn. Ctrl-C stops it, and keeps what was said; so do a mistake and a lack of memory."""
    line, reply, stopped = Line(), None, ""
    try:
        reply = talk.ask(text, tell=line.prompt, **sampling)
        show(reply, line, analysis)
    except KeyboardInterrupt:
        stopped = "stopped; "
    except (ValueError, MemoryError, RuntimeError) as error:
        if (told := in_a_line(error)) is None:
            raise
        way_on = "" if isinstance(error, ValueError) else "; /reset forgets what was said"
        stopped = f"{told}{way_on}; "
    line.clear()
    if reply is None:
        return note(f"gptoss-lab: {stopped.removesuffix('; ')}")
    channel, said = reply.end()
    if analysis or channel == "final":
        print(printable(said), end="")
    if stopped:
        print(PLAIN if has_colour(sys.stdout) else "", flush=True)
    if reply.calls:
        note(f"(it called {', '.join(reply.calls)}; there are no tools here)")
    elif not stopped and not reply.text:
        note("(it ended without an answer)")
    note(f"({stopped}{reply.pace.report()})")


def converse(talk: Conversation, sampling: dict[str, Any], analysis: bool) -> int:
    """Ask and answer until the end; the exit status."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    note(f"{talk.model.config.name}: {HELP}")
    while (text := next_line()) is not None:
        command = text.strip()
        if command == "/quit":
            break
        if command == "/reset":
            talk.reset()
            note("(forgotten)")
        elif command.startswith("/") and not text.startswith(" "):
            note(f"no command {command}: {HELP}. A text may begin with / after a space")
        elif command:
            answer(talk, text, sampling, analysis)
    return 0

