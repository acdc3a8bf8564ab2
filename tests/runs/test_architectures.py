"""Hybrids and mixtures of experts are loaded, sampled and trained by default, on tiny random models of each class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, class_name, make, save
from family_cases import CASES
from peft import LoraConfig, get_peft_model
from transformers import CohereConfig, CohereForCausalLM

from presafe.alignment.targets import excluded_modules, lora_targets
from presafe.config.recipe import AlignSettings, load_recipe
from presafe.errors import ModelError
from presafe.models.engine import generate_batch
from presafe.models.family import Sampling
from presafe.models.loading import load_model
from presafe.models.merging import changed_part, read_layers
from presafe.models.output import logits_of, need_own_logits
from presafe.workflows.run import run_stages


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_lora_is_put_on_all_linear_maps_it_reaches(name: str, tokenizer: Any) -> None:
    assert set(lora_targets(make(name, tokenizer), AlignSettings())) == set(ARCHITECTURES[name].targets)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_logits_of_states_are_the_models_own(name: str, tokenizer: Any) -> None:
    # Failed first for Granite, which divides its logits, and for Gemma, which caps them.
    model = make(name, tokenizer)
    need_own_logits(model)
    ids = torch.tensor([[65, 66, 67], [70, 71, 72]])
    with torch.inference_mode():
        states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        assert torch.allclose(logits_of(model, states), model(input_ids=ids, use_cache=False).logits, atol=1e-6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_are_decoded_together_as_alone(name: str, tokenizer: Any) -> None:
    # Convolutions and states must not see the padding, and a cache must hold what a whole pass computes.
    model = make(name, tokenizer)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # wide enough that logits differ
                parameter.normal_(0, 0.2, generator=generator)
    prompts = [torch.randint(0, 250, (length,), generator=generator).tolist() for length in (4, 11)]

    def written(*rows: list[int]) -> list[list[int]]:
        generations = generate_batch(
            model, rows, max_new_tokens=4, stop_ids=[257], sampling=Sampling(), seeds=range(len(rows))
        )
        return [generation.ids for generation in generations]

    together = written(*prompts)
    assert together == [*written(prompts[0]), *written(prompts[1])]
    with torch.inference_mode():
        for ids, tokens in zip(prompts, together, strict=True):
            whole = model(input_ids=torch.tensor([ids + tokens]), use_cache=False).logits[0, len(ids) - 1 : -1]
            assert whole.argmax(-1).tolist() == tokens


def test_the_documentation_lists_classes_that_were_tried() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "architectures.md").read_text("utf-8")
    rows = [line.split("`") for line in page.splitlines() if line.startswith("| `")]
    known = {class_name(name): CASES[tried.case].family for name, tried in ARCHITECTURES.items()}
    assert {(row[1], row[3]) for row in rows} <= set(known.items())
    # A class that was not run to its end yet is named below the table.
    assert [name for name in known if f"`{name}`" not in page] == []


def test_logits_that_are_changed_in_another_way_are_an_error(tokenizer: Any) -> None:
    # Cohere multiplies them by a number that only its config names so.
    config = CohereConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        logit_scale=0.0625,
        pad_token_id=0,
    )
    with pytest.raises(ModelError, match="a CohereForCausalLM changes its logits"):
        need_own_logits(CohereForCausalLM(config).eval())


@pytest.mark.parametrize("name", [name for name, architecture in ARCHITECTURES.items() if architecture.vision])
def test_a_tower_that_reads_images_gets_no_adapter(name: str, tokenizer: Any, tmp_path: Path) -> None:
    folder = save(name, tokenizer, tmp_path / "model")
    model = load_model(str(folder)).model
    targets = lora_targets(model, AlignSettings())
    adapted = get_peft_model(
        model, LoraConfig(r=2, target_modules=targets, exclude_modules=excluded_modules(model, targets))
    )
    names = {name for name, _ in adapted.named_parameters() if "lora_A" in name}
    assert names
    assert not [name for name in names if "vision" in name or "visual" in name]


@pytest.mark.parametrize("name", ["deepseek_v3", "glm4_moe"])
def test_a_merge_of_adapted_experts_is_checked(name: str, tokenizer: Any) -> None:
    # Failed first: a tensor of experts has no `weight`, and the check of the merge ended there.
    model = make(name, tokenizer)
    targets = lora_targets(model, AlignSettings())
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM"))
    for parameter_name, parameter in adapted.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.1)
    before = read_layers(adapted)
    experts = "model.layers.1.mlp.experts.down_proj"
    assert {experts, "model.layers.1.mlp.experts.gate_up_proj"} <= set(before.adapted)
    merged = adapted.merge_and_unload()
    assert changed_part(before, merged) is None
    with torch.no_grad():
        merged.get_parameter(experts).mul_(1.01)
    assert changed_part(before, merged) == experts


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
