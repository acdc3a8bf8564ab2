"""Whole runs, killed and resumed, or with one file damaged: the same results, or one line says what is wrong."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faults.cases import Case, Fault
from faults.mutate import damage
from faults.oracles import need
from faults.server import Done, check_ended_well, end_command, run_command, start_command
from faults.tiny import COMPARE, LIMIT_S, REPORT, RUN, built_run, compared_of, results_of
from presafe.errors import PreSafeError

_HOWS = ("truncate", "empty", "flip", "null", "zeros", "foreign", "remove", "folder", "damage", "list")
_COMMANDS: dict[str, tuple[str, ...]] = {
    "report": REPORT,
    "run": RUN,
    "compare": COMPARE,
}


class Corruptions:
    """One file of a finished run folder is damaged, and a command reads the folder."""

    name, clock_s = "corruptions", 2 * LIMIT_S + 60

    def prepare(self, workspace: Path) -> None:
        """Make the run, and list its files."""
        self._tiny = built_run(workspace)
        self._results, self._compared = results_of(self._tiny), compared_of(self._tiny)
        run = self._tiny / "run"
        files = sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
        self._files = [name for name in files if not name.endswith((".svg", "README.md", ".lock"))]

    def make(self, rng: random.Random) -> Case:
        """Return which file is damaged, how, and which command reads the folder."""
        file = rng.choice(self._files)
        value = {"file": _without_ids(file), "how": rng.choice(_HOWS), "seed": rng.randrange(10**6)}
        command = rng.choice(("report", "report", "compare", "compare", "run"))
        return Case(self.name, command, json.dumps(value).encode())

    def check(self, case: Case, folder: Path) -> None:
        """Damage the file, run the command, and compare its numbers with those of the intact folder."""
        value = json.loads(case.data)
        here = folder / "tiny"
        shutil.copytree(self._tiny, here, symlinks=True)
        name = next((name for name in self._files if _without_ids(name) == value["file"]), value["file"])
        _damage_file(here / "run" / name, value["how"], random.Random(value["seed"]))
        done = run_command(_COMMANDS[case.target], here, folder / "streams", LIMIT_S)
        where = f"{case.target} after {value['how']} of {_shape(value['file'])}"
        try:
            is_done = check_ended_well(done)
        except Fault as fault:
            raise Fault(f"{fault.rule} [{_shape(value['file'])}]", f"{where}: {fault.detail}") from None
        if not is_done:
            raise PreSafeError(_line_of(done))
        rule = f"changed numbers [{_shape(value['file'])}]"
        if case.target == "compare":
            _need_equal(self._compared, compared_of(here), rule, where)
        else:
            _need_equal(self._results["rows"], results_of(here)["rows"], rule, where)


class Kills:
    """A run is killed at random moments, resumed until it ends, and compared with one that was left alone."""

    name, clock_s = "kills", 6 * LIMIT_S

    def prepare(self, workspace: Path) -> None:
        """Make the run, and measure how long it takes."""
        self._tiny = built_run(workspace)
        self._results, self._compared = results_of(self._tiny), compared_of(self._tiny)
        timings = json.loads((self._tiny / "run" / "timings.json").read_text(encoding="utf-8"))
        self._seconds = max(2.0, sum(timings.values()))

    def make(self, rng: random.Random) -> Case:
        """Return up to four moments of kills, as shares of a run's time."""
        moments = [round(rng.random() ** 1.5, 4) for _ in range(rng.randint(2, 4))]
        return Case(self.name, "run", json.dumps({"moments": moments}).encode())

    def check(self, case: Case, folder: Path) -> None:
        """Run, kill, and resume."""
        here = folder / "tiny"
        shutil.copytree(self._tiny, here, ignore=shutil.ignore_patterns("run", "compared"))
        for number, moment in enumerate(json.loads(case.data)["moments"]):
            pid = start_command(RUN, here, folder / f"streams{number}")
            ended = _wait(pid, moment * self._seconds)
            if ended is None:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            else:
                out, err = ((folder / f"streams{number}" / name).read_text(errors="replace") for name in ("out", "err"))
                need(check_ended_well(Done(ended, out, err)), "a resumed run refuses", err[-500:])
        done = end_command(start_command(RUN, here, folder / "last"), folder / "last", LIMIT_S)
        need(check_ended_well(done), "a killed run cannot be resumed", done.err[-800:])
        _need_equal(self._results, results_of(here), "a killed and resumed run has other results", case.data.decode())
        compared = run_command(COMPARE, here, folder / "compare", LIMIT_S)
        need(check_ended_well(compared), "a killed and resumed run cannot be compared", compared.err[-800:])
        _need_equal(self._compared, compared_of(here), "a killed and resumed run compares otherwise")


def _wait(pid: int, seconds: float) -> int | None:
    """Return the exit code of a process that ends in time, else None."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def _damage_file(path: Path, how: str, rng: random.Random) -> None:
    data = path.read_bytes() if path.is_file() else b""
    if how in ("remove", "folder"):
        path.unlink(missing_ok=True)
        if how == "folder":
            path.mkdir()
        return
    middle = len(data) // 2
    path.write_bytes(
        {
            "truncate": data[: rng.randrange(len(data) + 1)],
            "empty": b"",
            "flip": data[:middle] + bytes(byte ^ 0x80 for byte in data[middle : middle + 4]) + data[middle + 4 :],
            "null": b"null\n",
            "list": b"[]\n",
            "zeros": bytes(len(data)),
            "foreign": b"\x89PNG\r\n\x1a\n" + bytes(64),
            "damage": damage(data, rng),
        }[how]
    )


def _need_equal(expected: Any, seen: Any, rule: str, where: str = "") -> None:
    if expected == seen:
        return
    flat, other = (json.dumps(value, indent=0, sort_keys=True).splitlines() for value in (expected, seen))
    pairs = [f"{one} -> {two}" for one, two in zip(flat, other, strict=False) if one != two]
    raise Fault(rule, f"{where}: {len(flat)} and {len(other)} lines; {pairs[:4]}")


def _line_of(done: Done) -> str:
    lines: Sequence[str] = [line for line in done.err.splitlines() if line.startswith("presafe: ")]
    return lines[-1]


def _without_ids(name: str) -> str:
    """Return the name of a file without the time and id that Inspect gives a log."""
    if not name.endswith(".eval"):
        return name
    folder, _, file = name.rpartition("/")
    return f"{folder}/*_{file.split('_')[1]}.eval"


def _shape(name: str) -> str:
    return name.replace("vanilla-off", "SYSTEM").replace("vanilla-on", "SYSTEM").replace("presafe-on", "SYSTEM")
