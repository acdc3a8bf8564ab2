"""The code judge: does the program in an answer pass the problem's tests?

    program = what the problem gives + the whole code block of the answer + the tests
    right   = it runs to its end, confined (`confine`), in Inspect's sandbox

The whole block is run, helper functions above the asked one included, and before it other blocks that define what it
uses. What stands under `if __name__ == "__main__":` is not run. A block that only continues the given text (the format
of HumanEval, arXiv 2107.03374, for models that complete) is joined to it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
from importlib import resources
from typing import Any, NamedTuple

from presafe.errors import RunError
from presafe.judges.fences import blocks_of
from presafe.prompts.problems import CodeProblem
from presafe.records import Verdict

_PYTHON = re.compile(r"(?:py(?:thon)?[\d.]*)?")
"""Tags of the blocks that are read, or none; other blocks are read where there is no such."""
_DEFINED = re.compile(r"^(?:(?:async[ \t]+)?def|class)[ \t]+(\w+)", re.MULTILINE)
_FUTURE = re.compile(r"^from[ \t]+__future__[ \t]+import[ \t]+(?:\([^()]*\)|[^\n;#]+)", re.MULTILINE)
_IS_MAIN = re.compile(r"""\b__name__\s*==\s*(["'])__main__\1""")
_CONFINE = resources.files("presafe.judges") / "confine.py"


class Limits(NamedTuple):
    """What one program may use. Ours; the solutions of HumanEval take well under a second and 100 MB."""

    cpu_s: int = 5
    wall_s: float = 20.0
    memory_bytes: int = 2**30
    file_bytes: int = 2**20


Sandbox = str | tuple[str, str]
"""A sandbox as Inspect names it: its kind, or its kind and a file that declares it."""

CONTAINER = ("docker", str(resources.files("presafe.judges") / "compose.yaml"))


class Judged(NamedTuple):
    """A verdict on a program; and what went wrong where it could not be run."""

    verdict: Verdict
    note: str | None = None


def code_of(answer: str, entry_point: str) -> str:
    """The program in an answer: the last fenced block that defines the function, else the last block, else all.

    Before the block stand those others that define what it uses and does not define itself.
    """
    blocks = blocks_of(answer)
    codes = [block.code for block in blocks if _PYTHON.fullmatch(block.tag)] or [block.code for block in blocks]
    defining = [code for code in codes if _defines(code, entry_point)]
    chosen = next(reversed(defining or codes), answer)
    own = set(_DEFINED.findall(chosen))
    helpers = [
        code
        for code in codes
        if code not in defining
        and any(name not in own and re.search(rf"\b{name}\b", chosen) for name in _DEFINED.findall(code))
    ]
    return "\n\n".join([*helpers, chosen]) if defining else chosen


def program_of(problem: CodeProblem, answer: str) -> str:
    """What is run: the given text, the answer's code, the tests; imports from the future above all."""
    code = code_of(answer, problem.entry_point)
    # A block may be indented as a whole. What is given stands above: its imports and helpers are used.
    is_whole = _defines(code, problem.entry_point) or not _defines(problem.given, problem.entry_point)
    code = f"\n\n{textwrap.dedent(code)}" if is_whole else _as_body(code, problem.given)
    program = f"{problem.given}{code}\n\n{problem.tests}\n\ncheck({problem.entry_point})\n"
    future = [f"{found[0].strip()}\n" for found in _FUTURE.finditer(program)]
    return "".join(future) + _IS_MAIN.sub("False", _FUTURE.sub("pass", program) if future else program)


def _as_body(code: str, given: str) -> str:
    """A continuation of the given text, indented as a body where it, or its first line alone, is not."""
    lines = code.strip("\n").split("\n")
    if not lines[0].strip() or lines[0][0] in " \t":
        return code
    indent = re.findall(r"^[ \t]*(?=\S)", given, re.MULTILINE)[-1:] or ["    "]
    depths = [len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()]
    body = len(indent[0] or "    ")
    if depths and min(depths) >= body and not (lines[0].rstrip().endswith(":") and depths[0] <= body):
        return f"{' ' * body}{code.lstrip()}"
    return textwrap.indent(code, " " * body)


async def judge_program(program: str, sandbox: Any, *, python: str = "python3", limits: Limits = Limits()) -> Judged:  # noqa: B008
    """Run a program in a sandbox of Inspect.

    Args:
        program: Python source.
        sandbox: Inspect's `SandboxEnvironment`.
        python: The interpreter there.
        limits: What the program may use.

    Returns:
        "right" where it ran to its end, "wrong" where it did not, "unjudged" where it could not be run.
    """
    await sandbox.write_file("confine.py", _CONFINE.read_text(encoding="utf-8"))
    # No file can hold half of a character that takes two: as an escape it means the same in a string.
    await sandbox.write_file("program.py", program.encode(errors="backslashreplace"))
    words = [python, "-I", "-B", "confine.py", "program.py", json.dumps(limits._asdict())]
    try:
        done = await sandbox.exec(words, timeout=int(limits.wall_s) + 40)
    except TimeoutError:
        return Judged("unjudged", "the sandbox did not end the program in time")
    if done.returncode in (0, 1):
        return Judged("right" if done.returncode == 0 else "wrong")
    return Judged("unjudged", done.stderr.strip()[-500:] or f"the sandbox ended with code {done.returncode}")


def find_sandbox(name: str | None) -> Sandbox:
    """Where programs that a model wrote are run.

    Args:
        name: "docker", "local", or "local-unconfined"; None asks for docker. "local" asks for a kernel that confines
            programs, "local-unconfined" takes one that does not, too.

    Returns:
        What Inspect calls a sandbox: our container, which has no network, or this machine.

    Raises:
        RunError: docker is asked for and not running here, or has no compose plugin; "local" is asked for and the
            kernel cannot confine; or another name.
    """
    if name not in (None, "docker", "local", "local-unconfined"):
        raise RunError(f"no sandbox {name!r}.", "There are: docker, local, local-unconfined.")
    if name == "local" and (missing := _kernel_lacks()):
        raise RunError(
            f"this machine cannot confine programs that the model wrote: it lacks {missing}.",
            "Start docker, or accept that such a program can write, delete and kill as you can: --sandbox "
            "local-unconfined, with `inspect eval` -T sandbox=local-unconfined.",
        )
    if name in (None, "docker") and not _has_docker():
        raise RunError(
            "this suite runs programs that the model wrote, and there is no running docker with compose to hold them.",
            "Start docker, or accept that they run on this machine, confined as well as it allows: --sandbox local, "
            "with `inspect eval` -T sandbox=local.",
        )
    return CONTAINER if name in (None, "docker") else "local"


def _kernel_lacks() -> str:
    """What this machine lacks to confine a program; empty where it lacks nothing."""
    words = [sys.executable, "-I", "-B", str(_CONFINE), "--check"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"a check of its kernel ({error})"
    if done.returncode:
        return f"a check of its kernel ({(done.stderr.strip().splitlines() or [f'code {done.returncode}'])[-1][:200]})"
    return done.stdout.strip()


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
    """Whether the code has the function, or gives its name to another; a variable of a body may have the same name."""
    name = re.escape(name)
    if re.search(rf"^[ \t]*(?:async[ \t]+)?def[ \t]+{name}\b", code, re.MULTILINE):
        return True
    is_body = re.search(r"^return\b", code, re.MULTILINE) is not None
    return not is_body and re.search(rf"^{name}[ \t]*(?::[^=\n]*)?=(?!=)", code, re.MULTILINE) is not None
