"""Start the server of judges."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from judge_server import KEY, JudgeServer


@pytest.fixture
def judge_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    """Start a server, with its address and key in the environment, and short time limits."""
    pytest.importorskip("openai", reason="the client that Inspect uses for these addresses (extra: judges)")
    server = JudgeServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("LOOPBACK_API_KEY", KEY)
    monkeypatch.setenv("LOOPBACK_BASE_URL", server.url)
    monkeypatch.setattr("presafe.judges.model_judge._ATTEMPT_S", 2)
    monkeypatch.setattr("presafe.judges.model_judge._CALL_S", 4)
    monkeypatch.setattr("presafe.judges.model_judge._RETRIES", 0)
    yield server
    server.ended.set()
    server.shutdown()
    server.server_close()
