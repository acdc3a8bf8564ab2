"""Own answers are trained on the tokens that the model sampled, not on those of its text."""

from __future__ import annotations

import pytest

from presafe.alignment.rows import alignment_rows, thinking_off_rows
from presafe.errors import RunError
from presafe.methods.registry import training_of
from presafe.models.rendering import Renderer
from presafe.records import Prompt, Response, Signal, Thinking

QUERY = Prompt(id="tea", text="How does tea brew?", category="none", split="align", license="MIT", expect="comply")
SIGNALS = {"tea": Signal(prompt_id="tea", probability=0.1)}
TURNS: dict[Thinking, str] = {"on": "I think.\n</think>\n\nIn hot water.<|im_end|>", "off": "In hot water.<|im_end|>"}


def piecewise(renderer: Renderer, text: str) -> list[int]:
    """Return tokens that no tokenizer would write for the text: each word letter by letter, control tokens whole."""
    body, end = text.removesuffix("<|im_end|>"), renderer.completion_ids("<|im_end|>")
    before, mark, after = body.partition("</think>")
    letters = [token for letter in before for token in renderer.text_ids(letter)]
    rest = [token for letter in after for token in renderer.text_ids(letter)]
    return [*letters, *(renderer.completion_ids(mark) if mark else []), *rest, *end]


def sampled(renderer: Renderer, thinking: Thinking) -> Response:
    return Response(
        prompt_id="tea",
        thinking=thinking,
        thought="I think." if thinking == "on" else "",
        answer="In hot water.",
        truncated=False,
        complete=True,
        num_tokens=9,
        verdict="comply",
        token_ids=tuple(piecewise(renderer, TURNS[thinking])),
    )


def test_rows_hold_the_sampled_tokens(smolthink: Renderer) -> None:
    response = sampled(smolthink, "on")
    (row,) = alignment_rows([QUERY], {"tea": response}, SIGNALS, smolthink, "direct")
    (other,) = alignment_rows(
        [QUERY], {"tea": response.model_copy(update={"token_ids": None})}, SIGNALS, smolthink, "direct"
    )
    prompt_ids = smolthink.render(QUERY.text, "on").ids
    assert row.input_ids == [*prompt_ids, *(response.token_ids or ())]
    assert row.labels == [-100] * len(prompt_ids) + list(response.token_ids or ())
    assert len(other.input_ids) < len(row.input_ids)
    assert smolthink.tokenizer.decode(other.input_ids) == smolthink.tokenizer.decode(row.input_ids)


def test_rows_with_thinking_off_hold_the_sampled_tokens(smolthink: Renderer) -> None:
    response = sampled(smolthink, "off")
    (row,) = thinking_off_rows([QUERY], {"tea": response}, smolthink)
    assert row.input_ids == [*smolthink.render(QUERY.text, "off").ids, *(response.token_ids or ())]


def test_a_method_that_changes_the_thought_uses_its_text(smolthink: Renderer) -> None:
    (row,) = alignment_rows(
        [QUERY], {"tea": sampled(smolthink, "on")}, SIGNALS, smolthink, "direct", training_of("r2d")
    )
    written = smolthink.tokenizer.decode([label for label in row.labels if label != -100])
    assert written == "I think. [SAFE]\n</think>\n\nIn hot water.<|im_end|>"


@pytest.mark.parametrize("token_ids", [(1, 2, 3), (10**9,)])
def test_tokens_of_another_answer_are_an_error(smolthink: Renderer, token_ids: tuple[int, ...]) -> None:
    response = sampled(smolthink, "on").model_copy(update={"token_ids": token_ids})
    with pytest.raises(RunError, match="the tokens of tea are not those of its text"):
        alignment_rows([QUERY], {"tea": response}, SIGNALS, smolthink, "direct")
