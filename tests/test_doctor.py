"""`gptoss-lab doctor`: its sums are right, its verdicts follow from memory, nothing makes it fall over."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import Any

import pytest
import torch

from gptoss_lab import cli, machine, rates
from gptoss_lab.config import NAMED
from gptoss_lab.cost import active_parameters, bytes_per_token, human, parameters
from gptoss_lab.doctor import examination, examine, words
from gptoss_lab.kernels import available

SMALLER = {"BUFFER": 20_000_000, "HEIGHT": 64, "EXPERTS": 8, "SECONDS": 0.001}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The same measurements on less memory and for less time."""
    for name, value in SMALLER.items():
        monkeypatch.setattr(rates, name, value)
    monkeypatch.setattr(machine, "bandwidth", functools.partial(machine.bandwidth, 0.01, 32_000_000))
    monkeypatch.setattr(machine, "product_rate", functools.partial(machine.product_rate, 0.01))
    return monkeypatch


WAYS = {name: {"vector": 2e10, "many": 1e11} for name in rates.WAYS}
WAYS["MXFP4"] = {"vector": 1e10, "many": 5e10}


def found(total: float = 32e9, free: float = 24e9, speed: bool = True) -> dict[str, Any]:
    """What an examination knows before it comes to the models."""
    measured = {"read": 3e10, "product": 2e11, "ways": WAYS}
    memory = {"total": int(total), "free": int(free), "limited": False} if total else None
    return {"memory": memory, "speed": measured if speed else None}


def test_the_examination_is_json_and_plain_words(quick, capsys):
    assert cli.main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["trouble"] == [] and told["kernels"]["form"] == available()[0]
    assert told["processor"]["cores"] >= 1 and told["disk"]["free"] > 0 and told["miniature"]["decode"] > 0
    assert told["software"]["torch"] == torch.__version__
    assert all(way["vector"] > 1e6 and way["many"] > 1e6 for way in told["speed"]["ways"].values())
    assert [one["name"] for one in told["models"]] == list(NAMED)
    text = words(told)
    text.encode("ascii")
    assert max(map(len, text.splitlines())) <= 132
    assert "mini-oss        runs: " in text and "gpt-oss-120b" in text


@pytest.mark.parametrize("name", NAMED)
def test_a_token_asks_for_the_bytes_and_the_work_that_cost_counts(name):
    config = NAMED[name]
    asked = rates.loads(config)
    small = 4 * parameters(config) <= 1e9
    read = 4 * active_parameters(config) if small else sum(bytes_per_token(config).values())
    assert sum(one.bytes for one in asked) == pytest.approx(read, rel=1e-9)
    flop = 2 * (active_parameters(config) - config.vocab_size * config.d_model)
    assert sum(one.flop for one in asked) == pytest.approx(flop, rel=1e-9)
    assert {one.way for one in asked} <= set(rates.WAYS)


def test_tokens_a_second_of_the_20b_are_the_sums_that_are_said():
    told = examination.model(NAMED["gpt-oss-20b"], found())
    experts = 24 * 4 * 2880 * (2 * 2880 + 2880) * 17 / 32
    rest = sum(bytes_per_token(NAMED["gpt-oss-20b"]).values()) - experts
    assert told["decode"] == pytest.approx(1 / (experts / 1e10 + rest / 2e10))
    said = f"{human(rest)} of bfloat16 / 20.0 GB/s + {human(experts)} of MXFP4 / 10.0 GB/s"
    assert told["decode_sum"] == said
    assert told["decode_limit"] == pytest.approx(3e10 / (experts + rest))
    flop = 2 * 24 * 4 * 2880 * (2 * 2880 + 2880)
    other = 2 * (active_parameters(NAMED["gpt-oss-20b"]) - 201088 * 2880) - flop
    assert told["prompt"] == pytest.approx(1 / (flop / 5e10 + other / 1e11))
    assert told["prompt_limit"] == pytest.approx(2e11 / (flop + other))


