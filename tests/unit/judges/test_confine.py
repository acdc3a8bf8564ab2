"""Confine programs: what they may not do fails, and nothing outside their folder changes."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confinement import BAD, CONFINE, WITHOUT_HOOK, WITHOUT_KERNEL, commands, has_landlock, passes

from presafe.judges.code import Limits, judge_program


@pytest.mark.parametrize("confine", [CONFINE, WITHOUT_KERNEL, WITHOUT_HOOK], ids=["both", "hook", "kernel"])
def test_forbidden_actions_are_contained_and_fail(tmp_path: Path, confine: str) -> None:
    if confine is WITHOUT_HOOK and not has_landlock():
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
    assert "sleep 600" not in commands()


CALL = "import ctypes\nctypes.CDLL(None).syscall({words})\n"
"""Passes for any result of the call, unless the call ends the program."""
FAILS = "import ctypes\nassert ctypes.CDLL(None).syscall({words}) >= 0\n"
IOCTL = "import fcntl, os, struct\na, b = os.pipe()\ntry:\n    fcntl.ioctl(a, {call}, struct.pack('i', {{victim}}))\n"
IOCTL += "except OSError:\n    pass\n"
SIGNAL = "import fcntl, os, struct\na, b = os.pipe()\n{call}\nfcntl.fcntl(a, 10, 9)\n"
SIGNAL += "fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC)\nos.write(b, b'x')\n"
VICTIM = "import ctypes, time\nctypes.CDLL(None).capset((ctypes.c_uint * 2)(0x20080522, 0), (ctypes.c_uint * 6)())\n"
VICTIM += "print('ready', flush=True)\ntime.sleep(602)\n"
"""Without capabilities, so that other processes may signal it even if these tests run as root."""
REACHES_OUT = {
    # numbers of x86_64
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
def test_program_reaches_no_process_and_leaves_nothing(tmp_path: Path, confine: str) -> None:
    """The victims are a process, a file and a segment of shared memory of this test."""
    if not has_landlock():
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
    """Return keys and numbers of all segments, semaphores and queues of this machine."""
    lists = [Path(f"/proc/sysvipc/{kind}").read_text(encoding="utf-8") for kind in ("shm", "sem", "msg")]
    return [sorted(" ".join(line.split()[:2]) for line in text.splitlines()) for text in lists]


def test_inherited_files_are_closed(tmp_path: Path) -> None:
    """Landlock restricts opening a file, not writing to an open file."""
    if not has_landlock():
        pytest.skip("this kernel does not confine")
    kept = tmp_path / "kept"
    kept.touch()
    (tmp_path / "box").mkdir()
    program = "import os\nfor number in range(3, 64):\n    try:\n        os.write(number, b'')\n    except OSError:\n"
    program += "        continue\n    assert os.fstat(number).st_ino != KEPT\n"
    program = program.replace("KEPT", str(kept.stat().st_ino))
    opens = f"file_ = open({str(kept)!r}, 'a')\n"
    assert passes(program, tmp_path / "box", CONFINE.replace("def run(", f"{opens}def run(", 1))


def test_call_numbers_match_the_kernel_headers() -> None:
    """A wrong number would forbid another call, or no call."""
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


def test_unconfined_program_is_unjudged(tmp_path: Path) -> None:
    from inspect_ai.util._sandbox.local import LocalSandboxEnvironment

    # Failed first: any failure of the watcher counted as a wrong answer.
    judged = asyncio.run(
        judge_program("x = 1\n", LocalSandboxEnvironment(), python=sys.executable, limits=Limits(file_bytes=2**70))
    )
    assert judged.verdict == "unjudged"
    assert "could not be confined" in str(judged.note)
    right = asyncio.run(judge_program("x = 1\n", LocalSandboxEnvironment(), python=sys.executable))
    assert right == ("right", None)


def test_program_that_catches_the_error_still_fails(tmp_path: Path) -> None:
    program = f"try:\n    open({str(tmp_path / 'outside')!r}, 'w')\nexcept BaseException:\n    pass\n"
    (tmp_path / "box").mkdir()
    assert not passes(program, tmp_path / "box")


def test_times_of_open_files_cannot_be_set(tmp_path: Path) -> None:
    """Only seccomp can forbid this: Landlock does not cover it, and the hook knows no path."""
    if not has_landlock():
        pytest.skip("this kernel does not confine")
    kept = tmp_path / "kept"
    kept.touch()
    (tmp_path / "box").mkdir()
    assert not passes(f"import os\nos.utime(os.open({str(kept)!r}, os.O_RDONLY), (0, 0))\n", tmp_path / "box")
    assert kept.stat().st_mtime > 0


def test_wall_time_limit_stops_a_sleeping_program(tmp_path: Path) -> None:
    start = time.monotonic()
    assert not passes("import time\ntime.sleep(600)\n", tmp_path, limits=Limits(wall_s=0.5))
    assert time.monotonic() - start < 20


def test_ordinary_solutions_are_allowed(tmp_path: Path) -> None:
    program = (
        "import hashlib, math, pathlib, random, re, tempfile, threading, numpy\n"
        "assert numpy.linalg.norm(numpy.ones((50, 50)) @ numpy.ones(50)) > 0\n"
        "thread = threading.Thread(target=print, args=('x',))\nthread.start()\nthread.join()\n"
        "open('mine', 'w').write('x')\nassert open('mine').read() == 'x'\n"
        "pathlib.Path('mine').touch()\n"
        "with tempfile.TemporaryFile() as file:\n    file.write(b'x')\n"
    )
    assert passes(program, tmp_path)
