"""Read and run the programs in answers, and choose their sandbox."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confinement import BAD, CONFINE, MANY, commands, has_landlock, passes
from inspect_ai import Task, eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.solver import generate

from presafe.errors import RunError
from presafe.judges import code
from presafe.judges.code import CONTAINER, Limits, Sandbox, code_of, find_sandbox, program_of
from presafe.judges.scorers import code_tests
from presafe.prompts.problems import CodeProblem
from presafe.prompts.rows import read_rows

REAL = Path(__file__).parents[4] / "shared" / "data" / "humaneval" / "HumanEval.jsonl.gz"

PROBLEM = CodeProblem(
    given='import math\n\n\ndef area(r):\n    """Area of a circle."""\n',
    entry_point="area",
    tests="def check(f):\n    assert abs(f(1) - 3.14159) < 1e-3\n    assert f(0) == 0\n",
)
HELPED = (
    "Sure:\n\n```python\ndef square(x):\n    return x * x\n\n\ndef area(r):\n    return math.pi * square(r)\n```\nDone."
)


@pytest.mark.parametrize(
    ("answer", "block"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("```\nx = 1\n```\nand\n```py\ndef f(): pass\n```\nUse it:\n```python\nf()\n```", "def f(): pass\n"),
        ("```python\ndef f(): return 1\n```\nBetter:\n```python\ndef f(): return 2\n```", "def f(): return 2\n"),
        ("```python\ndef f():\n    return 1", "def f():\n    return 1"),
        ("    return 1", "    return 1"),
        ("def f2(): pass", "def f2(): pass"),
    ],
)
def test_code_of_takes_the_defining_block(answer: str, block: str) -> None:
    assert code_of(answer, "f") == block


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (HELPED, True),
        ("```python\ndef area(r):\n    return math.pi * r\n```", True),  # wrong at 2, which is not tested
        ("```python\ndef area(r):\n    return r\n```", False),
        ("    return math.pi * r ** 2\n", True),  # continues the given text
        ("1. Like so:\n\n   ```python\n   def area(r):\n       return math.pi * r * r\n   ```\n", True),
        ("I cannot write that.", False),
        ("", False),
        ("```python\nimport sys\n\ndef area(r):\n    return 0\n\nsys.exit(0)\n```", False),
        ("```python\nimport os\n\ndef area(r):\n    os._exit(0)\n```", False),
    ],
)
def test_program_that_passes_the_tests_is_right(tmp_path: Path, answer: str, right: bool) -> None:
    assert passes(program_of(PROBLEM, answer), tmp_path) is right


ADD = CodeProblem(
    given='from typing import List\n\n\ndef add_all(xs: List[int]) -> int:\n    """ Sum. """\n',
    entry_point="add_all",
    tests="def check(f):\n    assert f([1, 2]) == 3\n    assert f([]) == 0\n",
)
F = "```"
D = "def add_all(xs):\n    return sum(xs)\n"
FORMS = {
    "plain": f"{F}python\n{D}{F}",
    "no tag": f"{F}\n{D}{F}",
    "python3": f"{F}python3\n{D}{F}",
    "capital": f"{F}Python\n{D}{F}",
    "py with more": f"{F}py title='a.py'\n{D}{F}",
    "attributes": f"{F}{{.python .numberLines}}\n{D}{F}",
    "carriage returns": f"{F}python\n{D}{F}\nDone.".replace("\n", "\r\n"),
    "from the future": f"{F}python\nfrom __future__ import annotations\n{D}{F}",
    "from the future, in brackets": f"{F}python\nfrom __future__ import (\n    annotations,\n)  # why\n{D}{F}",
    "from the future, in a list": f"1. So:\n\n   {F}python\n   from __future__ import annotations\n   {D[:-1]}".replace(
        "\n    return", "\n       return"
    )
    + f"\n   {F}",
    "tildes": f"~~~python\n{D}~~~",
    "tildes around ticks": '~~~\ndef add_all(xs):\n    """\n```\n[1]\n```\n    """\n    return sum(xs)\n~~~',
    "four ticks": f"`{F}python\n{D}`{F}",
    "four ticks around three": f'`{F}python\ndef add_all(xs):\n    """\n{F}\n1\n{F}\n    """\n    return sum(xs)\n`{F}',
    "fence in a docstring": f'{F}python\ndef add_all(xs):\n    """Sum.\n\n    {F}\n    1\n    {F}\n    """\n'
    f"    return sum(xs)\n{F}",
    "fence in a docstring, not indented": f"{F}python\ndef add_all(xs):\n    '''\n{F}python\n1\n{F}\n'''\n"
    f"    return sum(xs)\n{F}\nIt's done.",
    "fence in a list, in a docstring": f'- So:\n\n  {F}python\n  def add_all(xs):\n      """Sum.\n\n      {F}\n'
    f'      1\n      {F}\n      """\n      return sum(xs)\n  {F}\n',
    "main that reads input": f'{F}python\n{D}\nif __name__ == "__main__":\n    print(add_all([int(input())]))\n{F}',
    "main of another kind": f"{F}python\n{D}\ndef main():\n    exit(1)\n\nif (__name__=='__main__'): main()\n{F}",
    "example after it": f"{F}python\n{D}{F}\nUse it:\n{F}python\nprint(add_all([1]))\n{F}",
    "example in it": f"{F}python\n{D}\nprint(add_all([1]))\n{F}",
    "output after it": f"{F}python\n{D}{F}\nIt prints:\n{F}text\n3\n{F}",
    "shell before it": f"{F}bash\npip install nothing\n{F}\n{F}python\n{D}{F}",
    "helper in a block before": f"{F}python\ndef plus(a, b):\n    return a + b\n{F}\nand\n{F}python\n"
    f"def add_all(xs):\n    total = 0\n    for x in xs:\n        total = plus(total, x)\n    return total\n{F}",
    "helper in a block after": f"{F}python\ndef add_all(xs):\n    return fold(xs)\n{F}\nwith\n{F}python\n"
    f"def fold(xs):\n    return sum(xs)\n{F}",
    "a first try that is wrong": f"{F}python\ndef add_all(xs):\n    return xs[0]\n{F}\nBetter:\n{F}python\n{D}{F}",
    "body": "    return sum(xs)\n",
    "body in a block": f"{F}python\n    return sum(xs)\n{F}",
    "body in a block, then output": f"{F}python\n    return sum(xs)\n{F}\nGives:\n{F}text\n3\n{F}",
    "body in a block, not indented": f"{F}python\ntotal = 0\nfor x in xs:\n    total += x\nreturn total\n{F}",
    "body whose first line lost its blanks": "total = 0\n    for x in xs:\n        total += x\n    return total",
    "body whose first line opens a block": "for total in [sum(xs)]:\n        return total\n",
    "a name that is given": f"{F}python\nfrom functools import partial\nadd_all = partial(sum)\n{F}",
    "lambda": f"{F}python\nadd_all = lambda xs: sum(xs)\n{F}",
    "data classes": f"{F}python\nfrom __future__ import annotations\nfrom dataclasses import dataclass\n\n@dataclass\n"
    f"class Sum:\n    xs: List[int]\n\n    def of(self):\n        return sum(self.xs)\n\n\n"
    f"def add_all(xs):\n    return Sum(xs).of()\n{F}",
    "annotations": f"{F}python\n{D}\n\ndef f(x: int): pass\n\nassert f.__annotations__ == {{'x': int}}\n{F}",
    "half of a character": f"{F}python\nx = '\ud83d'\n{D}{F}",
    "no end": f"{F}python\n{D}",
}


