"""What is installed: the pinned set, conda's file, and the wheel with its command, run in an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import gptoss_lab

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it there

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def pins() -> dict[str, str]:
    """Name → pinned version. Every line is a plain pin, with a marker for the Python version at most."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        if line and line[0] != "#":
            match = re.fullmatch(r'([\w.-]+)==([\w.]+)( ; python_version [<>=]+ "3\.\d+")?', line)
            assert match, f"constraints.txt: {line!r} is not name==version"
            found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return found


def test_every_dependency_is_pinned_within_its_range():
    pinned = pins()
    assert "gptoss-lab" not in pinned
    for text in [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]:
        wanted = Requirement(text)
        assert pinned.get(wanted.name.lower(), "missing") in wanted.specifier, text


def test_conda_supplies_python_and_pip_and_pip_the_rest():
    rattler = pytest.importorskip("rattler")
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    assert set(environment) == {"name", "channels", "dependencies"} and environment["name"] == PROJECT["name"]
    assert [rattler.Channel(name).name for name in environment["channels"]] == ["conda-forge", "nodefaults"]
    *lines, pip = environment["dependencies"]
    specs = {line.split()[0]: rattler.MatchSpec(line, strict=True) for line in lines}
    assert set(specs) == {"python", "pip"}
    supplied = rattler.VersionSpec(str(specs["python"].version), strict=True)
    minors = [f"3.{n}" for n in range(30) if supplied.matches(rattler.Version(f"3.{n}"))]
    assert minors and all(minor in SpecifierSet(PROJECT["requires-python"]) for minor in minors)

    constraint, package = pip["pip"]
    assert constraint == "-c constraints.txt" and (ROOT / "constraints.txt").exists()
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", package)[1].split(",")
    assert extras == ["notebooks", "test", "train", "fast"] and set(extras) <= set(EXTRAS)


def test_a_spec_that_conda_would_not_read_is_refused():
    rattler = pytest.importorskip("rattler")
    with pytest.raises(Exception, match="incompatible"):
        rattler.MatchSpec("python >=3.11.*", strict=True)


def test_the_readme_says_commands_and_names_that_exist():
    readme, makefile = ((ROOT / name).read_text("utf-8") for name in ("README.md", "Makefile"))
    said = set(re.findall(r"\bmake ([a-z]+)\b", readme))
    assert {"lab", "test"} <= said <= set(re.findall(r"^([a-z]+):", makefile, re.M))
    assert set(re.findall(r"\blab\.(\w+)\(", readme)) <= set(gptoss_lab.HOMES)
    files = set(re.findall(r"`([\w./-]+\.(?:md|ipynb|yml|txt|py))`", readme))
    assert [name for name in files if not (ROOT / name).exists()] == []


def test_the_readme_says_subcommands_that_exist():
    said = set(re.findall(r"gptoss-lab ([a-z]+)\b", (ROOT / "README.md").read_text("utf-8")))
    offered = run(sys.executable, "-m", "gptoss_lab", "--help", cwd=ROOT)
    assert said and said <= set(re.findall(r"^    ([a-z]+) ", offered, re.M))


def test_the_changelog_tells_of_this_version():
    assert f"\n## {gptoss_lab.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built without a network, from a copy: setuptools leaves a build/ behind."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "gptoss_lab", copy / "gptoss_lab", ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--wheel", "--sdist", "--no-isolation", "--outdir", "dist", cwd=copy)
    (built,) = (copy / "dist").glob("*.whl")
    return built


def run(*command: str | Path, **how) -> str:
    """What a command prints; the test fails with all it said if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", timeout=240, check=False, **how)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def shipped() -> set[str]:
    """Every file of the package that is not made by running it."""
    files = [path for path in (ROOT / "gptoss_lab").rglob("*") if path.is_file()]
    return {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}


def test_the_wheel_and_the_sdist_hold_every_file_of_the_package(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert shipped() <= inside, shipped() - inside
    assert {"LICENSE", "NOTICE"} <= {Path(name).name for name in inside if ".dist-info/" in name}
    assert any(name.startswith("gptoss_lab/assets/mini-oss/") for name in inside)
    (sdist,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert shipped() <= inside, shipped() - inside


@pytest.fixture(scope="module")
def command(wheel, tmp_path_factory):
    """Runs the installed `gptoss-lab` in an empty folder, where the checkout cannot be found."""
    installed = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", installed, wheel)
    script = next((installed / "bin").glob("gptoss-lab*"))
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONUTF8": "1"}
    empty = tmp_path_factory.mktemp("empty")
    probe = "import gptoss_lab; print(gptoss_lab.__file__)"
    where = run(sys.executable, "-c", probe, cwd=empty, env=environment)
    assert Path(where.strip()).is_relative_to(installed)
    return lambda *words: run(script, *words, cwd=empty, env=environment)


def test_the_installed_command_says_what_it_can_do(command):
    said = command("--help")
    assert all(word in said for word in ("generate", "trace", "points", "cost", "train"))


def test_the_installed_command_reckons_what_a_named_model_costs(command):
    assert "20,914,757,184" in command("cost", "gpt-oss-20b")


def test_the_installed_command_goes_on_with_a_text(command):
    prompt = "Once upon a time"
    said = command("generate", "--model", "mini-oss", "--prompt", prompt, "--max-tokens", "4")
    assert said.replace(prompt, "").strip()
