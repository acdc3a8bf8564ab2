"""Plans of the shipped recipes, and the command that prints them."""

from __future__ import annotations

import json
import re
import shlex
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from presafe.cli.main import app
from presafe.config.engine import EngineSettings
from presafe.config.recipe import load_recipe, shipped_recipes
from presafe.config.sources import SuiteSource
from presafe.errors import PromptError, RecipeError
from presafe.planning.commands import MAX_LORA_RANKS, max_lora_rank
from presafe.planning.compute import Row, cache_bytes, training_flops
from presafe.planning.devices import assumptions
from presafe.planning.estimate import Answerer
from presafe.planning.shapes import shape_of
from presafe.stages.systems import aligned_systems
from presafe.workflows.plan import plan_recipe, sampling_tasks, vllm_starts


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_plan_offline(name: str) -> None:
    plan = plan_recipe(load_recipe(name), "h100-80gb", 1, "ddp")
    assert plan.gpu_hours() > 0
    memory = plan.memory
    most = max(memory.gib(memory.training), memory.gib(memory.sampling))
    assert most < 80  # all fit the device that the recipes are written for
    if name in ("qwen3-0.6b", "qwen3-1.7b"):  # and these a small one
        assert most < 24


def test_planned_cache_is_bounded_by_batch_tokens() -> None:
    # Failed first: a cache for 32 whole budgets was planned, 64 GiB for Llama-8B, of which a run fills `batch_tokens`;
    # and a run that holds few rows was timed as one of 32.
    recipe, assumed = load_recipe("deepseek-r1-distill-llama-8b"), assumptions()
    shape = shape_of(recipe.model.address)

    def planned(batch_tokens: int) -> Any:
        sizes = {"batch_tokens": batch_tokens}
        sized = {name: getattr(recipe, name).model_copy(update=sizes) for name in ("respond", "evaluate")}
        return plan_recipe(recipe.model_copy(update=sized), "h100-80gb", 1, "ddp")

    token = cache_bytes(shape, "bfloat16")
    assert token == 2 * 32 * 8 * 128 * 2
    assert planned(100_000).memory.sampling.cache == 100_000 * token
    whole = 32 * (96 + 16_384)
    assert planned(10**6).memory.sampling.cache == whole * token
    # An answer grows to 0.4 · 16,384 tokens: with half of it and the prompt a row holds 3,372.8 tokens on average.
    # 10,118.4 hold three rows. A step reads the weights and three rows; its products take no longer.
    held = assumed.prompt_tokens + 0.4 * 16_384 / 2
    read = 2 * (shape.num_layer_weights() + 4096 * 128_256) + 3 * held * token
    costs = {cost.what: cost for cost in planned(round(3 * held)).decoding}
    math500 = costs["evaluate math500, 5 systems"]
    tokens = 2500 * 16_384 * 0.4
    assert math500.gpu_hours == pytest.approx(tokens * read / 3350e9 / 0.4 / 3 / 3600, rel=1e-3)


def test_training_hours_by_hand() -> None:
    """Plan R1-Distill-Qwen-7B: 3 systems × 500 steps × 32 rows, 5,000 of 8,000 refused."""
    recipe, assumed = load_recipe("deepseek-r1-distill-qwen-7b"), assumptions()
    shape = shape_of(recipe.model.address)
    adapter = shape.num_adapter_parameters(32, recipe.align.lora_targets)
    answer = 4096 * assumed.answer_share
    refusal = Row(assumed.prompt_tokens + assumed.refusal_tokens, assumed.refusal_tokens)
    own = Row(assumed.prompt_tokens + answer, answer)
    flops = 48_000 * (
        0.625 * training_flops(shape, refusal, adapter, checkpointing=True)
        + 0.375 * training_flops(shape, own, adapter, checkpointing=True)
    )
    cost = plan_recipe(recipe, "h100-80gb", 1, "ddp").training
    assert cost.num_rows == 48_000
    assert cost.flops == pytest.approx(flops)
    assert cost.gpu_hours == pytest.approx(flops / (989e12 * assumed.training_utilization) / 3600)


