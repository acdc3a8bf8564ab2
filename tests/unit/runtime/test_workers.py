"""Processes side by side: who does what, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from presafe.errors import RunError, SignalError
from presafe.runtime import memory
from presafe.runtime.workers import worker_pool


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def write_who(item: int, *, folder: Path) -> None:
    (folder / f"{item}.txt").write_text(f"{os.getpid()} {torch.get_num_threads()}")


def wait_for_all(item: int, *, folder: Path) -> None:
    """Ends when the other items have begun, too."""
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
    return {file.stem: [int(each) for each in file.read_text().split()] for file in folder.glob("*.txt")}


def test_two_items_run_at_a_time_on_a_share_of_the_threads_and_the_processes_stay(tmp_path):
    with worker_pool(2) as for_each:
        (tmp_path / "wait").mkdir()
        for_each(partial(wait_for_all, folder=tmp_path / "wait"), [1, 2])  # each one needs the other
        for_each(partial(write_who, folder=tmp_path), [1, 2, 3])
        assert set(who(tmp_path)) == {"1", "2", "3"}
    assert {threads for _, threads in who(tmp_path).values()} == {1}
    processes = {process for process, _ in who(tmp_path).values()}
    assert os.getpid() not in processes
    assert len(processes) <= 2
    assert not any(map(psutil.pid_exists, processes))


def test_one_at_a_time_is_done_here(tmp_path):
    with worker_pool(1) as for_each:
        for_each(partial(write_who, folder=tmp_path), [1, 2])
    assert list(who(tmp_path).values()) == [[os.getpid(), 2]] * 2


@pytest.mark.parametrize("failing", [1, 2])
def test_the_first_error_ends_all_and_is_raised_as_it_was(failing):
    began = time.monotonic()
    with pytest.raises(SignalError, match=r"no signal\. Make one\."), worker_pool(2) as for_each:
        for_each(partial(fail_or_wait, failing=failing), [1, 2, 3])
    assert time.monotonic() - began < 45


def test_a_process_that_is_killed_is_told_with_what_to_do():
    with (
        pytest.raises(RunError, match=r"a worker process died unexpectedly.*OMP_NUM_THREADS=1"),
        worker_pool(2) as for_each,
    ):
        for_each(end_hard, [1, 2])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_they_end_with_the_process_that_began_them(how, tmp_path):
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
    assert {process.stdout.readline(), process.stdout.readline()} == {"waits 1\n", "waits 2\n"}
    helpers = psutil.Process(process.pid).children(recursive=True)
    assert len(helpers) >= 2
    process.send_signal(how)
    process.communicate(timeout=30)
    assert process.returncode != 0
    _, alive = psutil.wait_procs(helpers, timeout=20)
    assert not alive


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"max": "5000000000", "current": "3000000000", "stat": "anon 2000000000\ninactive_file 500000000"}, 2.5e9),
        ({"max": "1000", "current": "3000", "stat": "inactive_file 0"}, 0),
        ({"max": "max", "current": "3000000000", "stat": "inactive_file 0"}, 9e9),
        ({}, 9e9),
    ],
)
def test_free_memory_is_that_of_a_container_with_a_limit(files, free, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / f"memory.{name}").write_text(text + "\n")
    monkeypatch.setattr(memory, "_CONTAINER", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=9_000_000_000))
    assert memory.free_bytes() == free
