"""The model's source with every tap taken out, to compare graphs with: what a tap costs is what differs.

`tap(name, value)` becomes `value`; a statement that is nothing but a tap goes; `tap.wants(...)` is False;
`tap.at(...)` and `tap.within(...)` are None.
"""

from __future__ import annotations

import ast
import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType

import gptoss_lab


class WithoutTaps(ast.NodeTransformer):
    """Takes every use of a name or argument called `tap` out of a module."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if asks(node.value) == "keep" else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        return None if asks(node.value) in ("at", "within") else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if asks(node) == "keep":
            return self.visit(node.args[1])
        if asks(node) == "wants":
            return ast.Constant(False)
        if asks(node) in ("at", "within"):
            return ast.Constant(None)
        return self.generic_visit(node)


def asks(node: ast.AST) -> str | None:
    """What a call asks of a tap: "keep" for tap(...), "wants", "at" or "within"; None for any other node."""
    if not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Name) and node.func.id in ("tap", "shown"):
        return "keep"
    if (
        isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "tap"
    ):
        return node.func.attr
    return None


def stripped_package(folder: Path, name: str = "stripped_lab") -> ModuleType:
    """The room `model` of a package made in `folder`, with what it needs of the original and no taps."""
    source, target = Path(gptoss_lab.__file__).parent, folder / name
    (target / "model").mkdir(parents=True)
    (target / "__init__.py").write_text("")
    for file in ("config.py", "tap.py"):
        shutil.copy(source / file, target)
    for file in (source / "model").glob("*.py"):
        tree = ast.fix_missing_locations(WithoutTaps().visit(ast.parse(file.read_text())))
        (target / "model" / file.name).write_text(ast.unparse(tree))
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(f"{name}.model")
    finally:
        sys.path.remove(str(folder))
