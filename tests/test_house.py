"""The house's own rules: who may import whom, what importing costs, how long files are, what they may say.

The rooms and floors are drawn in docs/architecture.md. A file imports from its own floor or below; an import
inside a function, or for type checkers alone, counts too.
"""

from __future__ import annotations

import ast
import importlib
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import gptoss_lab

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gptoss_lab"
SOURCES = sorted(PACKAGE.rglob("*.py"))


@dataclass(frozen=True)
class Room:
    """A room's floor, the third-party packages it may use, and the rooms it may see where those are fewer."""

    floor: int
    third_party: frozenset[str] = frozenset()
    sees: frozenset[str] | None = None


def room(floor: int, third_party: str = "", sees: str | None = None) -> Room:
    """A room from words: `room(5, "numpy matplotlib", sees="config")`."""
    return Room(floor, frozenset(third_party.split()), None if sees is None else frozenset(sees.split()))


ROOMS = {
    "config": room(0),
    "points": room(0),
    "files": room(0, "torch safetensors"),
    "cost": room(0),
    "machine": room(0, "torch"),
    "terminal": room(0),
    "mistakes": room(0),
    "tap": room(0, "torch"),
    "model": room(1, "torch"),
    "weights": room(2, "torch safetensors"),
    "kernels": room(2, "torch numba llvmlite numpy"),  # numba, an extra, only where a kernel is wanted
    "text": room(2, "tiktoken torch"),
    "opened": room(3, "torch safetensors"),
    "trace": room(3, "torch"),
    "generation": room(3, "torch"),
    "pace": room(3),
    "rates": room(3, "torch"),
    "conversation": room(3, "torch"),
    "doctor": room(4, "torch"),
    "study": room(4, "torch tiktoken"),
    "bench": room(4, "torch safetensors"),
    "training": room(4, "torch tiktoken tqdm safetensors"),
    "figures": room(5, "numpy matplotlib", sees="config points tap figures"),
    "views": room(5, "torch numpy anywidget ipywidgets traitlets IPython"),
    "checks": room(6, "torch"),
    "card": room(6, "torch tiktoken"),
    "chat": room(6),
    "commands": room(6),
    "cli": room(6),
    "__main__": room(6),
    "__init__": room(6),
}
ALLOWANCES = {  # one file's own package
    "training/tokenizer.py": {"tokenizers"},  # the extra `train`
    "weights/hub.py": {"huggingface_hub"},
    "kernels/triton.py": {"triton"},  # an extra, where load(kernels="fast") is asked for on a card
    "bench/gguf_file.py": {"gguf", "numpy", "tqdm"},  # the extra `bench`, as the next two
    "bench/llama.py": {"llama_cpp", "numpy"},
    "bench/reference.py": {"transformers"},
    "weights/remote.py": {"huggingface_hub"},
}


def imported(path: str, tree: ast.AST) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of everything that a file imports. `path` is within the package."""
    inside = ["gptoss_lab", *Path(path).parent.parts]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = inside[: len(inside) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base == "gptoss_lab":  # rooms, or names that the front door fetches from rooms
                names = [gptoss_lab.HOMES.get(alias.name, alias.name) for alias in node.names]
                found += [(node.lineno, f"{base}.{name}") for name in names]
            else:
                found.append((node.lineno, base))
        elif isinstance(node, ast.Call):
            if re.search(r"\b(import_module|__import__)$", ast.unparse(node.func)):
                first = node.args[0] if node.args else None
                found.append((node.lineno, str(first.value) if isinstance(first, ast.Constant) else "?"))
    return found


def violations(path: str, source: str) -> list[str]:
    """What a file's imports break, a sentence each. `path` is within the package: "model/rope.py"."""
    name = Path(path).parts[0].removesuffix(".py")
    if name not in ROOMS:
        return [f"{path}: no room is called {name!r}; give it a floor in ROOMS and docs/architecture.md"]
    here, broken = ROOMS[name], []
    usable = sys.stdlib_module_names | here.third_party | ALLOWANCES.get(path, set())
    for line, target in imported(path, ast.parse(source)):
        top, _, rest = target.partition(".")
        other = rest.split(".")[0] or "__init__"
        if target == "?":
            if name != "__init__":  # the front door, whose names a test below checks one by one
                broken.append(f"{path}:{line}: imports a name that cannot be read here")
        elif top != "gptoss_lab":
            if top not in usable:
                broken.append(f"{path}:{line}: {name} may not use {top}")
        elif other in ROOMS:
            if ROOMS[other].floor > here.floor or not (here.sees is None or other in here.sees):
                broken.append(f"{path}:{line}: {name} (floor {here.floor}) may not import {other} "
                              f"(floor {ROOMS[other].floor})")
        elif other != "__version__":
            broken.append(f"{path}:{line}: {target} is no room of this house")
    return broken


