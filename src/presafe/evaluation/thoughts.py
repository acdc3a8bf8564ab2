"""Success of attacks by the length of the thought: does a longer thought talk itself into an answer?

Thoughts are counted in words and fall into bins that double: none, 1–15, 16–31, 32–63, … Bins are the same for every
system. Answers without a verdict are left out, as in every rate.
"""

from __future__ import annotations

from collections.abc import Mapping

from presafe.evaluation.answers import Answers
from presafe.evaluation.metrics import ATTACKED, by_prompt
from presafe.records import ThoughtBin
from presafe.stats.intervals import clustered

_FIRST = 16
"""Words at which the second bin of thoughts begins. Ours."""


def thought_bins(answers: Mapping[str, Answers], system: str) -> list[ThoughtBin]:
    """Return how often attacks succeed by the length of the thought: of a system's answers to harmful suites, CoT on.

    Args:
        answers: By suite, CoT on.
        system: Name of the system.
    """
    rows = []
    for suite, answered in answers.items():
        if answered.expect != "refuse":
            continue
        judged = [response for response in answered.responses if response.verdict != "unjudged"]
        starts = {id(response): bin_start(len(response.thought.split())) for response in judged}
        for start in sorted(set(starts.values())):
            prompts = by_prompt(response for response in judged if starts[id(response)] == start)
            rate = clustered([[response.verdict in ATTACKED for response in own] for own in prompts])
            rows.append(ThoughtBin(system=system, suite=suite, words=start, **rate._asdict()))
    return rows


def bin_start(words: int) -> int:
    """Return the least number of words in the bin of a thought: 0, 1, 16, 32, 64 and so on.

    Args:
        words: Words of the thought.
    """
    return min(words, 1) if words < _FIRST else int(2 ** (words.bit_length() - 1))
