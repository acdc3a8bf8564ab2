"""Find the fenced blocks of a Markdown answer (CommonMark 0.31, section 4.5).

Unlike CommonMark, a fence inside a triple-quoted string of the block belongs to the program and closes nothing.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import NamedTuple

_FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})[ \t]*([^\n]*)$", re.MULTILINE)
_LITERAL = re.compile(r"""#[^\n]*|(\"{3}|'{3})(?:\\.|(?!\1).)*(\1)?|"(?:\\.|[^"\\\n])*|'(?:\\.|[^'\\\n])*""", re.DOTALL)
"""A comment or a string of Python; a triple-quoted string may lack its end."""
_MOST_IN_STRINGS = 50
"""Fences that are checked for the end of a block, at most. Ours."""


class Block(NamedTuple):
    """A fenced block."""

    tag: str
    """First word after the opening fence, in lower case; empty if there is none."""
    code: str


def blocks_of(answer: str) -> list[Block]:
    """Return the fenced blocks of an answer; the last one may lack its end."""
    answer = answer.replace("\r\n", "\n")
    fences = list(_FENCE.finditer(answer))
    blocks: list[Block] = []
    end = -1
    for number, fence in enumerate(fences):
        indent, marks, info = fence.groups()
        if fence.start() < end or (marks[0] == "`" and "`" in info):
            continue
        begin = min(fence.end() + 1, len(answer))
        later = (fences[place] for place in range(number + 1, len(fences)))
        ends = islice((closing for closing in later if _closes(closing, indent, marks)), _MOST_IN_STRINGS)
        closing = next((closing for closing in ends if not _is_in_string(answer, begin, closing.start())), None)
        stop, end = (closing.start(), closing.end()) if closing else (len(answer), len(answer))
        code = answer[begin:stop]
        if indent:
            code = re.sub(rf"^[ \t]{{1,{len(indent)}}}", "", code, flags=re.MULTILINE)
        blocks.append(Block(re.split(r"[\s,:{}]", info.strip(" \t{."))[0].lower(), code))
    return blocks


def _closes(fence: re.Match[str], indent: str, marks: str) -> bool:
    """Return whether a fence can close a block: at least as many same marks, no word, at most 3 columns deeper."""
    deeper = len(fence[1].expandtabs(4)) - len(indent.expandtabs(4))
    return fence[2].startswith(marks) and not fence[3].strip() and deeper < 4


def _is_in_string(answer: str, begin: int, place: int) -> bool:
    """Return whether a triple-quoted string begins in the block before the place and ends after it."""
    literals = list(_LITERAL.finditer(answer, begin, place))
    if not literals or not literals[-1][1] or literals[-1][2]:
        return False
    return answer.find(literals[-1][1], place) >= 0
