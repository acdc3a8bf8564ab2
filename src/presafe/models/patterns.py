"""Try the regular expressions of an adapter's config in a process of their own, under a time limit.

PEFT matches them with the name of every module of the model. A pattern such as `(.*)*x` takes time that doubles with
each letter of a name, and Python's `re` cannot be stopped from within.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from presafe.errors import ModelError

_PATTERN_LIMIT_S = 10
"""Time for all patterns and all names of a model; an honest pattern needs milliseconds."""

_TRY = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        sys.exit(f"{pattern[:100]!r} is no regular expression ({error})")
    for name in names:
        compiled.fullmatch(name)
"""


def need_quick_patterns(folder: Path, config: dict[str, Any], names: Collection[str]) -> None:
    """Check that every pattern of an adapter's config is valid and matches all names within the time limit.

    Args:
        folder: Folder of the adapter, for errors.
        config: Its adapter_config.json.
        names: Names of the model's modules.

    Raises:
        ModelError: a pattern is invalid, or takes too long.
    """
    patterns = sorted(set(_patterns(config)))
    if not patterns:
        return
    hint = "Name the modules in a list in its adapter_config.json, or export it again."
    try:
        tried = subprocess.run(
            [sys.executable, "-I", "-c", _TRY],
            input=json.dumps([patterns, sorted(names)]),
            capture_output=True,
            encoding="utf-8",
            timeout=_PATTERN_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"the patterns in {folder / 'adapter_config.json'} take more than {_PATTERN_LIMIT_S} s to match the names "
            "of the model's modules.",
            hint,
        ) from error
    if tried.returncode:
        reason = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(f"a pattern in {folder / 'adapter_config.json'} cannot be used: {reason[:300]}.", hint)


def _patterns(config: dict[str, Any]) -> Iterator[str]:
    """Yield the regular expressions of a config, as PEFT uses them."""
    for key in ("target_modules", "exclude_modules"):
        if isinstance(config.get(key), str) and config[key] != "all-linear":
            yield config[key]
    for key in ("rank_pattern", "alpha_pattern"):
        if isinstance(config.get(key), dict):
            yield from (rf"(.*\.)?({pattern})$" for pattern in config[key])
    layers = config.get("layers_pattern")
    for pattern in [layers] if isinstance(layers, str) else layers if isinstance(layers, list) else []:
        yield rf".*\.{pattern}\.(\d+)\."
