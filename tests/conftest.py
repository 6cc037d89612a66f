"""What every test shares: no network, one thread a worker when pytest runs several, a browser, the miniature.

A connection or a look-up that would leave the machine raises NetworkDenied, in the test's own process;
subprocesses are told through the environment to stay offline.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "PIP_NO_INDEX"):
    os.environ[name] = "1"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background, and programs inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ:  # read by torch when it is first imported, after this file
    os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = {"", "localhost", socket.gethostname()}


class NetworkDenied(RuntimeError):
    """A test tried to leave the machine. Not an OSError, so that no library takes it for a bad connection."""


def stays_here(host: Any) -> bool:
    """Whether `host` (a name, a numeric address, bytes or None) is this machine."""
    name = host.decode() if isinstance(host, bytes) else host or ""
    if name in HERE:
        return True
    try:
        return ipaddress.ip_address(name.split("%")[0]).is_loopback
    except ValueError:
        return False


def refuse_unless_here(family: int, address: Any) -> None:
    """NetworkDenied if an internet address is not this machine's own; other families (unix sockets) pass."""
    if family in (socket.AF_INET, socket.AF_INET6) and not stays_here(address[0]):
        raise NetworkDenied(f"a test reached for {address[0]!r}; use what is shipped, or serve on 127.0.0.1")


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Sockets and look-ups end at this machine for as long as tests run."""
    with pytest.MonkeyPatch.context() as patch:
        for verb in ("connect", "connect_ex", "sendto", "sendmsg"):
            patch.setattr(socket.socket, verb, guarded(getattr(socket.socket, verb)), raising=False)
        for verb in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
            patch.setattr(socket, verb, guarded_look_up(getattr(socket, verb)))
        yield


def guarded(send: Any) -> Any:
    """A socket's verb that looks at the address first: the last tuple with a host in front."""

    def verb(self: socket.socket, *arguments: Any) -> Any:
        for address in reversed(arguments):
            if isinstance(address, tuple) and address and isinstance(address[0], str):
                refuse_unless_here(self.family, address)
                break
        return send(self, *arguments)

    return verb


def guarded_look_up(look_up: Any) -> Any:
    """A look-up that refuses every name but this machine's."""

    def verb(host: Any, *arguments: Any, **named: Any) -> Any:
        if not stays_here(host):
            raise NetworkDenied(f"a test looked up {host!r}; use what is shipped, or serve on 127.0.0.1")
        return look_up(host, *arguments, **named)

    return verb


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, for tests marked with `browsing.IN_A_BROWSER`."""
    from browsing import CHROMIUM, SWITCHES, playwright

    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def mini_oss() -> Any:
    """The shipped miniature."""
    import gptoss_lab as lab

    return lab.load("mini-oss")
