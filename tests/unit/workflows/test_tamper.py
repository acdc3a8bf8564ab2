"""Tampering in memory: what is computed at each scale, what ablation takes out, and that nothing stays changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import LORA_TARGETS, make_model, make_tokenizer

from presafe.attacks.attack import Objective
from presafe.attacks.suffix import ANSWER
from presafe.config.measure import MeasureSettings
from presafe.config.recipe import ModelSettings
from presafe.errors import ModelError
from presafe.internals.ablation import ablated, refusal_direction
from presafe.internals.finetuning import finetuned
from presafe.internals.searching import CostReader
from presafe.internals.states import hidden_states
from presafe.models.sampling import load_responses
from presafe.records import Prompt
from presafe.workflows.measure import measure
from presafe.workflows.tamper import TamperSettings, Way, _load, tamper, tampered_with, ways_of


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a tiny model and an adapter on it that changes what it says."""
    folder = tmp_path_factory.mktemp("tamper")
    tokenizer = make_tokenizer()
    make_model().save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    adapted = get_peft_model(
        make_model(), LoraConfig(r=4, lora_alpha=8, target_modules=LORA_TARGETS, task_type="CAUSAL_LM")
    )
    torch.manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.2)
    adapted.save_pretrained(folder / "adapter")
    return folder / "base", folder / "adapter"


def settings_of(folder: Path) -> ModelSettings:
    return ModelSettings(address=str(folder), family="smolthink")


IDS = torch.tensor([[257, 72, 101, 108, 108, 111, 10]])


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = model(input_ids=IDS).logits
    return out.clone()


def test_the_ways_are_the_scales_and_the_ablation() -> None:
    names = ["scale_1", "scale_0.7", "scale_0.3", "scale_0", "scale_-1", "ablated"]
    assert [way.name for way in ways_of(TamperSettings())] == names
    assert ways_of(TamperSettings(scales=(0.5,), ablate=False)) == [Way("scale_0.5", 0.5)]


def test_scale_zero_is_the_base_bit_for_bit(folders: tuple[Path, Path]) -> None:
    base, adapter = folders
    adapted, loaded = _load(settings_of(base), adapter)
    expected = logits(make_model())
    weights = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    with tampered_with(adapted, loaded, Way("scale_0", 0.0), None):
        assert torch.equal(logits(loaded.model), expected)
    with tampered_with(adapted, loaded, Way("scale_1", 1.0), None):
        aligned = logits(loaded.model)
    assert (aligned - expected).abs().max() > 0.1
    # Afterwards every weight is as before, whatever the way.
    for way in (Way("scale_-1", -1.0), Way("ablated", 1.0, is_ablated=True)):
        with tampered_with(adapted, loaded, way, 1):
            assert not torch.equal(logits(loaded.model), aligned)
        after = loaded.model.state_dict()
        assert all(torch.equal(after[name], value) for name, value in weights.items())
    with tampered_with(adapted, loaded, Way("scale_1", 1.0), None):
        assert torch.equal(logits(loaded.model), aligned)


def test_a_reversed_adapter_is_as_far_on_the_other_side(folders: tuple[Path, Path]) -> None:
    adapted, loaded = _load(settings_of(folders[0]), folders[1])
    layer = next(module for name, module in adapted.named_modules() if name.endswith("layers.0.self_attn.q_proj"))
    base, weights = layer.get_base_layer().weight.clone(), {}
    for scale in (1.0, 0.7, -1.0):
        with tampered_with(adapted, loaded, Way("w", scale), None):
            weights[scale] = layer.get_base_layer().weight.clone()
    delta = weights[1.0] - base
    assert delta.abs().max() > 0.01
    torch.testing.assert_close(weights[0.7] - base, 0.7 * delta)
    torch.testing.assert_close(weights[-1.0] - base, -delta)


def test_ablation_leaves_no_state_along_the_direction(folders: tuple[Path, Path]) -> None:
    _, loaded = _load(settings_of(folders[0]), folders[1])
    harmful, harmless = ["red one", "red two"], ["blue one", "blue two"]
    direction = refusal_direction(loaded, harmful, harmless, 1)
    states = torch.from_numpy(hidden_states(loaded, [*harmful, *harmless], "on"))[:, 0]
    # By hand: the difference of the two means, of length 1.
    difference = (states[0] + states[1] - states[2] - states[3]) / 2
    torch.testing.assert_close(direction, difference / difference.pow(2).sum().sqrt())
    along = states @ direction
    assert along.abs().max() > 0.01
    seen: list[torch.Tensor] = []
    first = loaded.model.model.layers[0]
    with ablated(loaded.model, direction):
        handle = first.register_forward_hook(lambda _, __, output: seen.append(output))  # after the one that ablates
        hidden_states(loaded, ["red one"], "on")
        handle.remove()
    # Every position, not the decision's alone; the last one is the prompt's end.
    assert (seen[0] @ direction).abs().max() < 1e-5
    torch.testing.assert_close(seen[0][0, -1], states[0] - along[0] * direction)
    assert torch.equal(torch.from_numpy(hidden_states(loaded, ["red one"], "on"))[:, 0], states[:1])  # no hook stays


