"""A family that is given only as TOML, `[THINK]…[/THINK]`, through probe and align, on a random model of two layers."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import torch
from command_line import SMALL
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from presafe.config.measure import MeasureSettings
from presafe.config.recipe import ModelSettings, parse_recipe
from presafe.judges.scorers import refusal_strings
from presafe.models.loading import load_renderer
from presafe.models.sampling import Sampler, sample_responses
from presafe.prompts.sets import built_in
from presafe.records import HistoryPoint, Signal
from presafe.runs.io import read_jsonl, write_jsonl
from presafe.stages.align import align
from presafe.stages.run_folder import RunFolder
from presafe.workflows.measure import measure

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "families.md"
FAMILY = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[0]
"""A family as the documentation shows it."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    """Return the folder of an unknown model, whose marks are special tokens, and the file of its family."""
    folder = tmp_path_factory.mktemp("mine")
    tokenizer = load_renderer("smolthink").tokenizer  # of its own: load_renderer shares none
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", "[INST]", "[/INST]", "</s>"]})
    tokenizer.eos_token = "</s>"
    tokenizer.chat_template = "[INST]{{ messages[0]['content'] }}[/INST]"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "mine.toml").write_text(FAMILY, encoding="utf-8")
    return ModelSettings(address=str(folder), family=str(folder / "mine.toml"))


def test_an_own_familys_prompts_and_answers(model: ModelSettings) -> None:
    renderer = load_renderer(model.address, model.family)
    asked = ("[INST]", "a", " [", "TH", "INK", "]", " b", "[/INST]", "[THINK]")
    on, off = renderer.render("a [THINK] b", "on"), renderer.render("a [THINK] b", "off")
    pieces = [renderer.tokenizer.decode([index]) for index in off.ids]
    assert "".join(pieces) == "[INST]a [THINK] b[/INST][THINK][/THINK]"
    assert (pieces[0], *pieces[-3:]) == (asked[0], "[/INST]", "[THINK]", "[/THINK]")
    assert pieces[:-1].count("[THINK]") == 1  # the user's stays text
    assert off.ids[:-1] == on.ids
    assert on.decision_index == len(on.ids) - 1
    written = renderer.completion("so", "42")
    assert renderer.tokenizer.decode(written) == "so\n[/THINK]\n\n42</s>"
    assert renderer.split(written, "on") == ("so", "42", False)


def test_an_own_family_is_probed_and_aligned(model: ModelSettings, tmp_path: Path) -> None:
    suites = {"smolthink_benign": built_in("benign", "held_out")[:3]}
    settings = MeasureSettings(max_tokens=4, batch_size=4)
    scores = measure(model, suites, tmp_path / "probe", settings).scores
    assert {score.thinking for score in scores} == {"on", "off"}
    # Four random tokens close no thought: with CoT on all are truncated, with CoT off there is none to truncate.
    truncated = {score.thinking: score.value for score in scores if score.metric == "truncated_rate"}
    assert truncated == {"on": 1.0, "off": 0.0}

    text = SMALL.replace('address = "smolthink"', f'address = "{model.address}"\nfamily = "{model.address}/mine.toml"')
    file = tmp_path / "mine.toml"
    file.write_text(text.replace("max_steps = 4", "max_steps = 2"), encoding="utf-8")
    recipe = parse_recipe(tomllib.loads(file.read_text(encoding="utf-8")), "mine")
    run = RunFolder.open_for(tmp_path / "run", recipe)
    # What the stages before it leave, without a teacher: a random model decides nothing.
    sampler = Sampler(recipe.model, "on", None, batch_size=4, batch_tokens=4096, max_tokens=4, seed=0)
    own = {"own": run.workload.harmless}
    sample_responses("own", own, {"own": [refusal_strings()]}, sampler, run.path / "responses" / "own")
    queries = run.workload.alignment
    signals = [Signal(prompt_id=query.id, probability=0.9 if query.expect == "refuse" else 0.1) for query in queries]
    write_jsonl(run.path / "signals" / "signals.jsonl", signals)
    align(run)

    for system in ("sft", "presafe"):
        folder = run.path / "alignment" / system
        assert len(read_jsonl(folder / "history.jsonl", HistoryPoint)) == 2
        adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
        assert any(tensor.abs().sum() > 0 for name, tensor in adapter.items() if "lora_B" in name)  # it has learnt
    assert (run.path / "alignment" / "presafe" / "presafe_head.safetensors").exists()
    assert (
        json.loads((run.path / "recipe.json").read_text(encoding="utf-8"))["model"]["family"].strip() == FAMILY.strip()
    )
