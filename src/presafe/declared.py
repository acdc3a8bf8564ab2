"""What is declared in TOML: recipes and studies, by a file or by the name of one that ships; their mistakes, said; and
where the files lie that they name.

Nothing here knows what may stand in them: that is `recipe.py` and `study.py`.
"""

from __future__ import annotations

import os
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from presafe.errors import RecipeError

Declared = Literal["recipe", "study"]
_FOLDERS: dict[Declared, str] = {"recipe": "recipes", "study": "studies"}
"""Where the package keeps those that ship."""


def shipped(kind: Declared) -> list[str]:
    """Names of the recipes or studies that come with the package."""
    folder = resources.files("presafe") / _FOLDERS[kind]
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def read_toml(kind: Declared, source: str | Path) -> dict[str, Any]:
    """What stands in a recipe or a study: a TOML file, or the name of a shipped one.

    Raises:
        RecipeError: there is none, or it is not TOML.
    """
    path = Path(source)
    if path.suffix == ".toml":
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise RecipeError(f"cannot read {kind} {path}: {reason}.") from error
    elif str(source) in shipped(kind):
        text = (resources.files("presafe") / _FOLDERS[kind] / f"{source}.toml").read_text(encoding="utf-8")
    else:
        raise RecipeError(f"no {kind} {str(source)!r}.", f"Give a .toml file or one of: {', '.join(shipped(kind))}.")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{kind} {source} is not TOML: {error}.") from error


def overlaid(own: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """`own` over `base`; tables are merged, except `suites`, which are a choice of their own."""
    both = {
        key: overlaid(own[key], base[key])
        for key in own.keys() & base.keys()
        if isinstance(own[key], dict) and isinstance(base[key], dict) and key != "suites"
    }
    return base | own | both


def problems_of(error: ValidationError, whole: str) -> str:
    """Every key that does not fit, what is wrong with it and the value seen; `whole` stands for no key."""
    return "; ".join(
        f"{'.'.join(str(part) for part in each['loc']) or whole}: {each['msg']}"
        + ("" if each["type"] in ("missing", "extra_forbidden") else f" (got {each['input']!r:.60})")
        for each in error.errors()
    )


def published_folder() -> Path | None:
    """The folder of the published files that recipes read, as PRESAFE_DATA names it; None where it names none."""
    folder = os.environ.get("PRESAFE_DATA")
    return Path(folder) if folder else None


def data_file(path: Path) -> Path:
    """A file that a recipe names: from the working directory, or else from the folder of the published files."""
    folder = published_folder()
    there = folder / path if folder else path
    return there if there.exists() and not path.exists() else path
