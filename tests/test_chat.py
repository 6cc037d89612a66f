"""`gptoss-lab chat`: what goes where, what keys and commands do, terminals of every kind."""

from __future__ import annotations

import io
import os
import re
import select
import signal
import subprocess
import sys
import time

import pytest
import toys
from toy_checkpoints import model_of
from toys import one_thread  # noqa: F401

from gptoss_lab import chat, cli, generation, terminal
from gptoss_lab.text.tokens import encoding
from gptoss_lab.weights import save

ENCODING = encoding("o200k_harmony")
THOUGHT = "<|channel|>analysis<|message|>Which book?<|end|><|start|>assistant"
ANSWER = "<|channel|>final<|message|>Jane \x1b[31mAusten<|return|>"
SHOWN = "Jane \\x1b[31mAusten"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A toy checkpoint with gpt-oss's vocabulary."""
    config = toys.mxfp4(
        name="toy-chat", vocab_size=201088, vocab_used=200019, context=2000, stored="bfloat16",
        stop_ids=(200002, 199999, 200012), d_ff=32, n_layers=1,
    )  # fmt: skip
    return str(save(model_of(config), tmp_path_factory.mktemp("chat") / "toy-chat"))


@pytest.fixture
def says(monkeypatch):
    """Give the model its lines and the person theirs, run `chat`, and return status, output and notes."""

    def run(folder, replies, lines, *options):
        ids = iter([t for said in replies for t in ENCODING.encode(said, allowed_special="all")])

        def pick(row, *sampling):
            token = next(ids)
            if token == 200018:  # <|endofprompt|> stands for Ctrl-C
                raise KeyboardInterrupt
            return token

        monkeypatch.setattr(generation, "pick", pick)
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return cli.main(["chat", "--model", folder, *options])

    return run


