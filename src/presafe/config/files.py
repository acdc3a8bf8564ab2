"""Load recipes and studies from TOML, shipped or the user's; format validation errors; find the files they name.

Their keys are checked elsewhere: in `config/recipe.py` and `study/spec.py`.
"""

from __future__ import annotations

import os
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from presafe.errors import RecipeError
from presafe.runtime.reading import is_deeper, printable, read_text

FileKind = Literal["recipe", "study"]
_FOLDERS: dict[FileKind, str] = {"recipe": "recipes", "study": "studies"}
"""Folder of the shipped files, by kind."""

MAX_TOML_BYTES = 256_000
"""Most bytes of a TOML file. The largest that ships has 6,000."""
_MAX_PARTS = 16
"""Most parts of a dotted key; recipes use three."""
_MAX_DEPTH = 32
"""Most tables and lists around a value; recipes use four."""
_MAX_PROBLEMS = 20
"""Most problems of a file that one line names."""
_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{_MAX_PARTS}}}")


def shipped_names(kind: FileKind) -> list[str]:
    """Return the names of the recipes or studies that come with the package."""
    folder = resources.files("presafe") / _FOLDERS[kind]
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def read_toml(kind: FileKind, source: str | Path) -> dict[str, Any]:
    """Read a recipe or a study.

    Args:
        kind: Which of the two.
        source: Path of a TOML file, or the name of a shipped one.

    Returns:
        Its tables, not checked yet.

    Raises:
        RecipeError: there is no such file or name, or it is not TOML.
    """
    path = Path(source)
    if path.suffix == ".toml":
        text = read_text(path, RecipeError, kind, MAX_TOML_BYTES)
    elif str(source) in shipped_names(kind):
        text = (resources.files("presafe") / _FOLDERS[kind] / f"{source}.toml").read_text(encoding="utf-8")
    else:
        raise RecipeError(
            f"no {kind} {str(source)!r:.100}.", f"Give a .toml file or one of: {', '.join(shipped_names(kind))}."
        )
    try:
        return parse_toml(text)
    except ValueError as error:
        raise RecipeError(f"{kind} {source} is not TOML: {error}.") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of a TOML text.

    Raises:
        ValueError: it is not TOML, or it is too large or nested too deeply.
    """
    if len(text) > MAX_TOML_BYTES:
        raise ValueError(f"it has more than {MAX_TOML_BYTES:,} letters")
    if _LONG_KEY.search(text):  # before parsing: a key of 30,000 parts takes 4 GB
        raise ValueError(f"it has a key of more than {_MAX_PARTS} parts")
    try:
        declared = tomllib.loads(text)
    except RecursionError:
        declared = None
    except ValueError as error:  # after a semicolon comes advice about Python
        raise ValueError(str(error).partition(";")[0]) from error
    if declared is None or is_deeper(declared, _MAX_DEPTH):
        raise ValueError(f"it is nested deeper than {_MAX_DEPTH} tables")
    return declared


def merge_settings(own: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `own` over it, table by table; `suites` is replaced as a whole."""
    merged = {
        key: merge_settings(own[key], base[key])
        for key in own.keys() & base.keys()
        if isinstance(own[key], dict) and isinstance(base[key], dict) and key != "suites"
    }
    return base | own | merged


def format_validation_error(error: ValidationError, no_key: str) -> str:
    """Return every key that does not fit, with what is wrong and the value seen, on one line.

    Args:
        error: The error.
        no_key: What stands for the key of a problem with the text as a whole.
    """
    problems = [
        f"{'.'.join(printable(f'{part!s:.60}') for part in problem['loc']) or no_key}: {printable(problem['msg'])}"
        + ("" if problem["type"] in ("missing", "extra_forbidden") else f" (got {problem['input']!r:.60})")
        for problem in error.errors()
    ]
    more = len(problems) - _MAX_PROBLEMS
    return "; ".join(problems[:_MAX_PROBLEMS] + [f"and {more} more"] * (more > 0))


def published_folder() -> Path | None:
    """Return the folder of published files, which PRESAFE_DATA names; None if it is not set."""
    folder = os.environ.get("PRESAFE_DATA")
    return Path(folder) if folder else None


def data_file(path: Path) -> Path:
    """Return where a recipe's file lies: in the working directory, or else in the folder of published files."""
    folder = published_folder()
    published = folder / path if folder else path
    return published if published.exists() and not path.exists() else path
