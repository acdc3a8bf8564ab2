"""Files of a training: a plain adapter without a trace of the head, and the head in its own file."""

from __future__ import annotations

import json
import re
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import Row, TrainerFactory, bare_model, head_of, make_model, randomize_adapter

from presafe.alignment.export import export_adapter
from presafe.alignment.head import attach_head, save_head
from presafe.errors import ModelError, RunError
from presafe.models.decision_head import DecisionHead
from presafe.planning.commands import MAX_LORA_RANKS
from presafe.planning.shapes import known_shapes


@pytest.fixture
def trained(make_trainer: TrainerFactory, rows: list[Row]) -> Any:
    """Provide a tiny model after two steps, with B and the head away from 0."""
    trainer = make_trainer(make_model(), rows, max_steps=2)
    randomize_adapter(trainer)
    trainer.train()
    return trainer.model.eval()


def logits(model: Any, ids: list[int]) -> Any:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits


def test_head_does_not_change_the_logits(rows: list[Row]) -> None:
    plain, with_head = make_model(), make_model()
    attach_head(with_head, seed=0)
    assert torch.equal(logits(with_head, rows[0]["input_ids"]), logits(plain, rows[0]["input_ids"]))
    # it takes no part in what the model says: nor does dropping it
    del with_head.presafe_head
    assert with_head.state_dict().keys() == plain.state_dict().keys()


def test_head_stays_float32_beside_a_bfloat16_model() -> None:
    model = make_model().to(torch.bfloat16)
    attach_head(model, seed=0)
    assert model.presafe_head.weight.dtype == torch.float32
    assert model.presafe_head.weight.shape == (1, 32)
    assert model.presafe_head.bias.tolist() == [0.0]


def test_exported_adapter_gives_the_trained_logits(trained: Any, rows: list[Row], tmp_path: Path) -> None:
    from peft import PeftModel

    export_adapter(trained, tmp_path / "adapter")
    fresh = PeftModel.from_pretrained(make_model(), str(tmp_path / "adapter")).eval()
    assert not hasattr(fresh.get_base_model(), "presafe_head")
    for row in rows:
        ours = logits(trained, row["input_ids"])
        assert torch.equal(logits(fresh, row["input_ids"]), ours)
        assert not torch.allclose(logits(make_model(), row["input_ids"]), ours, atol=0.1)  # the adapter does act


def test_export_has_no_trace_of_the_head(trained: Any, tmp_path: Path) -> None:
    export_adapter(trained, tmp_path / "adapter")
    assert sorted(path.name for path in tmp_path.rglob("*") if "adapter" in str(path.parent)) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    text = (tmp_path / "adapter" / "adapter_config.json").read_text()
    assert "presafe_head" not in text
    config = json.loads(text)
    assert config["modules_to_save"] is None
    assert config["target_modules"] == ["down_proj", "q_proj", "v_proj"]
    assert config["base_model_name_or_path"] is None
    weights = load_file(str(tmp_path / "adapter" / "adapter_model.safetensors"))
    assert not [name for name in weights if "presafe_head" in name]
    # export leaves the model that was trained as it was
    assert trained.peft_config["default"].modules_to_save == ["presafe_head"]


