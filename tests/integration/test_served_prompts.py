"""What a server does with the prompt: read as it was sent, refused where it is too long, and the settings with it."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, Reply, completion, error, num_tokens, serving
from rich.console import Console
from tenacity import wait_none
from tokenizers.processors import TemplateProcessing

from presafe.config.measure import MeasureSettings
from presafe.config.recipe import ModelSettings
from presafe.errors import ModelError
from presafe.evaluation.suites import load_suite
from presafe.models.address import served_model
from presafe.models.dialect import Dialect
from presafe.models.exchange import Request
from presafe.models.family import Sampling
from presafe.models.loading import load_renderer
from presafe.models.rendering import Renderer
from presafe.models.sampling import logged_suites
from presafe.models.served import ServedEngine
from presafe.workflows.measure import measure

ANSWER = completion("7 + 5 = 12.\n</think>\n\n12")
KEY = "sk-never-to-be-written-4711"


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return load_renderer("smolthink")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("presafe.models.served._BACKOFF", wait_none())
    monkeypatch.setenv("PRESAFE_TIMEOUT_S", "5")
    monkeypatch.setenv("PRESAFE_RETRY_S", "0.5")
    for module in ("served", "tasks"):
        monkeypatch.setattr(f"presafe.models.{module}.console", Console(stderr=True, width=500, highlight=False))


def ask(fake: FakeServer, renderer: Renderer, sampling: Sampling = Sampling(), budget: int = 32) -> Dialect | None:  # noqa: B008
    """Ask once, and say how."""

    async def once() -> Dialect | None:
        served = served_model(fake.address)
        assert served is not None
        engine = ServedEngine(served, lambda: renderer, batch_size=1)
        try:
            await engine.complete(Request(renderer.render("What is 7 + 5?", "on").ids, budget, sampling, seed=3))
            return engine.dialect
        finally:
            await engine.close()

    return asyncio.run(once())


def only_text(body: dict[str, Any], _: int) -> Reply:
    """Return a server that takes text only and ignores what it does not know."""
    return ANSWER if isinstance(body["prompt"], str) else error(400, "prompt must be a string")


def like_transformers(body: dict[str, Any], number: int) -> Reply:
    """One that reads transformers' settings, and knows no top-k beside them."""
    if "top_k" in body or not isinstance(json.loads(body.get("generation_config", "{}")), dict):
        return error(422, "unexpected fields")
    return only_text(body, number)


def test_a_lenient_server_gets_settings_as_plain_fields(renderer: Renderer, capsys: pytest.CaptureFixture[str]) -> None:
    # Failed first: temperature, top-p and the stop were sent within generation_config only.
    with serving(only_text) as fake:
        assert ask(fake, renderer, Sampling(temperature=0.6, top_p=0.9, top_k=20)) is Dialect.LENIENT
    body = fake.asked[-1]
    expected = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "stop": ["<|im_end|>"], "seed": 3, "max_tokens": 32}
    assert {name: body[name] for name in expected} == expected
    assert "uses top-k is not known" in capsys.readouterr().err
    with serving(only_text) as fake:
        ask(fake, renderer, Sampling(temperature=0.6))
    assert "top-k" not in capsys.readouterr().err


