"""What made a run: the manifest names recipe, code, versions, machine and the files it read."""

from __future__ import annotations

import hashlib
import re
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pytest

from presafe.runs.manifest import build_manifest


def test_a_manifest_states_what_made_the_run() -> None:
    manifest = build_manifest({"name": "mine"}, "p")
    assert set(manifest) == {
        *("schema", "settings", "recipe_sha256", "prompts_sha256", "inputs", "commit", "created_utc", "python"),
        *("origins", "packages", "machine", "later_sessions"),
    }
    assert manifest["packages"]["torch"] == metadata.version("torch")
    assert manifest["packages"]["presafe"] == metadata.version("presafe")
    made = datetime.strptime(manifest["created_utc"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - made).total_seconds()) < 60
    assert manifest["machine"]["cpus"] >= 1


def test_the_hash_is_of_the_settings_and_not_of_their_order() -> None:
    # sha256 of '{"a": 1, "b": [2, 3]}', the canonical JSON.
    expected = hashlib.sha256(b'{"a": 1, "b": [2, 3]}').hexdigest()
    assert build_manifest({"a": 1, "b": [2, 3]}, "p")["recipe_sha256"] == expected
    assert build_manifest({"b": [2, 3], "a": 1}, "p")["recipe_sha256"] == expected
    assert build_manifest({"a": 1, "b": [3, 2]}, "p")["recipe_sha256"] != expected


def test_every_local_file_a_recipe_reads_is_hashed(tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_bytes(b"abc")
    two.write_bytes(b"")
    settings = {
        "respond": {"queries": [{"set": "harmful", "file": None}, {"file": str(one)}]},
        "evaluate": {"suites": {"mine": {"file": str(two)}, "lost": {"file": str(tmp_path / "none.csv")}}},
    }
    # The published digests of "abc" (FIPS 180-2) and of nothing.
    assert build_manifest(settings, "p")["inputs"] == {
        str(one): "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        str(two): "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }


def test_the_commit_is_that_of_the_checkout() -> None:
    commit = build_manifest({}, "p")["commit"]
    here = Path(__file__).parent
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True)
    if head.returncode:
        pytest.skip("not a git checkout")
    assert commit.removesuffix("+changes") == head.stdout.strip()
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", commit)


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert build_manifest({}, "p")["commit"] is None
