"""Run one program that a model wrote, confined, and say by the exit code whether it came to its end. Nothing but the
standard library: this file is copied into the sandbox and run there, `python -I confine.py PROGRAM LIMITS`.

    1. a child process without capabilities or new privileges, in an empty folder of its own
    2. limits of CPU time, memory, file size and open files; a limit of the wall clock here, outside the child
    3. Linux: Landlock (no write below any other folder, no program started), seccomp (no process, no socket, no signal
       to others, no change of owners, modes, times, attributes or mounts; threads are allowed)
    4. Python's audit hook on the same, which a determined program can get around: it ends a program that would catch
       the error, and is all there is where a kernel lacks 3
    5. at the end the child and whatever it left behind are killed, and its folder is removed

Passed means that the last line ran: a program that leaves before its tests has failed. What says so is a word drawn for
each run, which lies in the program's own process: one that is written to cheat can look for it there, as for its tests.
A program that breaks out of none of this can still read every file that its user can read.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import shutil
import signal
import sys
import tempfile
import time

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System calls of Landlock, the same on every architecture (Linux 5.13)."""
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_WRITES = sum(1 << bit for bit in (1, *range(4, 13)))
"""Landlock's rights to write, remove and make files of every kind (linux/landlock.h, ABI 1)."""

_CALLS = {
    "x86_64": (0xC000003E, 56, (435, 132, 235, 261, 280, 188, 189, 190, 197, 198, 199, 463, 466, 469),
                               (57, 58, 59, 322, 41, 62, 200, 234, 129, 297, 424, 101, 311, 272, 308, 165, 166, 90,
                                91, 268, 452, 92, 93, 94, 260, 321, 425, 250, 246, 169)),
    "aarch64": (0xC00000B7, 220, (435, 88, 5, 6, 7, 14, 15, 16, 463, 466, 469),
                                 (221, 281, 198, 129, 130, 131, 138, 240, 424, 117, 271, 97, 268, 40, 39, 52, 53,
                                  452, 55, 54, 280, 425, 219, 104, 142)),
}  # fmt: skip
"""By machine: seccomp's name of it; clone; the calls that fail: clone3, utime, utimes, futimesat, utimensat, setxattr,
lsetxattr, fsetxattr, removexattr, lremovexattr, fremovexattr, setxattrat, removexattrat, file_setattr; and those that
end the program: fork, vfork, execve, execveat, socket, kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo,
pidfd_send_signal, ptrace, process_vm_writev, unshare, setns, mount, umount2, chmod, fchmod, fchmodat, fchmodat2, chown,
fchown, lchown, fchownat, bpf, io_uring_setup, keyctl, kexec_load, reboot; as far as the machine has them."""
_KILL, _NO_SUCH_CALL, _ALLOW = 0x80000000, 0x00050000 | 38, 0x7FFF0000

_FORBIDDEN = ("os.fork", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "subprocess.", "socket.", "os.kill",
              "signal.pthread_kill", "ctypes.dlsym", "os.chmod", "os.chown", "os.chflags")  # fmt: skip
_ON_PATHS = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.utime",
             "os.setxattr", "os.removexattr")  # fmt: skip
_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_libc = ctypes.CDLL(None, use_errno=True)


