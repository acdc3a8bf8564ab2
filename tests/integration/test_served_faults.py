"""A served model whose server misbehaves: it is retried, fails in time, and no answer is lost."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
import zipfile
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from command_line import start
from fake_server import FakeServer, Reply, completion, error, serving
from rich.console import Console
from tenacity import wait_none

from presafe.errors import ModelError
from presafe.models.address import served_model
from presafe.models.exchange import Completion, Request
from presafe.models.family import Sampling
from presafe.models.loading import load_renderer
from presafe.models.rendering import Renderer
from presafe.models.sampling import logged_suites
from presafe.models.served import ServedEngine

ANSWER = completion("7 + 5 = 12.\n</think>\n\n12")
KEY = "sk-never-to-be-written-4711"
Answer = Callable[[dict[str, Any], int], Reply]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return load_renderer("smolthink")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("presafe.models.served._BACKOFF", wait_none())
    monkeypatch.setenv("PRESAFE_TIMEOUT_S", "5")
    monkeypatch.setenv("PRESAFE_RETRY_S", "5")


def after(num_good: int, *faults: Reply) -> Answer:
    """Return replies: `num_good` good ones, the faults, and good ones again."""
    return lambda _, number: faults[number - num_good] if 0 <= number - num_good < len(faults) else ANSWER


def ask(fake: FakeServer, renderer: Renderer, num: int = 1, sampling: Sampling = Sampling()) -> list[Completion]:  # noqa: B008
    """Ask `num` times at once, in an event loop of its own."""

    async def together() -> list[Completion]:
        served = served_model(fake.address)
        assert served is not None
        engine = ServedEngine(served, lambda: renderer, batch_size=8)
        request = Request(renderer.render("What is 7 + 5?", "on").ids, 32, sampling, seed=3)
        try:
            return await asyncio.gather(*(engine.complete(request) for _ in range(num)))
        finally:
            await engine.close()

    return asyncio.run(together())


FAULTS = {
    "429": error(429, "slow down"),
    "500": error(500, "out of luck"),
    "502": Reply(b"<html>bad gateway</html>", 502),
    "503": error(503, "loading"),
    "cut": ANSWER._replace(cut=True),
    "no_json": Reply(b'{"choices": [{"text": "7 + 5'),
    "no_choice": Reply(b'{"choices": []}'),
    "no_object": Reply(b"[]"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_passing_failure_is_retried(renderer: Renderer, fault: Reply) -> None:
    # Request 0 is the greeting; 1 and 2 fail, 3 is the answer.
    with serving(after(1, fault, fault)) as fake:
        assert ask(fake, renderer) == [Completion("7 + 5 = 12.\n</think>\n\n12", 5, True)]
    assert len(fake.asked) == 4
    assert fake.asked[1] == fake.asked[2] == fake.asked[3]


@pytest.mark.parametrize("fault", [FAULTS["503"], FAULTS["cut"]], ids=["503", "cut"])
def test_a_failed_greeting_is_retried(renderer: Renderer, fault: Reply) -> None:
    with serving(after(0, fault)) as fake:
        assert ask(fake, renderer)[0].stopped
    assert [body["max_tokens"] for body in fake.asked] == [1, 1, 32]


def test_a_hanging_server_is_retried(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESAFE_TIMEOUT_S", "0.5")
    with serving(after(1, ANSWER._replace(delay_s=2.0))) as fake:
        assert ask(fake, renderer)[0].stopped
    assert len(fake.asked) == 3
    assert 0.4 < fake.times[2] - fake.times[1] < 1.9  # not before the time-out, and not after the late answer


@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_retry_after_is_obeyed(renderer: Renderer, kind: str) -> None:
    def answer(_: dict[str, Any], number: int) -> Reply:
        # A date has whole seconds: two from now is at least one. It is of the moment of the reply, however slow we are.
        wait = "1" if kind == "seconds" else formatdate(time.time() + 2, usegmt=True)
        return error(429, "slow down", Retry_After=wait) if number == 1 else ANSWER

    with serving(answer) as fake:
        ask(fake, renderer)
    assert fake.times[2] - fake.times[1] >= 0.95


def test_a_wait_beyond_the_time_limit_fails_at_once(renderer: Renderer) -> None:
    begun = time.monotonic()
    with (
        serving(after(1, error(429, "come back tomorrow", Retry_After="86400"))) as fake,
        pytest.raises(ModelError, match=r"failed 1 times in 0 s: it answered 429 \(come back tomorrow\)") as caught,
    ):
        ask(fake, renderer)
    assert "Run the same command again" in caught.value.hint
    assert time.monotonic() - begun < 4


def test_a_server_that_stays_down_fails_in_time(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESAFE_RETRY_S", "0.5")
    begun = time.monotonic()
    with (
        serving(lambda _, number: ANSWER if number == 0 else error(500, "out of luck")) as fake,
        pytest.raises(ModelError, match=r"127\.0\.0\.1:\d+/v1 failed \d+ times in .* 500 \(out of luck\)"),
    ):
        ask(fake, renderer)
    assert len(fake.asked) > 3
    assert time.monotonic() - begun < 4


def test_no_server_is_an_error_in_seconds(renderer: Renderer) -> None:
    with serving(after(0)) as fake:
        pass  # the port is free again
    with pytest.raises(ModelError, match=r"no answer from .*: no connection") as caught:
        ask(fake, renderer)
    assert "Check that the server is up" in caught.value.hint


@pytest.mark.parametrize("status", [400, 404, 500])
def test_a_wrong_name_fails_and_lists_the_right_ones(renderer: Renderer, status: int) -> None:
    # vLLM answers 404, a pinned `transformers serve` 400, one that loads by name 500.
    with (
        serving(lambda *_: error(status, "no such model"), offers=("qwen3-8b", "qwen3-8b-presafe")) as fake,
        pytest.raises(
            ModelError, match=rf"does not serve 'smolthink': it answered {status} \(no such model\)"
        ) as caught,
    ):
        ask(fake, renderer)
    assert caught.value.hint == "It offers: qwen3-8b, qwen3-8b-presafe."
    assert len(fake.asked) == 3  # once a dialect


def test_a_refused_request_fails_without_showing_the_prompt(renderer: Renderer) -> None:
    # FastAPI repeats the request in its list of what is wrong with it.
    detail = [{"msg": "too long", "input": "What is 7 + 5?"}]
    with (
        serving(after(1, Reply(json.dumps({"detail": detail}).encode(), 422))) as fake,
        pytest.raises(ModelError, match="refuses a request: it answered 422") as caught,
    ):
        ask(fake, renderer)
    assert len(fake.asked) == 2
    assert "7 + 5" not in str(caught.value)


def test_a_key_in_a_servers_message_is_hidden(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESAFE_API_KEY", KEY)
    with (
        serving(after(1, error(400, f"{KEY} may not ask this"))) as fake,
        pytest.raises(ModelError, match=r"it answered 400 \(\*\*\* may not ask this\)") as caught,
    ):
        ask(fake, renderer)
    assert KEY not in str(caught.value)


def test_a_name_that_is_not_offered_is_a_warning(
    renderer: Renderer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presafe.models.served.console", Console(width=200, highlight=False))
    for offers, warned in ((("qwen3-8b", "llama"), True), (("smolthink",), False), ((), False)):
        with serving(after(0), offers=offers) as fake:
            ask(fake, renderer)
        printed = capsys.readouterr().out
        assert ("answers as 'smolthink', which it does not offer" in printed) == warned
        assert ("(it offers: qwen3-8b, llama)" in printed) == warned


def test_a_line_end_is_not_part_of_the_key(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    # Failed first: httpx refused the header, which was taken for a cut connection.
    monkeypatch.setenv("PRESAFE_API_KEY", f" {KEY}\r\n")
    with serving(after(0)) as fake:
        ask(fake, renderer)
    assert fake.keys == {f"Bearer {KEY}"}


@pytest.mark.parametrize("letter", ["ß", "\n", "\x7f"])
def test_a_key_that_no_header_can_hold_is_hidden(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch, letter: str
) -> None:
    monkeypatch.setenv("PRESAFE_API_KEY", f"sk-{letter}4711")
    with serving(after(0)) as fake, pytest.raises(ModelError, match="PRESAFE_API_KEY holds letters") as caught:
        ask(fake, renderer)
    assert "4711" not in str(caught.value)
    assert not fake.asked


def test_a_text_only_server_is_asked_in_text(renderer: Renderer) -> None:
    def only_text(body: dict[str, Any], _: int) -> Reply:
        if not isinstance(body["prompt"], str) or "generation_config" in body:
            return error(400, "not understood")
        return ANSWER

    with serving(only_text) as fake:
        assert ask(fake, renderer)[0].stopped
        with pytest.raises(ModelError, match="top-k 20, which this server does not take"):
            ask(fake, renderer, sampling=Sampling(temperature=0.6, top_k=20))
    greetings = [body["max_tokens"] for body in fake.asked]
    assert greetings == [1, 1, 1, 32, 1, 1, 1]
    assert fake.asked[3] == {
        "model": "smolthink",
        "prompt": "<|im_start|>user\nWhat is 7 + 5?<|im_end|>\n<|im_start|>assistant\n<think>\n",
        "max_tokens": 32,
        "seed": 3,
        "temperature": 0.0,
        "top_p": 1.0,
        "stop": ["<|im_end|>"],
    }


def test_batch_size_limits_the_requests_in_flight(tmp_path: Path) -> None:
    now, most, lock = 0, 0, threading.Lock()

    def answer(_: dict[str, Any], number: int) -> Reply:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.1)
        with lock:
            now -= 1
        return ANSWER

    with serving(answer) as fake:
        probe(fake, tmp_path / "out", limit=9, batch_size=3)
    assert len(fake.asked) == 1 + 9
    assert most == 3


def probe(fake: FakeServer, out: Path, *, limit: int, batch_size: int) -> None:
    """`presafe probe` with CoT on, in this process."""
    from presafe.config.measure import MeasureSettings
    from presafe.config.recipe import ModelSettings
    from presafe.evaluation.suites import load_suite
    from presafe.workflows.measure import measure

    suites = {"smolthink_benign": load_suite("smolthink_benign", None, seed=0)[:limit]}
    model = ModelSettings(address=fake.address)
    measure(model, suites, out, MeasureSettings(thinking=("on",), max_tokens=8, batch_size=batch_size))


def test_a_failure_during_sampling_loses_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESAFE_RETRY_S", "0.3")
    down = True
    with serving(lambda _, number: error(503, "gone") if down and number > 4 else ANSWER) as fake:
        with pytest.raises(ModelError, match=r"failed \d+ times .*: it answered 503 \(gone\)"):
            probe(fake, tmp_path / "out", limit=8, batch_size=1)
        assert len(finished(tmp_path / "out" / "evaluation" / "vanilla-on")) == 4
        down, num_asked = False, len(fake.asked)
        probe(fake, tmp_path / "out", limit=8, batch_size=1)
        assert len(fake.asked) - num_asked == 1 + 4  # the greeting, and what was missing


def finished(log_dir: Path) -> set[str]:
    """Return the ids of the samples in the logs, also of an eval that was interrupted."""
    from inspect_ai.log import list_eval_logs, read_eval_log_sample_summaries

    return {
        str(sample.id)
        for info in list_eval_logs(str(log_dir))
        for sample in read_eval_log_sample_summaries(info)
        if sample.completed and not sample.error
    }


def test_a_killed_probe_asks_the_rest_and_hides_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out, log_dir = tmp_path / "out", tmp_path / "out" / "evaluation" / "vanilla-on"
    words = (
        "--suite",
        "smolthink_benign",
        "--limit",
        "8",
        "--draw",
        "first",  # as `probe` takes them
        "--thinking",
        "on",
        "--max-tokens",
        "8",
        "--batch-size",
        "2",
    )

    def slow(body: dict[str, Any], number: int) -> Reply:
        # An answer of its own for every prompt, and once in a while an error that repeats the key.
        if number % 4 == 3:
            return error(429, f"key {KEY} is over its quota")
        return completion(f"so\n</think>\n\nanswer {sum(body['prompt'])}", delay_s=0.3)

    with serving(slow) as fake:
        process = start("probe", fake.address, *words, "--out", str(out), PRESAFE_API_KEY=KEY)
        while len(fake.asked) < 7 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        printed = "".join(process.communicate())
        time.sleep(0.4)  # what was in flight
        before, num_asked = finished(log_dir), len(fake.asked)
        assert 1 <= len(before) < 8, printed
        monkeypatch.setenv("PRESAFE_API_KEY", KEY)
        probe(fake, out, limit=8, batch_size=2)  # the same command, without the wait for another process to start
    asked_again = [json.dumps(body["prompt"]) for body in fake.asked[num_asked:] if body["max_tokens"] > 1]
    assert len(set(asked_again)) == 8 - len(before)

    suite = logged_suites(log_dir, "on")["smolthink_benign"]
    renderer = load_renderer("smolthink")
    for prompt_id, text in suite.texts.items():
        expected = f"answer {sum(renderer.render(text, 'on').ids)}"
        (response,) = suite.responses[prompt_id]
        assert (response.thought, response.answer) == ("so", expected)

    with (
        serving(lambda *_: error(401, f"{KEY} is not valid")) as deaf,
        pytest.raises(ModelError, match="refuses the key") as refused,
    ):
        probe(deaf, tmp_path / "refused", limit=2, batch_size=2)
    assert refused.value.hint == "Set the environment variable PRESAFE_API_KEY."

    assert fake.keys == {f"Bearer {KEY}"}  # it was sent
    assert KEY not in printed + str(refused.value) + "".join(capfd.readouterr())
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(path.suffix == ".eval" for path in written)
    for path, content in written.items():
        assert KEY.encode() not in content, path
        if path.suffix == ".eval":
            with zipfile.ZipFile(path) as log:
                assert not any(KEY.encode() in log.read(name) for name in log.namelist()), path
