"""pyproject.toml, requirements.lock and environment.yml name the same dependencies, and the code uses no others."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from foundling.paths import PACKAGE, ROOT

CONDA_NAMES = {
    "pytorch": "torch",
    "matplotlib-base": "matplotlib",
    "opencv": "opencv-contrib-python-headless",
    "snakemake-minimal": "snakemake",
}
CONDA_ONLY = {"python", "pip", "setuptools", "detectron2"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DECLARED = {
    canonicalize_name(r.name): r
    for r in map(Requirement, PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"])
}


def parse_lock(text: str) -> dict[str, list[Requirement]]:
    """The pins of a requirements file by canonical name; a package may be pinned once for each environment marker."""
    pins: dict[str, list[Requirement]] = {}
    for line in text.splitlines():
        if re.match(r"[A-Za-z0-9]", line):
            pin = Requirement(line.removesuffix("\\").strip())
            pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    return pins


def parse_conda(text: str) -> dict[str, SpecifierSet]:
    """The dependencies of an environment.yml under the names of pyproject.toml."""
    ranges = {}
    for line in yaml.safe_load(text)["dependencies"]:
        name, _, versions = line.split("::")[-1].partition(" ")
        ranges[CONDA_NAMES.get(name, canonicalize_name(name))] = SpecifierSet(versions)
    return ranges


def outside_range(declared: dict[str, Requirement], pins: dict[str, list[Requirement]]) -> list[str]:
    """The pins that are missing, or that their requirement in pyproject.toml does not allow."""
    wrong = [name for name in declared if name not in pins]
    for name in declared.keys() & pins.keys():
        for pin in pins[name]:
            version = next(iter(pin.specifier)).version
            if version not in declared[name].specifier:
                wrong.append(f"{name}=={version}")
    return wrong


LOCK = parse_lock((ROOT / "requirements.lock").read_text())
CONDA = parse_conda((ROOT / "environment.yml").read_text())


def test_every_requirement_is_pinned_within_its_range():
    assert outside_range(DECLARED, LOCK) == []


def test_the_build_tool_is_pinned_too():
    """The project is installed without build isolation, with the setuptools of the lock."""
    build = Requirement(PROJECT["build-system"]["requires"][0])
    assert outside_range({"setuptools": build}, LOCK) == []


def test_a_pin_outside_its_range_would_be_seen():
    declared = {"torch": Requirement("torch>=2.6,<2.12"), "tqdm": Requirement("tqdm"), "timm": Requirement("timm")}
    pins = parse_lock("torch==2.13.0 \\\n    --hash=sha256:00\ntqdm==4.66\n")
    assert outside_range(declared, pins) == ["timm", "torch==2.13.0"]


def test_the_lock_pins_exactly_and_with_hashes():
    text = (ROOT / "requirements.lock").read_text()
    for block in re.split(r"\n(?=\S)", text.strip()):
        head, *hashes = block.split("\n")
        assert re.fullmatch(r"\S+==\S+( ; .*)? \\", head), head
        assert hashes and all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes), head
    assert "://" not in text


def test_conda_users_get_the_same_ranges():
    assert {name: str(CONDA[name]) for name in CONDA if name not in CONDA_ONLY} == {
        name: str(requirement.specifier) for name, requirement in DECLARED.items()
    }
    assert CONDA["python"] == SpecifierSet(PROJECT["project"]["requires-python"])
    assert CONDA["setuptools"] == Requirement(PROJECT["build-system"]["requires"][0]).specifier
    assert "detectron2" in CONDA


def test_conda_channels():
    """conda-forge alone, so that compiled packages fit each other; Snakemake, pure Python, is in Bioconda only."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    elsewhere = [line for line in environment["dependencies"] if "::" in line]
    assert [line.split(" ")[0] for line in elsewhere] == ["bioconda::snakemake-minimal"]


def imported_modules(path: Path) -> set[str]:
    """The top-level names a file imports, at its head or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("folder, allowed", [(PACKAGE, "project"), (ROOT / "tests", "dev")])
def test_everything_imported_is_declared(folder: Path, allowed: str):
    declared = {canonicalize_name(Requirement(r).name) for r in PROJECT["project"]["dependencies"]}
    if allowed == "dev":
        declared = set(DECLARED)
    owners = packages_distributions()
    local = {"foundling", "tests", "conftest"} | {p.stem for p in (ROOT / "tests").rglob("*.py")}
    undeclared = {}
    for path in sorted(folder.rglob("*.py")):
        for module in imported_modules(path) - set(sys.stdlib_module_names) - local - {"detectron2"}:
            if not declared & {canonicalize_name(d) for d in owners.get(module, [])}:
                undeclared[module] = str(path.relative_to(ROOT))
    assert undeclared == {}


def test_light_imports():
    """Importing the package, its paths and its command line brings in neither torch nor numpy."""
    code = (
        "import sys, foundling, foundling.paths, foundling.cli; "
        "foundling.cli.make_parser(); "
        "print(sorted({'torch', 'numpy', 'matplotlib', 'PIL', 'timm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_documented_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    for document in ("README.md", "CONTRIBUTING.md", "data/README.md", ".ci/run"):
        named = set(re.findall(r"\bmake ([a-z]+)\b(?= |`|$|\n)", commands((ROOT / document).read_text())))
        assert named <= targets, document


def commands(text: str) -> str:
    """The code of a Markdown page (fenced and inline), one piece a line; a script is code throughout."""
    if text.startswith("#!"):
        return text
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.M | re.S)
    return "\n".join([*fenced, *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)])