def test_every_file_imports_from_its_own_floor_or_below():
    paths = [(path.relative_to(PACKAGE).as_posix(), path) for path in SOURCES]
    broken = [line for name, path in paths for line in violations(name, path.read_text("utf-8"))]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(("path", "source", "complaint"), [
    ("model/rope.py", "from ..trace import watch", "model (floor 1) may not import trace"),
    ("model/rope.py", "def f():\n    from gptoss_lab import study", "model (floor 1) may not import study"),
    ("model/rope.py", "from gptoss_lab import watch", "may not import trace"),
    ("model/rope.py", "import gptoss_lab", "may not import __init__"),
    ("model/rope.py", "import gptoss_lab.cli as x", "may not import cli"),
    ("model/rope.py", "from .. import figures", "may not import figures"),
    ("model/rope.py", "import importlib\nimportlib.import_module('gptoss_lab.cli')", "may not import cli"),
    ("model/rope.py", "import importlib\nimportlib.import_module(name)", "cannot be read"),
    ("model/rope.py", "from ..attic import x", "is no room"),
    ("model/rope.py", "import numpy as np", "may not use numpy"),
    ("config.py", "import torch", "may not use torch"),
    ("config.py", "from .model import Transformer", "may not import model"),
    ("figures/router.py", "from ..model.rope import rotate", "may not import model"),
    ("figures/router.py", "from ..weights import load", "may not import weights"),
    ("text/tokens.py", "if TYPE_CHECKING:\n    from transformers import T", "may not use transformers"),
    ("training/loop.py", "import tokenizers", "may not use tokenizers"),
    ("attic.py", "", "no room is called"),
    ("attic/old.py", "", "no room is called"),
])
def test_a_forbidden_import_is_found(path, source, complaint):
    assert any(complaint in line for line in violations(path, source)), violations(path, source)


@pytest.mark.parametrize(("path", "source"), [
    ("model/rope.py", "import math\nfrom torch import nn\nfrom ..config import Yarn\nfrom .norm import x"),
    ("points.py", "from .config import Config"),
    ("trace.py", "from . import __version__, points\nfrom .text.tokens import labels"),
    ("training/tokenizer.py", "import tokenizers"),
    ("figures/router.py", "from matplotlib import pyplot\nfrom . import style\nfrom .style import COLOURS"),
    ("cli.py", "import gptoss_lab as lab"),
])
def test_an_allowed_import_is_let_through(path, source):
    assert violations(path, source) == []


def test_every_folder_of_code_is_a_package():
    """Otherwise the wheel would leave it out."""
    assert [path for path in SOURCES if not (path.parent / "__init__.py").exists()] == []


def test_importing_the_package_loads_nothing():
    heavy = "torch numpy matplotlib ipywidgets anywidget transformers numba IPython tiktoken safetensors"
    probe = ("import sys, gptoss_lab as lab; dir(lab); lab.__version__; "
             f"print(*sorted(set({heavy.split()}) & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", gptoss_lab.HOMES)
def test_a_public_name_is_found_where_the_front_door_says(name):
    module = importlib.import_module(f"gptoss_lab.{gptoss_lab.HOMES[name]}")
    assert getattr(gptoss_lab, name) is (module if name == gptoss_lab.HOMES[name] else getattr(module, name))
    assert name in dir(gptoss_lab) and name in gptoss_lab.__all__


def test_type_checkers_are_shown_the_same_front_door():
    seen = [node for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text("utf-8")))
            if isinstance(node, ast.ImportFrom) and node.level == 1]
    shown = {alias.name: node.module or alias.name for node in seen for alias in node.names}
    assert shown == gptoss_lab.HOMES and set(gptoss_lab.__all__) == set(shown)


def test_no_room_hides_a_public_name():
    """Importing gptoss_lab.x sets the attribute x: a room called as a function is would replace it."""
    taken = {path.name.removesuffix(".py") for path in PACKAGE.iterdir()}
    assert [name for name, home in gptoss_lab.HOMES.items() if name in taken and name != home] == []


def test_a_name_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(AttributeError, match="no attribute 'lod'; it offers .*load"):
        gptoss_lab.lod  # noqa: B018