@pytest.mark.parametrize(("name", "total", "free", "verdict", "said"), [
    ("gpt-oss-20b", 24e9, 20e9, "runs", "runs: takes 1"),
    ("gpt-oss-20b", 17.18e9, 14e9, "close programs", "runs once other programs are closed: takes 1"),
    ("gpt-oss-20b", 8e9, 7e9, "does not fit", "does not fit: takes 1"),
    ("gpt-oss-120b", 24e9, 20e9, "does not fit", "there are 24.0 GB"),
    ("gpt2", 8e9, 4e9, "runs", "takes 1.2 GB with 1,024 tokens of context; 4.0 GB are free"),
    ("gpt2", 0, 0, "unknown", "how much memory is here could not be found out"),
])  # fmt: skip
def test_verdicts_follow_from_memory(name, total, free, verdict, said):
    here = found(total, free)
    told = examination.model(NAMED[name], here)
    assert told["verdict"] == verdict
    assert sum(told["parts"].values()) == told["needed"]
    lines = words_of(told, here)
    assert said in lines[0] and "weights" in lines[1] and "the program 450.0 MB" in lines[1]
    assert any("decoding: about" in line for line in lines) == (verdict != "does not fit")


def words_of(told: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """What is said of one model."""
    from gptoss_lab.doctor.words import of_model

    return of_model(told, here | {"disk": None})


def test_the_longest_context_is_the_longest_that_fits():
    config = NAMED["gpt-oss-20b"]
    for free in (15.7e9, 18e9, 24e9):
        longest = examination.model(config, found(40e9, free))["longest"]
        assert sum(examination.needs(config, longest).values()) <= free
        assert sum(examination.needs(config, 2 * longest).values()) > free


def test_what_cannot_be_found_out_is_said_and_the_rest_too(quick, capsys):
    def fail(*arguments, **named):
        raise OSError("no such thing here")

    quick.setattr(machine, "memory", lambda: None)
    quick.setattr(machine, "product_rate", fail)
    quick.setattr(examination, "generate", fail)
    told = examine()
    assert told["speed"] is None and told["miniature"] is None and told["processor"]
    assert told["trouble"] == [
        "speed: OSError: no such thing here", "miniature: OSError: no such thing here"
    ]  # fmt: skip
    text = words(told)
    assert "does not run: see below" in text and text.endswith("\n".join(told["trouble"]))
    assert "decoding: about" not in text and "gpt-oss-20b     takes 1" in text


def test_a_busy_machine_is_told_of(quick):
    quick.setattr("os.getloadavg", lambda: (50.0, 0.0, 0.0), raising=False)
    assert "Other programs were running (load 50.0 on" in words(examine())


def test_the_users_own_folder_is_not_told(quick, tmp_path):
    quick.setenv("HOME", str(tmp_path))
    quick.setenv("USERPROFILE", str(tmp_path))
    quick.setenv("GPTOSS_LAB_HOME", str(tmp_path / "models" / "of mine"))
    told = examination.disk()
    assert told["folder"].replace("\\", "/") == "~/models/of mine" and told["free"] > 0


def test_without_numba_and_without_a_network_it_says_what_to_install():
    code = f"""
import socket, sys
def refuse(*arguments): raise AssertionError("it reached for the network")
socket.socket.connect = socket.getaddrinfo = refuse
sys.modules["numba"] = None
from gptoss_lab import cli, machine, rates
for name, value in {SMALLER!r}.items():
    setattr(rates, name, value)
bandwidth, product_rate = machine.bandwidth, machine.product_rate
machine.bandwidth = lambda: bandwidth(0.01, 32_000_000)
machine.product_rate = lambda: product_rate(0.01)
sys.exit(cli.main(["doctor"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    said = "kernels         torch alone, much slower: pip install 'gptoss-lab[fast]' brings numba"
    assert said in done.stdout
    assert "MXFP4   " in done.stdout and "Not as it should be" not in done.stdout


@pytest.mark.parametrize("way", rates.WAYS)
def test_each_way_is_measured_with_the_holder_that_it_names(quick, way):
    calls: list[tuple[str, int]] = []
    for holder in (rates.Linear, rates.FastLinear, rates.FastStack, rates.PackedStack):
        forward = holder.forward

        def counted(self, x, *index, forward=forward):
            calls.append((type(self).__name__, x.shape[0]))
            return forward(self, x, *index)

        quick.setattr(holder, "forward", counted)
    found = rates.measure([way])[way]
    holder = {"MXFP4": "FastStack", "MXFP4, unpacked": "PackedStack", "bfloat16": "FastLinear"}
    few, many = (4, 16) if "MXFP4" in way else (1, 128)
    assert {(holder.get(way, "Linear"), few), (holder.get(way, "Linear"), many)} <= set(calls)
    assert found.vector > 1e5 and found.many > 1e6
