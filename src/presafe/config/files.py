"""What is declared in TOML: recipes and studies, by a file or by the name of one that ships; their mistakes, said; and
where the files lie that they name.

Nothing here knows what may stand in them: that is `config/recipe.py` and `study/spec.py`.
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
"""Where the package keeps those that ship."""

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
    """Names of the recipes or studies that come with the package."""
    folder = resources.files("presafe") / _FOLDERS[kind]
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def read_toml(kind: FileKind, source: str | Path) -> dict[str, Any]:
    """What stands in a recipe or a study: a TOML file, or the name of a shipped one.

    Raises:
        RecipeError: there is none, or it is not TOML.
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
    """Return what a TOML text declares.

    Raises:
        ValueError: it is not TOML, or larger or nested deeper than anything that presafe reads.
    """
    if len(text) > MAX_TOML_BYTES:
        raise ValueError(f"it has more than {MAX_TOML_BYTES:,} letters")
    if _LONG_KEY.search(text):  # before parsing: a key of 30,000 parts takes 4 GB
        raise ValueError(f"it has a key of more than {_MAX_PARTS} parts")
    try:
        declared = tomllib.loads(text)
    except RecursionError:
        declared = None
    except ValueError as error:  # what comes after a semicolon is advice on Python
        raise ValueError(str(error).partition(";")[0]) from error
    if declared is None or is_deeper(declared, _MAX_DEPTH):
        raise ValueError(f"it is nested deeper than {_MAX_DEPTH} tables")
    return declared


def merge_settings(own: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """`own` over `base`; tables are merged, except `suites`, which are a choice of their own."""
    both = {
        key: merge_settings(own[key], base[key])
        for key in own.keys() & base.keys()
        if isinstance(own[key], dict) and isinstance(base[key], dict) and key != "suites"
    }
    return base | own | both


def format_validation_error(error: ValidationError, whole: str) -> str:
    """Every key that does not fit, what is wrong with it and the value seen; `whole` stands for no key."""
    problems = [
        f"{'.'.join(printable(f'{part!s:.60}') for part in problem['loc']) or whole}: {printable(problem['msg'])}"
        + ("" if problem["type"] in ("missing", "extra_forbidden") else f" (got {problem['input']!r:.60})")
        for problem in error.errors()
    ]
    more = len(problems) - _MAX_PROBLEMS
    return "; ".join(problems[:_MAX_PROBLEMS] + [f"and {more} more"] * (more > 0))


def published_folder() -> Path | None:
    """The folder of the published files that recipes read, as PRESAFE_DATA names it; None where it names none."""
    folder = os.environ.get("PRESAFE_DATA")
    return Path(folder) if folder else None


def data_file(path: Path) -> Path:
    """A file that a recipe names: from the working directory, or else from the folder of the published files."""
    folder = published_folder()
    there = folder / path if folder else path
    return there if there.exists() and not path.exists() else path