def test_plan_uses_the_teachers_shape() -> None:
    # Failed first: R1-Distill-Qwen-14B as the teacher of Qwen3-0.6B was planned as the 0.6B itself.
    recipe, large = load_recipe("qwen3-0.6b"), load_recipe("deepseek-r1-distill-qwen-14b")
    taught = recipe.model_copy(update={"respond": recipe.respond.model_copy(update={"teacher": large.model})})
    alone, with_teacher = (plan_recipe(settings, "h100-80gb", 1, "ddp") for settings in (recipe, taught))
    teacher = Answerer(shape_of(large.model.address), large.model.dtype)
    answerers = {task.what: task.answerer for task in sampling_tasks(taught, assumptions()) if task.answerer}
    assert answerers == {"teacher, CoT off": teacher}
    assert with_teacher.decoding[0].gpu_hours > 10 * alone.decoding[0].gpu_hours
    assert (with_teacher.decoding[1:], with_teacher.memory.sampling) == (alone.decoding[1:], alone.memory.sampling)
    rows = recipe.respond.batch_size * (assumptions().prompt_tokens + recipe.respond.teacher_max_tokens)
    cache = min(rows, recipe.respond.batch_tokens) * cache_bytes(*teacher)
    assert alone.memory.teacher is None
    assert with_teacher.memory.teacher == (2 * 14_770_033_664, cache)


def test_plan_command_shows_the_teacher(tmp_path: Path) -> None:
    own = tmp_path / "taught.toml"
    text = (resources.files("presafe.recipes") / "qwen3-0.6b.toml").read_text(encoding="utf-8")
    own.write_text(
        text.replace("[respond]\n", '[respond]\nteacher = { address = "Qwen/Qwen3-8B", dtype = "float32" }\n')
    )
    done = CliRunner().invoke(app, ["plan", str(own), "--device", "rtx-3090"])
    assert "taught by Qwen/Qwen3-8B" in done.output
    assert re.search(r"teacher +\d+\.\d  weights 30\.\d+, .*DOES NOT FIT", done.output)


def test_plan_counts_sampled_prompts() -> None:
    costs = {cost.what: cost for cost in plan_recipe(load_recipe("qwen3-8b"), "h100-80gb", 1, "ddp").decoding}
    assert costs["teacher, CoT off"].num_prompts == 1500
    assert costs["traces"].num_prompts == 375  # a quarter is kept to measure the classifier
    assert costs["own answers"].num_prompts == 3000
    # vanilla in both modes and three trained: 5; the full budget is the most that can be written
    assert costs["evaluate math500, 5 systems"].num_prompts == 2500
    assert costs["evaluate math500, 5 systems"].most_tokens == 2500 * 16384
    assert costs["evaluate wildjailbreak_benign, 5 systems"].num_prompts == 5 * 210
    assert not any(cost.guessed for cost in costs.values())
    assert all(cost.gpu_hours <= cost.most_gpu_hours for cost in costs.values())


def test_plan_counts_answers_with_cot_off() -> None:
    recipe = load_recipe("qwen3-8b")
    both = recipe.model_copy(
        update={
            "align": recipe.align.model_copy(update={"thinking_off_share": 0.2}),
            "evaluate": recipe.evaluate.model_copy(update={"aligned_thinking": ("on", "off")}),
        }
    )
    costs = {cost.what: cost for cost in plan_recipe(both, "h100-80gb", 1, "ddp").decoding}
    assert costs["own answers, CoT off"].num_prompts == 8000  # harmful and harmless
    assert costs["own answers, CoT off"].most_tokens == 8000 * recipe.respond.teacher_max_tokens
    assert costs["evaluate math500, 8 systems"].num_prompts == 8 * 500


def test_plan_guesses_the_size_of_unknown_suites() -> None:
    recipe = load_recipe("qwen3-8b")
    mine = {"mine": recipe.evaluate.suites["wildjailbreak_benign"]}
    own = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"suites": mine})})
    cost = plan_recipe(own, "h100-80gb", 1, "ddp").decoding[-1]
    assert (cost.what, cost.guessed) == ("evaluate mine, 5 systems", True)
    assert cost.num_prompts == 5 * assumptions().suite_prompts


def test_plan_knows_the_projects_own_suites() -> None:
    # failed first: a recipe may name them as suites, and the plan ended with a KeyError
    recipe = load_recipe("qwen3-8b")

    def planned(suites: dict[str, SuiteSource]) -> dict[str, int]:
        own = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"suites": suites})})
        costs = plan_recipe(own, "h100-80gb", 1, "ddp").decoding
        return {cost.what: cost.num_prompts for cost in costs if cost.what.startswith("evaluate")}

    suites = {"harmful": SuiteSource(suite="smolthink_harmful"), "sums": SuiteSource(suite="arithmetic", n=7)}
    # five systems; the set has 215 held-out prompts
    assert planned(suites) == {"evaluate harmful, 5 systems": 5 * 215, "evaluate sums, 5 systems": 5 * 7}
    with pytest.raises(PromptError, match="no suite 'strong_rejct'"):
        planned({"typo": SuiteSource(suite="strong_rejct")})


