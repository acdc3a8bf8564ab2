"""The rows of every trained method, token by token, with SmolLM2's tokenizer."""

from __future__ import annotations

import copy
from collections import Counter

import pytest

from presafe.alignment.labels import labels_of
from presafe.alignment.rows import AlignmentRow, alignment_rows, refusal_start_id, start_ids
from presafe.methods.method import Form
from presafe.methods.registry import training_of
from presafe.methods.targets import SAFE_THOUGHT, refusal_for
from presafe.models.family import families
from presafe.models.rendering import Renderer
from presafe.records import Expect, Prompt, Response, Signal, Verdict


def prompt(name: str, text: str, *, harmful: bool) -> Prompt:
    expect: Expect = "refuse" if harmful else "comply"
    return Prompt(id=name, text=text, category="none", split="align", license="Apache-2.0", expect=expect)


def response(name: str, thought: str, answer: str, verdict: Verdict = "comply", *, complete: bool = True) -> Response:
    return Response(
        prompt_id=name,
        thinking="on",
        thought=thought,
        answer=answer,
        truncated=False,
        complete=complete,
        num_tokens=9,
        verdict=verdict,
    )


BAD, GOOD = prompt("bad", "How do I pick a pocket?", harmful=True), prompt("good", "Name a bird.", harmful=False)
OWN = {"good": response("good", "They ask for a bird. A wren is one.\n\nSo a wren.", "A wren.")}
SIGNALS = {name: Signal(prompt_id=name, probability=p) for name, p in (("bad", 0.8), ("good", 0.3))}
KEPT = "They ask for a bird. A wren is one.\n\nSo a wren.\n</think>\n\nA wren.<|im_end|>"


def rows_of(
    name: str, renderer: Renderer, responses: dict[str, Response] | None = None, form: Form = "direct"
) -> dict[str, AlignmentRow]:
    rows = alignment_rows([BAD, GOOD], OWN | (responses or {}), SIGNALS, renderer, form, training_of(name))
    return {row.prompt_id: row for row in rows}


def taught(renderer: Renderer, row: AlignmentRow) -> str:
    text: str = renderer.tokenizer.decode([label for label in row.labels if label != -100])
    return text


@pytest.mark.parametrize(
    "name",
    [
        "sft",
        "presafe",
        "presafe_head",
        "presafe_start",
        "presafe_hard",
        "presafe_dataset_labels",
        "random_labels",
        "shuffled_labels",
        "detached_head",
    ],
)
def test_variants_and_controls_have_the_rows_of_sft(smolthink: Renderer, name: str) -> None:
    for form in ("direct", "thought"):
        assert rows_of(name, smolthink, form=form) == rows_of("sft", smolthink, form=form)


@pytest.mark.parametrize(
    ("name", "head", "start", "labels"),
    [
        ("sft", None, False, "classifier"),
        ("presafe", "decision", True, "classifier"),
        ("presafe_head", "decision", False, "classifier"),
        ("presafe_start", None, True, "classifier"),
        ("presafe_thought", "decision", True, "classifier"),
        ("presafe_hard", "decision", True, "hard"),
        ("presafe_dataset_labels", "decision", True, "dataset"),
        ("random_labels", "decision", True, "random"),
        ("shuffled_labels", "decision", True, "shuffled"),
        ("detached_head", "detached", False, "classifier"),
    ],
)
def test_methods_differ_in_terms_or_labels(name: str, head: str | None, start: bool, labels: str) -> None:
    training = training_of(name)
    assert (training.head, training.start, training.labels) == (head, start, labels)
    assert (training.lambda_align, training.lambda_start) == (None, None)  # the recipe's


def test_presafe_thought_always_refuses_after_a_thought(smolthink: Renderer) -> None:
    rows = rows_of("presafe_thought", smolthink, form="direct")
    assert taught(smolthink, rows["bad"]) == f"{SAFE_THOUGHT}\n</think>\n\n{refusal_for('bad')}<|im_end|>"
    start = refusal_start_id(smolthink, "direct", training_of("presafe_thought"))
    assert start == rows["bad"].input_ids[rows["bad"].start_index + 1]
    assert smolthink.tokenizer.decode([start]) == "This"


def test_direct_refusal_has_its_fixed_thought(smolthink: Renderer) -> None:
    rows = rows_of("direct_refusal", smolthink)
    refused = f"I should not answer this question!\n</think>\n\n{refusal_for('bad')}<|im_end|>"
    assert (taught(smolthink, rows["bad"]), taught(smolthink, rows["good"])) == (refused, KEPT)
    start = refusal_start_id(smolthink, "direct", training_of("direct_refusal"))
    assert smolthink.tokenizer.decode([start]) == "I"


@pytest.mark.parametrize("opens", ["", "<think>\n"])
def test_safepath_teaches_only_the_primer(smolthink: Renderer, opens: str) -> None:
    # a model that opens its own thought is not taught to: the loss touches the primer only
    tokenizer = copy.deepcopy(smolthink.tokenizer)
    renderer = Renderer(tokenizer, families()["smolthink"].model_copy(update={"model_opens": opens}))
    rows = rows_of("safepath", renderer)
    primer = "Let's think about safety first."
    assert taught(renderer, rows["bad"]) == primer
    assert rows["bad"].input_ids[-len(renderer.completion_ids(primer)) :] == renderer.completion_ids(primer)
    assert renderer.tokenizer.decode(rows["bad"].input_ids).endswith(f"assistant\n<think>\n{opens}{primer}")
    assert taught(renderer, rows["good"]) == opens + KEPT


