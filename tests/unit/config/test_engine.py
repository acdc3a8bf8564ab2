"""Where models are sampled: what may be set, how an option is read, and that it is no part of a run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from command_line import SMALL
from pydantic import ValidationError

from presafe.config.engine import EngineSettings, read_engine, stored_engine
from presafe.config.recipe import parse_recipe
from presafe.errors import RecipeError
from presafe.runs.manifest import sha256_of

AT = "http://127.0.0.1:8000#base"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "name `servers` or `vllm`, and not both"),
        ({"servers": [AT], "vllm": "env"}, "name `servers` or `vllm`, and not both"),
        ({"servers": [AT, AT]}, "no server may stand twice"),
        ({"servers": ["gpu1:8000#base"]}, "the address of a server is http://host:port#name"),
        ({"servers": [AT], "tensor_parallel": 2}, "`tensor_parallel` has no effect on `servers`"),
        ({"servers": [AT], "arguments": ["--seed"]}, "`arguments` has no effect on `servers`"),
        ({"vllm": "env", "data_parallel": 0}, "greater than or equal to 1"),
        ({"vllm": "env", "arguments": ["--port", "1"]}, "`arguments` holds --port, which the run sets itself"),
        ({"vllm": "env", "arguments": ["--host=0.0.0.0"]}, "`arguments` holds --host, which the run sets itself"),
        ({"vllm": "env", "arguments": ["a\nb"]}, "holds no control character"),
        ({"vllm": "env", "port": 8000}, "Extra inputs are not permitted"),
    ],
)
def test_settings_without_effect_are_errors(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        EngineSettings.model_validate(settings)


def test_an_engine_is_no_part_of_what_a_run_is() -> None:
    settings = tomllib.loads(SMALL)
    plain, placed = (
        parse_recipe(settings | more, "small") for more in ({}, {"engine": {"vllm": "env", "arguments": ["--seed"]}})
    )
    assert placed.engine == EngineSettings(vllm="env", arguments=("--seed",))
    assert plain.engine is None
    stored = [sha256_of(recipe.model_dump(mode="json")) for recipe in (plain, placed)]
    assert stored[0] == stored[1]
    assert stored_engine(placed.engine) == {"vllm": "env", "arguments": ["--seed"]}
    assert stored_engine(None) is None


def test_an_option_is_addresses_or_a_file(tmp_path: Path) -> None:
    other = AT.replace("8000", "8001")
    assert read_engine([AT, other]) == EngineSettings(servers=(AT, other))
    file = tmp_path / "engine.toml"
    file.write_text('[engine]\nvllm = "env"\ntensor_parallel = 2\n')
    assert read_engine([str(file)]) == EngineSettings(vllm="env", tensor_parallel=2)
    assert read_engine([]) is None
    for words, problem in (
        ([str(file), AT], "`engine` is one file or addresses, got 2 words"),
        (["smolthink"], "the address of a server is"),
        ([str(tmp_path / "none.toml")], "none.toml"),
    ):
        with pytest.raises(RecipeError, match=problem):
            read_engine(words)
    file.write_text('vllm = "env"\n')
    with pytest.raises(RecipeError, match=r"has the keys vllm. It holds one table, \[engine\]"):
        read_engine([str(file)])
    file.write_text("[engine\n")
    with pytest.raises(RecipeError, match="is not TOML"):
        read_engine([str(file)])
