"""Texts for property tests: any characters, and control tokens and think marks of all families, whole and in parts."""

from __future__ import annotations

from hypothesis import strategies as st

from presafe.models.family import families

MARKS = [
    *sorted({mark for f in families().values() for mark in (f.think_open, f.think_close, *f.stop)}),
    *sorted({mark for f in families().values() for mark in (f.answer_open, f.answer_close)} - {""}),
    *("<|im_start|>", "<|im_start|>assistant\n", "<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>"),
    *("<|begin_of_text|>", "<|eot_id|>", "<|EOT|>", "[THINK]", "[/THINK]", "</think", "<think", "think>", "｜>", "<|"),
    *(" /no_think", "/no_think", "/think", "<|start|>", "<|channel|>", "<|turn>", "[INST]", "<SPECIAL_11>"),
]
"""Every control token and think mark of every family, pieces of them, and words that some templates obey."""
_DROPPED = "\x04\x06\x13\x14\x16\x1d"
"""Bytes that SmolLM2's vocabulary lacks; and of planes 4 to 11."""
_CHARACTERS = st.characters(codec="utf-8", exclude_characters=_DROPPED).filter(
    lambda c: not 0x40000 <= ord(c) < 0xC0000
)
PLAIN = st.text(_CHARACTERS, max_size=12)
USER_TEXT = st.lists(st.one_of(st.sampled_from(MARKS), PLAIN), min_size=1, max_size=6).map("".join)
WRITTEN = USER_TEXT.map(str.strip)

EVERY_MARK = " ".join(MARKS)
"""Always tried: every control token and think mark of every family in one text."""
