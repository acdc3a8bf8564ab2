"""Run one program that a model wrote, confined; the exit code tells whether its last line ran.

This file uses the standard library only, because it is copied into the sandbox and run there:
`python -I confine.py PROGRAM LIMITS`.

    1. A child process without capabilities, new privileges or inherited files, in an empty folder of its own.
    2. Limits of CPU time, memory, file size, open files and pending signals. From outside the child: limits of wall
       time, threads, and the number and total bytes of its files.
    3. On Linux, Landlock: no write outside its folder, no start of a program. Seccomp: no new process, no socket, no
       signal or limit for other processes, no locks, nothing that stays (shared memory, queues, semaphores, keys), no
       change of owners, modes, times, attributes or mounts, no system call newer than these lists. Threads are allowed.
    4. Python's audit hook forbids the same. A determined program can avoid it, but it ends a program that would catch
       the error. It is the only barrier on a kernel without 3; `python -I confine.py --check` prints what is missing.
    5. At the end, the child and all that it started are killed, and its folder is removed.

Exit code 0: the last line ran. 1: it did not; so a program that exits before its tests fails. 2: the program could not
be run as described, so there is no verdict. The child proves that the last line ran by a random word, drawn for each
run. The word is in the program's own process, where a program written to cheat can find it, as it can find its tests.
A confined program can still read every file that its user can read.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System calls of Landlock, equal on all architectures (Linux 5.13)."""
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_WRITES = sum(1 << bit for bit in (1, *range(4, 13)))
"""Landlock's rights to write, remove and make files of every kind (linux/landlock.h, ABI 1)."""

_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""For each machine: its number for seccomp, and its column in the lists below (None: the machine lacks the call)."""

_FATAL = {
    # other programs and processes, and signals to them
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "kill": (62, 129),
    "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "kcmp": (312, 272), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    # priority and placement of other processes
    "setpriority": (141, 140), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119), "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274), "migrate_pages": (256, 238), "move_pages": (279, 239),
    # the network, and other processes of this machine
    "socket": (41, 198), "socketpair": (53, 199),
    # things that outlive their process: shared memory, semaphores, queues, keys
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219),
    # owners, modes, mounts, the system
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "unshare": (272, 97), "setns": (308, 268),
    "mount": (165, 40), "umount2": (166, 39), "fanotify_init": (300, 262), "bpf": (321, 280),
    "io_uring_setup": (425, 425), "kexec_load": (246, 104), "reboot": (169, 142),
}  # fmt: skip
"""Calls that end the program: no solution needs them."""

_FAILING = {
    "clone3": (435, 435), "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14), "truncate": (76, 45),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16), "setxattrat": (463, 463), "removexattrat": (466, 466),
    "file_setattr": (469, 469), "flock": (73, 32), "inotify_init": (253, None), "inotify_init1": (294, 26),
}  # fmt: skip
"""Calls that fail as if the kernel lacked them: libraries try them, and work without them. The flags of clone3 cannot
be read by a filter; Landlock restricts truncate only since its third version; inotify instances are few per user."""

_NEWER = 470
"""The first number that no call had when this was written: this and all higher numbers fail."""

_BY_ARGUMENT = {
    "fcntl": (72, 25), "ioctl": (16, 29), "prctl": (157, 167), "prlimit64": (302, 261), "clone": (56, 220),
}  # fmt: skip
_SIGNALS_TO_OTHERS = (8, 10, 15)  # fcntl: F_SETOWN, F_SETSIG, F_SETOWN_EX
_LOCKS = (6, 7, 37, 38, 1024, 1026)  # fcntl: F_SETLK, F_SETLKW, the same of open files, F_SETLEASE, F_NOTIFY
_OWNED = (0x8901, 0x8902)  # ioctl: FIOSETOWN, SIOCSPGRP
_QUESTIONS = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""Allowed uses of ioctl: ask for a terminal (TCGETS, TCGETS2), its width (TIOCGWINSZ), and bytes to read (FIONREAD);
set FIONBIO, FIONCLEX and FIOCLEX on the program's own file descriptor."""
_KILL, _ALLOW, _FAIL = 0x80000000, 0x7FFF0000, 0x00050000
_NO_SUCH_CALL, _NO_TERMINAL, _NO_LOCKS = _FAIL | 38, _FAIL | 25, _FAIL | 37

