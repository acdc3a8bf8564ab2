"""Judge programs: the program in an answer is right if it passes the problem's tests.

    program = the problem's given text + the whole code block of the answer + the tests
    right   = its last line runs, confined (`confine`), in Inspect's sandbox

The whole block is run, with its helper functions, after other blocks that define names which it uses. Code under
`if __name__ == "__main__":` is not run. A block that only continues the given text (the format of HumanEval, arXiv
2107.03374, for models that complete) is joined to it.
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
"""Tags of Python blocks, which may lack a tag; other blocks are read only if there is no Python block."""
_DEFINED = re.compile(r"^(?:(?:async[ \t]+)?def|class)[ \t]+(\w+)", re.MULTILINE)
_FUTURE = re.compile(r"^from[ \t]+__future__[ \t]+import[ \t]+(?:\([^()]*\)|[^\n;#]+)", re.MULTILINE)
_IS_MAIN = re.compile(r"""\b__name__\s*==\s*(["'])__main__\1""")
_CONFINE = resources.files("presafe.judges") / "confine.py"


class Limits(NamedTuple):
    """Limits of one program. Ours; the solutions of HumanEval take well under a second and 100 MB."""

    cpu_s: int = 5
    wall_s: float = 20.0
    memory_bytes: int = 2**30
    file_bytes: int = 2**20
    """Size of each file."""


Sandbox = str | tuple[str, str]
"""Inspect's name of a sandbox: its kind, or its kind and the file that declares it."""

CONTAINER = ("docker", str(resources.files("presafe.judges") / "compose.yaml"))


class Judged(NamedTuple):
    """A verdict on a program, and the reason if it could not be run."""

    verdict: Verdict
    note: str | None = None


def code_of(answer: str, entry_point: str) -> str:
    """Return the program in an answer: its last fenced block that defines the function, else its last block.

    An answer without a block is the program itself. Other blocks that define names which the block uses and does not
    define come before it.

    Args:
        answer: The answer without its thought.
        entry_point: Name of the function.
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
    """Join the given text, the answer's code and the tests, with imports from `__future__` at the top."""
    code = code_of(answer, problem.entry_point)
    # A whole block may be indented. The given text stands above it, for its imports and helpers.
    is_whole = _defines(code, problem.entry_point) or not _defines(problem.given, problem.entry_point)
    code = f"\n\n{textwrap.dedent(code)}" if is_whole else _as_body(code, problem.given)
    program = f"{problem.given}{code}\n\n{problem.tests}\n\ncheck({problem.entry_point})\n"
    future = [f"{match[0].strip()}\n" for match in _FUTURE.finditer(program)]
    return "".join(future) + _IS_MAIN.sub("False", _FUTURE.sub("pass", program) if future else program)


def _as_body(code: str, given: str) -> str:
    """Return a continuation of the given text, indented as a body if all of it, or only its first line, is not."""
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
        python: The interpreter in the sandbox.
        limits: Limits of the program.

    Returns:
        "right" if its last line ran, "wrong" if not, and "unjudged" if the program could not be run.
    """
    await sandbox.write_file("confine.py", _CONFINE.read_text(encoding="utf-8"))
    # A file cannot hold a lone surrogate; written as an escape, it means the same in a string.
    await sandbox.write_file("program.py", program.encode(errors="backslashreplace"))
    command = [python, "-I", "-B", "confine.py", "program.py", json.dumps(limits._asdict())]
    try:
        done = await sandbox.exec(command, timeout=int(limits.wall_s) + 40)
    except TimeoutError:
        return Judged("unjudged", "the sandbox did not end the program in time")
    if done.returncode in (0, 1):
        return Judged("right" if done.returncode == 0 else "wrong")
    return Judged("unjudged", done.stderr.strip()[-500:] or f"the sandbox ended with code {done.returncode}")


def find_sandbox(name: str | None) -> Sandbox:
    """Return the sandbox for programs that a model wrote.

    Args:
        name: "docker", "local" or "local-unconfined"; None means docker. "local" needs a kernel that confines programs
            (Linux 5.13 with Landlock and seccomp, x86_64 or aarch64); "local-unconfined" accepts any machine.

    Returns:
        Inspect's name of the sandbox: our container, which has no network, or this machine.

    Raises:
        RunError: docker is not running or lacks its compose plugin; this machine's kernel cannot confine ("local"); or
            another name.
    """
    if name not in (None, "docker", "local", "local-unconfined"):
        raise RunError(f"no sandbox {name!r}.", "There are: docker, local, local-unconfined.")
    if name == "local" and (missing := _kernel_lacks()):
        raise RunError(
            f"this machine cannot confine programs that the model wrote: it lacks {missing}.",
            "Start docker, or accept that such a program can write, delete and kill as you can: `sandbox` "
            "local-unconfined (`inspect eval`: -T sandbox=local-unconfined).",
        )
    if name in (None, "docker") and not _has_docker():
        raise RunError(
            "this suite runs programs that the model wrote, and there is no running docker with compose to hold them.",
            "Start docker, or accept that they run on this machine, confined by its kernel: `sandbox` local "
            "(`inspect eval`: -T sandbox=local).",
        )
    return CONTAINER if name in (None, "docker") else "local"


def _kernel_lacks() -> str:
    """Return what this machine lacks to confine a program; empty if it lacks nothing."""
    command = [sys.executable, "-I", "-B", str(_CONFINE), "--check"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"a check of its kernel ({error})"
    if done.returncode:
        return f"a check of its kernel ({(done.stderr.strip().splitlines() or [f'code {done.returncode}'])[-1][:200]})"
    return done.stdout.strip()


def _has_docker() -> bool:
    """Return whether docker runs here and has the plugin with which Inspect starts containers."""
    if shutil.which("docker") is None:
        return False
    try:
        return all(
            subprocess.run(["docker", *arguments], capture_output=True, check=False, timeout=20).returncode == 0
            for arguments in (["info"], ["compose", "version"])
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def _defines(code: str, name: str) -> bool:
    """Return whether the code defines the function or assigns its name; variables of a body do not count."""
    name = re.escape(name)
    if re.search(rf"^[ \t]*(?:async[ \t]+)?def[ \t]+{name}\b", code, re.MULTILINE):
        return True
    is_body = re.search(r"^return\b", code, re.MULTILINE) is not None
    return not is_body and re.search(rf"^{name}[ \t]*(?::[^=\n]*)?=(?!=)", code, re.MULTILINE) is not None
