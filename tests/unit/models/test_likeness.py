"""A server is compared with the model that is meant: its tokenizer, and how likely it finds the first tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from model_server import ModelServer, serving_model
from tiny_models import libraries, make_model, renderer, tokenizer  # noqa: F401

from presafe.errors import ModelError
from presafe.models.address import raw_server
from presafe.models.control import adapter_name
from presafe.models.likeness import need_alike, need_same_as_here, need_tokenizer
from presafe.models.loading import LoadedModel, load_model, load_renderer
from presafe.models.served import ServedEngine


@pytest.fixture(scope="module")
def folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """Write two tiny models."""
    folder = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        make_model(seed).save_pretrained(folder / str(seed))
        tokenizer.save_pretrained(folder / str(seed))
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    return load_model(str(folder / "0"))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ModelServer]:
    with serving_model(folder / "0") as server:
        yield server


def greeted(server: ModelServer, folder: Path) -> ServedEngine:
    return ServedEngine(raw_server(server.address), lambda: load_renderer(str(folder / "0")), 2)


def test_the_same_model_passes_in_another_type_too(server: ModelServer, folder: Path, loaded: LoadedModel) -> None:
    need_same_as_here(greeted(server, folder), loaded)
    need_tokenizer(greeted(server, folder))
    with serving_model(folder / "0", "bfloat16") as rounded:
        need_same_as_here(greeted(rounded, folder), loaded)


def test_another_model_does_not(folder: Path, loaded: LoadedModel) -> None:
    with (
        serving_model(folder / "1") as other,
        pytest.raises(ModelError, match=r"holds another model than the model in this process"),
    ):
        need_same_as_here(greeted(other, folder), loaded)


def test_the_gap_is_the_largest_one() -> None:
    tables = [{1: -0.5, 2: -1.0}, {3: -0.1}]
    need_alike("http://a/v1", tables, [{1: -0.9, 2: -1.4}, {3: -0.2}], "b")  # at most .4
    with pytest.raises(ModelError, match=r"http://a/v1 holds another model than b \(ln P .* differs by 0.60\)"):
        need_alike("http://a/v1", tables, [{1: -0.5, 2: -1.6}, {3: -0.1}], "b")
    with pytest.raises(ModelError, match="no likely token is common"):
        need_alike("http://a/v1", tables, [{4: -0.5}, {5: -0.5}], "b")


def test_another_tokenizer_is_an_error(server: ModelServer, folder: Path) -> None:
    tokens = server.models["base"].renderer.tokenizer
    before = tokens.encode

    def shifted(text: str, **settings: Any) -> list[int]:
        return [token + 1 for token in before(text, **settings)]

    engine = greeted(server, folder)
    engine.ready()
    tokens.encode = shifted
    try:
        with pytest.raises(ModelError, match="has another tokenizer than this process"):
            need_tokenizer(engine)
    finally:
        del tokens.encode


def test_a_server_without_the_route_gets_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving_model(folder / "0", shows_tokens=False) as server:
        need_tokenizer(greeted(server, folder))
    assert "does not show its tokens (/tokenize)" in capsys.readouterr().err


def test_a_name_of_an_adapter_is_that_of_its_files(tmp_path: Path) -> None:
    names = []
    for content in (b"one", b"two", b"one"):
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (tmp_path / name).write_bytes(content)
        names.append(adapter_name(tmp_path))
    assert names[0] == names[2] != names[1]
