"""The fork server: presafe is imported once, and each batch of cases runs in a forked child with limits.

The child writes a line before and after each case. Where it says nothing for too long, or ends, the case that it had
begun has failed, and a new child takes the rest.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from faults.cases import Case, Fault, Kind, Outcome, check_refusal
from presafe.errors import PreSafeError

MEMORY = 2 * 2**30
"""Bytes that a child may take beyond what the server has."""
GROWTH = 700 * 2**20
"""Bytes by which one case may raise the child's memory."""


def import_all() -> None:
    """Import what the product imports late, so that a forked child starts at once."""
    import peft  # noqa: F401
    import torch

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    import transformers.models.bert.modeling_bert
    import transformers.models.llama.modeling_llama  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    import presafe.alignment.export
    import presafe.alignment.fit
    import presafe.cli.main
    import presafe.internals.views
    import presafe.judges.scorers
    import presafe.models.sampling
    import presafe.models.served
    import presafe.report.page
    import presafe.study.runner
    import presafe.workflows.compare
    import presafe.workflows.run  # noqa: F401

    gc.freeze()


def run_cases(
    kind: Kind, cases: Sequence[Case], workspace: Path, deadline: float = float("inf")
) -> Generator[Outcome, None, None]:
    """Yield what comes of cases, in order, until the deadline; closed early, it ends the child.

    Args:
        kind: Checks them.
        cases: The inputs.
        workspace: Folder in which each case has an empty one.
        deadline: Time (`time.monotonic`) after which no new case begins.
    """
    first = 0
    while first < len(cases) and time.monotonic() < deadline:
        done = 0
        with closing(_one_child(kind, cases[first:], workspace, deadline)) as outcomes:
            for outcome in outcomes:
                done += 1
                yield outcome
        if not done:
            return
        first += done


def _one_child(kind: Kind, cases: Sequence[Case], workspace: Path, deadline: float) -> Generator[Outcome, None, None]:
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(kind, cases, workspace, writing, deadline)
    os.close(writing)
    is_begun, status = False, 0
    try:
        for line in _lines(reading, kind.clock_s):
            if line is None:
                yield Outcome("failed", "hang", f"no end in {kind.clock_s:g} s", kind.clock_s)
                return
            is_begun = line == "begin"
            if not is_begun:
                yield Outcome(*json.loads(line))
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if is_begun:
        yield Outcome("failed", f"the process ended with {os.waitstatus_to_exitcode(status)}", "")


def _lines(pipe: int, clock_s: float) -> Iterator[str | None]:
    """Yield lines as they come; None where none comes in time."""
    rest = b""
    while True:
        ready, _, _ = select.select([pipe], [], [], clock_s)
        if not ready:
            yield None
            return
        piece = os.read(pipe, 65536)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line.decode() for line in lines)


def _child(kind: Kind, cases: Sequence[Case], workspace: Path, pipe: int, deadline: float) -> None:
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        limit_memory(MEMORY)
        folder = workspace / f"case-{os.getpid()}"
        for case in cases:
            if time.monotonic() >= deadline:
                break
            os.write(pipe, b"begin\n")
            outcome = judge(kind, case, folder)
            os.write(pipe, json.dumps(outcome).encode() + b"\n")
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os._exit(0)


def limit_memory(num_bytes: int) -> None:
    """Limit the memory of this process to so much more than it has; programs that it starts may set their own."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    limit = pages * resource.getpagesize() + num_bytes
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def judge(kind: Kind, case: Case, folder: Path) -> Outcome:
    """Run one case in this process, and return what came of it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    begun, before = time.monotonic(), _peak()
    verdict, signature, detail = _checked(kind, case, folder)
    if verdict != "failed" and _peak() - before > GROWTH:
        verdict, signature, detail = "failed", "memory", f"{(_peak() - before) / 2**20:.0f} MiB"
    if verdict != "failed" and case.expect not in ("any", verdict):
        verdict, signature = "failed", f"{case.target}: {verdict}, not {case.expect}"
    return Outcome(verdict, signature, detail[:2000], round(time.monotonic() - begun, 3))  # type: ignore[arg-type]


