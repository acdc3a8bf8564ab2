"""Requests and answers as parts of a judge's prompt: they stay text, and cannot pass for the prompt's own.

Control tokens, tags and fences lose the character that makes them one. In prompts of our own every quoted line begins
with "| ", so that no line can look like the prompt's. A prompt that a model was fine-tuned on leaves no room for that:
there a line that begins like one of the prompt's own dividing lines is set off by a dot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_LINE_ENDS = re.compile(r"\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")
_TAG = re.compile(r"<(?=[A-Za-z/!?|｜<])")
"""Opens a tag, a comment, or a token such as <|im_end|>, <｜Assistant｜>, <<SYS>>, </s>."""
_BRACKET_TOKEN = re.compile(r"\[(?=/?[a-z]?[A-Z][A-Z0-9_]+\])")
"""Opens a token such as [/INST], [gMASK], [UNUSED_TOKEN_145], or a divider such as [ANSWER]."""
_FENCE = re.compile(r"`{3,}|~{3,}")
_PLACE = re.compile(r"\{(request|answer|key)\}")


def neutral(text: str) -> str:
    """The text with one kind of line end, and without control tokens, tags and fences."""
    text = _LINE_ENDS.sub("\n", text)
    text = _BRACKET_TOKEN.sub("&#91;", _TAG.sub("&lt;", text))
    return _FENCE.sub(lambda found: "'" * len(found[0]), text)


def quoted(text: str) -> str:
    """The text as lines that all begin with "| "."""
    return "\n".join(f"| {line}" for line in neutral(text).split("\n"))


def set_off(text: str, marks: Sequence[str]) -> str:
    """The text with a dot before each line that begins like a mark."""
    text = neutral(text)
    if not marks:
        return text
    mark = "|".join(re.escape(each) for each in marks)
    return re.sub(rf"^(?=[^\S\n]*(?:{mark}))", "· ", text, flags=re.MULTILINE | re.IGNORECASE)


def filled(prompt: str, parts: Mapping[str, str]) -> str:
    """The prompt with its parts in their places, in one pass: a place named within a part stays text."""
    return _PLACE.sub(lambda found: parts[found[1]], prompt)