@pytest.mark.parametrize("form", FORMS)
def test_right_program_passes_in_every_form(tmp_path: Path, form: str) -> None:
    program = program_of(ADD, FORMS[form]).encode(errors="backslashreplace").decode()
    assert passes(program, tmp_path), program


@pytest.mark.parametrize("form", FORMS)
def test_wrong_program_fails_in_every_form(tmp_path: Path, form: str) -> None:
    wrong = FORMS[form].replace("sum(", "max(").replace("partial(sum", "partial(max").replace("a + b", "a - b")
    wrong = wrong.replace("total += x", "total -= x")
    assert wrong != FORMS[form]
    assert not passes(program_of(ADD, wrong).encode(errors="backslashreplace").decode(), tmp_path)


def test_many_fences_are_read_in_time() -> None:
    start = time.monotonic()
    for fences in ("```\n" * 30_000, '```\n"""\n' + "```\n" * 30_000 + '"""', "~~~\n```\n" * 16_000, "`" * 100_000):
        code_of(fences, "f")
    assert time.monotonic() - start < 20


WITHOUT_LANDLOCK = """
import ctypes, sys
from presafe.judges.code import find_sandbox, Limits
confine = {"__name__": "confine"}
exec(sys.argv[1], confine)
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)]
filters = (confine["_Filter"] * len(steps))(*(confine["_Filter"](*step) for step in steps))
program = confine["_Program"](len(steps), filters)
assert confine["_libc"].prctl(38, 1, 0, 0, 0) == 0
assert confine["_libc"].prctl(22, 2, ctypes.byref(program), 0, 0) == 0
print(find_sandbox("local-unconfined"), confine["run"]("x = 1", **Limits()._asdict()))
find_sandbox("local")
"""
"""A process that hides Landlock from itself and its children."""


