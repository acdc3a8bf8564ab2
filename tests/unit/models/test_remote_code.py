"""A model's own code runs only where the recipe trusts it: a real folder whose code leaves a file when it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from inspect_ai.model import get_model
from model_folders import add_own_code, logits, model_folder

from presafe.config.recipe import ModelSettings, Recipe, parse_recipe
from presafe.errors import ModelError, RecipeError
from presafe.models.loading import load_model, load_renderer, load_weights, shared_model
from presafe.models.provider import PreSafeAPI
from presafe.models.sampling import Sampler


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a model with code of its own; what transformers copies of it stays in the test's folder."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return model_folder(tmp_path / "own")


def recipe_of(model: dict[str, object]) -> Recipe:
    harmful = {"set": "harmful", "split": "align"}
    settings = {
        "name": "own code",
        "model": model,
        "respond": {"classifier_queries": [harmful], "alignment_queries": [harmful]},
        "evaluate": {"suites": {"harmful": {"set": "harmful"}}},
    }
    return parse_recipe(settings, "test")


def sampler_of(model: ModelSettings) -> Sampler:
    return Sampler(model, "on", None, batch_size=1, batch_tokens=4096, max_tokens=4, seed=0)


def test_own_code_does_not_run_by_default(folder: Path) -> None:
    marker = add_own_code(folder)
    model = recipe_of({"address": str(folder)}).model
    for load in (
        lambda: load_renderer(model.address),
        lambda: load_weights(model.address, "float32"),
        lambda: load_model(model.address),
        lambda: sampler_of(model).inspect_model().api.engine.ready(),  # type: ignore[attr-defined]
    ):
        with pytest.raises(ModelError) as caught:
            load()
        assert "it needs code of its own" in caught.value.problem
        assert "`trust_remote_code`" in caught.value.hint  # the setting that would run it
        assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_own_code_runs_where_the_recipe_trusts_it(folder: Path) -> None:
    expected = logits(load_model(str(folder)).model)
    marker = add_own_code(folder)
    model = recipe_of({"address": str(folder), "trust_remote_code": True}).model
    loaded = shared_model(model.address, None, model.family, model.dtype, model.trust_remote_code)
    assert marker.exists()
    assert type(loaded.model).__name__ == "OwnModel"
    assert type(loaded.renderer.tokenizer).__name__ == "OwnTokenizer"
    # OwnModel changes nothing of Llama, so its logits are those of the same weights loaded as Llama.
    assert torch.equal(logits(loaded.model), expected)


def test_the_tokenizer_alone_runs_its_code_only_where_trusted(folder: Path) -> None:
    marker = add_own_code(folder)
    assert load_renderer(str(folder), trust_remote_code=True).family.name == "smolthink"
    assert marker.read_text(encoding="utf-8").startswith("ran")


def test_the_sampler_passes_trust_to_the_model_it_names(folder: Path) -> None:
    marker = add_own_code(folder)
    model = ModelSettings(address=str(folder), trust_remote_code=True)
    api = sampler_of(model).inspect_model().api
    assert isinstance(api, PreSafeAPI)
    assert api.engine.ready().family.name == "smolthink"
    assert marker.exists()


def test_trust_in_one_model_is_no_trust_in_another(folder: Path) -> None:
    # The teacher is trusted, the model is not: the model's code must not run, also after the teacher was loaded.
    marker = add_own_code(folder)
    shared_model(str(folder), None, None, "float32", True)
    marker.unlink()
    with pytest.raises(ModelError, match="it needs code of its own"):
        shared_model(str(folder), None, None, "float32")
    assert not marker.exists()


def test_a_judge_of_a_folder_runs_no_code(folder: Path) -> None:
    from presafe.models import registry  # noqa: F401  registers the provider

    marker = add_own_code(folder)
    api = get_model(f"presafe/{folder}", memoize=False, keep=True).api
    assert isinstance(api, PreSafeAPI)
    with pytest.raises(ModelError, match="it needs code of its own"):
        api.engine.ready()
    assert not marker.exists()


def test_trust_is_written_only_where_it_is_given() -> None:
    # A folder from before this setting holds no such key: what is compared with it must hold none either.
    default, given = ModelSettings(address="x"), ModelSettings(address="x", trust_remote_code=True)
    assert "trust_remote_code" not in default.model_dump(mode="json")
    assert "trust_remote_code" not in ModelSettings(address="x", trust_remote_code=False).model_dump_json()
    assert given.model_dump(mode="json")["trust_remote_code"] is True
    assert ModelSettings.model_validate_json(default.model_dump_json()) == default
    assert ModelSettings.model_validate_json(given.model_dump_json()) == given


def test_the_log_of_an_untrusted_model_is_as_before() -> None:
    arguments = sampler_of(ModelSettings(address="smolthink")).inspect_model().model_args
    assert "trust_remote_code" not in arguments


@pytest.mark.parametrize("value", ["yes", 1, "true", None])
def test_trust_is_true_or_false(value: object) -> None:
    with pytest.raises(RecipeError, match="trust_remote_code"):
        recipe_of({"address": "smolthink", "trust_remote_code": value})
