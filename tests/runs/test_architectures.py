"""Hybrids and mixtures of experts are loaded, sampled and trained by default, on tiny random models of each class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, make, save

from presafe.alignment.targets import lora_targets
from presafe.config.recipe import AlignSettings, load_recipe
from presafe.models.loading import load_model
from presafe.workflows.run import run_stages


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_lora_is_put_on_all_linear_maps_it_reaches(name: str, tokenizer: Any) -> None:
    assert set(lora_targets(make(name, tokenizer), AlignSettings())) == set(ARCHITECTURES[name].targets)


def test_a_dense_transformer_keeps_the_order_of_the_recipe(tokenizer: Any) -> None:
    settings = AlignSettings()
    assert lora_targets(make("olmo3", tokenizer), settings) == list(settings.lora_targets)
    named = settings.model_copy(update={"lora_targets": ("q_proj",)})
    assert lora_targets(make("lfm2", tokenizer), named) == ["q_proj"]


def of_architecture(recipe: Path, name: str, tokenizer: Any, folder: Path) -> Any:
    """Return the tiny recipe on a model of this architecture; its stand-in teacher stays."""
    save(name, tokenizer, folder)
    settings = load_recipe(recipe)
    align = settings.align.model_copy(update={"max_steps": 2})
    model = settings.model.model_copy(update={"address": str(folder)})
    return settings.model_copy(update={"model": model, "align": align})


# One that holds experts' tensors, of whose two nested adapters one was lost in the export. The others were run by hand.
@pytest.mark.parametrize("name", ["glm4_moe"])
def test_all_five_stages_run(name: str, recipe: Path, tokenizer: Any, tmp_path: Path) -> None:
    settings = of_architecture(recipe, name, tokenizer, tmp_path / "model")
    run = run_stages(settings, tmp_path / "run", "report")
    config = json.loads((run.path / "alignment" / "presafe" / "adapter" / "adapter_config.json").read_text("utf-8"))
    # PEFT itself moves the maps of a feed-forward network to the tensors of experts, where a model has such.
    assert {"q_proj", "k_proj", "v_proj"} & set(ARCHITECTURES[name].targets) <= set(config["target_modules"])
    assert bool(config["target_parameters"]) == (name == "glm4_moe")
    # The adapter has been trained, and acts.
    adapter = run.path / "alignment" / "presafe" / "adapter"
    plain, adapted = load_model(str(tmp_path / "model")), load_model(str(tmp_path / "model"), adapter=adapter)
    ids = torch.tensor([plain.renderer.render("a blue leaf", "on").ids])
    with torch.inference_mode():
        assert not torch.equal(plain.model(input_ids=ids).logits, adapted.model(input_ids=ids).logits)
    assert (run.path / "report" / "results.json").exists()
