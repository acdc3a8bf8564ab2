"""What MODEL may be, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from transformers import LlamaConfig

from presafe.config.recipe import ModelSettings
from presafe.errors import ModelError
from presafe.models.address import Served, need_weights, pretrained, served_model
from presafe.models.loading import load_model, load_renderer, load_weights
from presafe.models.provider import PreSafeAPI

SERVER = "http://127.0.0.1:8000#mine"


@pytest.mark.parametrize(
    ("address", "url", "name"),
    [
        (SERVER, "http://127.0.0.1:8000/v1", "mine"),
        ("https://host/#Qwen/Qwen3-8B", "https://host/v1", "Qwen/Qwen3-8B"),
        ("http://host:1/v1#m", "http://host:1/v1", "m"),
        ("http://host:1/proxy/v1/#m", "http://host:1/proxy/v1", "m"),
        ("http://[::1]:8000#m", "http://[::1]:8000/v1", "m"),
    ],
)
def test_a_server_and_a_name(address: str, url: str, name: str) -> None:
    assert served_model(address) == Served(url, name)


@pytest.mark.parametrize("address", ["smolthink", "Qwen/Qwen3-8B", "./http", "models/http://"])
def test_what_is_no_server(address: str) -> None:
    assert served_model(address) is None
    need_weights(address, "this")


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("http://127.0.0.1:8000", "does not name a model"),
        ("http://127.0.0.1:8000#", "does not name a model"),
        ("http://#m", "does not name a model"),
        ("http://host:many#m", "is not a valid address"),
        ("http://user:sk-secret@host#m", "PRESAFE_API_KEY"),
        ("http://host/v1?key=sk-secret#m", "PRESAFE_API_KEY"),
    ],
)
def test_a_malformed_server_says_how_and_repeats_no_key(address: str, complaint: str) -> None:
    with pytest.raises(ModelError) as caught:
        served_model(address)
    assert complaint in str(caught.value)
    assert "sk-secret" not in str(caught.value)


def test_what_needs_weights_says_so() -> None:
    for refuse in (
        lambda: load_weights(SERVER, "float32"),
        lambda: load_model(SERVER),
        lambda: PreSafeAPI(SERVER, adapter="somewhere"),
        lambda: need_weights(SERVER, "this"),
    ):
        with pytest.raises(ModelError, match=f"needs local weights, and {SERVER} is a served model"):
            refuse()


def test_settings_that_cannot_take_effect_are_refused() -> None:
    assert ModelSettings(address=SERVER, tokenizer="smolthink").tokenizer == "smolthink"
    with pytest.raises(ValidationError, match="`tokenizer` belongs to a served model"):
        ModelSettings(address="smolthink", tokenizer="smolthink")
    with pytest.raises(ValidationError, match="a server has its own"):
        ModelSettings(address=SERVER, dtype="bfloat16")


def test_the_tokenizer_of_a_served_model_is_named_or_its_name() -> None:
    named = load_renderer(SERVER, tokenizer="smolthink")
    assert named.family.name == "smolthink"
    assert load_renderer("http://host:1#smolthink").render("x", "on") == named.render("x", "on")
    with pytest.raises(ModelError, match=r"cannot load the tokenizer of .* from 'mine'.*`tokenizer`"):
        load_renderer(SERVER)


def test_a_gguf_file_alone_in_its_folder_or_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").touch()
    folder = {"pretrained_model_name_or_path": str(tmp_path), "gguf_file": "a.gguf"}
    assert pretrained(str(tmp_path)) == pretrained(str(tmp_path / "a.gguf")) == folder
    (tmp_path / "b.gguf").touch()
    with pytest.raises(ModelError, match=r"holds 2 GGUF files: a\.gguf, b\.gguf.*Name one"):
        pretrained(str(tmp_path))
    (tmp_path / "config.json").touch()  # a folder of safetensors that also offers GGUFs
    assert pretrained(str(tmp_path)) == {"pretrained_model_name_or_path": str(tmp_path)}


def test_a_folder_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    LlamaConfig().save_pretrained(tmp_path)
    for address, tokenizer in ((str(tmp_path), None), (SERVER, str(tmp_path))):
        with pytest.raises(ModelError, match=r"it has no tokenizer that can be read here \(tokenizer.json\)"):
            load_renderer(address, tokenizer=tokenizer)
