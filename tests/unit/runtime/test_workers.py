"""Worker processes: which one does what, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from presafe.errors import RunError, SignalError
from presafe.runtime.workers import worker_pool


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def write_who(item: int, *, folder: Path) -> None:
    (folder / f"{item}.txt").write_text(f"{os.getpid()} {torch.get_num_threads()}")


def wait_for_all(item: int, *, folder: Path) -> None:
    """Wait until all items are in work."""
    (folder / f"{item}.txt").touch()
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.txt"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def fail_or_wait(item: int, *, failing: int) -> None:
    if item == failing:
        raise SignalError("no signal.", "Make one.")
    time.sleep(60)


def end_hard(item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait(item: int) -> None:
    print(f"waits {item}", flush=True)
    time.sleep(60)


def who(folder: Path) -> dict[str, list[int]]:
    return {file.stem: [int(number) for number in file.read_text().split()] for file in folder.glob("*.txt")}


def test_two_workers_share_the_threads_and_serve_all_items(tmp_path: Path) -> None:
    with worker_pool(2) as for_each:
        (tmp_path / "wait").mkdir()
        for_each(partial(wait_for_all, folder=tmp_path / "wait"), [1, 2])  # each item waits for the other
        for_each(partial(write_who, folder=tmp_path), [1, 2, 3])
        assert set(who(tmp_path)) == {"1", "2", "3"}
    assert {threads for _, threads in who(tmp_path).values()} == {1}
    processes = {process for process, _ in who(tmp_path).values()}
    assert os.getpid() not in processes
    assert len(processes) <= 2
    assert not any(map(psutil.pid_exists, processes))


def test_one_worker_is_this_process(tmp_path: Path) -> None:
    with worker_pool(1) as for_each:
        for_each(partial(write_who, folder=tmp_path), [1, 2])
    assert list(who(tmp_path).values()) == [[os.getpid(), 2]] * 2


@pytest.mark.parametrize("failing", [1, 2])
def test_the_first_error_ends_all_workers_and_is_raised(failing: int) -> None:
    began = time.monotonic()
    with pytest.raises(SignalError, match=r"no signal\. Make one\."), worker_pool(2) as for_each:
        for_each(partial(fail_or_wait, failing=failing), [1, 2, 3])
    assert time.monotonic() - began < 45


def test_a_killed_worker_is_reported_with_a_hint() -> None:
    with (
        pytest.raises(RunError, match=r"a worker process died unexpectedly.*OMP_NUM_THREADS=1"),
        worker_pool(2) as for_each,
    ):
        for_each(end_hard, [1, 2])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_main_process(how: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(
        # no guard against being imported: nobody who writes three lines has one
        "import torch\nfrom test_workers import wait\nfrom presafe.runtime.workers import worker_pool\n"
        "torch.set_num_threads(2)\n"
        "with worker_pool(2) as for_each:\n"
        "    for_each(wait, [1, 2])\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert {process.stdout.readline(), process.stdout.readline()} == {"waits 1\n", "waits 2\n"}
    helpers = psutil.Process(process.pid).children(recursive=True)
    assert len(helpers) >= 2
    process.send_signal(how)
    process.communicate(timeout=30)
    assert process.returncode != 0
    _, alive = psutil.wait_procs(helpers, timeout=20)
    assert not alive