def test_plan_counts_several_samples_per_prompt() -> None:
    recipe = load_recipe("qwen3-8b")
    four = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"samples": 4})})
    costs = {cost.what: cost for cost in plan_recipe(four, "h100-80gb", 1, "ddp").decoding}
    assert costs["evaluate math500, 5 systems"].num_prompts == 4 * 2500
    assert costs["traces"].num_prompts == 375


def test_plan_counts_on_an_engine(tmp_path: Path) -> None:
    recipe = load_recipe("qwen3-8b")
    here = plan_recipe(recipe, "h100-80gb", 1, "ddp")
    assert here.elapsed_hours == pytest.approx(here.gpu_hours())  # one GPU does it all
    sampling = sum(cost.gpu_hours for cost in here.decoding)

    def planned(**engine: Any) -> Any:
        return plan_recipe(recipe.model_copy(update={"engine": EngineSettings(**engine)}), "h100-80gb", 1, "ddp")

    served = planned(servers=("http://a:1#base", "http://b:1#base"))
    assert served.elapsed_hours == pytest.approx(sampling / 2 + here.training.gpu_hours)
    started = planned(vllm="/opt/vllm", data_parallel=2, tensor_parallel=4)
    assert started.elapsed_hours == pytest.approx(sampling / 8 + here.training.gpu_hours)
    assert started.memory.sampling.weights == here.memory.sampling.weights / 4
    assert started.memory.training == here.memory.training
    file = tmp_path / "engine.toml"
    file.write_text('[engine]\nvllm = "/opt/vllm"\ndata_parallel = 2\n')
    words = ["plan", "qwen3-8b", "--engine", str(file)]
    summary = json.loads(CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False).output)
    assert summary["elapsed_hours"] == round(sampling / 2 + here.training.gpu_hours, 2)
    # the model for its own answers and for its evaluation, and each system that is trained
    assert summary["vllm_starts"] == 2 + len(aligned_systems(recipe))
    assert f"{summary['vllm_starts']} starts of vLLM" in CliRunner().invoke(app, words).output
    judged = recipe.evaluate.model_copy(update={"judge": "xstest=presafe/some/model"})
    planned_with = {"engine": EngineSettings(vllm="/opt/vllm"), "evaluate": judged}
    assert vllm_starts(recipe.model_copy(update=planned_with)) == summary["vllm_starts"] + 1


def test_plan_rejects_gpus_that_cannot_share_a_step() -> None:
    with pytest.raises(RecipeError, match="3 GPUs cannot share a step of 8 passes of 4"):
        plan_recipe(load_recipe("qwen3-8b"), "h100-80gb", 3, "ddp")
    with pytest.raises(RecipeError, match="no device 'abacus'"):
        plan_recipe(load_recipe("qwen3-8b"), "abacus", 1, "ddp")


def test_plan_command_prints_launch_commands() -> None:
    done = CliRunner().invoke(
        app, ["plan", "deepseek-r1-distill-qwen-14b", "--gpus", "4", "--launcher", "fsdp2", "--json"]
    )
    assert done.exit_code == 0, done.output
    summary = json.loads(done.output)
    assert summary["parameters"] == 14_770_033_664
    before, train, after = (shlex.split(line) for line in summary["commands"]["train"])
    assert (before[-2:], after[-1]) == (["--until", "signal"], "deepseek-r1-distill-qwen-14b")
    assert Path(train[train.index("--config_file") + 1]).read_text().count("distributed_type: FSDP") == 1
    assert train[train.index("--num_processes") + 1] == "4"
    there = json.loads(CliRunner().invoke(app, ["plan", "qwen3-8b", "--engine", "http://h:1#q", "--json"]).output)
    assert there["commands"]["train"] == ["presafe run qwen3-8b --engine 'http://h:1#q'"]
    serve = shlex.split(summary["commands"]["serve"][1])
    assert serve[:3] == ["vllm", "serve", "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B"]
    assert serve[serve.index("--max-lora-rank") + 1] == "32"
    text = CliRunner().invoke(app, ["plan", "qwen3-0.6b", "--device", "rtx-3090"]).output
    assert "596,049,920" in text
    assert "training_utilization" in text


def test_max_lora_rank_holds_the_adapter() -> None:
    assert [max_lora_rank(rank) for rank in (1, 2, 16, 17, 512)] == [1, 8, 16, 32, 512]
    assert max_lora_rank(513) is None
    for name in shipped_recipes():
        assert max_lora_rank(load_recipe(name).align.lora_rank) in MAX_LORA_RANKS