def test_kernel_without_landlock_needs_local_unconfined(tmp_path: Path) -> None:
    if not has_landlock():
        pytest.skip("this kernel has no Landlock to hide")
    command = [sys.executable, "-c", WITHOUT_LANDLOCK, CONFINE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "local True\n"
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(r"RunError: .*lacks Landlock\. .*`sandbox` local-unconfined.*-T sandbox=local-unconfined", last), (
        last
    )


@pytest.mark.skipif(not REAL.exists(), reason="HumanEval is not shipped; put it in ../shared/data")
@pytest.mark.parametrize("way", ["local", "docker"])
def test_all_canonical_solutions_pass(tmp_path: Path, way: str) -> None:
    """Run programs as forks of two processes, which takes about three seconds on two cores."""
    programs: list[str] = []
    for row in read_rows(REAL):
        problem = CodeProblem(given=row["prompt"], entry_point=row["entry_point"], tests=row["test"])
        block = f"Here it is:\n\n```python\n{row['prompt']}{row['canonical_solution']}```\n"
        programs.append(program_of(problem, block if len(programs) % 2 else row["canonical_solution"]))
    assert len(programs) == 164
    container = ["docker", "compose", "-f", CONTAINER[1], "run", "--rm", "-T"]
    container += ["--workdir", "/tmp", "default", "python3"]
    python = [sys.executable] if _sandbox(way) == "local" else container
    driver = "import json, sys\nconfine = {'__name__': 'confine'}\nexec(sys.argv[1], confine)\n"
    driver += "print(json.dumps([confine['run'](p, **json.loads(sys.argv[2])) for p in json.load(sys.stdin)]))\n"
    command = [*python, "-c", driver, CONFINE, json.dumps(Limits(wall_s=60.0)._asdict())]

    def passed(half: list[str]) -> list[bool]:
        done = subprocess.run(command, cwd=tmp_path, input=json.dumps(half), capture_output=True, text=True, check=True)
        results: list[bool] = json.loads(done.stdout)
        return results

    with ThreadPoolExecutor(2) as pool:
        assert sum(sum(half) for half in pool.map(passed, [programs[:82], programs[82:]])) == 164


@pytest.mark.parametrize("way", ["local", "docker"])
def test_scorer_runs_programs_in_the_sandbox(tmp_path: Path, way: str) -> None:
    """Misdeeds are added to a right answer, so that only the sandbox can make it wrong."""
    sandbox = _sandbox(way)
    outside = Path("/tmp") / f"outside-{os.getpid()}"  # a folder that the container has, too
    bad = BAD | {"programs": MANY.format(seconds=601)}
    names = ("infinite loop", "huge allocation", "programs", "socket", "file outside")
    answers = [HELPED.replace("def square", f"{bad[name].format(outside=str(outside))}\ndef square") for name in names]
    outputs = [_output(HELPED), _output("```python\ndef area(r):\n    return 3 * r\n```"), _output(HELPED, cut=True)]
    outputs += map(_output, answers)
    python = {"python": sys.executable} if way == "local" else {}
    samples = [
        Sample(id=i + 1, input="?", target=PROBLEM.model_dump_json(), metadata=python) for i in range(len(outputs))
    ]
    (log,) = eval(
        Task(MemoryDataset(samples), name="misdeeds", solver=generate(), scorer=code_tests(), sandbox=sandbox),
        model=get_model("mockllm/model", custom_outputs=outputs),
        log_dir=str(tmp_path),
        display="none",
        max_samples=1,
    )
    assert log.status == "success"
    judged = sorted(log.samples or [], key=lambda sample: int(sample.id))
    assert [sample.scores["code_tests"].value for sample in judged if sample.scores] == [
        *("right", "wrong", "unjudged"),
        *("wrong" for _ in names),
    ]
    assert not outside.exists()
    assert "sleep 601" not in commands()
    if way == "docker":
        left = ["docker", "ps", "--all", "--quiet", "--filter", "name=inspect-misdeeds"]
        assert subprocess.run(left, capture_output=True, check=True).stdout == b""


def test_docker_is_the_default_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_has_docker", lambda: False)
    assert find_sandbox("local") == "local"
    for name in (None, "docker"):
        with pytest.raises(RunError, match=r"no running docker.*`sandbox` local .*-T sandbox=local"):
            find_sandbox(name)
    with pytest.raises(RunError, match="no sandbox 'here'"):
        find_sandbox("here")
    monkeypatch.setattr(code, "_has_docker", lambda: True)
    assert find_sandbox(None) == find_sandbox("docker") == CONTAINER
    assert "network_mode: none" in Path(CONTAINER[1]).read_text(encoding="utf-8")


def test_docker_needs_its_compose_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\n[ "$1" = info ]\n', encoding="utf-8")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="no running docker with compose"):
        find_sandbox("docker")
    docker.write_text("#!/bin/sh\n", encoding="utf-8")
    assert find_sandbox("docker") == CONTAINER


def _sandbox(way: str) -> Sandbox:
    try:
        return find_sandbox(way)
    except RunError as error:
        pytest.skip(str(error))


def _output(text: str, *, cut: bool = False) -> ModelOutput:
    output = ModelOutput.from_content("mockllm/model", text, stop_reason="max_tokens" if cut else "stop")
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    return output
