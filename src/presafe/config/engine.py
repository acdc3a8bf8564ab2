"""Where models are sampled, if not in this process. It is no part of what a run or a measurement is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from presafe.config.bounds import Positive, Settings
from presafe.config.files import MAX_TOML_BYTES, format_validation_error, parse_toml
from presafe.errors import RecipeError
from presafe.runtime.reading import is_printable, read_text


def is_served(address: str) -> bool:
    """Return whether an address is that of a model behind a server, whose weights are not on this machine."""
    return address.startswith(("http://", "https://"))


def _check_address(address: str) -> str:
    if not is_served(address):
        raise ValueError("the address of a server is http://host:port#name")
    return address


def _check_word(word: str) -> str:
    if not is_printable(word):
        raise ValueError("a word of a command line holds no control character")
    return word


_SET_HERE = {"--model", "--served-model-name", "--host", "--port"}
"""Words of vLLM's command line by which a run finds the server it has started, on the loopback interface alone."""
_Address = Annotated[str, AfterValidator(_check_address)]
_Word = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_check_word)]


class EngineSettings(Settings):
    """Servers that hold the model, or a vLLM that is started for it."""

    servers: tuple[_Address, ...] = Field(default=(), max_length=256)
    """Running servers that hold the model: http://host:port#name. Requests are balanced between them; an aligned system
    is loaded there by name, so they must read its folder."""
    vllm: str | None = Field(default=None, min_length=1)
    """Path of an environment with vLLM: it is started for each model that is sampled, and ended after it."""
    tensor_parallel: Positive = 1
    """GPUs over which the started vLLM splits one copy of the model."""
    data_parallel: Positive = 1
    """Copies of the model in the started vLLM."""
    arguments: tuple[_Word, ...] = Field(default=(), max_length=64)
    """More words of its command line, such as ["--max-model-len", "8192"]; not the model, its name, or the address."""

    @model_validator(mode="after")
    def _check_effect(self) -> Self:
        if bool(self.servers) == bool(self.vllm):
            raise ValueError("name `servers` or `vllm`, and not both")
        if len(set(self.servers)) < len(self.servers):
            raise ValueError("no server may stand twice")
        words = {word.partition("=")[0] for word in self.arguments}
        if taken := sorted(words & _SET_HERE):
            raise ValueError(f"`arguments` holds {taken[0]}, which the run sets itself")
        own = {"tensor_parallel", "data_parallel", "arguments"} & self.model_fields_set
        if self.servers and own:
            raise ValueError(f"`{min(own)}` has no effect on `servers`, which run already")
        return self


def stored_engine(engine: EngineSettings | None) -> dict[str, Any] | None:
    """Return what a manifest keeps of where a session samples; None for this process.

    Args:
        engine: The settings.
    """
    return engine.model_dump(mode="json", exclude_defaults=True) if engine else None


def read_engine(words: list[str]) -> EngineSettings | None:
    """Return where models are sampled, from the words of an option.

    Args:
        words: Addresses of servers, or one TOML file with a table `[engine]`; empty for this process.

    Raises:
        RecipeError: a file beside other words, a file that cannot be read, or settings that are none.
    """
    if not words:
        return None
    files = [word for word in words if word.endswith(".toml")]
    if files and len(words) > 1:
        raise RecipeError(f"`engine` is one file or addresses, got {len(words)} words.", "Name one file.")
    settings = _read_file(Path(files[0])) if files else {"servers": tuple(words)}
    try:
        return EngineSettings.model_validate(settings)
    except ValidationError as error:
        raise RecipeError(f"`engine`: {format_validation_error(error, 'engine')}.") from error


def _read_file(file: Path) -> Any:
    """Return the table `[engine]` of a file.

    Raises:
        RecipeError: it cannot be read, or holds something else.
    """
    try:
        tables = parse_toml(read_text(file, RecipeError, "engine", MAX_TOML_BYTES))
    except ValueError as error:
        raise RecipeError(f"engine {file} is not TOML: {error}.") from error
    if tables.keys() != {"engine"}:
        raise RecipeError(f"{file} has the keys {', '.join(tables) or 'none'}.", "It holds one table, [engine].")
    return tables["engine"]