@pytest.mark.parametrize("name", ["safechain", "star1", "unsafechain"])
def test_data_methods_teach_the_file_and_keep_own_answers(smolthink: Renderer, name: str) -> None:
    file = {"bad": response("bad", "Theft. <|im_end|> I decline.", "I won't help with theft.", "safe")}
    rows = rows_of(name, smolthink, file)
    assert taught(smolthink, rows["good"]) == KEPT
    assert taught(smolthink, rows["bad"]) == (
        "Theft. <|im_end|> I decline.\n</think>\n\nI won't help with theft.<|im_end|>"
    )
    (end,) = smolthink.stop_ids()[:1]
    assert rows["bad"].labels.count(end) == 1  # a control token that the file spells stays text
    training = training_of(name)
    assert training.needs_data
    assert refusal_start_id(smolthink, "direct", training) == refusal_start_id(smolthink, "direct")
    with pytest.raises(KeyError, match="bad"):
        rows_of(name, smolthink)


def test_thinksafe_keeps_only_own_refusals(smolthink: Renderer) -> None:
    refused = response("bad", "This is theft. I decline.", "I can't help with that.", "refuse")
    rows = rows_of("thinksafe", smolthink, {"bad": refused})
    assert taught(smolthink, rows["bad"]) == (
        "This is theft. I decline.\n</think>\n\nI can't help with that.<|im_end|>"
    )
    # the query stands there without the instruction that its refusal was written under
    n = len(smolthink.render(BAD.text, "on").ids)
    assert rows["bad"].input_ids[:n] == smolthink.render(BAD.text, "on").ids
    verdicts: tuple[Verdict, ...] = ("comply", "unjudged")
    for verdict in verdicts:
        other = response("bad", "Hm.", "Well.", verdict)
        assert list(rows_of("thinksafe", smolthink, {"bad": other})) == ["good"]
    unended = rows_of("thinksafe", smolthink, {"bad": refused.model_copy(update={"complete": False})})
    assert taught(smolthink, unended["bad"]).endswith("I can't help with that.")


def test_safekey_pools_to_the_end_of_first_sentences(smolthink: Renderer) -> None:
    rows = rows_of("safekey", smolthink)
    restated = f'The user asks: "{BAD.text}"'
    assert taught(smolthink, rows["bad"]) == (f"{restated}\n{SAFE_THOUGHT}\n</think>\n\n{refusal_for('bad')}<|im_end|>")
    assert taught(smolthink, rows["good"]) == KEPT
    for name, first in (("bad", restated), ("good", "They ask for a bird. ")):
        row = rows[name]
        read = row.input_ids[row.decision_index + 1 : row.pool_index + 1]
        assert smolthink.tokenizer.decode(read) == first
    training = training_of("safekey")
    assert (training.head, training.lambda_align, training.labels) == ("pooled", 0.2, "dataset")


def test_r2d_ends_each_step_in_its_pivot(smolthink: Renderer) -> None:
    rows = rows_of("r2d", smolthink)
    assert taught(smolthink, rows["bad"]).startswith(f"{SAFE_THOUGHT} [UNSAFE]\n</think>\n\n")
    assert taught(smolthink, rows["good"]) == (
        "They ask for a bird. A wren is one. [SAFE]\n\nSo a wren. [SAFE]\n</think>\n\nA wren.<|im_end|>"
    )
    unsafe, safe = start_ids(smolthink, "direct", training_of("r2d"))
    assert unsafe != safe
    for name, right, step in (("bad", unsafe, SAFE_THOUGHT), ("good", safe, "They ask for a bird. A wren is one.")):
        row = rows[name]
        assert row.input_ids[row.start_index + 1] == right
        before = smolthink.tokenizer.decode(row.input_ids[row.decision_index + 1 : row.start_index + 1])
        assert before == f"{step} ["


def test_hard_and_dataset_labels_by_hand() -> None:
    # ½ itself is a refusal
    prompts = [BAD, GOOD, prompt("half", "And?", harmful=False)]
    soft = {"bad": 0.49, "good": 0.51, "half": 0.5}
    signals = {name: Signal(prompt_id=name, probability=p) for name, p in soft.items()}
    hard = labels_of(prompts, signals, "hard", 0)
    assert {name: p.probability for name, p in hard.items()} == {"bad": 0.0, "good": 1.0, "half": 1.0}
    dataset = labels_of(prompts, {}, "dataset", 0)
    assert {name: p.probability for name, p in dataset.items()} == {"bad": 1.0, "good": 0.0, "half": 0.0}
    assert labels_of(prompts, signals, "classifier", 0) == signals


def test_shuffled_labels_are_a_permutation() -> None:
    signals = {f"q{i}": Signal(prompt_id=f"q{i}", probability=i / 500) for i in range(500)}
    dealt = labels_of([], signals, "shuffled", 1)
    assert dealt.keys() == signals.keys()
    assert all(signal.prompt_id == name for name, signal in dealt.items())
    assert Counter(p.probability for p in dealt.values()) == Counter(p.probability for p in signals.values())
    # A random permutation has one fixed point on average; 10 or more have odds of one in a million.
    assert sum(dealt[name] == signals[name] for name in signals) < 10
    assert labels_of([], signals, "shuffled", 1) == dealt
    assert labels_of([], signals, "shuffled", 2) != dealt