def test_export_can_be_loaded_by_vllm(trained: Any, tmp_path: Path) -> None:
    # vllm/lora/peft_helper.py: modules_to_save, bias and DoRA are refused; vllm/lora/utils.py reads names of the form
    # base_model.model.<module>.lora_A.weight.
    export_adapter(trained, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert config["r"] in MAX_LORA_RANKS
    assert config["bias"] == "none"
    assert not config["modules_to_save"]
    assert not config["use_dora"]
    assert not config["rank_pattern"]
    # and LoRA on linear layers that its Llama and Qwen classes have
    assert set(config["target_modules"]) <= set(known_shapes()["smolthink"].linears())
    weights = load_file(str(tmp_path / "adapter" / "adapter_model.safetensors"))
    assert len(weights) == 2 * 3 * 2  # layers × targets × (A, B)
    for name, weight in weights.items():
        match = re.fullmatch(
            r"base_model\.model\.model\.layers\.[01]\.(self_attn|mlp)\.(\w+)\.lora_([AB])\.weight", name
        )
        assert match, name
        assert match[2] in config["target_modules"]
        assert weight.shape[0 if match[3] == "A" else 1] == config["r"]
        assert weight.dtype == torch.float32


def test_export_in_float16(trained: Any, tmp_path: Path) -> None:
    export_adapter(trained, tmp_path / "full")
    export_adapter(trained, tmp_path / "half", dtype=torch.float16)
    full = load_file(str(tmp_path / "full" / "adapter_model.safetensors"))
    half = load_file(str(tmp_path / "half" / "adapter_model.safetensors"))
    assert all(torch.equal(half[name], weight.half()) for name, weight in full.items())


@pytest.mark.parametrize(
    ("targets", "exported"),
    [
        # PEFT lists what "all-linear" finds, our head among it.
        (
            "all-linear",
            {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
        ),
        # A pattern stays a pattern.
        (r".*\.(q|v)_proj", r".*\.(q|v)_proj"),
    ],
)
def test_export_with_target_modules_as_string(
    make_trainer: TrainerFactory, rows: list[Row], tmp_path: Path, targets: Any, exported: Any
) -> None:
    from peft import PeftModel

    trainer = make_trainer(make_model(), rows, lora={"target_modules": targets})
    randomize_adapter(trainer)
    export_adapter(trainer.model, tmp_path / "adapter")
    text = (tmp_path / "adapter" / "adapter_config.json").read_text()
    assert "presafe_head" not in text
    names = json.loads(text)["target_modules"]
    assert (names if isinstance(names, str) else {name.rpartition(".")[2] for name in names}) == exported
    fresh = PeftModel.from_pretrained(make_model(), str(tmp_path / "adapter")).eval()
    ids = rows[0]["input_ids"]
    assert torch.equal(logits(fresh, ids), logits(trainer.model.eval(), ids))


def test_export_keeps_other_modules_to_save(make_trainer: TrainerFactory, rows: list[Row], tmp_path: Path) -> None:
    trainer = make_trainer(make_model(), rows, lora={"modules_to_save": ["model.norm"]})
    assert set(trainer.model.peft_config["default"].modules_to_save) == {"model.norm", "presafe_head"}
    export_adapter(trainer.model, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["modules_to_save"] == ["model.norm"]
    weights = load_file(str(tmp_path / "adapter" / "adapter_model.safetensors"))
    assert [name for name in weights if "lora_" not in name] == ["base_model.model.model.norm.weight"]


def test_export_keeps_other_files_and_overwrites_its_own(trained: Any, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "README.md").write_text("a card")
    (folder / "adapter_config.json").write_text("old")
    (tmp_path / ".adapter.part").mkdir()  # of an export that was killed
    export_adapter(trained, folder)
    assert (folder / "README.md").read_text() == "a card"
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 8
    assert not (tmp_path / ".adapter.part").exists()


def test_export_below_a_file_fails(trained: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        export_adapter(trained, tmp_path / "file" / "adapter")


def test_export_to_a_full_disk_fails(trained: Any, tmp_path: Path) -> None:
    # A limit on the size of files stands for a full disk; safetensors wraps the system's error in one of its own.
    # 2 layers × (q 512 + v 512 + down 768) × 4 bytes = 14 kB of weights; the model card has about 5 kB.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(RunError, match="too large"):
            export_adapter(trained, tmp_path / "adapter")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "adapter").exists()
    assert not (tmp_path / ".adapter.part").exists()


def test_saved_head_is_the_trained_one(trained: Any, tmp_path: Path) -> None:
    save_head(trained, tmp_path)
    state = load_file(str(tmp_path / "presafe_head.safetensors"))
    assert {name: (tuple(value.shape), value.dtype) for name, value in state.items()} == {
        "weight": ((1, 32), torch.float32),
        "bias": ((1,), torch.float32),
    }
    head = head_of(trained)
    # w · (h − μ) / σ + b = (w / σ) · h + (b − (w / σ) · μ)
    assert not torch.equal(head.deviation, torch.ones(32))
    torch.testing.assert_close(state["weight"], head.weight / head.deviation, rtol=1e-6, atol=0)
    folded = head.bias - (head.weight / head.deviation) @ head.mean
    torch.testing.assert_close(state["bias"], folded, rtol=1e-5, atol=1e-6)
    # not the copy that PEFT keeps of the start
    assert not torch.equal(state["weight"], bare_model(trained).presafe_head.original_module.weight)


def test_decision_head_by_hand(tmp_path: Path) -> None:
    # w = (1, 2), b = −1:  h = (1, 0) → σ(0) = 1/2;  h = (0, 1) → σ(1) = e/(1 + e) = 0.731059;  h = (0, 0) → σ(−1)
    save_file(
        {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([-1.0])},
        str(tmp_path / "presafe_head.safetensors"),
    )
    hidden = torch.tensor([[1, 0], [0, 1], [0, 0]], dtype=torch.bfloat16)
    assert DecisionHead(tmp_path).probability(hidden).tolist() == pytest.approx([0.5, 0.731059, 0.268941], abs=1e-6)


def test_decision_head_matches_the_trained_head(trained: Any, tmp_path: Path, rows: list[Row]) -> None:
    save_head(trained, tmp_path)
    hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        by_training = torch.sigmoid(bare_model(trained).presafe_head(hidden).squeeze(-1))
    torch.testing.assert_close(DecisionHead(tmp_path).probability(hidden), by_training, rtol=1e-5, atol=0)


def test_missing_head_fails(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"presafe_head\.safetensors"):
        DecisionHead(tmp_path)


@pytest.mark.parametrize(
    ("weights", "metadata", "words"),
    [
        ({"weight": torch.ones(1, 4)}, None, "bias"),
        ({"weight": torch.ones(1, 4), "bias": torch.ones(1), "more": torch.ones(1)}, None, "no place, first: more"),
        ({"weight": torch.ones(2, 4), "bias": torch.ones(2)}, None, "has the shape"),
        ({"weight": torch.ones(4), "bias": torch.ones(1)}, None, "has the shape"),
        ({"weight": torch.tensor([[1.0, torch.nan]]), "bias": torch.ones(1)}, None, "NaN or infinite, first: weight"),
        ({"weight": torch.ones(1, 4), "bias": torch.tensor([torch.inf])}, None, "NaN or infinite, first: bias"),
        ({"weight": torch.ones(1, 4), "bias": torch.ones(1)}, {"position": "nowhere"}, "'nowhere'"),
        ({"weight": torch.ones(1, 4), "bias": torch.ones(1)}, {"layer": "-1"}, "layer -1"),
        ({"weight": torch.ones(1, 4), "bias": torch.ones(1)}, {"layer": "two"}, "layer two"),
    ],
)
def test_a_head_that_is_none_is_one_line(
    tmp_path: Path, weights: dict[str, torch.Tensor], metadata: dict[str, str] | None, words: str
) -> None:
    save_file(weights, str(tmp_path / "presafe_head.safetensors"), metadata=metadata)
    with pytest.raises(ModelError, match=words) as caught:
        DecisionHead(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_head_of_another_model_is_one_line(tmp_path: Path) -> None:
    # make_model has hidden size 32 and 2 layers
    for width, layer, words in ((31, "1", "31 numbers, .* has 32"), (32, "3", "after layer 3, .* has 2 layers")):
        weights = {"weight": torch.ones(1, width), "bias": torch.ones(1)}
        save_file(weights, str(tmp_path / "presafe_head.safetensors"), metadata={"layer": layer})
        with pytest.raises(ModelError, match=words):
            DecisionHead(tmp_path).need_fit(make_model())


def test_export_on_a_tied_output_layer_holds_the_adapter_only(tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    config = LoraConfig(r=4, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = get_peft_model(make_model(), config).eval()
    export_adapter(adapted, tmp_path / "adapter")
    names = load_file(str(tmp_path / "adapter" / "adapter_model.safetensors"))
    assert len(names) == 2 * (2 + 1)  # A and B on q_proj of two layers and on lm_head
    assert all("lora_" in name for name in names)
    fresh = PeftModel.from_pretrained(make_model(), str(tmp_path / "adapter")).eval()
    assert torch.equal(logits(fresh, [1, 2, 3]), logits(adapted, [1, 2, 3]))


def test_an_adapter_to_train_further_fills_its_places(
    make_trainer: TrainerFactory, rows: list[Row], trained: Any, tmp_path: Path
) -> None:
    from presafe.alignment.export import load_adapter

    export_adapter(trained, tmp_path / "adapter")
    fresh = make_trainer(make_model(), rows).model.eval()
    load_adapter(fresh, tmp_path / "adapter")
    assert torch.equal(logits(fresh, [1, 2, 3]), logits(trained, [1, 2, 3]))
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    weights = load_file(str(file))
    for change, words in (
        ({name: value for name, value in weights.items() if "layers.0" in name}, "6 of the 12 weights are missing"),
        (weights | {"more": torch.ones(1)}, "no place, first: more"),
        ({name: value * torch.nan for name, value in weights.items()}, "NaN or infinite"),
    ):
        save_file(change, str(file), metadata={"format": "pt"})
        with pytest.raises(ModelError, match=words):
            load_adapter(fresh, tmp_path / "adapter")
