"""All sorts of methods in a run on models of a few thousand weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tiny_run import RECIPE

from presafe.config.recipe import load_recipe
from presafe.errors import PromptError, SignalError
from presafe.methods.registry import methods, training_of
from presafe.models.decision_head import has_head
from presafe.models.sampling import logged_suites
from presafe.records import HistoryPoint, PositionScore, Score
from presafe.runs.io import read_jsonl
from presafe.stages.evaluate import responses_by_suite
from presafe.stages.respond import responses_of
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import System, evaluated_systems
from presafe.stages.workload import Workload
from presafe.workflows.compare import compare_folders
from presafe.workflows.run import run_stages

TRAINED = [
    "sft", "presafe_thought", "presafe_start", "shuffled_labels", "detached_head", "direct_refusal", "safepath",
    "star1", "safekey", "r2d",
]  # fmt: skip
PREFILLED = ["zero_think", "less_think"]


def write_recipe(tiny: Path, name: str, systems: list[str], *, data: str = "") -> Path:
    text = RECIPE.format(folder=tiny.parent).replace('systems = ["presafe"]', f"systems = {json.dumps(systems)}")
    text = text.replace("max_steps = 6", "max_steps = 2\nlambda_start = 1.0")
    text = text.replace("[evaluate.suites]", f"{data}[evaluate]\nmax_tokens = 8\n[evaluate.suites]")
    file = tiny.parent / f"{name}.toml"
    file.write_text(text)
    return file


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run a recipe with a method of each sort to its report; the first question of its file is a held-out prompt."""
    traces = [
        {"question": f"green {number}?", "response": f"<think>Hm {number}.</think>No {number}."} for number in range(4)
    ]
    held_out = json.loads((recipe.parent / "blue2.jsonl").read_text().splitlines()[0])["prompt"]
    traces[0]["question"] = f"{held_out.upper()}!"
    (recipe.parent / "traces.json").write_text(json.dumps(traces))
    data = f'[align.data.star1]\nfile = "{recipe.parent}/traces.json"\n'
    file = write_recipe(recipe, "methods", TRAINED + PREFILLED, data=data)
    return run_stages(load_recipe(file), tmp_path_factory.mktemp("methods") / "run")


def test_only_trained_methods_have_an_adapter(whole: Any) -> None:
    assert sorted(path.name for path in (whole.path / "alignment").iterdir()) == sorted(TRAINED)
    assert all((whole.path / "alignment" / name / "adapter" / "adapter_config.json").exists() for name in TRAINED)
    systems = [(system.name, system.seed, system.thinking) for system in evaluated_systems(whole.recipe)]
    vanilla = [("vanilla", None, "on"), ("vanilla", None, "off")]
    prefilled, aligned = [(name, None, "on") for name in PREFILLED], [(name, 0, "on") for name in TRAINED]
    assert systems == vanilla + prefilled + aligned


def test_history_shows_the_terms_of_each_method(whole: Any) -> None:
    terms = {}
    for name in TRAINED:
        (*_, last) = read_jsonl(whole.path / "alignment" / name / "history.jsonl", HistoryPoint)
        terms[name] = (last.bce is not None, last.start_bce is not None, has_head(whole.path / "alignment" / name))
    # L_align, L_start, and a head that is written: SafeKey's two serve training only
    assert terms == {
        "sft": (False, False, False),
        "presafe_thought": (True, True, True),
        "presafe_start": (False, True, False),
        "shuffled_labels": (True, True, True),
        "detached_head": (True, False, True),
        "direct_refusal": (False, False, False),
        "safepath": (False, False, False),
        "star1": (False, False, False),
        "safekey": (True, False, False),
        "r2d": (False, True, False),
    }
    adapters = [
        load_file(str(whole.path / "alignment" / name / "adapter/adapter_model.safetensors")) for name in TRAINED
    ]
    key = next(name for name in adapters[0] if "lora_B" in name)
    # a detached head has no gradient in the adapter, and is clipped apart from it: its adapter is that of SFT
    trained = {name: tuple(adapter[key].flatten().tolist()) for name, adapter in zip(TRAINED, adapters, strict=True)}
    assert trained.pop("detached_head") == trained["sft"]
    assert len(set(trained.values())) == len(trained)


def test_answers_have_the_prefilled_thought(whole: Any) -> None:
    less_think = methods()["less_think"].prefill
    assert less_think is not None
    for name, thought in (("zero_think", ""), ("less_think", less_think.thought)):
        responses = responses_by_suite(whole, System(name, None, "on"))["own"]
        assert [(response.thought, response.truncated) for response in responses] == [(thought, False)] * 4
        assert all(0 < response.num_tokens <= 8 for response in responses)
        # the decision position is the base model's, so it is not scored again
        assert read_jsonl(whole.path / "evaluation" / "positions" / f"{name}-on.jsonl", PositionScore) == []
    vanilla = responses_by_suite(whole, System("vanilla", None, "on"))["own"]
    assert all(response.truncated for response in vanilla)


def test_report_names_every_method_by_its_title(whole: Any) -> None:
    page = (whole.path / "report" / "report.html").read_text(encoding="utf-8")
    assert all(methods()[name].title.split(",")[0] in page for name in TRAINED + PREFILLED)
    scores = read_jsonl(whole.path / "evaluation" / "scores.jsonl", Score)
    seeds = {name: {score.seed for score in scores if score.system == name} for name in ("zero_think", "safepath")}
    assert seeds["zero_think"] == {None}
    assert 0 in seeds["safepath"]


def test_compare_reads_prefilled_systems_without_seed(whole: Any, tmp_path: Path) -> None:
    comparison = compare_folders([whole.path], tmp_path / "compared", against="zero_think")
    assert {score.seed for score in comparison.scores if score.system == "zero_think"} == {None}
    assert {difference.against for difference in comparison.differences} <= {"zero_think"}


def test_safety_data_skips_questions_of_a_suite(whole: Any) -> None:
    # of four, one is a held-out prompt in capitals
    assert [trace.response.answer for trace in Workload(whole.recipe).published["star1"]] == ["No 1.", "No 2.", "No 3."]


def test_changed_data_file_changes_the_prompts_hash(whole: Any, tmp_path: Path) -> None:
    before = Workload(whole.recipe).sha256
    file = whole.recipe.align.data["star1"].file
    kept = tmp_path / "kept.json"
    shutil.copy(file, kept)
    try:
        file.write_text(kept.read_text().replace("No 2.", "Never."))
        assert Workload(whole.recipe).sha256 != before
        file.unlink()
        with pytest.raises(PromptError, match="No such file"):
            Workload(whole.recipe).check()
    finally:
        shutil.copy(kept, file)


def test_thinksafe_fails_if_the_model_never_refuses(recipe: Path, tmp_path: Path) -> None:
    file = write_recipe(recipe, "thinksafe", ["thinksafe"])
    settings = load_recipe(file)
    with pytest.raises(SignalError, match="thinksafe has no target for any of the 4 harmful queries"):
        run_stages(settings, tmp_path / "run", "align")
    (suite,) = logged_suites(tmp_path / "run" / "responses" / "thinksafe", "on").values()
    instruction = training_of("thinksafe").steering
    assert sorted(suite.texts.values()) == [f"{instruction}\n\na red stone {number}" for number in range(4)]

    assert len(responses_of(RunFolder(tmp_path / "run", settings), "thinksafe")) == 4
