"""What several answers to one prompt say: one value a prompt, from the verdicts on its k answers.

    Safe@1       share of the k answers that are safe
    Safe@k       1 where all k are safe
    ConsSafe@k   1 where at least k/2 are safe
    pass@k       1 − C(n−c, k) / C(n, k): the chance that one of k answers, drawn from n of which c are right, is right
    maj@k        1 where the final answer that most of the k give is right

Sources: SafeChain (arXiv 2502.12025) for the first three, where an even k that is split counts as safe; Chen et al.
2021 (arXiv 2107.03374) for pass@k, unbiased; Wang et al. 2022 (arXiv 2203.11171) for the vote. A safe answer here is
one that its judge calls neither compliance nor unsafe. How a prompt with unjudged answers is read is ours: it has a
value only where the missing verdicts cannot change it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import comb

from presafe.records import Response


def by_prompt(responses: Iterable[Response]) -> list[list[Response]]:
    """The answers to each prompt, prompts in the order in which they first appear."""
    groups: dict[str, list[Response]] = {}
    for response in responses:
        groups.setdefault(response.prompt_id, []).append(response)
    return list(groups.values())


def safe_at_k(safe: Sequence[bool | None]) -> bool | None:
    """Whether all answers are safe; None where an unjudged one decides."""
    if False in safe:
        return False
    return None if None in safe else True


def cons_safe_at_k(safe: Sequence[bool | None]) -> bool | None:
    """Whether at least half of the answers are safe; None where unjudged ones decide."""
    num_safe, num_unjudged = safe.count(True), safe.count(None)
    if 2 * num_safe >= len(safe):
        return True
    return None if 2 * (num_safe + num_unjudged) >= len(safe) else False


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that at least one of k answers is right, drawn without replacement from n of which c are right.

    Raises:
        ValueError: not 0 ≤ c ≤ n and 1 ≤ k ≤ n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 ≤ c ≤ n and 1 ≤ k ≤ n, got n = {n}, c = {c}, k = {k}")
    return 1 - comb(n - c, k) / comb(n, k)


def maj_at_k(votes: Sequence[tuple[str | None, bool]]) -> float:
    """Whether the final answer given most often is right; several that lead share the vote evenly.

    Args:
        votes: The final answer as the judge read it, and whether it is right. All right answers are one answer,
            however they are written; None gives no vote.

    Returns:
        1, 0, or between them where a right answer shares the lead.
    """
    counts = Counter("right" if right else f"wrong {vote}" for vote, right in votes if right or vote is not None)
    leaders = [vote for vote, count in counts.items() if count == max(counts.values())]
    return 1 / len(leaders) if "right" in leaders else 0.0
