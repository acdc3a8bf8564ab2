"""The code judge: does the program in an answer pass the problem's tests?

    program = what the problem gives + the whole code block of the answer + the tests
    right   = it runs to its end, confined (`confine`), in Inspect's sandbox

The whole block is run, helper functions above the asked one included. A block that only continues the given text (the
format of HumanEval, arXiv 2107.03374, for models that complete) is joined to it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import textwrap
from importlib import resources
from typing import Any, NamedTuple

from presafe.errors import RunError
from presafe.records import Record

_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
"""A fenced block; the last one of an answer may lack its end."""


class Limits(NamedTuple):
    """What one program may use. Ours; the solutions of HumanEval take well under a second and 100 MB."""

    cpu_s: int = 5
    wall_s: float = 20.0
    memory_bytes: int = 2**30
    file_bytes: int = 2**20


Sandbox = str | tuple[str, str]
"""A sandbox as Inspect names it: its kind, or its kind and a file that declares it."""

CONTAINER = ("docker", str(resources.files("presafe.judges") / "compose.yaml"))


class CodeProblem(Record):
    """What a program is asked for and tested by; as JSON, the target of a prompt."""

    given: str
    """Imports, helpers, and the head of the function with its docstring."""
    entry_point: str
    """Name of the function asked for."""
    tests: str
    """Defines `check`, which takes the function and raises where it is wrong."""


def code_of(answer: str, entry_point: str) -> str:
    """The program in an answer: the last fenced block that defines the function, else the last block, else all."""
    blocks = [match[1] for match in _FENCE.finditer(answer)]
    defining = [block for block in blocks if _defines(block, entry_point)]
    return next(reversed(defining or blocks), answer)


def program_of(problem: CodeProblem, answer: str) -> str:
    """What is run: the given text, the answer's code, the tests."""
    code = code_of(answer, problem.entry_point)
    if _defines(code, problem.entry_point):
        # Fences inside a list are indented as a whole. What is given stands above: its imports and helpers are used.
        code = f"\n\n{textwrap.dedent(code)}"
    return f"{problem.given}{code}\n\n{problem.tests}\n\ncheck({problem.entry_point})\n"


async def passes(program: str, sandbox: Any, *, python: str = "python3", limits: Limits = Limits()) -> bool:  # noqa: B008
    """Run a program in a sandbox of Inspect.

    Args:
        program: Python source.
        sandbox: Inspect's `SandboxEnvironment`.
        python: The interpreter there.
        limits: What the program may use.
    """
    confine = resources.files("presafe.judges").joinpath("confine.py").read_text(encoding="utf-8")
    await sandbox.write_file("confine.py", confine)
    await sandbox.write_file("program.py", program)
    words = [python, "-I", "-B", "confine.py", "program.py", json.dumps(limits._asdict())]
    done = await sandbox.exec(words, timeout=int(limits.wall_s) + 40)
    return bool(done.returncode == 0)


def find_sandbox(name: str | None) -> Sandbox:
    """Where programs that a model wrote are run.

    Args:
        name: "docker" or "local"; None asks for docker.

    Returns:
        What Inspect calls a sandbox: our container, which has no network, or this machine.

    Raises:
        RunError: docker is asked for and not running here, or has no compose plugin; or another name.
    """
    if name not in (None, "docker", "local"):
        raise RunError(f"no sandbox {name!r}.", "There are: docker, local.")
    if name != "local" and not _has_docker():
        raise RunError(
            "this suite runs programs that the model wrote, and there is no running docker with compose to hold them.",
            "Start docker, or accept that they run on this machine, confined as well as it allows: --sandbox local, "
            "with `inspect eval` -T sandbox=local.",
        )
    return "local" if name == "local" else CONTAINER


def _has_docker() -> bool:
    """Whether docker runs here and has the plugin through which Inspect starts containers."""
    if shutil.which("docker") is None:
        return False
    try:
        return all(
            subprocess.run(["docker", *words], capture_output=True, check=False, timeout=20).returncode == 0
            for words in (["info"], ["compose", "version"])
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def _defines(code: str, name: str) -> bool:
    return re.search(rf"^[ \t]*(?:async[ \t]+)?def[ \t]+{re.escape(name)}\b", code, re.MULTILINE) is not None
