"""Programs in answers: what is run of them, and that what is run stays where it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import pytest
from inspect_ai import Task, eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.solver import generate

from presafe.errors import RunError
from presafe.judges import code
from presafe.judges.code import CONTAINER, CodeProblem, Limits, Sandbox, code_of, find_sandbox, program_of
from presafe.judges.scorers import code_tests
from presafe.prompts.rows import read_rows

REAL = Path(__file__).parents[4] / "shared" / "data" / "humaneval" / "HumanEval.jsonl.gz"
CONFINE = resources.files("presafe.judges").joinpath("confine.py").read_text(encoding="utf-8")
WITHOUT_KERNEL = CONFINE.replace("= 444, 445, 446", "= 9444, 9445, 9446").replace('"x86_64":', '"none":')
WITHOUT_KERNEL = WITHOUT_KERNEL.replace('"aarch64":', '"nor":')
"""As on a kernel that knows neither Landlock nor our machine's calls: Python's own hook is left."""
WITHOUT_HOOK = CONFINE.replace("sys.addaudithook(", "_hook(")
"""What the kernel alone holds."""
assert len({CONFINE, WITHOUT_KERNEL, WITHOUT_HOOK}) == 3
assert "444, 445, 446" not in WITHOUT_KERNEL.replace("9444, 9445, 9446", "")

PROBLEM = CodeProblem(
    given='import math\n\n\ndef area(r):\n    """Area of a circle."""\n',
    entry_point="area",
    tests="def check(f):\n    assert abs(f(1) - 3.14159) < 1e-3\n    assert f(0) == 0\n",
)
HELPED = (
    "Sure:\n\n```python\ndef square(x):\n    return x * x\n\n\ndef area(r):\n    return math.pi * square(r)\n```\nDone."
)


def passes(program: str, folder: Path, confine: str = CONFINE, limits: Limits = Limits(cpu_s=1, wall_s=8.0)) -> bool:  # noqa: B008
    (folder / "confine.py").write_text(confine, encoding="utf-8")
    (folder / "program.py").write_text(program, encoding="utf-8")
    words = [sys.executable, "-I", "-B", "confine.py", "program.py", json.dumps(limits._asdict())]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1)
    assert not done.stderr
    assert {each.name for each in folder.iterdir()} == {"confine.py", "program.py"}  # its own folder is gone
    return done.returncode == 0


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("```\nx = 1\n```\nand\n```py\ndef f(): pass\n```\nUse it:\n```python\nf()\n```", "def f(): pass\n"),
        ("```python\ndef f(): return 1\n```\nBetter:\n```python\ndef f(): return 2\n```", "def f(): return 2\n"),
        ("```python\ndef f():\n    return 1", "def f():\n    return 1"),
        ("    return 1", "    return 1"),
        ("def f2(): pass", "def f2(): pass"),
    ],
)
def test_the_program_in_an_answer(answer: str, found: str) -> None:
    assert code_of(answer, "f") == found


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (HELPED, True),
        ("```python\ndef area(r):\n    return math.pi * r\n```", True),  # wrong at 2, which is not tested
        ("```python\ndef area(r):\n    return r\n```", False),
        ("    return math.pi * r ** 2\n", True),  # goes on from what was given
        ("1. Like so:\n\n   ```python\n   def area(r):\n       return math.pi * r * r\n   ```\n", True),
        ("I cannot write that.", False),
        ("", False),
        ("```python\nimport sys\n\ndef area(r):\n    return 0\n\nsys.exit(0)\n```", False),
        ("```python\nimport os\n\ndef area(r):\n    os._exit(0)\n```", False),
    ],
)
def test_an_answer_is_right_where_its_program_passes_the_tests(tmp_path: Path, answer: str, right: bool) -> None:
    assert passes(program_of(PROBLEM, answer), tmp_path) is right


MANY = "import subprocess\nfor _ in range(40):\n    subprocess.Popen(['sleep', '{seconds}'])\n"
FORKS = "import os, time\nfor _ in range(40):\n    if os.fork() == 0:\n        time.sleep(600)\n"
BAD = {
    "infinite loop": "while True:\n    pass\n",
    "huge allocation": "x = bytearray(10**12)\n",
    "growing allocation": "x = []\nwhile True:\n    x.append(' ' * 10**8)\n",
    "forks": FORKS,
    "programs": MANY.format(seconds=600),
    "deep recursion": "def f():\n    f()\nf()\n",
    "socket": "import socket\nsocket.socket()\n",
    "kills its watcher": "import os\nos.kill(os.getppid(), 9)\n",
    "file outside": "open({outside!r}, 'w').write('x')\n",
    "file in the sandbox, outside its own folder": "open('../program.py', 'w').write('x')\n",
    "removes": "import os\nos.remove({kept!r})\n",
    "renames": "import os\nos.rename({kept!r}, 'mine')\n",
    "sets times": "import os\nos.utime({kept!r}, (0, 0))\n",
    "sets an attribute": "import os\nos.setxattr({kept!r}, 'user.mine', b'x')\n",
    "leaves by the door": (
        "import os\nfor number in range(64):\n    try:\n        os.write(number, b'done')\n"
        "    except OSError:\n        pass\nos._exit(0)\n"
    ),
    "large file": "open('x', 'wb').write(b'x' * 2**21)\n",
}


@pytest.mark.parametrize("confine", [CONFINE, WITHOUT_KERNEL, WITHOUT_HOOK], ids=["both", "hook", "kernel"])
def test_what_a_program_may_not_do_is_contained_and_fails(tmp_path: Path, confine: str) -> None:
    if confine is WITHOUT_HOOK and not _has_landlock():
        pytest.skip("this kernel has no Landlock")
    outside, kept = tmp_path / "outside", tmp_path / "kept"
    kept.write_text("kept", encoding="utf-8")

    def run(name: str) -> bool:
        folder = tmp_path / name
        folder.mkdir()
        return passes(BAD[name].format(outside=str(outside), kept=str(kept)), folder, confine)

    with ThreadPoolExecutor(4) as pool:
        assert dict(zip(BAD, pool.map(run, BAD), strict=True)) == dict.fromkeys(BAD, False)
    assert not outside.exists()
    assert kept.read_text(encoding="utf-8") == "kept"
    assert kept.stat().st_mtime > 0
    assert not hasattr(os, "listxattr") or os.listxattr(kept) == []
    assert "sleep 600" not in _commands()


def test_a_program_that_swallows_what_stopped_it_fails_all_the_same(tmp_path: Path) -> None:
    program = f"try:\n    open({str(tmp_path / 'outside')!r}, 'w')\nexcept BaseException:\n    pass\n"
    (tmp_path / "box").mkdir()
    assert not passes(program, tmp_path / "box")


def test_no_time_is_set_through_an_open_file(tmp_path: Path) -> None:
    """As only the kernel can see: Landlock does not cover it, and the hook knows no path."""
    if not _has_landlock():
        pytest.skip("this kernel does not confine")
    kept = tmp_path / "kept"
    kept.touch()
    (tmp_path / "box").mkdir()
    assert not passes(f"import os\nos.utime(os.open({str(kept)!r}, os.O_RDONLY), (0, 0))\n", tmp_path / "box")
    assert kept.stat().st_mtime > 0


def test_a_sleeper_is_stopped_by_the_clock(tmp_path: Path) -> None:
    start = time.monotonic()
    assert not passes("import time\ntime.sleep(600)\n", tmp_path, limits=Limits(wall_s=0.5))
    assert time.monotonic() - start < 20


def test_what_solutions_do_need_is_allowed(tmp_path: Path) -> None:
    program = (
        "import hashlib, math, pathlib, random, re, tempfile, threading\n"
        "thread = threading.Thread(target=print, args=('x',))\nthread.start()\nthread.join()\n"
        "open('mine', 'w').write('x')\nassert open('mine').read() == 'x'\n"
        "pathlib.Path('mine').touch()\n"
        "with tempfile.TemporaryFile() as file:\n    file.write(b'x')\n"
    )
    assert passes(program, tmp_path)


@pytest.mark.skipif(not REAL.exists(), reason="HumanEval is not shipped; put it in ../shared/data")
@pytest.mark.parametrize("way", ["local", "docker"])
def test_all_canonical_solutions_pass(tmp_path: Path, way: str) -> None:
    """About three seconds on two cores: programs fork from one process a half, as many share the start of Python."""
    programs = []
    for row in read_rows(REAL):
        problem = CodeProblem(given=row["prompt"], entry_point=row["entry_point"], tests=row["test"])
        whole = f"Here it is:\n\n```python\n{row['prompt']}{row['canonical_solution']}```\n"
        programs.append(program_of(problem, whole if len(programs) % 2 else row["canonical_solution"]))
    assert len(programs) == 164
    container = ["docker", "compose", "-f", CONTAINER[1], "run", "--rm", "-T"]
    container += ["--workdir", "/tmp", "default", "python3"]
    python = [sys.executable] if _sandbox(way) == "local" else container
    driver = "import json, sys\nconfine = {'__name__': 'confine'}\nexec(sys.argv[1], confine)\n"
    driver += "print(json.dumps([confine['run'](p, **json.loads(sys.argv[2])) for p in json.load(sys.stdin)]))\n"
    words = [*python, "-c", driver, CONFINE, json.dumps(Limits(wall_s=60.0)._asdict())]

    def passed(half: list[str]) -> list[bool]:
        done = subprocess.run(words, cwd=tmp_path, input=json.dumps(half), capture_output=True, text=True, check=True)
        found: list[bool] = json.loads(done.stdout)
        return found

    with ThreadPoolExecutor(2) as pool:
        assert sum(sum(half) for half in pool.map(passed, [programs[:82], programs[82:]])) == 164


@pytest.mark.parametrize("way", ["local", "docker"])
def test_the_scorer_runs_the_block_in_inspects_sandbox(tmp_path: Path, way: str) -> None:
    """The misdeeds stand in an answer that is right beside them, so that only what stops them makes it wrong."""
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
    found = sorted(log.samples or [], key=lambda sample: int(sample.id))
    assert [sample.scores["code_tests"].value for sample in found if sample.scores] == [
        *("right", "wrong", "unjudged"),
        *("wrong" for _ in names),
    ]
    assert not outside.exists()
    assert "sleep 601" not in _commands()
    if way == "docker":
        left = ["docker", "ps", "--all", "--quiet", "--filter", "name=inspect-misdeeds"]
        assert subprocess.run(left, capture_output=True, check=True).stdout == b""


def test_local_is_only_taken_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_has_docker", lambda: False)
    assert find_sandbox("local") == "local"
    for name in (None, "docker"):
        with pytest.raises(RunError, match=r"no running docker.*--sandbox local.*-T sandbox=local"):
            find_sandbox(name)
    with pytest.raises(RunError, match="no sandbox 'here'"):
        find_sandbox("here")
    monkeypatch.setattr(code, "_has_docker", lambda: True)
    assert find_sandbox(None) == find_sandbox("docker") == CONTAINER
    assert "network_mode: none" in Path(CONTAINER[1]).read_text(encoding="utf-8")


def test_docker_without_its_compose_plugin_is_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    made = ModelOutput.from_content("mockllm/model", text, stop_reason="max_tokens" if cut else "stop")
    made.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    return made


def _has_landlock() -> bool:
    import ctypes

    return sys.platform == "linux" and ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) >= 1


def _commands() -> str:
    """Command lines of every process, for one that should be gone."""
    if not os.path.isdir("/proc"):
        return subprocess.run(["ps", "-axo", "command"], capture_output=True, text=True, check=True).stdout
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)
