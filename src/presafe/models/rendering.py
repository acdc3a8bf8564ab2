"""Render prompts as token ids, with CoT on and off, and split answers from their thoughts.

Two rules, each from a trap met in real models:
- The pieces of a prompt are tokenized separately and their ids joined, so that no merge across a border (such as two
  newlines in one token) can move the decision position.
- The user's text stays text. If it spells a control token (`</think>`, `<|im_end|>`), it is tokenized in two pieces,
  so that the ids hold control tokens only where the family puts them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from presafe.errors import ModelError
from presafe.models.family import Family, Mode
from presafe.models.templates import render_bounded, with_fixed_day
from presafe.records import Prefill, Thinking

_SLOT = "\ue000user text\ue000"
"""Placeholder of the user's text while the template is rendered, with private-use characters that no template has."""


Encode = Callable[[str], list[int]]
"""Returns the token ids of a text."""


class RenderedPrompt(NamedTuple):
    """Token ids of a prompt, and the position at which the decision before the CoT is read."""

    ids: list[int]
    decision_index: int
    """Index in `ids` of the last prompt token before the CoT. With CoT off it is the same token, or, if the prompt does
    not begin with the one with CoT on, its own last token."""


class Answer(NamedTuple):
    """Thought and answer of a sampled text. With `truncated`, the budget ended in the thought; there is no answer."""

    thought: str
    answer: str
    truncated: bool


def asked(mode: Mode, text: str) -> list[dict[str, str]]:
    """Return the messages with which a user's text is asked in a mode.

    Args:
        mode: How the template is asked.
        text: The user's text.
    """
    system = [{"role": "system", "content": mode.system}] if mode.system else []
    return [*system, {"role": "user", "content": text + mode.suffix}]