class _Filter(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filters", ctypes.POINTER(_Filter)))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int))


def run(source: str, cpu_s: int, wall_s: float, memory_bytes: int, file_bytes: int) -> bool:
    """Whether the program ran to its last line within the limits; nothing of it is left afterwards."""
    if sys.platform == "linux":
        _libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: what the program leaves behind becomes our child
    folder = tempfile.mkdtemp(dir=os.getcwd())
    done_in, done_out = os.pipe()
    word = os.urandom(16)
    child = os.fork()
    if child == 0:
        try:
            os.close(done_in)
            _confine(folder, cpu_s, memory_bytes, file_bytes)
            exec(compile(source, "program.py", "exec"), {"__name__": "__main__"})
            os.write(done_out, word)
            os._exit(0)
        finally:  # whatever it raised, SystemExit included
            os._exit(1)
    os.close(done_out)
    try:
        ended = _wait(child, time.monotonic() + wall_s)
        left = _kill_all(child)
        return ended and not left and os.read(done_in, len(word)) == word
    finally:
        os.close(done_in)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(child: int, deadline: float) -> bool:
    """Whether the child ended by itself in time."""
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        time.sleep(0.005)
    return False


def _kill_all(child: int) -> bool:
    """Kill the child's group and every process that became ours; whether there was one beside the child."""
    try:
        os.killpg(child, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    left = False
    while True:  # each round reaps a generation; its children become ours and are killed in the next
        for pid in _children():
            left = True
            os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return left


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _confine(folder: str, cpu_s: int, memory_bytes: int, file_bytes: int) -> None:
    """Give up, in this process, what a program that computes an answer does not need."""
    if sys.platform == "linux":
        _libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: not outlive the clock that watches it
    os.setsid()
    os.chdir(folder)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.environ.clear()
    os.environ.update(HOME=folder, TMPDIR=folder, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    for what, most in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        try:
            resource.setrlimit(what, (most, most))
        except (OSError, ValueError):
            if what != resource.RLIMIT_AS:  # macOS refuses a limit of memory
                raise
    if sys.platform == "linux":
        _landlock(folder)
        _seccomp()
    sys.addaudithook(_hook(os.path.realpath(folder)))


def _landlock(folder: str) -> None:
    """Writing only below the folder and to the null device, and no start of a program."""
    _libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, which Landlock and seccomp ask for
    # capset(2), version 3: without capabilities even root is held to file modes and limits
    _libc.capset((ctypes.c_uint * 2)(0x20080522, 0), (ctypes.c_uint * 6)())
    abi = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        return
    writes = _WRITES | (1 << 13 if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)
    handled = ctypes.c_uint64(writes | 1)  # and to execute, which nothing is allowed
    rules = _libc.syscall(_CREATE_RULESET, ctypes.byref(handled), ctypes.c_size_t(8), 0)
    for path, allowed in ((folder, writes), (os.devnull, writes & (_WRITE_FILE | _TRUNCATE))):
        beneath = _Beneath(allowed, os.open(path, os.O_RDONLY))
        _libc.syscall(_ADD_RULE, rules, 1, ctypes.byref(beneath), 0)
        os.close(beneath.folder)
    _libc.syscall(_RESTRICT_SELF, rules, 0)
    os.close(rules)


def _seccomp() -> None:
    """End the program at the first forbidden call; let others fail, which libraries make without need."""
    if platform.machine() not in _CALLS:
        return
    arch, clone, failing, forbidden = _CALLS[platform.machine()]
    load, equal, above, has, leave = 0x20, 0x15, 0x35, 0x45, 0x06  # the instructions of classic BPF that are used
    steps = [(load, 0, 0, 4), (equal, 1, 0, arch), (leave, 0, 0, _KILL), (load, 0, 0, 0)]
    steps += [(above, 0, 1, 0x40000000), (leave, 0, 0, _KILL)]  # the x32 names of the same calls
    # clone3's flags cannot be read; libraries use clone where there is none, and do without times and attributes
    for calls, end in ((failing, _NO_SUCH_CALL), (forbidden, _KILL)):
        for call in calls:
            steps += [(equal, 0, 1, call), (leave, 0, 0, end)]
    # clone is allowed for a thread only: flag CLONE_THREAD in its first argument
    steps += [(equal, 0, 3, clone), (load, 0, 0, 16), (has, 1, 0, 0x10000), (leave, 0, 0, _KILL), (leave, 0, 0, _ALLOW)]
    filters = (_Filter * len(steps))(*(_Filter(*step) for step in steps))
    program = _Program(len(steps), filters)
    _libc.prctl(22, 2, ctypes.byref(program), 0, 0)  # PR_SET_SECCOMP, by a filter


def _hook(folder: str):  # type: ignore[no-untyped-def]
    """End the program at what Python itself announces before it does it."""
    leave, realpath, string = os._exit, os.path.realpath, (str, bytes, os.PathLike)

    def outside(path: object) -> bool:
        return isinstance(path, string) and not (realpath(os.fsdecode(path)) + os.sep).startswith(folder + os.sep)

    def look(event: str, args: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & _TO_WRITE and path != os.devnull and outside(path):
                leave(1)
        elif event.startswith(_FORBIDDEN) or (event.startswith(_ON_PATHS) and any(map(outside, args[:2]))):
            leave(1)

    return look


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        program = file.read()
    sys.exit(0 if run(program, **json.loads(sys.argv[2])) else 1)