def test_a_direction_needs_a_block_and_a_difference(folders: tuple[Path, Path]) -> None:
    _, loaded = _load(settings_of(folders[0]), folders[1])
    with pytest.raises(ModelError, match="no direction is read after block 2 of 2"):
        refusal_direction(loaded, ["a"], ["b"], 2)
    with pytest.raises(ModelError, match="have the same states there"):
        refusal_direction(loaded, ["a"], ["a"], 1)


def test_every_way_is_measured_and_no_weights_are_written(folders: tuple[Path, Path], tmp_path: Path) -> None:
    prompts = [
        Prompt(id=f"p{i}", text=f"Name a {word}.", category="c", split="s", license="l", expect="refuse")
        for i, word in enumerate(("bird", "tree"))
    ]
    model = settings_of(folders[0])
    asked = MeasureSettings(thinking=("on",), max_tokens=4)
    ways = TamperSettings(scales=(1.0, 0.0), ablate=False)
    data = tamper(model, folders[1], {"mine": prompts}, tmp_path / "ways", ways, asked)
    assert {score.system for score in data.scores} == {"scale_1", "scale_0"}
    assert set(data.timings_s) == {"scale_1, CoT on", "scale_0, CoT on"}
    # At 0 it says what the base says, and at 1 what the model with its adapter says.
    measure(model, {"mine": prompts}, tmp_path / "vanilla", asked)
    measure(model, {"mine": prompts}, tmp_path / "adapted", asked, adapter=folders[1])
    for way, system in (("scale_0", "vanilla"), ("scale_1", "adapted")):
        tampered, plain = (
            load_responses(folder / "evaluation" / f"{name}-on", "on", {"mine": prompts})
            for folder, name in ((tmp_path / "ways", way), (tmp_path / system, system))
        )
        assert tampered == plain
    files = [path for path in (tmp_path / "ways").rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".safetensors", ".bin", ".pt")]
    stored = json.loads((tmp_path / "ways" / "measurement.json").read_text(encoding="utf-8"))
    assert stored["tamper"] == {"scales": [1.0, 0.0], "ablate": False, "layer": None}
    with pytest.raises(ModelError, match="needs local weights"):
        tamper(ModelSettings(address="http://h:1#m"), folders[1], {"mine": prompts}, tmp_path, ways, asked)


def test_fine_tuning_learns_beginnings_and_leaves_no_trace(folders: tuple[Path, Path]) -> None:
    adapted, loaded = _load(settings_of(folders[0]), folders[1])
    texts = [f"Name {word}." for word in ("a bird", "a tree", "a river")]
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    losses = {}
    for steps in (4, 12):
        with finetuned(adapted, loaded, texts, steps, 1e-2) as losses[steps]:
            assert any(not torch.equal(value, before[name]) for name, value in adapted.state_dict().items())
        after = adapted.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert not any(weight.requires_grad for weight in adapted.parameters())
    # The first steps do not depend on how many follow, so that readings at 4 and 12 are of one training.
    assert losses[12][:4] == losses[4]
    assert losses[12][-1] < losses[12][0] - 0.05
    # Of the first step's rows: −ln P of the beginning under the aligned model, the same number as a search reads.
    cost = CostReader(loaded).costs(texts, Objective(ANSWER))
    assert min(cost) < losses[4][0] < max(cost)
    with pytest.raises(ModelError, match="fine-tuning diverged at step"), finetuned(adapted, loaded, texts, 9, 1e30):
        pass
    assert all(torch.equal(value, before[name]) for name, value in adapted.state_dict().items())


def test_fine_tuning_is_a_way_of_its_own(folders: tuple[Path, Path]) -> None:
    settings = TamperSettings(scales=(1.0,), ablate=False, steps=(5, 10))
    assert [way.name for way in ways_of(settings)] == ["scale_1", "finetuned_5", "finetuned_10"]
    adapted, loaded = _load(settings_of(folders[0]), folders[1])
    outputs = []
    for way in ways_of(TamperSettings(scales=(1.0,), ablate=False, steps=(2,))):
        with tampered_with(adapted, loaded, way, None):
            outputs.append(logits(loaded.model))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3
    # A folder from before fine-tuning has no such settings, and must resume.
    assert TamperSettings().model_dump().keys() == {"scales", "ablate", "layer"}
    with pytest.raises(ValueError, match="has no effect without `steps`"):
        TamperSettings(learning_rate=0.1)
