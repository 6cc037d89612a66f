"""The examination as plain text: for a person, a class, an e-mail."""

from __future__ import annotations

from typing import Any

from ..cost import human
from .examination import MINIATURE

ROOM = 16  # letters before what is said of something


def words(found: dict[str, Any]) -> str:
    """The examination as plain text, to be read or sent."""
    lines = [f"gptoss-lab {found['gptoss_lab']} on this machine, {found['date']}", "", *of_machine(found)]
    if speed := found["speed"]:
        lines += ["", f"Measured in {speed['seconds']:.1f} s, with {count(speed['threads'], 'thread')}"]
        lines += of_speed(speed)
        cores = found["processor"]["cores"] if found["processor"] else 1
        if (busy := found["busy"] or 0) > cores / 4:
            lines.append(f"Other programs were running (load {busy:.1f} on {count(cores, 'core')}): close")
            lines[-1] += " them and ask again for better numbers"
    lines += ["", "What runs here", *of_miniature(found["miniature"])]
    for one in found["models"] or ():
        lines += of_model(one, found)
    lines += ["", "Tokens/s count the weights alone: attention over a long text, small operations and Python"]
    lines += ["come on top. K, M, G are powers of 1000."]
    if found["trouble"]:
        lines += ["", "Not as it should be", *found["trouble"]]
    return "\n".join(lines)


def row(name: str, text: str) -> str:
    """A line: the name of something, and what is said of it."""
    return f"{name:<{ROOM}}{text}".rstrip()


def count(number: int, thing: str) -> str:
    """1 core, 2 cores."""
    return f"{number} {thing}{'s' * (number != 1)}"


def of_machine(found: dict[str, Any]) -> list[str]:
    """Processor, memory, disk, device, software, kernels; what is not known is left out."""
    lines = []
    if one := found["processor"]:
        has = ", ".join(one["instructions"]) or "none of the vector instructions asked for"
        lines.append(row("processor", f"{one['name']}; {count(one['cores'], 'core')}; {has}"))
    if one := found["memory"]:
        limited = " (as much as this process may use)" if one["limited"] else ""
        lines.append(row("memory", f"{human(one['total'])}{limited}, of which {human(one['free'])} are free"))
    if one := found["disk"]:
        lines.append(row("disk", f"{human(one['free'])} free at {one['folder']}, where models are kept"))
    if one := found["device"]:
        gpu = f"{one['name']}, {human(one['memory'])}: load(device='cuda')" if one["type"] == "cuda" else ""
        apple = "load(device='mps')" if one["type"] == "mps" else ""
        lines.append(row("device", f"{one['type']}; {gpu or apple or 'no GPU that torch can use'}"))
    if one := found["software"]:
        numba = f"numba {one['numba']}" if one["numba"] else "no numba"
        said = f"{one['system']}, Python {one['python']}, torch {one['torch']}, {numba}"
        lines.append(row("software", said))
    if one := found["kernels"]:
        lines.append(row("kernels", of_kernels(one, found["speed"])))
    return lines


def of_kernels(one: dict[str, Any], speed: dict[str, Any] | None) -> str:
    """Which kernels, and whether their compiled code was there."""
    if one["form"] == "torch":
        return "torch alone, much slower: pip install 'gptoss-lab[fast]' brings numba"
    took = speed["compile_seconds"] if speed else 0.0
    kept = f"kept in {one['folder']}" if one["folder"] else "not kept: no folder can be written"
    when = f"compiled just now, in {took:.1f} s" if took else "compiled before"
    return f"{one['form']}; {when}, {kept}"


def of_speed(speed: dict[str, Any]) -> list[str]:
    """What was measured, as a small table."""
    lines = [f"memory is read at        {human(speed['read'])}/s"]
    lines.append(f"float32 products run at  {human(speed['product'], 'FLOP')}/s")
    lines.append(f"{'weights in':<25}{'one vector (decoding)':<25}many (a prompt of 128)")
    for name, way in speed["ways"].items():
        lines.append(f"{name:<25}{human(way['vector']) + '/s':<25}{human(way['many'], 'FLOP')}/s")
    return lines


def of_miniature(one: dict[str, Any] | None) -> list[str]:
    """Whether the shipped model runs."""
    if one is None:
        return [row(MINIATURE, "does not run: see below")]
    said = f"runs: {one['decode']:.0f} tokens/s, tried just now; the notebooks need no more"
    return [row(one["name"], said)]


def of_model(one: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """A named model: verdict and memory, files, tokens a second, each with its sum."""
    memory, disk = found["memory"], found["disk"]
    takes = f"takes {human(one['needed'])} with {one['context']:,} tokens of context"
    parts = " + ".join(f"{what} {human(size)}" for what, size in one["parts"].items())
    if one["verdict"] == "unknown":
        said = f"{takes}; how much memory is here could not be found out"
    elif one["verdict"] == "does not fit":
        said = f"does not fit: {takes}; there are {human(memory['total'])}"
    else:
        closed = "" if one["verdict"] == "runs" else " once other programs are closed"
        said = f"runs{closed}: {takes}; {human(memory['free'])} are free"
    lines = [row(one["name"], said), row("", f"  = {parts}")]
    if one["verdict"] == "does not fit":
        return lines
    if one.get("longest", 0) > one["context"]:
        lines.append(row("", f"context: {one['longest']:,} tokens fit as well"))
    if one["files"]:
        lines.append(row("", "files: here"))
    else:
        free = f"; {human(disk['free'])} are free on disk" if disk else ""
        fetch = f"gptoss-lab download {one['name']} fetches {human(one['fetch'])}"
        lines.append(row("", f"files: not here; {fetch}{free}"))
    for what, part, limit in (("decoding", "decode", "memory"), ("a prompt", "prompt", "float32 products")):
        if part in one:
            most = f"{limit} alone would allow {one[f'{part}_limit']:.1f}"
            lines.append(row("", f"{what}: about {one[part]:.1f} tokens/s ({most})"))
            lines.append(row("", f"  = 1 / ({one[f'{part}_sum']})"))
    return lines
