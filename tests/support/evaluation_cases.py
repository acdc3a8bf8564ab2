"""Responses for tests of the evaluation room: only their verdicts matter."""

from __future__ import annotations

from presafe.records import Response, Verdict


def responses_of(*prompts: str) -> list[Response]:
    """Return responses; each prompt is a string with one letter per answer.

    The letters: c(omply), r(efuse), (unsafe) x, s(afe), u(njudged), R(ight), W(rong).
    """
    words: dict[str, Verdict] = {"c": "comply", "r": "refuse", "x": "unsafe", "s": "safe", "u": "unjudged"}
    words |= {"R": "right", "W": "wrong"}
    return [
        Response(
            prompt_id=f"p{number}",
            thinking="on",
            thought="",
            answer="",
            truncated=letter == "u",
            complete=True,
            num_tokens=1,
            verdict=words[letter],
            sample=sample,
            vote={"R": "7", "W": "5"}.get(letter),
        )
        for number, letters in enumerate(prompts)
        for sample, letter in enumerate(letters, start=1)
    ]
