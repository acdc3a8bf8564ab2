"""A model is measured only where its files hold all of it, as finite numbers, and ask for nothing else."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_folders import QWEN3, TEMPLATE, edit, logits, model_folder, rewrite, tokenizer_folder
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from presafe.errors import ModelError
from presafe.models.loading import load_model, load_renderer, load_weights

Weights = dict[str, Tensor]
NORM, UP = "model.norm.weight", "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def broken(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "broken")


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def filled(name: str, number: float) -> Callable[[Weights], Weights]:
    def change(weights: Weights) -> Weights:
        weights[name].view(-1)[-1] = number
        return weights

    return change


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: value for name, value in weights.items() if part not in name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # the embedding, layers of nine (four of attention, three of the MLP, two norms), the last norm, and the output
        # layer, which shares the embedding's: 1 + 2 × 9 + 1 + 1 = 21
        (without(".1."), ("9 of the 21", "layers.1")),
        (without(NORM), ("1 of the 21", NORM)),
        (without("embed"), ("missing", "embed")),
        (lambda weights: {}, ("hold 0 weights",)),
        (lambda weights: {f"backbone.{name}": value for name, value in weights.items()}, ("missing",)),
        (lambda weights: weights | {UP: weights[UP][:5].clone()}, (UP, "(5, 32)", "(64, 32)")),
        (lambda weights: weights | {UP.replace("1", "2"): weights[UP].clone()}, ("find no place", "layers.2.mlp.up")),
        (lambda weights: weights | {"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}, ("q_proj.bias",)),
        (filled(UP, torch.nan), ("NaN or infinite", UP)),
        (filled(NORM, -torch.inf), ("NaN or infinite", NORM)),
        (filled("model.embed_tokens.weight", torch.nan), ("NaN or infinite", "embed_tokens")),
        (lambda weights: {name: torch.full_like(value, torch.nan) for name, value in weights.items()}, ("NaN",)),
        # finite each; a sum of some of them is above float32's 3.4 × 10³⁸
        (lambda weights: weights | {UP: torch.full_like(weights[UP], 1e38)}, ("computes numbers that are NaN or inf",)),
    ],
    ids=[
        "layer", "norm", "embedding", "empty", "renamed", "shape", "layer_more", "bias", "nan", "inf", "nan_row",
        "all_nan", "overflow",
    ],
)  # fmt: skip
def test_weights_that_are_not_the_models_are_one_line(
    broken: Path, change: Callable[[Weights], Weights], words: tuple[str, ...]
) -> None:
    rewrite(broken / "model.safetensors", change)
    refused(broken, *words)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model_type": "gpt2"}, ("missing",)),
        ({"num_hidden_layers": 3}, ("9 of the 30", "layers.2")),
        ({"num_hidden_layers": 1}, ("9 weights", "find no place", "layers.1")),
        ({"tie_word_embeddings": False}, ("1 of the 21", "lm_head.weight")),
        ({"vocab_size": 50_000}, ("embed_tokens", "(49152, 32)", "(50000, 32)")),
        ({"vocab_size": 10**12}, ("embed_tokens",)),  # 128 TB, had it been allocated
        ({"num_hidden_layers": 10**9}, ("num_hidden_layers = 1000000000", "hold 20 weights")),
        ({"num_hidden_layers": "two"}, ("cannot load model",)),
        ({"num_attention_heads": 0}, ("cannot load model",)),
        ({"hidden_size": None}, ("cannot load model",)),
        ({"model_type": ["llama"]}, ("cannot load model",)),
        ({"model_type": "unheard_of"}, ("cannot load model",)),
        ({"rope_parameters": "none"}, ("cannot load model",)),
        ({"architectures": 7}, ()),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_config_that_is_not_the_models_is_one_line_or_harmless(
    broken: Path, values: dict[str, Any], words: tuple[str, ...]
) -> None:
    edit(broken / "config.json", **values)
    if words:
        refused(broken, *words)
    else:
        load_model(str(broken))


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("text", ["[]", "null", "7", '"text"', "", "{", "[" * 100_000, "\udcff"])
def test_a_file_of_another_kind_is_one_line(broken: Path, name: str, text: str) -> None:
    (broken / name).write_bytes(text.encode(errors="surrogateescape"))
    refused(broken)


def test_what_is_beside_the_network_is_harmless(whole: Path, broken: Path) -> None:
    # the value head of a reward model, and a buffer that older checkpoints hold
    extra = {"v_head.summary.weight": torch.ones(3), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    rewrite(broken / "model.safetensors", lambda weights: weights | extra)
    assert torch.equal(logits(load_model(str(broken)).model), logits(load_model(str(whole)).model))


def test_two_loads_of_a_sharded_or_padded_model_agree(whole: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(whole)
    expected = logits(load_model(str(whole)).model)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="1MB")
    tokenizer_folder(tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert torch.equal(logits(load_model(str(tmp_path / "sharded")).model), expected)
    model.resize_token_embeddings(49152 + 128)  # rows without a token are padding
    model.save_pretrained(tmp_path / "padded")
    tokenizer_folder(tmp_path / "padded")
    assert torch.equal(logits(load_model(str(tmp_path / "padded")).model)[..., :49152], expected)


def test_ids_without_a_row_are_one_line(broken: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(broken)
    assert len(tokenizer) == 49152  # so that the next token has the id 49152
    tokenizer.add_tokens(["[more]"])
    tokenizer.save_pretrained(broken)
    refused(broken, "ids up to 49152 ('[more]')", "has 49152 rows")


def test_the_default_of_several_templates_decides(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": TEMPLATE}, {"name": "default", "template": QWEN3}]
    folder = tokenizer_folder(tmp_path / "named", named)
    edit(folder / "config.json", model_type="qwen3")
    assert load_renderer(str(folder)).family.name == "qwen3"
    # transformers' newer layout of the same
    edit(folder / "tokenizer_config.json", chat_template=None)
    (folder / "chat_template.jinja").write_text(QWEN3, encoding="utf-8")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(TEMPLATE, encoding="utf-8")
    assert load_renderer(str(folder)).family.name == "qwen3"
    none = tokenizer_folder(tmp_path / "none", named[:1])
    with pytest.raises(ModelError, match=r"1 named chat templates \(tool_use\), and none is named default"):
        load_renderer(str(none))


@pytest.mark.parametrize("where", ["tokenizer", "config", "both"])
def test_code_of_a_model_never_runs(
    broken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    mark = broken / "ran"
    (broken / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: pass\n", encoding="utf-8")
    if where != "tokenizer":
        edit(broken / "config.json", model_type="own", auto_map={
            "AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own",
        })  # fmt: skip
    if where != "config":
        edit(
            broken / "tokenizer_config.json", tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.Own", "own.Own"]}
        )

    class Yes:
        def readline(self) -> str:
            raise AssertionError("it asks")

    monkeypatch.setattr(sys, "stdin", Yes())
    refused(broken, "it needs code of its own")
    with pytest.raises(ModelError, match="it needs code of its own"):
        load_weights(str(broken), "float32") if where == "config" else load_renderer(str(broken))
    assert not mark.exists()
    assert "[y/N]" not in capsys.readouterr().out


def test_the_weights_of_smolthink_are_those_of_before() -> None:
    # Checks cost no bit: the same merge by hand.
    from peft import PeftModel

    from presafe.models.loading import smolthink_adapter
    from presafe.models.weights import smollm2_folder

    base = AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=torch.float32)
    by_hand = PeftModel.from_pretrained(base, str(smolthink_adapter())).merge_and_unload().state_dict()
    ours = load_weights("smolthink", "float32").state_dict()
    assert ours.keys() == by_hand.keys()
    assert all(torch.equal(value.cpu(), by_hand[name]) for name, value in ours.items())


def test_an_encoder_and_a_classifier_are_whole(tmp_path: Path) -> None:
    from presafe.config.recipe import SignalSettings
    from presafe.models.weights import minilm_folder
    from presafe.signals.classifier import Classifier, train_classifier

    settings = SignalSettings(epochs=1)
    texts, refused_ones = ["a", "b", "c", "d"], [True, False, True, False]
    encoder = shutil.copytree(minilm_folder(), tmp_path / "encoder")
    norm = "encoder.layer.5.output.LayerNorm.weight"
    for change, words in (
        (without(norm), norm),
        (filled(norm, torch.nan), f"NaN or infinite, first: bert.{norm}"),
    ):
        shutil.copy(minilm_folder() / "model.safetensors", encoder)
        rewrite(encoder / "model.safetensors", change)
        own = settings.model_copy(update={"encoder": str(encoder)})
        with pytest.raises(ModelError, match=words):
            train_classifier(texts, refused_ones, own, tmp_path / "none")
    folder = tmp_path / "classifier"
    train_classifier(texts, refused_ones, settings, folder)
    assert len(Classifier(folder, settings).probabilities(texts)) == 4
    weights = load_file(folder / "model.safetensors")
    for change, words in (
        (without("classifier.weight"), "1 of the 105 .* first: classifier.weight"),
        (filled("classifier.bias", torch.inf), "NaN or infinite, first: classifier.bias"),
        (lambda weights: weights | {"classifier.weight": torch.ones(2, 384)}, "classifier.weight has the shape"),
    ):
        save_file(change(dict(weights)), folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match=words):
            Classifier(folder, settings)
