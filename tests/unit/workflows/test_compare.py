"""Which systems `presafe compare` takes for measured alike, and its messages; the logs are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from presafe.config.recipe import load_recipe
from presafe.errors import RunError
from presafe.models.sampling import LoggedSuite
from presafe.records import Response, Thinking, Verdict
from presafe.runs.io import write_json
from presafe.stages.report import comparison_folder
from presafe.stages.run_folder import RunFolder
from presafe.workflows import compare
from presafe.workflows.compare import compare_folders, distinct_names

GREEDY, WARM = {"temperature": 0.0}, {"temperature": 0.7}


def logged(thinking: Thinking, **changes: Any) -> LoggedSuite:
    """Two harmful prompts, of which the first is refused."""
    blank: dict[str, Any] = {
        "thinking": thinking,
        "thought": "",
        "answer": "",
        "truncated": False,
        "complete": True,
        "num_tokens": 1,
    }
    names = ("p0", "p1")
    verdicts: tuple[Verdict, ...] = ("refuse", "comply")
    suite = LoggedSuite(
        expect="refuse",
        version=1,
        texts={name: f"Say {name}" for name in names},
        expected=dict.fromkeys(names, ("refuse", "refuse")),
        responses={
            name: (Response(prompt_id=name, verdict=verdict, **blank),)
            for name, verdict in zip(names, verdicts, strict=True)
        },
        judge="refusal_strings",
        thought_judge=None,
        decoding={"max_tokens": 8},
        sampling=GREEDY,
        asked_sampling={},
    )
    return suite._replace(**changes)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes folders of measurements from changes to the suite by folder and mode."""

    def make(**made: dict[Thinking, dict[str, Any]]) -> list[Path]:
        logs = {
            tmp_path / name / "evaluation" / f"vanilla-{mode}": {"mine": logged(mode, **changes)}
            for name, modes in made.items()
            for mode, changes in modes.items()
        }
        for path in logs:
            path.mkdir(parents=True)
        monkeypatch.setattr(compare, "logged_suites", lambda path, _: logs[path.resolve()])
        return [tmp_path / name for name in made]

    return make


def test_systems_in_one_mode_are_sampled_alike(folders: Any, tmp_path: Path) -> None:
    # Failed first: systems were compared with the first system only, which is in the other mode.
    made = folders(A={"on": {}, "off": {"sampling": WARM}}, B={"on": {}, "off": {}})
    with pytest.raises(RunError, match=r"A/vanilla \(CoT off\) and B/vanilla \(CoT off\) differ in the sampling"):
        compare_folders(made, tmp_path / "out")


def test_folders_of_one_name_are_told_apart(folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = folders(**{"x/demo": {"on": {}}, "y/demo": {"on": {}}})
    monkeypatch.chdir(made[0])
    (difference,) = compare_folders([Path(), made[1]], tmp_path / "out").differences
    assert (difference.against, difference.system) == ("x/demo/vanilla", "y/demo/vanilla")
    assert distinct_names([Path(), Path("..")]) == ["demo", "x"]
    with pytest.raises(RunError, match="one folder is named twice"):
        compare_folders([Path(), made[0]], tmp_path / "out")


def test_each_comparison_of_a_run_has_its_own_folder(folders: Any, tmp_path: Path) -> None:
    run = RunFolder.open_for(tmp_path / "own", load_recipe("smolthink-135m"))
    first, second, _ = folders(**{"x/demo": {"on": {}}, "y/demo": {"on": {}}, "own": {"on": {}}})
    places = []
    for other in (first, second, first):
        places.append(comparison_folder(run, other).name)
        write_json(run.path / "report" / places[-1] / "comparison.json", {"folders": [str(run.path), str(other)]})
    assert places == ["against-demo", "against-y-demo", "against-demo"]


def test_modes_are_sampled_as_asked(folders: Any, tmp_path: Path) -> None:
    made = folders(A={"on": {}}, B={"off": {"sampling": WARM, "asked_sampling": WARM}})
    with pytest.raises(RunError, match="differ in the sampling of mine"):
        compare_folders(made, tmp_path / "out")


def test_a_familys_own_sampling_may_differ_by_mode(folders: Any, tmp_path: Path) -> None:
    made = folders(A={"on": {}, "off": {"sampling": WARM}})
    (difference,) = compare_folders(made, tmp_path / "out").differences
    assert (difference.thinking, difference.against_thinking, difference.difference) == ("off", "on", 0.0)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"judge": "gcg_strings"}, "judge"),
        ({"version": 2}, "version"),
        ({"strings": 2}, "version of the refusal strings"),
        ({"expected": {"p0": ("refuse", "refuse"), "p1": ("comply", "comply")}}, "expected answers"),
        ({"texts": {"p0": "Say p0", "p1": "Say more"}}, "prompts"),
    ],
)
def test_differing_measurements_are_refused(folders: Any, tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    with pytest.raises(RunError, match=f"differ in the {what} of mine"):
        compare_folders(folders(A={"on": {}}, B={"on": changes}), tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # failed first: the order was that of the log files, whose names change from run to run
        ({"suites": {"zebra": 2, "apple": 2, "mango": 2}}, ["zebra", "apple", "mango"]),
        ({"suites": {"mango": 2}}, ["mango", "apple", "zebra"]),  # suites that the settings do not name come by name
        (None, ["apple", "mango", "zebra"]),  # an older folder without settings: by name
    ],
)
@pytest.mark.parametrize("on_disk", [("mango", "zebra", "apple"), ("apple", "mango", "zebra")])
def test_suites_keep_the_order_of_the_settings(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any] | None,
    expected: list[str],
    on_disk: tuple[str, ...],
) -> None:
    for thinking in ("on", "off"):
        (tmp_path / "A" / "evaluation" / f"vanilla-{thinking}").mkdir(parents=True)
    if settings is not None:
        (tmp_path / "A" / "measurement.json").write_text(json.dumps(settings), encoding="utf-8")
    monkeypatch.setattr(compare, "logged_suites", lambda _, thinking: {name: logged(thinking) for name in on_disk})
    data = compare_folders([tmp_path / "A"], tmp_path / "out")
    assert [difference.suite for difference in data.differences] == expected
    assert list(dict.fromkeys(score.suite for score in data.scores)) == expected


def test_run_that_lost_its_recipe_is_refused(folders: Any, tmp_path: Path) -> None:
    # Found by the long form of the fault harness: its seeds were taken for those of no training.
    made = folders(A={"on": {}, "off": {}})
    (made[0] / "stages").mkdir(parents=True)
    with pytest.raises(RunError, match=r"holds no run \(no recipe.json\)"):
        compare_folders(made, tmp_path / "out")