_ENTRIES, _FOLDER_BYTES, _THREADS = 256, 2**24, 64
"""Limits of a program's files and folders, their total bytes, and its threads; checked every few milliseconds. Ours."""

_FORBIDDEN = ("os.fork", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "subprocess.", "socket.", "os.kill",
              "signal.pthread_kill", "ctypes.dlsym", "os.chmod", "os.chown", "os.chflags", "fcntl.",
              "resource.prlimit")  # fmt: skip
_ON_PATHS = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.utime",
             "os.setxattr", "os.removexattr")  # fmt: skip
_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_libc = ctypes.CDLL(None, use_errno=True)


_Step = tuple[int, int, int, int]
"""One instruction of a filter: its code, the steps to jump if it holds and if not, and its operand."""
_BEGINS = b"begins:"
"""The child's first reply, sent once it is confined."""


class _Filter(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filters", ctypes.POINTER(_Filter)))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int))


def run(source: str, cpu_s: int, wall_s: float, memory_bytes: int, file_bytes: int) -> bool:
    """Run a program and return whether its last line ran within the limits; nothing of it is left afterwards.

    Args:
        source: The program.
        cpu_s: CPU time, in seconds.
        wall_s: Wall time, in seconds.
        memory_bytes: Address space.
        file_bytes: Size of each file.

    Raises:
        OSError: the program could not be confined, or its files could not be removed.
    """
    if sys.platform == "linux":
        _libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: processes that the program leaves behind become ours
    folder = tempfile.mkdtemp(dir=os.getcwd())
    done_in, done_out = os.pipe()
    word = os.urandom(16)
    child = os.fork()
    if child == 0:
        try:
            _close_all_but(done_out)
            try:
                _confine(folder, cpu_s, memory_bytes, file_bytes)
            except BaseException as error:
                os.write(done_out, repr(error).encode()[:500])
                raise
            os.write(done_out, _BEGINS)
            exec(compile(source, "program.py", "exec", dont_inherit=True), {"__name__": "__main__"})
            os.write(done_out, word)
            os._exit(0)
        finally:  # after any exception, SystemExit included
            os._exit(1)
    os.close(done_out)
    try:
        ended = _wait(child, folder, time.monotonic() + wall_s)
        left = _kill_all(child)
        reply = _read(done_in)
        if not reply.startswith(_BEGINS):
            raise OSError(f"the program could not be confined: {reply.decode(errors='replace') or 'no reply'}")
        return ended and not left and reply == _BEGINS + word and _is_within_quota(folder)
    finally:
        os.close(done_in)
        _remove(folder, word.hex())


def missing() -> list[str]:
    """Return the parts of this kernel that are missing to confine a program; confines this process on the way."""
    held = {"Landlock": _landlock(os.getcwd()), "seccomp": _seccomp()} if sys.platform == "linux" else {}
    return [name for name in ("Landlock", "seccomp") if not held.get(name)]


def _close_all_but(kept: int) -> None:
    """Close the files that the child inherits, because Landlock does not stop writing to open files."""
    for number in map(int, os.listdir("/dev/fd")):
        if number > 2 and number != kept:
            try:
                os.close(number)
            except OSError:  # the descriptor of this listing
                continue


def _read(pipe: int) -> bytes:
    """Return the bytes in the pipe, without waiting for a process that holds its other end."""
    os.set_blocking(pipe, False)
    try:
        return os.read(pipe, 1024)
    except BlockingIOError:
        return b""


def _wait(child: int, folder: str, deadline: float) -> bool:
    """Wait for the child, and return whether it ended by itself, in time and within its quota."""
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        if not _is_within_quota(folder) or _threads(child) > _THREADS:
            return False
        time.sleep(0.005)
    return False


def _is_within_quota(folder: str) -> bool:
    """Return whether the files in the folder are few and small enough; False if one of its folders is unreadable."""
    entries, size, folders = 0, 0, [folder]
    while folders:
        try:
            for entry in os.scandir(folders.pop()):
                entries += 1
                size += entry.stat(follow_symlinks=False).st_size
                if entries > _ENTRIES or size > _FOLDER_BYTES:
                    return False
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
        except (FileNotFoundError, NotADirectoryError):  # the program removed it in the meantime
            continue
        except OSError:
            return False
    return True


def _threads(child: int) -> int:
    try:
        return len(os.listdir(f"/proc/{child}/task"))
    except OSError:
        return 0


def _remove(folder: str, word: str) -> None:
    """Remove a folder of any depth and any modes: contents of inner folders are moved up until none is left."""
    moved = 0
    while entries := list(os.scandir(folder)):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            os.chmod(entry.path, 0o700)
            for inner in list(os.scandir(entry.path)):
                if inner.is_dir(follow_symlinks=False):
                    os.chmod(inner.path, 0o700)
                moved += 1
                os.rename(inner.path, os.path.join(folder, f"{word}-{moved}"))
            os.rmdir(entry.path)
    os.rmdir(folder)


def _kill_all(child: int) -> bool:
    """Kill the child's group and all processes that it left behind; return whether there were any."""
    try:
        os.killpg(child, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    left = False
    while True:  # each round kills one generation; its children become ours and are killed in the next round
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
    """Restrict this process to the needs of a program that computes an answer."""
    if sys.platform == "linux":
        _libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: do not outlive the process that watches it
    os.setsid()
    os.chdir(folder)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.environ.clear()
    os.environ.update(HOME=folder, TMPDIR=folder, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    limits = {"CPU": cpu_s, "AS": memory_bytes, "FSIZE": file_bytes, "NOFILE": 64, "CORE": 0}
    limits |= {"SIGPENDING": 64, "MSGQUEUE": 0, "MEMLOCK": 0}  # counted per user, not per process
    for name, most in limits.items():
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
        except (OSError, ValueError, AttributeError):
            if sys.platform == "linux" or name in ("CPU", "FSIZE", "NOFILE", "CORE"):  # macOS cannot limit memory
                raise
    if sys.platform == "linux":
        _landlock(folder)
        _seccomp()
    sys.addaudithook(_hook(os.path.realpath(folder)))


def _landlock(folder: str) -> bool:
    """Allow writes only in the folder and to the null device, and no program start; return False without Landlock."""
    _done(_libc.prctl(38, 1, 0, 0, 0))  # PR_SET_NO_NEW_PRIVS, which Landlock and seccomp require
    # capset(2), version 3: without capabilities, file modes and limits hold for root, too
    _done(_libc.capset((ctypes.c_uint * 2)(0x20080522, 0), (ctypes.c_uint * 6)()))
    abi = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        return False
    writes = _WRITES | (1 << 13 if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)
    handled = ctypes.c_uint64(writes | 1)  # bit 0: execute, which no file is allowed
    rules = _done(_libc.syscall(_CREATE_RULESET, ctypes.byref(handled), ctypes.c_size_t(8), 0))
    for path, allowed in ((folder, writes), (os.devnull, writes & (_WRITE_FILE | _TRUNCATE))):
        beneath = _Beneath(allowed, os.open(path, os.O_RDONLY))
        _done(_libc.syscall(_ADD_RULE, rules, 1, ctypes.byref(beneath), 0))
        os.close(beneath.folder)
    _done(_libc.syscall(_RESTRICT_SELF, rules, 0))
    os.close(rules)
    return True


def _done(result: int) -> int:
    """Return the result of a system call, or raise its error."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _seccomp() -> bool:
    """Make fatal calls end the program and other forbidden calls fail; return False without seccomp or known calls."""
    if platform.machine() not in _MACHINES:
        return False
    arch, column = _MACHINES[platform.machine()]
    by_argument = {name: numbers[column] for name, numbers in _BY_ARGUMENT.items()}
    load, equal, above, has, leave = 0x20, 0x15, 0x35, 0x45, 0x06  # instructions of classic BPF

    def ending(values: Iterable[int | None], end: int) -> list[_Step]:
        """Build steps that end with the action if the loaded word is among the values."""
        return [step for value in values if value is not None for step in ((equal, 0, 1, value), (leave, 0, 0, end))]

    def where(name: str, argument: int, then: list[_Step]) -> list[_Step]:
        """Build steps for one call that check the low word of one of its arguments."""
        inside = [(load, 0, 0, 16 + 8 * argument), *then, (load, 0, 0, 0)]
        return [(equal, 0, len(inside), by_argument[name]), *inside]

    steps = [(load, 0, 0, 4), (equal, 1, 0, arch), (leave, 0, 0, _KILL), (load, 0, 0, 0)]
    steps += [(above, 0, 1, 0x40000000), (leave, 0, 0, _KILL)]  # the x32 names of the same calls
    steps += [(above, 0, 1, _NEWER), (leave, 0, 0, _NO_SUCH_CALL)]
    for calls, end in ((_FAILING, _NO_SUCH_CALL), (_FATAL, _KILL)):
        steps += ending([numbers[column] for numbers in calls.values()], end)
    steps += where("fcntl", 1, ending(_SIGNALS_TO_OTHERS, _KILL) + ending(_LOCKS, _NO_LOCKS))
    questions = ending(_OWNED, _KILL) + ending(_QUESTIONS, _ALLOW)
    steps += where("ioctl", 1, [*questions, (leave, 0, 0, _NO_TERMINAL)])
    steps += where("prctl", 0, ending((1,), _KILL))  # PR_SET_PDEATHSIG: the program would outlive its watcher
    steps += where("prlimit64", 0, [(equal, 1, 0, 0), (leave, 0, 0, _KILL)])  # limits of another process
    steps += where("clone", 0, [(has, 1, 0, 0x10000), (leave, 0, 0, _KILL)])  # no process; threads have CLONE_THREAD
    steps += [(leave, 0, 0, _ALLOW)]
    filters = (_Filter * len(steps))(*(_Filter(*step) for step in steps))
    program = _Program(len(steps), filters)
    if _libc.prctl(22, 2, ctypes.byref(program), 0, 0) < 0:  # PR_SET_SECCOMP, by a filter
        if ctypes.get_errno() == 22:  # EINVAL: a kernel built without seccomp
            return False
        _done(-1)
    return True


def _hook(folder: str):  # type: ignore[no-untyped-def]
    """Return an audit hook that ends the program at forbidden events."""
    leave, realpath, string = os._exit, os.path.realpath, (str, bytes, os.PathLike)

    def outside(path: object) -> bool:
        return isinstance(path, string) and not (realpath(os.fsdecode(path)) + os.sep).startswith(folder + os.sep)

    def check(event: str, args: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & _TO_WRITE and path != os.devnull and outside(path):
                leave(1)
        elif event.startswith(_FORBIDDEN) or (event.startswith(_ON_PATHS) and any(map(outside, args[:2]))):
            leave(1)

    return check


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        print(", ".join(missing()))
        sys.exit()
    try:
        with open(sys.argv[1], encoding="utf-8") as file:
            program = file.read()
        sys.exit(0 if run(program, **json.loads(sys.argv[2])) else 1)
    except OSError as error:
        print(f"confine: {error}", file=sys.stderr)
        sys.exit(2)