class Renderer:
    """Renders prompts for one tokenizer and family.

    Args:
        tokenizer: A Hugging Face tokenizer with a chat template.
        family: How this kind of model is asked with CoT on and off.
        model_type: `model_type` of the model's config; None if it is not known.
    """

    def __init__(self, tokenizer: Any, family: Family, model_type: str | None = None) -> None:
        self.tokenizer, self.family, self.model_type = tokenizer, family, model_type
        marks = {token.content for token in tokenizer.added_tokens_decoder.values()}
        marks |= {family.think_open, family.think_close, family.answer_open, family.answer_close, *family.stop}
        self._templated: dict[str, str] = {}
        template = tokenizer.chat_template
        fixed = with_fixed_day(template) if isinstance(template, str) else template
        self._fixed = {} if fixed == template else {"chat_template": fixed}
        # Only looks ahead, so that a mark that begins inside another one is found, too.
        self._control = re.compile(f"(?={'|'.join(re.escape(mark) for mark in sorted(marks - {''}))})")

    def render(self, text: str, thinking: Thinking, encode: Encode | None = None) -> RenderedPrompt:
        """Return the token ids of one user turn, ready for the model to continue.

        Args:
            text: The user's text; everything in it stays text.
            thinking: "on" for on(x), "off" for off(x), or one of the family's levels.
            encode: Tokenizes the user's text, in which no control token is spelled; None does as the tokenizer does.

        Raises:
            ModelError: the family has no such mode; the template drops the user's text; the token at the decision
                position is not the one that the family declares; or off(x) does not begin with on(x) and the family
                declares no other decision position for it.
        """
        self.need_mode(thinking)
        family = self.family
        if thinking == "off" and family.off_decision_text is not None:
            off = self._prompt_ids(text, "off", encode)
            self._need_decision(off, "off", family.off_decision_text)
            return RenderedPrompt(off, len(off) - 1)
        first = "on" if thinking == "off" else thinking
        on = self._prompt_ids(text, first, encode)
        self._need_decision(on, first, family.decision_text)
        if thinking != "off":
            return RenderedPrompt(on, len(on) - 1)
        off = self._prompt_ids(text, "off", encode)
        if len(off) == len(on) or off[: len(on)] != on:
            raise ModelError(
                f"family {family.name}: the prompt with CoT off does not start with the one with CoT on.",
                "The tokenizer's template ignores the switch, or is not the one the family describes. If it is meant, "
                "declare `off_decision_text`.",
            )
        return RenderedPrompt(off, len(on) - 1)

    def need_mode(self, thinking: Thinking) -> None:
        """Check that the family has a mode.

        Args:
            thinking: The mode.

        Raises:
            ModelError: it has not.
        """
        if thinking not in self.family.modes:
            raise ModelError(
                f"family {self.family.name} has no CoT {thinking}.", f"It has: {', '.join(self.family.modes)}."
            )

    def _need_decision(self, ids: list[int], thinking: Thinking, expected: str) -> None:
        """Check that a prompt ends in the token that the family declares.

        Args:
            ids: Token ids of the prompt.
            thinking: Its mode.
            expected: End of the text of its last token.

        Raises:
            ModelError: it does not.
        """
        token = self.tokenizer.decode(ids[-1:])
        if not token.endswith(expected):
            raise ModelError(
                f"family {self.family.name}: the prompt with CoT {thinking} ends in {token!r}, not in {expected!r}.",
                "The tokenizer's template is not the one the family describes.",
            )

    def completion_ids(self, text: str) -> list[int]:
        """Return the token ids of a text as the model writes it; think marks in it are marks."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def completion(self, thought: str | None, answer: str, *, ended: bool = True) -> list[int]:
        """Return the token ids of a turn after a prompt with CoT on: thought, closing mark, answer, end of turn.

        Args:
            thought: The thought; None closes the thought at once.
            answer: The answer after the thought.
            ended: Whether the turn is complete; False leaves out the end-of-turn token.
        """
        return [
            *self.opening_ids(),
            *(self.closed_ids(self.completion_ids(thought + self.family.gap)) if thought else self.close_ids()),
            *self.answer_ids(answer, ended=ended),
        ]

    def opening_ids(self) -> list[int]:
        """Return the token ids with which the model opens a thought; none if the prompt with CoT on opens it."""
        return self.completion_ids(self.family.model_opens) if self.family.model_opens else []

    def close_ids(self) -> list[int]:
        """Return the token ids that end a thought."""
        return self.completion_ids(self.family.closing)

    def closed_ids(self, thought: list[int]) -> list[int]:
        """Return the token ids of a thought and of the mark that ends it.

        A thought is tokenized with the white space before the mark (`Family.gap`), as the model writes both: Qwen and
        Llama have one token for a full stop and a line end.

        Args:
            thought: Ids of a thought that is not empty, with that white space.
        """
        return [*thought, *self.completion_ids(self.family.closing.lstrip())]

    def prefill_ids(self, prefill: Prefill) -> list[int]:
        """Return the token ids of a prefill, which begins the model's turn after a prompt with CoT on.

        Args:
            prefill: The thought, whether it is closed, and what the answer then begins with.
        """
        return [*self.opening_ids(), *self._prefilled(prefill), *self.text_ids(prefill.answer)]

    def _prefilled(self, prefill: Prefill) -> list[int]:
        """Return the token ids of a prefill's thought and, if it is closed, of its end."""
        if not prefill.thought:
            return self.close_ids() if prefill.closed else []
        if not prefill.closed:
            return self.completion_ids(prefill.thought)
        return self.closed_ids(self.completion_ids(prefill.thought + self.family.gap))

    def header_ids(self) -> list[int]:
        """Return the token ids that end a user's turn and begin an answer without a thought (as with CoT off)."""
        after = self._around("off")[1] + self.family.off_prefill
        return self.completion_ids(after)

    def answer_ids(self, answer: str, *, ended: bool = True) -> list[int]:
        """Return the token ids of a turn after a prompt with CoT off: the answer and, if complete, the end of turn.

        Args:
            answer: The answer.
            ended: Whether the turn is complete.
        """
        end = [*self.completion_ids(self.family.answer_close), *self.stop_ids()[:1]] if ended else []
        return [*self.text_ids(answer), *end]

    def stop_ids(self) -> list[int]:
        """Return the ids of the tokens that end a turn.

        Raises:
            ModelError: the tokenizer has no such token.
        """
        ids = [self.tokenizer.convert_tokens_to_ids(token) for token in self.family.stop]
        unknown = self.tokenizer.unk_token_id
        known = [i for i in ids if i is not None and i != unknown] or [self.tokenizer.eos_token_id]
        if known == [None]:
            raise ModelError(
                f"the tokenizer has no token that ends a turn: neither {', '.join(self.family.stop)} nor an eos_token.",
                "Name the family that the model is of, or declare its stop tokens in a .toml file.",
            )
        return known

    def need_stops(self) -> None:
        """Check that each stop token of the family is a single token of the tokenizer.

        Raises:
            ModelError: one is not, so it could never end a turn.
        """
        vocabulary = self.tokenizer.get_vocab()
        if unknown := [token for token in self.family.stop if token not in vocabulary]:
            raise ModelError(
                f"family {self.family.name}: stop: {unknown[0]!r} is not a token of this tokenizer.",
                "Name the tokens that end a turn, as in the vocabulary.",
            )

    def split(self, ids: list[int], thinking: Thinking) -> Answer:
        """Split sampled token ids into thought and answer; see `split_text`."""
        ended = bool(ids) and ids[-1] in self.stop_ids()
        return self.split_text(self.tokenizer.decode(ids, skip_special_tokens=False), thinking, ended=ended)

    def split_text(self, text: str, thinking: Thinking, *, ended: bool) -> Answer:
        """Split what the model wrote into thought and answer.

        With CoT on, everything up to the first closing mark (or, if the family has one, up to the mark that opens the
        answer) is the thought, whether the opening mark was in the prompt or is in the output. The same holds with CoT
        off, if the model opens a thought. Without that mark there is no answer: the thought was cut (`truncated`), or
        the model ended its turn inside it. The exception is a model that opens its thought itself and wrote no mark: if
        it ended the turn, it skipped the thought, and the text is the answer; if the budget ended the turn, a mark
        could still have come (`truncated`).

        Args:
            text: The sampled text with its special tokens, with or without the token that ends the turn.
            thinking: Mode in which it was sampled.
            ended: Whether the model ended its turn itself.
        """
        family = self.family
        for mark in (*family.stop, family.answer_close):
            text = text.removesuffix(mark)
        text, opening = text.strip(), family.think_open.strip()
        if thinking == "off" and not text.startswith(opening):
            return Answer("", text.removeprefix(family.answer_open).strip(), False)
        thought, mark, answer = text.partition(family.answer_open or family.think_close)
        if family.model_opens and not mark and ended and opening not in text:
            return Answer("", text, False)
        if family.answer_open:  # between the two stands what closes the thought
            thought = thought.removesuffix(family.closing.removesuffix(family.answer_open))
        thought = thought.strip().removeprefix(opening).strip()
        return Answer(thought, answer.strip(), not mark and not ended)

    def templated(self, messages: list[dict[str, str]], **switches: Any) -> str:
        """Return what the chat template writes for a conversation; it is rendered once and then cached.

        Args:
            messages: The conversation: role and content of each message.
            switches: Variables of the template.

        Raises:
            ModelError: the template fails, refuses these messages, or exceeds its bounds (`render_bounded`).
        """
        key = repr((self.tokenizer.chat_template, messages, sorted(switches.items())))
        if key not in self._templated:
            roles = ", ".join(message["role"] for message in messages)
            self._templated[key] = render_bounded(
                lambda: self.tokenizer.apply_chat_template(messages, tokenize=False, **self._fixed, **switches),
                f"a conversation of {roles}",
            )
        return self._templated[key]

    def try_template(self) -> None:
        """Render every mode's prompt once, so that a broken template is an error before weights are loaded.

        Raises:
            ModelError: as `templated`; or the template drops the user's text.
        """
        for mode in self.family.modes:
            self._around(mode)

    def _prompt_ids(self, text: str, thinking: Thinking, encode: Encode | None) -> list[int]:
        """Return the token ids of a prompt; its pieces are tokenized separately."""
        family = self.family
        if thinking == "off":
            before, after = self._around("off")
            pieces = [after, family.off_prefill]
            if family.off_decision_text is None:
                after_on, off = self._around("on")[1], after + family.off_prefill
                on = after_on + family.on_prefill
                # What off(x) adds to on(x) is a separate piece, whether a prefill or the template writes it.
                pieces = [after_on, family.on_prefill, off.removeprefix(on)] if off.startswith(on) else [off]
        else:
            before, after = self._around(thinking)
            pieces = [after, family.on_prefill]
        return [
            *self.completion_ids(before),
            *self.text_ids(text, encode),
            *(token for piece in pieces if piece for token in self.completion_ids(piece)),
        ]

    def _around(self, thinking: Thinking) -> tuple[str, str]:
        """Return what the chat template writes before and after the user's text."""
        mode = self.family.modes[thinking]
        rendered = self.templated(asked(mode, _SLOT), add_generation_prompt=True, **mode.variables)
        before, slot, after = rendered.partition(_SLOT)
        if not slot:
            raise ModelError(f"family {self.family.name}: the chat template drops the user's text.")
        return before, after

    def text_start(self, thinking: Thinking) -> int:
        """Return the index of the first token of the user's text in a prompt.

        Args:
            thinking: CoT mode.
        """
        return len(self.completion_ids(self._around(thinking)[0]))

    def text_ids(self, text: str, encode: Encode | None = None) -> list[int]:
        """Return the token ids of a text in which nothing is a control token.

        Args:
            text: The text.
            encode: Tokenizes its parts, in which no control token is spelled; None does as the tokenizer does.
        """
        encode = encode or self.completion_ids
        ids: list[int] = []
        start = 0
        for match in self._control.finditer(text):
            cut = match.start() + 1
            ids += encode(text[start:cut])
            start = cut
        return ids + encode(text[start:])
