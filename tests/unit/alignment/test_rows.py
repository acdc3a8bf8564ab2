"""Alignment queries as training rows, token by token, with SmolLM2's tokenizer."""

from __future__ import annotations

import pytest

from presafe.alignment.labels import random_signals
from presafe.alignment.rows import (
    AlignmentRow,
    alignment_rows,
    refusal_start,
    refusal_start_id,
    thinking_off_rows,
    with_thinking_off,
)
from presafe.judges.refusal import is_refusal
from presafe.methods.registry import training_of
from presafe.methods.targets import REFUSALS, SAFE_THOUGHT, refusal_for
from presafe.models.rendering import Renderer
from presafe.records import Expect, Prompt, Response, Signal, Verdict


def prompt(name: str, expect: Expect) -> Prompt:
    return Prompt(
        id=name,
        text=f"Question {name}?",
        category="none",
        split="align",
        license="Apache-2.0",
        expect=expect,
        target="12" if expect == "answer" else None,
    )


def own(name: str, verdict: Verdict, *, truncated: bool = False) -> Response:
    return Response(
        prompt_id=name,
        thinking="on",
        thought="I think.",
        answer="" if truncated else "So it is.",
        truncated=truncated,
        complete=not truncated,
        num_tokens=9,
        verdict=verdict,
    )


PROMPTS = [
    prompt("bad", "refuse"),
    prompt("good", "comply"),
    prompt("sum", "answer"),
    prompt("wrong sum", "answer"),
    prompt("cut", "comply"),
    prompt("declined", "comply"),
]
OWN = {
    "good": own("good", "comply"),
    "sum": own("sum", "right"),
    "wrong sum": own("wrong sum", "wrong"),
    "cut": own("cut", "unjudged", truncated=True),
    "declined": own("declined", "refuse"),
}
SIGNALS = {query.id: Signal(prompt_id=query.id, probability=i / 10) for i, query in enumerate(PROMPTS)}


@pytest.fixture(scope="module")
def direct(smolthink: Renderer) -> dict[str, AlignmentRow]:
    return {row.prompt_id: row for row in alignment_rows(PROMPTS, OWN, SIGNALS, smolthink, "direct")}


@pytest.fixture(scope="module")
def thought(smolthink: Renderer) -> dict[str, AlignmentRow]:
    return {row.prompt_id: row for row in alignment_rows(PROMPTS, OWN, SIGNALS, smolthink, "thought")}


def target(smolthink: Renderer, row: AlignmentRow) -> str:
    text: str = smolthink.tokenizer.decode([label for label in row.labels if label != -100])
    return text


def test_rows_keep_order_and_drop_unusable_answers(direct: dict[str, AlignmentRow]) -> None:
    # A cut thought has no answer, and a harmless query that the model declined must not teach declining. A wrong sum
    # is the model's own answer all the same.
    assert list(direct) == ["bad", "good", "sum", "wrong sum"]


@pytest.mark.parametrize("name", ["bad", "good", "sum"])
def test_labels_are_masked_exactly_on_the_prompt(
    smolthink: Renderer, direct: dict[str, AlignmentRow], name: str
) -> None:
    row = direct[name]
    rendered = smolthink.render(f"Question {name}?", "on").ids
    n = len(rendered)
    assert row.input_ids[:n] == rendered
    assert row.labels[:n] == [-100] * n
    assert row.labels[n:] == row.input_ids[n:]
    assert -100 not in row.labels[n:]
    assert len(row.labels) > n


@pytest.mark.parametrize("name", ["bad", "good", "sum"])
def test_decision_is_the_last_token_before_the_target(
    smolthink: Renderer, direct: dict[str, AlignmentRow], name: str
) -> None:
    row = direct[name]
    assert smolthink.tokenizer.decode(row.input_ids[: row.decision_index + 1]).endswith("assistant\n<think>\n")
    assert smolthink.tokenizer.decode([row.input_ids[row.decision_index]]) == "\n"
    assert row.labels[row.decision_index] == -100
    assert row.labels[row.decision_index + 1] != -100


