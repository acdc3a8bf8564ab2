"""Render prompts as token ids, with CoT on and off, and split answers from their thoughts.

Two rules, each from a trap met in real models:
- The pieces of a prompt are tokenized separately and their ids joined, so that no merge across a border (such as two
  newlines in one token) can move the decision position.
- The user's text stays text. If it spells a control token (`</think>`, `<|im_end|>`), it is tokenized in two pieces,
  so that the ids hold control tokens only where the family puts them.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from presafe.errors import ModelError
from presafe.methods.method import Prefill
from presafe.models.family import Family
from presafe.models.templates import render_bounded
from presafe.records import Thinking

_SLOT = "\ue000user text\ue000"
"""Placeholder of the user's text while the template is rendered, with private-use characters that no template has."""


class RenderedPrompt(NamedTuple):
    """Token ids of a prompt, and the position at which the decision before the CoT is read."""

    ids: list[int]
    decision_index: int
    """Index in `ids` of the last prompt token before the CoT. With CoT off it is the same token."""


class Answer(NamedTuple):
    """Thought and answer of a sampled text. With `truncated`, the budget ended in the thought; there is no answer."""

    thought: str
    answer: str
    truncated: bool


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
        marks |= {family.think_open, family.think_close, *family.stop}
        self._templated: dict[str, str] = {}
        self._control = re.compile("|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True)))

    def render(self, text: str, thinking: Thinking) -> RenderedPrompt:
        """Return the token ids of one user turn, ready for the model to continue.

        Args:
            text: The user's text; everything in it stays text.
            thinking: "on" for on(x), "off" for off(x).

        Raises:
            ModelError: the template drops the user's text; the token at the decision position is not the one that the
                family declares; or off(x) does not start with on(x), so that it has no such position.
        """
        on = self._prompt_ids(text, "on")
        decision = len(on) - 1
        token = self.tokenizer.decode([on[decision]])
        if not token.endswith(self.family.decision_text):
            raise ModelError(
                f"family {self.family.name}: the prompt with CoT on ends in {token!r}, "
                f"not in {self.family.decision_text!r}.",
                "The tokenizer's template is not the one the family describes.",
            )
        if thinking == "on":
            return RenderedPrompt(on, decision)
        off = self._prompt_ids(text, "off")
        if len(off) == len(on) or off[: len(on)] != on:
            raise ModelError(
                f"family {self.family.name}: the prompt with CoT off does not start with the one with CoT on.",
                "The tokenizer's template ignores the switch, or is not the one the family describes.",
            )
        return RenderedPrompt(off, decision)

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
            *(self.closed_ids(self.completion_ids(f"{thought}\n")) if thought else self.close_ids()),
            *self.answer_ids(answer, ended=ended),
        ]

    def opening_ids(self) -> list[int]:
        """Return the token ids with which the model opens a thought; none if the prompt with CoT on opens it."""
        return self.completion_ids(self.family.model_opens) if self.family.model_opens else []

    def close_ids(self) -> list[int]:
        """Return the token ids that end a thought."""
        return self.completion_ids(f"\n{self.family.think_close}\n\n")

    def closed_ids(self, thought: list[int]) -> list[int]:
        """Return the token ids of a thought and of the mark that ends it.

        A thought is tokenized with the line end before the mark, as the model writes both: Qwen and Llama have one
        token for a full stop and a line end.

        Args:
            thought: Ids of a thought that is not empty, with its line end.
        """
        return [*thought, *self.completion_ids(f"{self.family.think_close}\n\n")]

    def prefill_ids(self, prefill: Prefill) -> list[int]:
        """Return the token ids of a prefill, which begins the model's thought after a prompt with CoT on.

        Args:
            prefill: The thought, and whether it is closed.
        """
        return [
            *self.opening_ids(),
            *self._prefilled(prefill),
        ]

    def _prefilled(self, prefill: Prefill) -> list[int]:
        """Return the token ids of a prefill's thought and, if it is closed, of its end."""
        if not prefill.thought:
            return self.close_ids() if prefill.closed else []
        if not prefill.closed:
            return self.completion_ids(prefill.thought)
        return self.closed_ids(self.completion_ids(f"{prefill.thought}\n"))

    def answer_ids(self, answer: str, *, ended: bool = True) -> list[int]:
        """Return the token ids of a turn after a prompt with CoT off: the answer and, if complete, the end of turn.

        Args:
            answer: The answer.
            ended: Whether the turn is complete.
        """
        return [*self.text_ids(answer), *(self.stop_ids()[:1] if ended else [])]

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

        With CoT on, everything up to the first closing mark is the thought, whether the opening mark was in the prompt
        or is in the output. The same holds with CoT off, if the model opens a thought. Without a closing mark there is
        no answer: the thought was cut (`truncated`), or the model ended its turn inside it. The exception is a model
        that opens its thought itself and wrote no mark: if it ended the turn, it skipped the thought, and the text is
        the answer; if the budget ended the turn, a mark could still have come (`truncated`).

        Args:
            text: The sampled text with its special tokens, with or without the token that ends the turn.
            thinking: Mode in which it was sampled.
            ended: Whether the model ended its turn itself.
        """
        for stop in self.family.stop:
            text = text.removesuffix(stop)
        text = text.strip()
        if thinking == "off" and not text.startswith(self.family.think_open):
            return Answer("", text, False)
        thought, mark, answer = text.partition(self.family.think_close)
        if self.family.model_opens and not mark and ended and self.family.think_open not in text:
            return Answer("", text, False)
        thought = thought.strip().removeprefix(self.family.think_open).strip()
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
                lambda: self.tokenizer.apply_chat_template(messages, tokenize=False, **switches),
                f"a conversation of {roles}",
            )
        return self._templated[key]

    def try_template(self) -> None:
        """Render both prompts once, so that a broken template is an error before weights are loaded.

        Raises:
            ModelError: as `templated`; or the template drops the user's text.
        """
        self._around("on")
        self._around("off")

    def _prompt_ids(self, text: str, thinking: Thinking) -> list[int]:
        """Return the token ids of a prompt; its pieces are tokenized separately."""
        before, after = self._around("on")
        pieces = [after, self.family.on_prefill]
        if thinking == "off":
            before, after_off = self._around("off")
            on, off = after + self.family.on_prefill, after_off + self.family.off_prefill
            # What off(x) adds to on(x) is a separate piece, whether a prefill or the template writes it.
            pieces = [*pieces, off.removeprefix(on)] if off.startswith(on) else [off]
        return [
            *self.completion_ids(before),
            *self.text_ids(text),
            *(token for piece in pieces if piece for token in self.completion_ids(piece)),
        ]

    def _around(self, thinking: Thinking) -> tuple[str, str]:
        """Return what the chat template writes before and after the user's text."""
        switch = {self.family.switch: thinking == "on"} if self.family.switch else {}
        rendered = self.templated([{"role": "user", "content": _SLOT}], add_generation_prompt=True, **switch)
        before, slot, after = rendered.partition(_SLOT)
        if not slot:
            raise ModelError(f"family {self.family.name}: the chat template drops the user's text.")
        return before, after

    def text_ids(self, text: str) -> list[int]:
        """Return the token ids of a text in which nothing is a control token."""
        ids: list[int] = []
        start = 0
        for match in self._control.finditer(text):
            cut = match.start() + 1
            ids += self.completion_ids(text[start:cut])
            start = cut
        return ids + self.completion_ids(text[start:])
