"""Escape requests and answers in a judge's prompt, so that they cannot pass for the prompt's own text.

Control tokens, tags and fences lose the character that makes them one. In our own prompts every line of a request or
answer begins with "| ", so that no line can look like the prompt's. A prompt that a model was fine-tuned on must not
be changed: there, a dot is put before each line that begins like one of the prompt's dividing lines.
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
_PLACEHOLDER = re.compile(r"\{(request|answer|key)\}")


def neutralize(text: str) -> str:
    """Return the text with one kind of line end, and without control tokens, tags and fences."""
    text = _LINE_ENDS.sub("\n", text)
    text = _BRACKET_TOKEN.sub("&#91;", _TAG.sub("&lt;", text))
    return _FENCE.sub(lambda match: "'" * len(match[0]), text)


def quote(text: str) -> str:
    """Neutralize the text and begin each of its lines with "| "."""
    return "\n".join(f"| {line}" for line in neutralize(text).split("\n"))


def escape_dividers(text: str, dividers: Sequence[str]) -> str:
    """Neutralize the text and put a dot before each line that begins like a divider."""
    text = neutralize(text)
    if not dividers:
        return text
    any_divider = "|".join(re.escape(divider) for divider in dividers)
    return re.sub(rf"^(?=[^\S\n]*(?:{any_divider}))", "· ", text, flags=re.MULTILINE | re.IGNORECASE)


def fill_prompt(prompt: str, values: Mapping[str, str]) -> str:
    """Replace all placeholders of a prompt in one pass; a placeholder inside a value stays text.

    Args:
        prompt: Text with {request}, {answer} and {key}.
        values: Text of each placeholder, by its name.
    """
    return _PLACEHOLDER.sub(lambda match: values[match[1]], prompt)
