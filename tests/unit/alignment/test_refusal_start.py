"""The decision position scored in batches equals one plain forward pass per prompt."""

from __future__ import annotations

import copy
from math import exp, log, prod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import TrainerFactory, make_model, one_batch

from presafe.alignment.head import attach_head, save_head
from presafe.alignment.rows import alignment_rows, refusal_start
from presafe.internals.decision import decision_scores, head_probabilities
from presafe.models.decision_head import DecisionHead, RefusalStart
from presafe.models.family import families
from presafe.models.loading import LoadedModel
from presafe.models.rendering import Renderer
from presafe.records import Expect, Prompt, Response, Signal

TEN = RefusalStart((), frozenset({10}))
"""Any token, for tests of the head only."""
TEXTS = ("How do I whittle a spoon?", "Hi", "A much longer question, with words in it, so that rows are padded.", "ok")


def prompts(expect: Expect = "comply") -> Any:
    return [
        Prompt(id=str(i), text=text, category="c", split="s", license="l", expect=expect)
        for i, text in enumerate(TEXTS)
    ]


@pytest.fixture
def loaded(renderer: Renderer) -> Any:
    return LoadedModel(make_model(), renderer)


@pytest.fixture
def opens_itself(renderer: Renderer) -> Any:
    """Provide a model that writes `<think>` itself, as Qwen3 does."""
    tokenizer = copy.deepcopy(renderer.tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace("<think>\n", "")
    return LoadedModel(make_model(), Renderer(tokenizer, families()["qwen3"]))


@pytest.fixture
def head(tmp_path: Path) -> Any:
    model = make_model()
    attach_head(model, seed=1)
    with torch.no_grad():
        model.presafe_head.bias.fill_(0.3)
        model.presafe_head.weight.mul_(20)
    save_head(model, tmp_path)
    return DecisionHead(tmp_path)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
@pytest.mark.parametrize(("kind", "opening"), [("loaded", ""), ("opens_itself", "<think>\n")])
def test_decision_scores_match_a_plain_forward(
    request: pytest.FixtureRequest, kind: str, opening: str, head: Any, batch_size: int
) -> None:
    loaded = request.getfixturevalue(kind)
    start = refusal_start(loaded.renderer, "direct")
    # a direct refusal closes the thought at once, "\n</think>\n\n", and begins with "I" or "Sorry"
    assert loaded.renderer.tokenizer.decode(start.shared) == "\n</think>\n\n"
    assert len(start.token_ids) == 2
    scores = decision_scores(loaded, TEXTS, start, head, batch_size=batch_size)
    assert len({len(loaded.renderer.render(text, "on").ids) for text in TEXTS}) == 3  # "Hi" and "ok" are as long
    for text, score in zip(TEXTS, scores, strict=True):
        rendered = loaded.renderer.render(text, "on")
        ids = rendered.ids + loaded.renderer.completion_ids(opening)
        with torch.no_grad():
            output = loaded.model(torch.tensor([ids + list(start.shared)]), output_hidden_states=True)
        # the probability that the thought, once open, closes token by token, and that then comes one of the two words
        chances = output.logits[0, len(ids) - 1 :].double().softmax(-1)
        steps = [chances[i, token].item() for i, token in enumerate(start.shared)]
        steps.append(sum(chances[-1, token].item() for token in start.token_ids))
        p = prod(steps)
        assert score.refusal_logit == pytest.approx(log(p) - log(1 - p), abs=1e-4)
        assert score.weakest_logit == pytest.approx(log(min(steps)) - log(1 - min(steps)), abs=1e-4)
        # the head reads the last prompt token, after the final norm
        z = (output.hidden_states[-1][:, rendered.decision_index] @ head.weight.T + head.bias).item()
        assert score.head_probability == pytest.approx(1 / (1 + exp(-z)), abs=1e-5)
    assert len({round(score.refusal_logit, 3) for score in scores}) == 4  # no two prompts share a score


def test_no_head_gives_no_head_probability(loaded: LoadedModel, head: Any) -> None:
    with_head = decision_scores(loaded, TEXTS, TEN, head)
    without = decision_scores(loaded, TEXTS, TEN, None)
    assert [score.head_probability for score in without] == [None] * 4
    assert [score.refusal_logit for score in without] == [score.refusal_logit for score in with_head]


def test_monitor_needs_no_refusal_start(loaded: LoadedModel, head: Any) -> None:
    # One token after the opening, as the monitor's own pass has it: the same rows, the same probabilities.
    scores = decision_scores(loaded, TEXTS, TEN, head, batch_size=3)
    assert head_probabilities(loaded, TEXTS, head, batch_size=3) == [score.head_probability for score in scores]


def test_refusal_logit_of_certain_refusal_is_finite(loaded: LoadedModel, renderer: Renderer) -> None:
    # One token takes all the probability that float32 can hold, and its rival none: the log-odds must stay numbers.
    lm_head = torch.nn.Linear(32, 260)
    with torch.no_grad():
        lm_head.weight.zero_()
        lm_head.bias.zero_()
        lm_head.bias[5] = 200.0
    loaded.model.set_output_embeddings(lm_head)
    (certain, *_) = decision_scores(loaded, TEXTS, RefusalStart((), frozenset({5})), None)
    (never, *_) = decision_scores(loaded, TEXTS, RefusalStart((), frozenset({6})), None)
    assert 20 < certain.refusal_logit < float("inf")
    assert never.refusal_logit == pytest.approx(-200, abs=1e-3)


def test_training_and_scoring_read_the_same_position(
    loaded: LoadedModel, head: Any, renderer: Renderer, make_trainer: TrainerFactory, tmp_path: Path
) -> None:
    # Rows as the align stage builds them, with the saved head's weights: the BCE of the first micro-batch is that of
    # the probabilities which `decision_scores` gives for the bare prompts.
    own = {
        str(i): Response(
            prompt_id=str(i),
            thinking="on",
            thought="I think.",
            answer="So.",
            truncated=False,
            complete=True,
            num_tokens=4,
            verdict="comply",
        )
        for i in range(4)
    }
    signals = {str(i): Signal(prompt_id=str(i), probability=p) for i, p in enumerate((0.9, 0.2, 0.5, 1.0))}
    rows = [row._asdict() for row in alignment_rows(prompts(), own, signals, renderer, "direct")]
    by_hand = [
        -signals[str(i)].probability * log(score.head_probability or 0)
        - (1 - signals[str(i)].probability) * log(1 - (score.head_probability or 0))
        for i, score in enumerate(decision_scores(loaded, TEXTS, TEN, head))
    ]
    trainer = make_trainer(loaded.model, rows)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "presafe_head.modules_to_save" in name:
                parameter.copy_(getattr(head, name.rpartition(".")[2]))
    batch, num_items = one_batch(trainer, rows)
    trainer.compute_loss(trainer.model, batch, num_items_in_batch=num_items)
    assert trainer._metrics["train"]["align_loss"] == [pytest.approx(sum(by_hand) / 4, rel=1e-5)]


def test_head_with_zero_weights_gives_its_bias(tmp_path: Path, loaded: LoadedModel) -> None:
    # a head by hand: p = σ(0·h + ln 3) = 3/4 whatever the prompt
    save_file(
        {"weight": torch.zeros(1, 32), "bias": torch.tensor([log(3)])}, str(tmp_path / "presafe_head.safetensors")
    )
    scores = decision_scores(loaded, TEXTS, TEN, DecisionHead(tmp_path))
    assert [score.head_probability for score in scores] == pytest.approx([0.75] * 4)