def _checked(kind: Kind, case: Case, folder: Path) -> tuple[str, str, str]:
    try:
        try:
            kind.check(case, folder)
        except PreSafeError as error:
            check_refusal(error)
            return "refused", "", str(error)
    except Fault as fault:
        return "failed", f"{case.target}: {fault.rule}", f"{fault.detail!s:.2000}"
    except MemoryError:
        return "failed", f"{case.target}: MemoryError", ""
    except BaseException as error:
        return "failed", f"{case.target}: {type(error).__name__} in {_place_of(error)}", f"{error!s:.500}"
    return "accepted", "", ""


def _place_of(error: BaseException) -> str:
    """Return the innermost function of presafe in a traceback, or of the harness where there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/presafe/" in frame.filename] or frames
    return f"{Path(own[-1].filename).parent.name}/{Path(own[-1].filename).name}:{own[-1].name}"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def import_seen(streams: Path) -> None:
    """Import what a command has imported late, so that the next one need not."""
    for name in (streams / "modules").read_text().split("\n"):
        if name != "__main__" and name not in sys.modules:
            with suppress(Exception):  # names that a library made up
                importlib.import_module(name)
    gc.freeze()


class Done(NamedTuple):
    """A command that ended."""

    code: int | None
    """Exit code; negative for a signal, None where it was killed because its time was over."""
    out: str
    err: str


def start_command(words: Sequence[str], folder: Path, streams: Path) -> int:
    """Run presafe's command line in a forked child.

    Args:
        words: The command, without "presafe".
        folder: Its working directory.
        streams: Folder for what it prints, and for the names of the modules that it has imported.

    Returns:
        The child's process id; it leads a process group.
    """
    streams.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        os.setsid()
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(streams / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        os.chdir(folder)
        code = _main(words)
        (streams / "modules").write_text("\n".join(sys.modules))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _main(words: Sequence[str]) -> int:
    from presafe.cli.main import main

    sys.argv = ["presafe", *words]
    try:
        main()
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def end_command(pid: int, streams: Path, limit_s: float) -> Done:
    """Wait for a command's end, or kill it and what it started."""
    end = time.monotonic() + limit_s
    code: int | None = None
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            break
        time.sleep(0.01)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if code is None:
        os.waitpid(pid, 0)
    out, err = ((streams / name).read_text(errors="replace") for name in ("out", "err"))
    return Done(code, out, err)


def run_command(words: Sequence[str], folder: Path, streams: Path, limit_s: float) -> Done:
    """Run a command to its end."""
    return end_command(start_command(words, folder, streams), streams, limit_s)


def check_ended_well(done: Done) -> bool:
    """Check how a command ended.

    Returns:
        Whether it exited with 0; False for a refusal in one line.

    Raises:
        Fault: a traceback, a hang, a signal, or a refusal of another form.
    """
    if done.code is None:
        raise Fault("a command hangs", done.err[-1000:])
    if "Traceback" in done.err or done.code not in (0, 2):
        frames = [line.strip() for line in done.err.splitlines() if "/presafe/" in line and "File" in line]
        last = [line for line in done.err.splitlines() if line.strip()][-1:]
        place = frames[-1].split("/presafe/")[-1].replace('"', "") if frames else ""
        words = "" if not last else last[0].split(":")[0]
        raise Fault(f"exit {done.code}, {words} in {_without_number(place)}", done.err[-1500:])
    lines = [line for line in done.err.splitlines() if line.startswith("presafe: ")]
    if done.code == 2 and len(lines) != 1:
        raise Fault("exit 2 without exactly one line", done.err[-1000:])
    return done.code == 0


def _without_number(place: str) -> str:
    file, _, rest = place.partition(", line ")
    return f"{file}:{rest.partition(', in ')[2]}"
