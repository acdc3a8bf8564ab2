"""What the operator sets is checked before anything is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gate_cases import settings_of, write_gate
from presafe_vllm.gating.gate_file import GateError
from presafe_vllm.settings import settings_from


def test_settings_are_read(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "own=gate, also=x=monitor", PRESAFE_GATE_AUDIT=str(tmp_path / "audit.jsonl"))
    assert settings.modes == {"own": "gate", "also=x": "monitor"}  # a name may hold "="
    assert settings.is_gating
    assert (settings.unread, settings.audit) == ("refuse", tmp_path / "audit.jsonl")
    assert not settings_of(tmp_path, "").is_gating


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"schema": 2}, "schema"),
        ({"threshold": 1.0}, "threshold"),
        ({"threshold": float("nan")}, "threshold|JSON|json"),
        ({"refusal_ids": [2]}, "refusal_ids"),
        ({"decision_tail": []}, "decision_tail"),
        ({"decision_tail": [-1]}, "decision_tail"),
        ({"adapter_sha256": {}}, "adapter_sha256"),
        ({"adapter_sha256": {"../x": "0" * 64}}, "adapter_sha256"),
        ({"calibration": {"slope": 0, "intercept": 0}}, "slope"),
        ({"head": None}, "head"),
    ],
)
def test_a_wrong_gate_file_is_named(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(GateError, match=rf"gate\.json is no gate file that can be used: .*({problem})"):
        settings_from(write_gate(tmp_path, **changes), {})


def test_another_head_is_refused(tmp_path: Path) -> None:
    path = write_gate(tmp_path)
    (tmp_path / "presafe_head.safetensors").write_bytes(b"other")
    with pytest.raises(GateError, match="another head"):
        settings_from(path, {})


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"PRESAFE_GATE_UNREAD": "allow"}, "refuse, answer or 503"),
        ({"PRESAFE_GATE_MODELS": "own"}, "'own' is not NAME=monitor"),
        ({"PRESAFE_GATE_MODELS": "own=off"}, "'own=off' is not NAME=monitor"),
        ({"PRESAFE_GATE_MODELS": "own=gate,own=open"}, "twice"),
    ],
)
def test_a_wrong_variable_is_named(variables: dict[str, str], problem: str, tmp_path: Path) -> None:
    with pytest.raises(GateError, match=problem):
        settings_from(write_gate(tmp_path), variables)


def test_a_missing_gate_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="No such file"):
        settings_from(tmp_path / "none.json", {})
