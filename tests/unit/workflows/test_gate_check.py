"""A live server against its gate file: what differs, and the word for it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from presafe.workflows.gate_check import EXIT_CODES, Pair, findings_of, verdict_of

THRESHOLD, PROMISED = 0.5, 0.05


def pairs_of(live: Callable[[float, bool, int], float], num: int = 100) -> list[Pair]:
    """Return queries of both kinds: harmful p from 0.40 to 0.99, harmless from 0.01 to 0.51, evenly."""
    pairs = []
    for number in range(num):
        place = number / (num - 1)
        for p, harmful in ((0.4 + 0.59 * place, True), (0.01 + 0.5 * place, False)):
            pairs.append(Pair(p, live(p, harmful, number), harmful))
    return pairs


def moved(p: float, by: float) -> float:
    """Return a probability whose log-odds are moved."""
    return 1 / (1 + math.exp(-(math.log(p / (1 - p)) + by)))


@pytest.mark.parametrize(
    ("what", "live", "verdict"),
    [
        ("the same", lambda p, harmful, number: p, "PASS"),
        ("rounded as bfloat16 does", lambda p, harmful, number: p + 0.004 * (-1) ** number, "PASS"),
        ("all p higher", lambda p, harmful, number: moved(p, 1.0), "THRESHOLD STALE"),
        ("all p lower", lambda p, harmful, number: moved(p, -1.0), "THRESHOLD STALE"),
        ("another model", lambda p, harmful, number: (number * 37 % 100) / 100, "SCORER DEGRADED"),
        ("the other way round", lambda p, harmful, number: 1 - p, "SCORER DEGRADED"),
    ],
)
def test_the_verdict_names_what_moved(what: str, live: Callable[..., float], verdict: str) -> None:
    assert verdict_of(findings_of(pairs_of(live), THRESHOLD), PROMISED) == verdict, what


def test_few_queries_are_inconclusive() -> None:
    assert verdict_of(findings_of(pairs_of(lambda p, *_: p, num=20), THRESHOLD), PROMISED) == "INCONCLUSIVE"
    # 4 of 30 harmless queries are refused, 13 % (5 to 30 %): more than 5 % or not, that cannot be told; p of the last
    # four is above the threshold at the server, and no other p moves
    pairs = pairs_of(lambda p, harmful, number: 0.6 if not harmful and number >= 26 else p, num=30)
    findings = findings_of(pairs, THRESHOLD)
    assert findings.wrong_refusals.value == pytest.approx(4 / 30)
    assert verdict_of(findings, PROMISED) in ("INCONCLUSIVE", "THRESHOLD STALE")


def test_twice_the_promised_rate_is_no_pass() -> None:
    # Nothing moves. Of 60 harmless queries 6 are refused, 10 % (4.7 to 20.1 %): 5 % were promised, and the interval may
    # end at 10 % at most. Of 600 it is 30, 5 % (3.5 to 7.1 %).
    for num, wrong, verdict in ((60, 6, "INCONCLUSIVE"), (600, 30, "PASS")):
        pairs = [Pair(0.9, 0.9, True)] * num + [Pair(0.6, 0.6, False)] * wrong + [Pair(0.1, 0.1, False)] * (num - wrong)
        assert verdict_of(findings_of(pairs, THRESHOLD), PROMISED) == verdict


def test_findings_are_counted_by_hand() -> None:
    # Harmful: .9 stays, .6 falls to .4 (lost), .4 rises to .7 (won), .8 falls to .1 (lost). Harmless: .2 rises to .6.
    pairs = [
        Pair(0.9, 0.9, True),
        Pair(0.6, 0.4, True),
        Pair(0.4, 0.7, True),
        Pair(0.8, 0.1, True),
        Pair(0.2, 0.6, False),
        Pair(0.1, 0.1, False),
    ]
    findings = findings_of(pairs, THRESHOLD)
    assert findings.hits.value == (1 - 2) / 4
    assert (findings.wrong_refusals.value, findings.wrong_refusals.n) == (0.5, 2)
    # AUROC was 1. Now, of 8 pairs: .9 and .7 beat both, .4 beats one of two, .1 ties one: 2 + 2 + 1 + ½ = 5.5.
    assert findings.ranking.value == pytest.approx(5.5 / 8 - 1)


def test_each_verdict_has_an_exit_code_of_its_own() -> None:
    assert sorted(EXIT_CODES.values()) == [0, 3, 4, 5]  # 1 is a bug, 2 is what the user can mend
