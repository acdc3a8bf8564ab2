"""Programs in answers: what is run of them, and that what is run stays where it is."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import re
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
from presafe.judges.code import (
    CONTAINER,
    Limits,
    Sandbox,
    code_of,
    find_sandbox,
    judge_program,
    program_of,
)
from presafe.judges.scorers import code_tests
from presafe.prompts.problems import CodeProblem
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
def test_a_right_program_passes_in_every_form_that_models_write(tmp_path: Path, form: str) -> None:
    program = program_of(ADD, FORMS[form]).encode(errors="backslashreplace").decode()
    assert passes(program, tmp_path), program


@pytest.mark.parametrize("form", FORMS)
def test_a_wrong_program_fails_in_every_form(tmp_path: Path, form: str) -> None:
    wrong = FORMS[form].replace("sum(", "max(").replace("partial(sum", "partial(max").replace("a + b", "a - b")
    wrong = wrong.replace("total += x", "total -= x")
    assert wrong != FORMS[form]
    assert not passes(program_of(ADD, wrong).encode(errors="backslashreplace").decode(), tmp_path)


def test_many_fences_are_read_in_time() -> None:
    start = time.monotonic()
    for fences in ("```\n" * 30_000, '```\n"""\n' + "```\n" * 30_000 + '"""', "~~~\n```\n" * 16_000, "`" * 100_000):
        code_of(fences, "f")
    assert time.monotonic() - start < 20


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


CALL = "import ctypes\nctypes.CDLL(None).syscall({words})\n"
"""Passes, whatever the call gives, unless the program is ended."""
FAILS = "import ctypes\nassert ctypes.CDLL(None).syscall({words}) >= 0\n"
IOCTL = "import fcntl, os, struct\na, b = os.pipe()\ntry:\n    fcntl.ioctl(a, {call}, struct.pack('i', {{victim}}))\n"
IOCTL += "except OSError:\n    pass\n"
SIGNAL = "import fcntl, os, struct\na, b = os.pipe()\n{call}\nfcntl.fcntl(a, 10, 9)\n"
SIGNAL += "fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC)\nos.write(b, b'x')\n"
VICTIM = "import ctypes, time\nctypes.CDLL(None).capset((ctypes.c_uint * 2)(0x20080522, 0), (ctypes.c_uint * 6)())\n"
VICTIM += "print('ready', flush=True)\ntime.sleep(602)\n"
"""Without capabilities, so that it is in reach also where these tests run as root."""
REACHES_OUT = {
    # x86_64's numbers, in the order of the review's list
    "signal through a pipe": SIGNAL.format(call="fcntl.fcntl(a, fcntl.F_SETOWN, {victim})"),
    "signal through a pipe, newer": SIGNAL.format(call="fcntl.fcntl(a, 15, struct.pack('ii', 1, {victim}))"),
    "owner of a pipe": IOCTL.format(call="0x8901"),
    "owner of a socket": IOCTL.format(call="0x8902"),
    "limits of another": "import resource\nresource.prlimit({victim}, resource.RLIMIT_NOFILE, (5, 5))\n",
    "priority": "import os\nos.setpriority(os.PRIO_PROCESS, {victim}, 10)\n",
    "scheduler": "import os\nos.sched_setscheduler({victim}, os.SCHED_BATCH, os.sched_param(0))\n",
    "affinity": "import os\nos.sched_setaffinity({victim}, {{0}})\n",
    "ioprio_set": CALL.format(words="251, 1, {victim}, 3 << 13"),
    "pidfd_open": CALL.format(words="434, {victim}, 0"),
    "process_vm_readv": CALL.format(words="310, {victim}, 0, 0, 0, 0, 0"),
    "perf_event_open": CALL.format(words="298, 0, {victim}, -1, -1, 0"),
    "move_pages": CALL.format(words="279, {victim}, 0, 0, 0, 0, 0"),
    "datagrams": "import ctypes\nassert ctypes.CDLL(None).socketpair(1, 2, 0, (ctypes.c_int * 2)()) == 0\n",
    "not to die with its watcher": "import ctypes\nassert ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0\n",
    "lock": "import fcntl\nfcntl.flock(open({kept!r}), fcntl.LOCK_EX)\n",
    "lock of a part": "import fcntl\nfcntl.lockf(open({kept!r}), fcntl.LOCK_SH)\n",
    "lease": "import fcntl\nfcntl.fcntl(open({kept!r}), 1024, fcntl.F_RDLCK)\n",
    "flags of a file": "import fcntl\nfcntl.ioctl(open({kept!r}), 0x40086602, (0x40).to_bytes(8, 'little'))\n",
    "cuts a file by its name": FAILS.format(words="76, {kept!r}.encode(), 0"),
    "watches": FAILS.format(words="253"),
    "shared memory": CALL.format(words="29, 0, 4096, 0o1600"),
    "removes shared memory": CALL.format(words="31, {segment}, 0, 0"),
    "semaphores": CALL.format(words="64, 0, 1, 0o1600"),
    "queue": CALL.format(words="68, 0, 0o1600"),
    "POSIX queue": CALL.format(words="240, b'mine', 66, 0o600, 0"),
    "key": CALL.format(words="248, b'user', b'mine', b'x', 1, -3"),
    "userfaultfd": CALL.format(words="323, 1"),
    "fanotify_init": CALL.format(words="300, 0x200, 0"),
    "many files": "for i in range(300):\n    open(str(i), 'w').close()\n",
    "large files": "for i in range(20):\n    open(str(i), 'wb').write(b'x' * 2**20)\n",
    "deep folders": "import os\nfor i in range(3000):\n    os.mkdir('x' * 200)\n    os.chdir('x' * 200)\n",
    "closed folders": "import os\nos.mkdir('a')\nfor i in range(300):\n    open(f'a/{{i}}', 'w').close()\n"
    "os.mkdir('b', 0)\n",
    "threads": "import threading, time\nthreading.stack_size(2**16)\nfor i in range(100):\n"
    "    threading.Thread(target=time.sleep, args=(3,)).start()\ntime.sleep(3)\n",
}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of calls are this machine's")
@pytest.mark.parametrize("confine", [CONFINE, WITHOUT_HOOK], ids=["both", "kernel"])
def test_nothing_reaches_another_process_or_stays(tmp_path: Path, confine: str) -> None:
    """Victims that this test starts: a process, a file, a segment of shared memory."""
    if not _has_landlock():
        pytest.skip("this kernel does not confine")
    libc = ctypes.CDLL(None)
    kept = tmp_path / "kept"
    kept.write_text("kept", encoding="utf-8")
    segment = libc.shmget(0, 4096, 0o1600)
    victim = subprocess.Popen([sys.executable, "-c", VICTIM], stdout=subprocess.PIPE)
    try:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"ready\n"
        before = (_state(victim.pid), _shared(), kept.stat())

        def run(name: str) -> bool:
            folder = tmp_path / name
            folder.mkdir()
            program = REACHES_OUT[name].format(victim=victim.pid, kept=str(kept), segment=segment)
            return passes(program, folder, confine, Limits(cpu_s=5, wall_s=20.0))

        with ThreadPoolExecutor(2) as pool:
            assert dict(zip(REACHES_OUT, pool.map(run, REACHES_OUT), strict=True)) == dict.fromkeys(REACHES_OUT, False)
        assert victim.poll() is None
        assert (_state(victim.pid), _shared(), kept.stat()) == before
        assert kept.read_text(encoding="utf-8") == "kept"
    finally:
        victim.kill()
        victim.wait()
        libc.shmctl(segment, 0, None)


def _state(pid: int) -> tuple[str, int, set[int], int]:
    limits = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8")
    return limits, os.getpriority(os.PRIO_PROCESS, pid), os.sched_getaffinity(pid), os.sched_getscheduler(pid)


def _shared() -> list[list[str]]:
    """Keys and numbers of all segments, semaphores and queues of this machine."""
    lists = [Path(f"/proc/sysvipc/{kind}").read_text(encoding="utf-8") for kind in ("shm", "sem", "msg")]
    return [sorted(" ".join(line.split()[:2]) for line in text.splitlines()) for text in lists]


def test_a_file_that_the_watcher_has_open_is_closed_for_the_program(tmp_path: Path) -> None:
    """Landlock asks where a file is opened, not where it is written."""
    if not _has_landlock():
        pytest.skip("this kernel does not confine")
    kept = tmp_path / "kept"
    kept.touch()
    (tmp_path / "box").mkdir()
    program = "import os\nfor number in range(3, 64):\n    try:\n        os.write(number, b'')\n    except OSError:\n"
    program += "        continue\n    assert os.fstat(number).st_ino != KEPT\n"
    program = program.replace("KEPT", str(kept.stat().st_ino))
    opens = f"file_ = open({str(kept)!r}, 'a')\n"
    assert passes(program, tmp_path / "box", CONFINE.replace("def run(", f"{opens}def run(", 1))


def test_the_numbers_of_calls_are_those_of_the_kernels_headers() -> None:
    """A wrong number would forbid another call, or none."""
    headers = {"x86_64-linux-gnu/asm/unistd_64.h": 0, "asm-generic/unistd.h": 1}
    confine: dict[str, object] = {"__name__": "confine"}
    exec(CONFINE, confine)
    checked = 0
    for name, column in headers.items():
        path = Path("/usr/include") / name
        if not path.exists():
            continue
        numbers = dict(
            re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        )
        for calls in ("_FATAL", "_FAILING", "_BY_ARGUMENT"):
            for call, columns in confine[calls].items():  # type: ignore[attr-defined]
                if call in numbers:
                    assert columns[column] == int(numbers[call]), call
                    checked += 1
    if not checked:
        pytest.skip("no kernel headers here")
    assert checked > 80


def test_a_program_that_could_not_be_confined_is_unjudged(tmp_path: Path) -> None:
    from inspect_ai.util._sandbox.local import LocalSandboxEnvironment

    # Failed first: whatever ended the watcher was a wrong answer.
    judged = asyncio.run(
        judge_program("x = 1\n", LocalSandboxEnvironment(), python=sys.executable, limits=Limits(file_bytes=2**70))
    )
    assert judged.verdict == "unjudged"
    assert "could not be confined" in str(judged.note)
    right = asyncio.run(judge_program("x = 1\n", LocalSandboxEnvironment(), python=sys.executable))
    assert right == ("right", None)


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
"""From here on, this process and its children have a kernel without Landlock."""


def test_a_kernel_that_cannot_confine_is_only_taken_by_a_name_of_its_own(tmp_path: Path) -> None:
    if not _has_landlock():
        pytest.skip("this kernel has no Landlock to hide")
    words = [sys.executable, "-c", WITHOUT_LANDLOCK, CONFINE]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "local True\n"
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(r"RunError: .*lacks Landlock\. .*--sandbox local-unconfined.*-T sandbox=local-unconfined", last), (
        last
    )


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
        "import hashlib, math, pathlib, random, re, tempfile, threading, numpy\n"
        "assert numpy.linalg.norm(numpy.ones((50, 50)) @ numpy.ones(50)) > 0\n"
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