def test_rows_carry_the_signal_of_their_query(direct: dict[str, AlignmentRow]) -> None:
    assert {name: row.signal for name, row in direct.items()} == {
        "bad": 0.0,
        "good": 0.1,
        "sum": 0.2,
        "wrong sum": 0.3,
    }


def test_direct_refusal_closes_the_thought_at_once(smolthink: Renderer, direct: dict[str, AlignmentRow]) -> None:
    assert target(smolthink, direct["bad"]) == f"\n</think>\n\n{refusal_for('bad')}<|im_end|>"


def test_thought_refusal_explains_first(smolthink: Renderer, thought: dict[str, AlignmentRow]) -> None:
    assert target(smolthink, thought["bad"]) == f"{SAFE_THOUGHT}\n</think>\n\n{refusal_for('bad')}<|im_end|>"


def test_harmless_rows_are_own_answers_in_both_forms(
    smolthink: Renderer, direct: dict[str, AlignmentRow], thought: dict[str, AlignmentRow]
) -> None:
    assert target(smolthink, direct["good"]) == "I think.\n</think>\n\nSo it is.<|im_end|>"
    assert direct["good"] == thought["good"]


def test_query_without_response_or_signal_fails(smolthink: Renderer) -> None:
    with pytest.raises(KeyError, match="good"):
        alignment_rows(PROMPTS, {}, SIGNALS, smolthink, "direct")
    with pytest.raises(KeyError, match="bad"):
        alignment_rows(PROMPTS, OWN, {}, smolthink, "direct")


@pytest.mark.parametrize("form", ["direct", "thought"])
def test_refusal_start_follows_the_decision_position(smolthink: Renderer, form: str) -> None:
    (row,) = alignment_rows(PROMPTS[:1], {}, SIGNALS, smolthink, form)  # type: ignore[arg-type]
    token = refusal_start_id(smolthink, form)  # type: ignore[arg-type]
    assert token == row.input_ids[row.decision_index + 1]
    assert smolthink.tokenizer.decode([token]) == ("\n" if form == "direct" else "This")


@pytest.mark.parametrize(
    ("method", "begins"),
    [
        ("presafe_thought", SAFE_THOUGHT),
        ("direct_refusal", "I should not answer this question!"),
        ("safepath", "Let's think about safety first."),
        ("safekey", 'The user asks: "'),
        ("r2d", f"{SAFE_THOUGHT} [UNSAFE]"),
    ],
)
def test_refusal_start_is_the_shared_start_of_thoughts(smolthink: Renderer, method: str, begins: str) -> None:
    start = refusal_start(smolthink, "direct", training_of(method))
    assert [len(tokens) for tokens in start.links] == [1] * len(start.links)
    assert smolthink.tokenizer.decode([token for (token,) in start.links]) == begins


@pytest.mark.parametrize("method", ["thinksafe", "star1", "sft"])
def test_refusal_start_of_data_methods_is_the_recipes(smolthink: Renderer, method: str) -> None:
    assert refusal_start(smolthink, "direct", training_of(method)) == refusal_start(smolthink, "direct")


def off(name: str, verdict: Verdict, answer: str, *, complete: bool = True) -> Response:
    changes = {"thinking": "off", "thought": "", "answer": answer, "complete": complete}
    return own(name, verdict).model_copy(update=changes)