def test_the_answer_is_the_output_and_the_rest_is_told_beside_it(capsys, folder, says):
    assert says(folder, [THOUGHT + ANSWER], ["Who wrote Emma?"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{SHOWN}\n"
    assert "/reset forgets" in err and re.search(r"\(prompt: \d+ tokens in .*tokens/s.*peak memory", err)
    assert "Which book" not in err and "\x1b" not in out + err


def test_analysis_is_shown_when_asked_for(capsys, folder, says):
    says(folder, [THOUGHT + ANSWER], ["Who wrote Emma?"], "--show-analysis")
    assert capsys.readouterr().out == f"[analysis] Which book?\n[final] {SHOWN}\n"


def test_lines_are_broken_between_words_and_stay_lines():
    told = terminal.in_lines(f"first\n\n{'word ' * 40}\n{'x' * 120} gpt-oss", "  ").splitlines()
    assert told[:3] == ["first", "", "word " * 18 + "word"] and told[3].startswith("  word word")
    assert told[-2:] == ["x" * 120, "  gpt-oss"]


def test_where_a_terminal_has_colours_analysis_is_dim(capsys, folder, says, monkeypatch):
    monkeypatch.setattr(chat, "has_colour", lambda stream: True)
    says(folder, [THOUGHT + ANSWER], ["Who wrote Emma?"], "--show-analysis")
    assert capsys.readouterr().out.startswith("\x1b[2m[analysis] Which book?\x1b[0m\n[final] Jane")


def test_a_conversation_goes_on_until_it_is_reset(capsys, folder, says, monkeypatch):
    prompts = []
    decode = generation.decode
    watched = lambda model, ids, *more: (prompts.append(ids.shape[1]), decode(model, ids, *more))[1]
    monkeypatch.setattr("gptoss_lab.conversation.decode", watched)
    assert says(folder, [ANSWER] * 3, ["one", "two", "/reset", "one", "/quit", "never"]) == 0
    assert prompts[0] == prompts[2] and prompts[1] < 30 < prompts[0]
    assert capsys.readouterr().out == f"{SHOWN}\n" * 3


@pytest.mark.parametrize(("stopped", "shown"), [
    ("<|channel|>final<|message|>Jane", "Jane\n"),
    ("<|channel|>analysis<|message|>Which", "\n"),
    ("Jane without a header", "Jane without a header\n"),
    ("", "\n"),
])  # fmt: skip
def test_ctrl_c_stops_an_answer_keeps_it_and_the_conversation_goes_on(capsys, folder, says, stopped, shown):
    assert says(folder, [stopped + "<|endofprompt|>", ANSWER], ["one", "two"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{shown}{SHOWN}\n"
    assert "(stopped; prompt: " in err and "Traceback" not in err


def test_a_tool_that_there_is_not_and_an_answer_that_there_is_not_are_told(capsys, folder, says):
    call = "<|channel|>commentary to=functions.f<|message|>{}<|call|>"
    says(folder, [call, "<|channel|>analysis<|message|>hm<|return|>"], ["one", "two"])
    err = capsys.readouterr().err
    assert "(it called functions.f; there are no tools here)" in err
    assert "(it ended without an answer)" in err


def test_commands_that_there_are_not_are_told_and_empty_lines_pass(capsys, folder, says):
    assert says(folder, [ANSWER], ["", "/help", "  ", " /etc is a folder"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{SHOWN}\n" and "no command /help: /reset forgets" in err


def test_a_full_conversation_is_told_and_can_be_reset(capsys, folder, says):
    long = "<|channel|>final<|message|>" + "x " * 300
    assert says(folder, [long, ANSWER], ["one", "two", "/reset", "x"], "--context", "110") == 0
    assert "of 110: /reset forgets" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "message"), [
    (["--model", "mini-oss"], "mini-oss does not speak harmony"),
    (["--model", "mini-oss-chat"], "'mini-oss-chat' is not shipped"),
    (["--model", "no-such-model"], "no model 'no-such-model'"),
    (["--context", "0"], "context=0; expected 1 to 2000"),
    (["--memory-limit", "1e6"], "memory_limit is 1.0 MB"),
])  # fmt: skip
def test_what_cannot_be_is_one_line(capsys, folder, options, message):
    given = options if "--model" in options else ["--model", folder, *options]
    assert cli.main(["chat", *given]) == 2
    out, err = capsys.readouterr()
    assert not out and message in err and err.count("\n") == 1


@pytest.mark.parametrize("when", [0, 3])
def test_a_lack_of_memory_ends_an_answer_and_not_the_conversation(capsys, folder, says, monkeypatch, when):
    usable, rows = generation.usable, []

    def short(*given):
        rows.append(given)
        if len(rows) == when + 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")
        return usable(*given)

    monkeypatch.setattr(generation, "usable", short)
    assert says(folder, [ANSWER, ANSWER][: 1 + when], ["one", "two"]) == 0
    out, err = capsys.readouterr()
    assert "out of memory (tried to allocate 99 bytes)" in err and "/reset forgets what was said" in err
    assert out.endswith(f"\n{SHOWN}\n") and "Traceback" not in err


def test_a_gap_that_tiktoken_cannot_cut_is_told_and_the_conversation_goes_on(capsys, folder, says):
    assert says(folder, [ANSWER], [" " * 1_500_000 + "a", "two"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{SHOWN}\n" and "a run of 200000 spaces or more; shorten it" in err


def test_the_name_of_a_channel_does_not_steer_a_terminal(capsys, folder, says, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    said = "<|channel|>\x1b[2J<|message|>hm<|end|><|start|>assistant" + ANSWER
    assert says(folder, [said, said], ["one"]) == 0
    assert says(folder, [said, said], ["one"], "--show-analysis") == 0
    out, err = capsys.readouterr()
    assert "\x1b[2J" not in out + err and "[\\x1b[2J] hm" in out and "\\x1b[2J: 1 tokens" in err


def test_a_temperature_that_cannot_be_is_told_and_nothing_is_said(capsys, folder, says):
    assert says(folder, [], ["one"], "--temperature", "-1") == 0
    assert "temperature=-1.0; expected 0" in capsys.readouterr().err


def test_other_letters_than_the_terminals_do_no_harm(folder):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "gptoss_lab", "chat", "--model", folder, "--max-tokens", "30"]
    asked = "¿Quién escribió «Emma»? 日本\n".encode()
    done = subprocess.run(command, input=asked, capture_output=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode("ascii")
    assert said.endswith("\n") and len(said) > 30 and "\x1b" not in said
    assert b"Traceback" not in done.stderr and b"prompt: " in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="opens a pseudo-terminal")
def test_in_a_terminal_ctrl_c_stops_the_answer_and_ctrl_d_ends(folder):
    import pty

    ours, its = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "gptoss_lab", "chat", "--model", folder]
    process = subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True, close_fds=True
    )
    os.close(its)
    seen = b""

    def until(what: bytes, after: int = 0, interrupting: bool = False) -> int:
        nonlocal seen
        end = time.monotonic() + 200
        while what not in seen[after:]:
            assert time.monotonic() < end and process.poll() is None, seen
            if select.select([ours], [], [], 2)[0]:
                seen += os.read(ours, 4096)
            elif interrupting:  # readline misses one that comes as it begins to wait for a key
                os.killpg(process.pid, signal.SIGINT)
        return seen.index(what, after) + len(what)

    try:
        at = until(b"> ")
        os.write(ours, b"hello\n")
        at = until(b"hello\r\n", at)
        while len(seen) < at + 60:  # the answer is coming
            seen += os.read(ours, 4096)
        os.killpg(process.pid, signal.SIGINT)
        at = until(b"(stopped; prompt: ", at)
        at = until(b"> ", at)
        os.killpg(process.pid, signal.SIGINT)  # at the prompt it does no harm
        at = until(b"Ctrl-D ends", at, interrupting=True)
        at = until(b"> ", at)
        os.write(ours, b"\x04")
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"Traceback" not in seen


def test_a_line_of_progress_is_written_over_and_left_empty(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    line = terminal.Line()
    line.prompt(100, 2000, 0.5)  # not yet worth a word
    assert capsys.readouterr().err == ""
    line.prompt(100, 2000, 10.0)
    line.prompt(110, 2000, 10.1)  # too soon
    line.prompt(2000, 2000, 10.2)
    line.clear()
    first = "prompt: 100 of 2,000 tokens, about 190 s to go"
    last = "prompt: 2,000 of 2,000 tokens"
    expected = f"\r{first}\r{last.ljust(len(first))}\r{' ' * len(last)}\r"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(("term", "no_colour", "tty", "has"), [
    ("xterm", "", True, True), ("dumb", "", True, False), ("xterm", "1", True, False),
    ("xterm", "", False, False), ("", "", True, False),
])  # fmt: skip
def test_colour_is_for_terminals_that_have_it(monkeypatch, term, no_colour, tty, has):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("NO_COLOR", no_colour)
    monkeypatch.delenv("WT_SESSION", raising=False)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: tty, raising=False)
    assert terminal.has_colour(stream) == has


def test_control_characters_are_spelled_out():
    assert terminal.printable("a\tb\nc\x1b[2J\x07\x9b\r") == "a\tb\nc\\x1b[2J\\x07\\x9b\\x0d"