def test_a_transformers_server_gets_its_own_settings(renderer: Renderer, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(like_transformers) as fake:
        assert ask(fake, renderer, Sampling(temperature=0.6, top_p=0.9, top_k=20)) is Dialect.TRANSFORMERS
    body = fake.asked[-1]
    assert (body["temperature"], body["top_p"], body["stop"]) == (0.6, 0.9, ["<|im_end|>"])
    assert json.loads(body["generation_config"])["top_k"] == 20
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("more", [1, -1, 17])
@pytest.mark.parametrize("text", [False, True])
def test_a_server_that_reads_another_prompt_is_an_error(renderer: Renderer, more: int, text: bool) -> None:
    # Failed first: a template round the raw prompt, or another tokenizer, went unnoticed.
    def answer(body: dict[str, Any], number: int) -> Reply:
        if text and not isinstance(body["prompt"], str):
            return error(400, "prompt must be a string")
        usage = {"prompt_tokens": num_tokens(body["prompt"]) + more, "completion_tokens": 1}
        return Reply(json.dumps({"choices": [{"text": "7", "finish_reason": "stop"}], "usage": usage}).encode())

    sent = len(renderer.render("Hello.", "on").ids)
    with (
        serving(answer) as fake,
        pytest.raises(ModelError, match=rf"reads {sent + more} tokens where it is sent {sent}"),
    ):
        ask(fake, renderer)
    assert all(body["max_tokens"] == 1 for body in fake.asked)


@pytest.mark.parametrize(("more", "words"), [(1, "it adds the token"), (-1, "it leaves out the token"), (0, "")])
def test_one_missing_or_added_first_token_is_a_warning(
    renderer: Renderer, capsys: pytest.CaptureFixture[str], more: int, words: str
) -> None:
    # A tokenizer that puts one token before a text: by one token, and no more, the counts may differ.
    tokenizer = copy.deepcopy(renderer.tokenizer)
    begins = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    tokenizer.backend_tokenizer.post_processor = begins
    assert tokenizer.encode("a")[0] == 0
    own = Renderer(tokenizer, renderer.family)

    def answer(by: int) -> Callable[[dict[str, Any], int], Reply]:
        def counted(body: dict[str, Any], _: int) -> Reply:
            usage = {"prompt_tokens": len(body["prompt"]) + by, "completion_tokens": 1}
            return Reply(json.dumps({"choices": [{"text": "7", "finish_reason": "stop"}], "usage": usage}).encode())

        return counted

    with serving(answer(more)) as fake:
        ask(fake, own)
    printed = capsys.readouterr().err
    assert words in printed
    assert bool(words) == bool(printed)
    with serving(answer(2 * more or 2)) as fake, pytest.raises(ModelError, match="tokens where it is sent"):
        ask(fake, own)


@pytest.mark.parametrize("usage", [{"completion_tokens": 1}, {"completion_tokens": 1, "prompt_tokens": 0}])
def test_a_server_without_token_counts_is_a_warning(
    renderer: Renderer, capsys: pytest.CaptureFixture[str], usage: dict[str, int]
) -> None:
    body = {"choices": [{"text": "7", "finish_reason": "stop"}], "usage": usage}
    with serving(lambda *_: Reply(json.dumps(body).encode())) as fake:
        ask(fake, renderer)
    assert capsys.readouterr().err.count("does not state how many tokens it reads") == 1


def test_a_prompt_that_is_read_in_part_is_an_error(renderer: Renderer) -> None:
    # As servers do that cut what is beyond their context.
    def answer(body: dict[str, Any], _: int) -> Reply:
        usage = {"prompt_tokens": min(len(body["prompt"]), 16), "completion_tokens": 1}
        return Reply(json.dumps({"choices": [{"text": "7", "finish_reason": "stop"}], "usage": usage}).encode())

    assert len(renderer.render("Hello.", "on").ids) <= 16 < len(renderer.render("What is 7 + 5?", "on").ids)
    with serving(answer) as fake, pytest.raises(ModelError, match=r"it read 16 of the prompt's \d+ tokens"):
        ask(fake, renderer)


def offering(context: Any) -> Reply:
    return Reply(json.dumps({"data": [{"id": "smolthink", "max_model_len": context}]}).encode())


def test_a_budget_beyond_the_context_fails_before_sampling(renderer: Renderer) -> None:
    with serving(lambda *_: ANSWER, offers=offering(32)) as fake:
        with pytest.raises(ModelError, match="context of 32 tokens, and the budget of 32") as caught:
            ask(fake, renderer, budget=32)
        with pytest.raises(ModelError, match="context of 32 tokens, and a prompt of"):
            ask(fake, renderer, budget=31)
    assert "`max_tokens`" in caught.value.hint
    assert "--max-model-len" in caught.value.hint
    assert [body["max_tokens"] for body in fake.asked] == [1, 1]


def test_a_prompt_that_just_fits_is_asked(renderer: Renderer) -> None:
    context = len(renderer.render("What is 7 + 5?", "on").ids) + 32
    with serving(lambda *_: ANSWER, offers=offering(context)) as fake:
        ask(fake, renderer)
        assert fake.asked[-1]["max_tokens"] == 32


@pytest.mark.parametrize("context", [None, -1, True, "32", 0, 10**30, 32.0])
def test_an_invalid_context_length_is_ignored(renderer: Renderer, context: Any) -> None:
    with serving(lambda *_: ANSWER, offers=offering(context)) as fake:
        ask(fake, renderer)


def probe(fake: FakeServer, out: Path, limit: int = 8) -> None:
    suites = {"smolthink_benign": load_suite("smolthink_benign", None, seed=0)[:limit]}
    settings = MeasureSettings(thinking=("on",), max_tokens=8, batch_size=1)
    measure(ModelSettings(address=fake.address), suites, out, settings)


@pytest.mark.parametrize(("status", "known"), [(400, False), (422, False), (400, True)])
def test_a_prompt_that_is_too_long_is_left_unanswered(
    renderer: Renderer, tmp_path: Path, capsys: pytest.CaptureFixture[str], status: int, known: bool
) -> None:
    # Failed first: the run ended there, at every rerun again.
    prompts = load_suite("smolthink_benign", None, seed=0)[:8]
    lengths = {prompt.id: len(renderer.render(prompt.text, "on").ids) for prompt in prompts}
    longest = max(lengths, key=lambda name: lengths[name])
    assert sorted(lengths.values())[-2] < lengths[longest]  # there is one
    context = lengths[longest] + 8 - 1

    def answer(body: dict[str, Any], _: int) -> Reply:
        if len(body["prompt"]) + body["max_tokens"] > context:
            return error(status, f"This model's maximum context length is {context} tokens.")
        return ANSWER

    with serving(answer, offers=offering(context if known else None)) as fake:
        probe(fake, tmp_path / "out")
        said = capsys.readouterr().err
        assert f"{longest} has no answer and will not be asked again in this folder: " in said
        assert "Lower `max_tokens`" in said
        asked = len(fake.asked)
        probe(fake, tmp_path / "out")
        assert len(fake.asked) == asked  # all is done
    assert asked == 1 + (7 if known else 8)
    responses = logged_suites(tmp_path / "out" / "evaluation" / "vanilla-on", "on")["smolthink_benign"].responses
    unanswered = {name for name, (response,) in responses.items() if response.verdict == "unjudged"}
    assert unanswered == {longest}
    (none,) = responses[longest]
    assert (none.thought, none.answer, none.truncated, none.complete, none.num_tokens) == ("", "", True, False, 0)


def test_a_filtered_answer_is_not_a_refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(_: dict[str, Any], number: int) -> Reply:
        return completion("I can't", "content_filter") if number == 3 else ANSWER

    with serving(answer) as fake:
        probe(fake, tmp_path / "out")
    assert "it filtered the answer (finish_reason content_filter)" in capsys.readouterr().err
    responses = logged_suites(tmp_path / "out" / "evaluation" / "vanilla-on", "on")["smolthink_benign"].responses
    verdicts = [response.verdict for (response,) in responses.values()]
    assert sorted(verdicts) == ["comply"] * 7 + ["unjudged"]


def test_a_server_that_refuses_every_prompt_is_an_error(tmp_path: Path) -> None:
    # Eight may be the fault of the prompts; the ninth, with none answered, is not.
    with (
        serving(lambda _, number: ANSWER if number == 0 else error(400, "no such setting")) as fake,
        pytest.raises(ModelError, match=r"it answered 400 \(no such setting\)"),
    ):
        probe(fake, tmp_path / "out", limit=12)
    assert len(fake.asked) == 1 + 9


def test_offered_names_are_shown_safely_and_shortened(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Failed first: the key in a name was printed, and [/x] was a traceback.
    monkeypatch.setenv("PRESAFE_API_KEY", KEY)
    names = (KEY, f"[/x] {KEY[:4]}\x1b{KEY[4:]}", "\x1b[31mred", *(f"name-{number}" for number in range(1000)))
    with serving(lambda *_: ANSWER, offers=names) as fake:
        ask(fake, renderer)
        printed = capsys.readouterr().err
    with (
        serving(lambda *_: error(404, "no such model"), offers=names) as fake,
        pytest.raises(ModelError) as caught,
    ):
        ask(fake, renderer)
    listed = "***, [/x] ***, [31mred, name-0, "
    for text in (printed, str(caught.value)):
        assert listed in text.replace("\n", " ")
        assert "name-16 and 983 more" in text.replace("\n", " ")  # 20 are shown: three, and 17 with numbers
        assert KEY not in text
        assert "\x1b" not in text