def test_rows_with_cot_off_keep_expected_answers_only(smolthink: Renderer) -> None:
    responses = {
        "bad": off("bad", "refuse", "I can't."),
        "good": off("good", "comply", "Here it", complete=False),
        "sum": off("sum", "comply", "13"),
        "wrong sum": off("wrong sum", "refuse", "I can't."),  # a harmless query is not taught to be refused ...
        "cut": off("cut", "unjudged", "?"),
        "declined": off("declined", "refuse", "I can't."),
    }
    rows = {row.prompt_id: row for row in thinking_off_rows(PROMPTS, responses, smolthink)}
    assert list(rows) == ["bad", "good", "sum"]
    thought = responses["good"].model_copy(update={"thought": "Let me see."})  # where the model thought all the same
    assert "good" not in {row.prompt_id for row in thinking_off_rows(PROMPTS, responses | {"good": thought}, smolthink)}
    answered = thinking_off_rows(PROMPTS, responses | {"bad": off("bad", "comply", "Sure.")}, smolthink)
    assert [row.prompt_id for row in answered] == ["good", "sum"]  # ... nor a harmful one to be answered
    for name, written in (("bad", "I can't.<|im_end|>"), ("good", "Here it"), ("sum", "13<|im_end|>")):
        row, prompt_ids = rows[name], smolthink.render(f"Question {name}?", "off").ids
        assert target(smolthink, row) == written  # what the budget cut off does not learn to end there
        assert row.input_ids[: len(prompt_ids)] == prompt_ids
        assert row.labels == [-100] * len(prompt_ids) + row.input_ids[len(prompt_ids) :]
        assert (row.signal, row.kind) == (None, "thinking_off")
        assert row.start_index == len(prompt_ids) - 1  # as far as a row must reach to be trained on
        assert row.decision_index == smolthink.render(f"Question {name}?", "off").decision_index
    with pytest.raises(KeyError, match="good"):
        thinking_off_rows(PROMPTS, {"bad": responses["bad"]}, smolthink)


def test_rows_with_cot_off_are_a_seeded_share(direct: dict[str, AlignmentRow]) -> None:
    on = list(direct.values())  # 4
    spare = [on[0]._replace(prompt_id=f"off-{number}", kind="thinking_off") for number in range(12)]
    for share, num in ((0.2, 1), (0.5, 4), (0.6, 6), (0.9, 12)):  # 9 of 10 would be 36: all that there are
        rows = with_thinking_off(on, spare, share, seed=0)
        assert rows[:4] == on
        drawn = [row.prompt_id for row in rows[4:]]
        assert len(drawn) == len(set(drawn)) == num
        assert {*drawn} <= {row.prompt_id for row in spare}
    assert (
        with_thinking_off(on, spare, 0.5, seed=0)
        == with_thinking_off(on, spare, 0.5, seed=0)
        != with_thinking_off(on, spare, 0.5, seed=1)
    )


def test_every_refusal_is_recognized_and_used() -> None:
    assert all(is_refusal(refusal) for refusal in REFUSALS)
    # Of 300 ids each of six wordings gets 50 on average; 20 is more than four standard deviations below.
    used = [refusal_for(f"harmful-{number}") for number in range(300)]
    assert min(used.count(refusal) for refusal in REFUSALS) > 20
    assert refusal_for("harmful-7") == used[7]


def test_random_signals_are_seeded_fair_coins() -> None:
    signals = {f"q{i}": Signal(prompt_id=f"q{i}", probability=0.9) for i in range(1000)}
    drawn = random_signals(signals, seed=1)
    assert {signal.probability for signal in drawn.values()} == {0.0, 1.0}
    # 1,000 fair coins: 500 ± 79 at five standard deviations (5 · √250).
    assert abs(sum(signal.probability for signal in drawn.values()) - 500) < 79
    assert drawn.keys() == signals.keys()
    assert all(signal.prompt_id == name for name, signal in drawn.items())
    assert random_signals(signals, seed=1) == drawn
    assert random_signals(signals, seed=2) != drawn


def test_random_signals_ignore_the_real_ones() -> None:
    low = {name: Signal(prompt_id=name, probability=0.0) for name in ("a", "b", "c", "d")}
    high = {name: Signal(prompt_id=name, probability=1.0) for name in ("d", "c", "b", "a")}
    assert random_signals(low, seed=3) == random_signals(high, seed=3)