def test_everything_public_says_what_it_is():
    silent = []
    for path in SOURCES:
        tree = ast.parse(path.read_text("utf-8"))
        named = [(node.name, node) for node in tree.body if not getattr(node, "name", "_").startswith("_")]
        for name, node in [(path.stem, tree), *named]:
            if not ast.get_docstring(node):
                silent.append(f"{path.relative_to(ROOT)}: {name}")
    assert not silent, "\n".join(silent)


def test_the_model_stays_small_enough_to_read():
    files = [path for path in SOURCES if path.parent.name == "model"]
    lines = {path.name: len(path.read_text("utf-8").splitlines()) for path in files}
    assert lines and max(lines.values()) <= 220, lines
    assert sum(lines.values()) <= 800, lines


# Pages that a reader may be sent to. The last two are quoted, never asked: where tiktoken says its ranks are
# from, and how a file begins that stands for another. Brackets keep the patterns from finding themselves.
HOSTS = {
    "127.0.0.1", "arxiv.org", "creativecommons.org", "docs.python.org", "github.com", "huggingface.co",
    "localhost", "matplotlib.org", "openai.com", "www.apache.org", "www.w3.org",
    "openaipublic.blob.core.windows.net", "git-lfs.github.com", "git-lfs",
}
FORBIDDEN = {
    "a package registry": r"\bpy[p]i\.org|python[h]osted|ana[c]onda\.(?:org|com)|\bnp[m]js\.|crate[s]\.io",
    "a path of one machine": r"(?<![\w./-])/(?:work|tmp|root|home|opt|mnt|Users)/\w",
    "a folder beside the project": r"\.\./share[d]\b",
}


def said_amiss(name: str, text: str) -> list[str]:
    """What a tracked file says that it should not. Licence texts may send where they like."""
    found = [f"{name}: names {what}: {match[0]!r}"
             for what, pattern in FORBIDDEN.items() for match in re.finditer(pattern, text)]
    hosts = set() if "LICENSE" in name else set(re.findall(r"https?://([\w.-]*\w)", text)) - HOSTS
    return found + [f"{name}: sends to {host}, which is not among HOSTS" for host in sorted(hosts)]


def test_no_file_names_a_registry_a_machine_or_a_strange_host():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    amiss = []
    for name in filter(None, listed.stdout.split("\0")):
        try:
            amiss += said_amiss(name, (ROOT / name).read_text("utf-8"))
        except (UnicodeDecodeError, FileNotFoundError):  # binary; or removed and not yet committed
            continue
    assert not amiss, "\n".join(amiss)


def test_every_picture_of_the_documents_is_there_and_none_lies_about():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    link = re.compile(r"""(?:\]\(|src(?:set)?=")([^)"\s:]+\.(?:png|webp|svg))""")
    linked = [(page, path) for page in pages for path in link.findall(page.read_text("utf-8"))]
    shown = {(page.parent / path).resolve() for page, path in linked}
    there = {path.resolve() for path in (ROOT / "docs" / "pictures").iterdir()}
    assert shown and shown == there, sorted(path.name for path in shown ^ there)


@pytest.mark.parametrize("parts", [
    ("from files.python", "hosted.org"), ("see py", "pi.org/x"), ("in /", "work/main"), ("(/", "tmp/x)"),
    ("..", "/shared/data"), ("http", "://elsewhere.example/x"),
])
def test_what_should_not_be_said_is_found(parts):
    assert said_amiss("x.md", "".join(parts))


def test_ordinary_words_are_let_through():
    assert not said_amiss("x.md", "tests/tmp/x, https://arxiv.org/abs/1706.03762, a work/home balance, GPT/4")


def test_a_test_cannot_reach_the_network():
    from conftest import NetworkDenied

    with pytest.raises(NetworkDenied, match=r"192\.0\.2\.1"):
        socket.create_connection(("192.0.2.1", 9), timeout=1)
    with socket.socket() as stream, pytest.raises(NetworkDenied, match=r"192\.0\.2\.1"):
        stream.settimeout(1)
        stream.connect(("192.0.2.1", 9))
    with socket.socket(type=socket.SOCK_DGRAM) as post, pytest.raises(NetworkDenied, match=r"192\.0\.2\.1"):
        post.sendto(b"", ("192.0.2.1", 9))
    with pytest.raises(NetworkDenied, match=r"example\.org"):
        socket.getaddrinfo("example.org", 80)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname(), timeout=5) as client:
            assert client.getpeername() == server.getsockname()
