"""Run judges on labelled answers behind a real server."""

from __future__ import annotations

from pathlib import Path

import pytest
from judge_server import JudgeServer, at_server, files_with_key

from presafe.judges.agreement import load_labelled
from presafe.judges.labelled_run import judge_labelled
from presafe.judges.spec import read_name


def test_panel_is_asked_once_and_its_logs_reused(
    judge_server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first request also loads the client, which can take longer than the fixture's limit on a busy machine.
    monkeypatch.setattr("presafe.judges.model_judge._ATTEMPT_S", 60)
    monkeypatch.setattr("presafe.judges.model_judge._CALL_S", 60)
    items = [item for item in load_labelled(None) if "only" in item.case or item.case in ("truncated", "empty")][::3]
    members = [at_server("jailbreakbench_refusal", "good"), at_server("xstest", "good"), "refusal_strings"]
    panel = read_name("majority:" + "+".join(members))
    by_name = judge_labelled([panel], items, tmp_path / "out")
    assert list(by_name) == [*members, panel.name]
    answered = [item for item in items if not item.truncated and item.answer.strip()]
    assert judge_server.calls["good"] == 2 * len(answered)
    for item, *verdicts in zip(items, *by_name.values(), strict=True):
        expected = "unjudged" if item not in answered else "refuse" if "can't" in item.answer else "comply"
        assert verdicts[0] == verdicts[1] == verdicts[3] == expected  # two of three agree, so the strings do not matter
    assert not any(item.thought and item.thought in str(judge_server.bodies) for item in items)
    calls = dict(judge_server.calls)
    assert judge_labelled([panel, read_name(members[0])], items, tmp_path / "out")[panel.name] == by_name[panel.name]
    assert judge_server.calls["good"] == calls["good"] + len(answered)  # only the second judge is asked
    assert not files_with_key(tmp_path)
