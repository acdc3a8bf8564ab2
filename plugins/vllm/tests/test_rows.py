"""What is forced on a row, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gate_cases import REFUSAL, TAIL, settings_of
from presafe_vllm.channel import Told
from presafe_vllm.rows import Row, Rows

AT, ELSEWHERE = [5, *TAIL], [*TAIL, 5]
END = REFUSAL[-1]


class Api:
    """The API server: it keeps what it is told, or cannot be reached."""

    def __init__(self, *, reachable: bool = True) -> None:
        self.reachable = reachable
        self.told: list[Told] = []

    def tell(self, request: str, row: str, told: Told) -> bool:
        if self.reachable:
            self.told.append(told)
        return self.reachable


def forced(rows: Rows, row: Row, num: int = 5) -> list[int | None]:
    return [rows.token(row, written) for written in range(num)]


def row_of(mode: str | None, prompt: list[int]) -> Row:
    return Row({"presafe_id": "x-0", "presafe_mode": mode} if mode else None, prompt)


NOTHING = [None] * 5
WHOLE = [*REFUSAL, END, END]
"""The refusal, and the end of the turn for as long as a client asks for more."""


@pytest.mark.parametrize(
    ("mode", "prompt", "p", "tokens", "told"),
    [
        ("gate", AT, 0.5, WHOLE, Told(0.5, True)),  # at the threshold
        ("gate", AT, 0.49, NOTHING, Told(0.49, False)),
        ("gate", ELSEWHERE, 0.1, [END] * 5, Told(None, True)),  # not at the decision position: p says nothing
        ("gate", AT, None, [END] * 5, Told(None, True)),  # the model left no p
        ("monitor", AT, 0.9, NOTHING, Told(0.9, False)),
        ("monitor", ELSEWHERE, 0.9, NOTHING, Told(None, False)),
        ("open", AT, 0.9, NOTHING, Told(None, False)),
    ],
)
def test_what_each_mode_forces(
    mode: str, prompt: list[int], p: float | None, tokens: list[int | None], told: Told, tmp_path: Path
) -> None:
    api = Api()
    rows, row = Rows(settings_of(tmp_path), api.tell), row_of(mode, prompt)
    rows.decide(row, p)
    assert forced(rows, row) == tokens
    assert api.told == [told]


@pytest.mark.parametrize("arguments", [None, {}, {"presafe_id": "x-0"}, {"presafe_id": 3, "presafe_mode": "off"}])
def test_a_request_of_another_way_is_gated(arguments: dict[str, Any] | None, tmp_path: Path) -> None:
    rows = Rows(settings_of(tmp_path), Api(reachable=False).tell)
    row = Row(arguments, AT)
    rows.decide(row, 0.1)
    assert forced(rows, row) == [END] * 5
    watching = Rows(settings_of(tmp_path, "own=monitor"), Api(reachable=False).tell)
    watching.decide(row, 0.9)
    assert forced(watching, row) == NOTHING


@pytest.mark.parametrize("mode", ["gate", "monitor", "open"])
def test_what_cannot_be_told_is_ended_where_a_name_is_gated(mode: str, tmp_path: Path) -> None:
    rows, row = Rows(settings_of(tmp_path), Api(reachable=False).tell), row_of(mode, AT)
    rows.decide(row, 0.1)
    assert forced(rows, row) == [END] * 5


@pytest.mark.parametrize(("unread", "tokens"), [("answer", NOTHING), ("refuse", [END] * 5), ("503", [END] * 5)])
def test_unread_decides_where_no_p_is_read(unread: str, tokens: list[int | None], tmp_path: Path) -> None:
    rows = Rows(settings_of(tmp_path, PRESAFE_GATE_UNREAD=unread), Api().tell)
    row = row_of("gate", ELSEWHERE)
    rows.decide(row, 0.9)
    assert forced(rows, row) == tokens


def test_a_preempted_request_keeps_its_outcome(tmp_path: Path) -> None:
    rows = Rows(settings_of(tmp_path), Api().tell)
    rows.decide(row_of("gate", AT), 0.9)
    again = row_of("gate", AT)
    assert rows.token(again, 1) == REFUSAL[1]
    unknown = Row({"presafe_id": "y-0", "presafe_mode": "gate"}, AT)
    assert rows.token(unknown, 1) == END


def test_forcing_leaves_one_token(tmp_path: Path) -> None:
    rows = Rows(settings_of(tmp_path), Api().tell)
    logits = rows.force(torch.ones(2, 30), [(1, 20)])
    assert logits[0].eq(1).all()
    assert logits[1, 20] == 0
    assert torch.isinf(logits[1]).sum() == 29
