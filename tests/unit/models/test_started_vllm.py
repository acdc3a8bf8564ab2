"""A vLLM that presafe starts: its command, its start, its end however we end, and what an error shows."""

from __future__ import annotations

import re
import socket
import time
from multiprocessing import get_context
from pathlib import Path

import httpx
import psutil
import pytest
from stand_in_vllm import make_environment

from presafe.config.engine import EngineSettings
from presafe.errors import ModelError
from presafe.models import vllm
from presafe.models.vllm import StartedServer, Weights, command_of, shown_error


def hold(environment: Path, folder: Path, *, closes: bool) -> None:
    """Start a server, leave a mark when it is healthy, and hold it."""
    server = start(environment, folder)
    (folder / "healthy").touch()
    if closes:
        server.close()
    time.sleep(600)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("vllm") / "env")


def start(environment: Path, folder: Path, **settings: object) -> StartedServer:
    engine = EngineSettings.model_validate({"vllm": str(environment), **settings})
    return StartedServer(engine, Weights("some/model", "bfloat16"), folder / "vllm.log")


def processes_of(log: Path) -> list[psutil.Process]:
    """Return the running processes of a stand-in: those that name its port, and its worker."""
    text = log.read_text()
    ids = [int(number) for number in re.findall(r"^worker (\d+)$", text, re.MULTILINE)]
    (port, *_) = re.findall(r"--port (\d+)", text)
    running = []
    for process in psutil.process_iter(["cmdline", "status"]):
        names_port = port in (process.info["cmdline"] or [])
        if (process.pid in ids or names_port) and process.info["status"] != psutil.STATUS_ZOMBIE:
            running.append(process)
    return running


def need_none_left(log: Path) -> None:
    deadline = time.monotonic() + 15
    while left := processes_of(log):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "_LOOK_S", 0.05)


def test_the_command_has_the_sizes_and_the_users_words_last() -> None:
    # More machines: vLLM's own Ray backend, by the words that the guide names.
    engine = EngineSettings(
        vllm="env",
        tensor_parallel=8,
        data_parallel=2,
        arguments=("--distributed-executor-backend", "ray", "--data-parallel-backend", "ray"),
    )
    assert command_of(engine, Weights("some/model", "bfloat16", trust_remote_code=True), "name", 8123) == [
        "-m",
        "vllm.entrypoints.openai.api_server",
        *("--model", "some/model", "--served-model-name", "name"),
        *("--host", "127.0.0.1", "--port", "8123", "--dtype", "bfloat16"),
        *("--tensor-parallel-size", "8", "--data-parallel-size", "2"),
        "--trust-remote-code",
        *("--distributed-executor-backend", "ray", "--data-parallel-backend", "ray"),
    ]
    plain = command_of(EngineSettings(vllm="env"), Weights("some/model", "float32"), "name", 8123)
    assert plain[-2:] == ["--dtype", "float32"]


def test_a_server_starts_answers_and_ends(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRESAFE_API_KEY", "sk-not-for-the-server")
    server = start(environment, tmp_path, arguments=["--max-model-len", "512"])
    assert server.problem() is None
    names = [model["id"] for model in httpx.get(f"{server.served.url}/models").json()["data"]]
    assert names == [server.served.name]
    assert len(processes_of(server.log)) == 3  # the guard, the server and its worker
    variables = [process.environ() for process in processes_of(server.log)]
    assert not any("PRESAFE_API_KEY" in table for table in variables)
    assert all(table["VLLM_CPU_NUM_OF_RESERVED_CPU"] == "0" for table in variables)
    start_s = time.monotonic()
    server.close()
    need_none_left(server.log)
    assert time.monotonic() - start_s < 25  # the worker ignores SIGTERM, and is killed
    assert "--max-model-len 512" in server.log.read_text()
    assert "vLLM starts: 1/1" in capsys.readouterr().err


@pytest.mark.parametrize("moment", ["starting", "healthy", "ending", "guard", "server"])
def test_no_process_is_left_after_a_kill(
    moment: str, environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if moment == "starting":
        monkeypatch.setenv("STAND_IN_FAULT", "slow")
    log = tmp_path / "vllm.log"
    ours = get_context("fork").Process(
        target=hold, args=(environment, tmp_path), kwargs={"closes": moment == "ending"}, daemon=True
    )
    ours.start()
    started = (lambda: log.exists() and "worker" in log.read_text()) if moment == "starting" else None
    while not (started() if started else (tmp_path / "healthy").exists()):
        assert ours.is_alive()
        time.sleep(0.02)
    running = processes_of(log)
    assert running
    servers = [p for p in running if p.cmdline()[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]]
    if moment == "guard":
        (guard,) = [process for process in running if process.cmdline()[2] == "-S"]
        guard.kill()
        deadline = time.monotonic() + 10
        while servers[0] in processes_of(log):  # the kernel ends it
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for worker in processes_of(log):  # a worker of vLLM ends with its server; the stand-in's does not
            worker.kill()
    elif moment == "server":
        servers[0].kill()
    else:
        ours.kill()
    need_none_left(log)
    ours.kill()
    ours.join()


def test_a_server_that_ends_shows_its_error(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vllm.log").write_text("OSError: of an earlier server\n")
    monkeypatch.setenv("STAND_IN_FAULT", "refuses")
    with pytest.raises(ModelError) as caught:
        start(environment, tmp_path)
    assert caught.value.problem == (
        "vLLM ended with code 1: ValueError: To serve at least one request with the models's max seq len (131072), "
        "7 GiB is needed."
    )
    assert str(tmp_path / "vllm.log") in caught.value.hint
    need_none_left(tmp_path / "vllm.log")


def test_an_environment_without_vllm_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no environment at .*nowhere \(no bin/python\)"):
        start(tmp_path / "nowhere", tmp_path)
    empty = make_environment(tmp_path / "empty")
    (info,) = empty.glob("lib/python*/site-packages/vllm-*.dist-info/METADATA")
    info.write_text("Name: other\nVersion: 1\n")
    info.parent.rename(info.parent.with_name("other-1.dist-info"))
    with pytest.raises(ModelError, match=r"there is no vLLM in the environment at .*empty"):
        start(empty, tmp_path)


def test_another_version_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = start(make_environment(tmp_path / "env", "0.11.2"), tmp_path)
    server.close()
    assert "vLLM 0.11.2 was not tried with presafe; 0.32.0 was." in capsys.readouterr().err


def test_the_last_error_of_a_log_is_shown() -> None:
    lines = ["INFO ok", "  RuntimeError: first", "ValueError: \x1b[31mred\x1b[0m second.", "INFO shutting down", " "]
    assert shown_error(lines) == "ValueError: \\x1b[31mred\\x1b[0m second."
    lines = ["ERROR 11-30 [core.py:7] ValueError: too little memory", "RuntimeError: failed. See root cause above."]
    assert shown_error(lines) == "ValueError: too little memory."
    assert shown_error(["started", "Killed"]) == "Killed."
    assert shown_error([]) == "it wrote nothing."
    assert len(shown_error([f"ValueError: {'x' * 1000}"])) == 301


def test_an_address_in_use_is_an_error(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(vllm, "_free_port", lambda: taken.getsockname()[1])
        with pytest.raises(ModelError, match=r"vLLM ended with code 1: OSError: \[Errno \d+\] Address already in use"):
            start(environment, tmp_path)
