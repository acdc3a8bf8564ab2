"""Lines between worker and API server: none is lost in silence."""

from __future__ import annotations

from pathlib import Path

from presafe_vllm.channel import Inbox, Told, tell


def test_decisions_arrive_by_request(tmp_path: Path) -> None:
    inbox = Inbox(str(tmp_path))
    first, second = inbox.new_id(), inbox.new_id()
    assert tell(str(tmp_path), first, "a", Told(0.25, False))
    assert tell(str(tmp_path), second, "a", Told(None, True))
    assert tell(str(tmp_path), first, "b", Told(0.5, True))
    assert tell(str(tmp_path), first, "a", Told(0.75, False))  # a later chunk of the same prompt
    assert inbox.take(first) == [Told(0.75, False), Told(0.5, True)]
    assert inbox.take(first) == []
    assert inbox.take(second) == [Told(None, True)]
    inbox.close()
    assert not list(tmp_path.iterdir())


def test_a_line_that_cannot_be_written_is_known(tmp_path: Path) -> None:
    assert not tell(str(tmp_path), "0123456789abcdef-0", "a", Told(0.5, True))  # no such pipe
    assert not tell(str(tmp_path), "../../etc/x-0", "a", Told(0.5, True))  # no id of ours
    inbox = Inbox(str(tmp_path))
    request = inbox.new_id()
    # 2^20 bytes hold fewer than 40,000 lines of at least 30 bytes: then the pipe is full, and the worker knows.
    written = sum(tell(str(tmp_path), request, str(row), Told(0.5, True)) for row in range(40_000))
    assert 10_000 < written < 40_000
    assert len(inbox.take(request)) == written
    assert tell(str(tmp_path), request, "a", Told(0.5, True))


def test_requests_that_went_away_are_forgotten(tmp_path: Path) -> None:
    inbox = Inbox(str(tmp_path))
    requests = [inbox.new_id() for _ in range(10_100)]
    for start in range(0, len(requests), 1000):
        for request in requests[start : start + 1000]:
            assert tell(str(tmp_path), request, "a", Told(0.5, True))
        inbox.take("none")
    assert [len(inbox.take(request)) for request in (requests[0], requests[99], requests[100])] == [0, 0, 1]
