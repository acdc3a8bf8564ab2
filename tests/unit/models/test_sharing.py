"""Which prompts share the keys and values of their beginning."""

from __future__ import annotations

from presafe.models.sharing import Shared, share

LONG = list(range(100))


def test_same_prompts_share_all_but_their_last_token() -> None:
    assert share([], [LONG, LONG, LONG]) == ([0], [Shared(1, 0, 99), Shared(2, 0, 99)])


def test_a_running_row_shares_its_prompt() -> None:
    # One row runs, so the first prompt is number 1.
    assert share([[7, 8]], [LONG, [*LONG, 5, 6]]) == ([0], [Shared(1, 1, 100)])
    assert share([[*LONG, 3]], [[*LONG, 5, 6]]) == ([], [Shared(0, 0, 100)])


def test_all_shared_prompts_have_as_many_tokens_left() -> None:
    # The third prompt has 11 tokens of its own, so the second reads its last 11, too.
    whole, shared = share([], [LONG, LONG, [*LONG, *range(200, 211)]])
    assert whole == [0]
    assert shared == [Shared(1, 0, 89), Shared(2, 0, 100)]


def test_too_little_in_common_is_read_whole() -> None:
    # Less than half of the prompt; less than 64 tokens together; and one token, of which nothing may be left out.
    assert share([], [LONG, [*LONG[:49], *range(500, 551)]]) == ([0, 1], [])
    assert share([], [LONG[:60], LONG[:60]]) == ([0, 1], [])
    assert share([], [[1], [1], LONG, LONG])[0] == [0, 1, 2]
