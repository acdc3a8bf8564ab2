"""The package's front: what importing it loads, that every public name is there, and that the contract covers it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import presafe

HEAVY = ("torch", "inspect_ai", "transformers", "trl", "peft", "datasets", "matplotlib", "scipy")
PACKAGE = Path(presafe.__file__).parent


@pytest.mark.parametrize("module", ["presafe", "presafe.config.recipe", "presafe.runs.folder", "presafe.prompts.sets"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", presafe.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(presafe, name).__name__ == name
    assert name in dir(presafe)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imported == presafe._HOMES


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'presafe' has no attribute 'nothing'"):
        _ = presafe.nothing


def test_import_contract_names_every_room_and_module() -> None:
    # What no layer names may import anything, and be imported from anywhere.
    settings = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    named = [name for layer in contract["layers"] for name in re.split(r" [|:] ", layer)]
    rooms = [path.parent.name for path in PACKAGE.glob("*/*.py")]
    modules = [path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"]
    assert sorted(named) == sorted(f"presafe.{name}" for name in {*rooms, *modules})


def test_the_record_of_the_house_names_every_room_and_workflow() -> None:
    text = (PACKAGE.parents[1] / "design" / "0001-house.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| (`[^|]+`) \| (.*) \|$", text, flags=re.MULTILINE))
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms <= {name.strip("`") for names in table for name in names.split(", ")}
    workflows = table["`workflows`"].partition(": ")[2].split(", ")
    assert sorted(workflows) == sorted(path.stem for path in (PACKAGE / "workflows").glob("[a-z]*.py"))


def test_hashed_pins_are_those_of_the_constraints() -> None:
    root = Path(__file__).parents[2]
    pins = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)

    def pinned(text: str) -> dict[str, str]:
        return {re.sub("[._-]+", "-", name).lower(): version for name, version in pins.findall(text)}

    hashed = (root / "requirements-hashed.txt").read_text(encoding="utf-8")
    versions, tested = pinned(hashed), pinned((root / "constraints.txt").read_text(encoding="utf-8"))
    assert {name: versions[name] for name in versions.keys() & tested.keys()} == {
        name: tested[name] for name in versions.keys() & tested.keys()
    }
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [
        *project["dependencies"],
        *(word for name, words in project["optional-dependencies"].items() if name != "pyrit" for word in words),
    ]
    names = {re.split(r"[\[<>=]", word)[0].lower() for word in needed} - {"presafe"}
    assert names <= versions.keys()
    entries = re.split(r"\n(?=\w)", hashed)[1:]
    assert len(entries) == len(versions)
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
