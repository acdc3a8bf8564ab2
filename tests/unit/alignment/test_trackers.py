"""Training curves arrive in the files of each tracker, one run for each system; nothing is sent anywhere."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_models import make_model
from tiny_training import SETTINGS, fit_rows

from presafe.alignment.fit import HISTORY, FitSettings, fit
from presafe.alignment.trackers import check_trackers, run_name, tracked
from presafe.errors import RecipeError
from presafe.models.rendering import Renderer
from presafe.records import HistoryPoint
from presafe.runs.io import read_jsonl

Curves = dict[str, list[float]]
"""Losses of L_SFT by run."""


@pytest.fixture(scope="module", autouse=True)
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep trackio out of the user's cache; it reads the variable when it is first imported, by any training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
        yield


def train(renderer: Renderer, run: Path, tracker: str) -> Curves:
    """Train two systems one after the other, as a run does in one process; return what their histories hold."""
    curves = {}
    for seed, system in enumerate(("sft", "presafe")):
        folder = run / "alignment" / system
        align = SETTINGS.model_copy(update={"report_to": (tracker,), "max_steps": 3})
        settings = FitSettings(align=align, lambda_align=1.0, seed=seed, folder=folder, label=system, base_model="tiny")
        fit(make_model(), renderer, fit_rows(), settings)
        curves[run_name(folder)] = [point.nll for point in read_jsonl(folder / HISTORY, HistoryPoint)]
    return curves


def test_a_tracker_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_trackers(["json"])
    with pytest.raises(RecipeError, match="report_to names no_such_tracker, which is not installed"):
        check_trackers(["json", "no_such_tracker"])
    # Failed first: the folder that a tracker once wrote here passed for its package.
    (tmp_path / "no_such_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeError, match="which is not installed"):
        check_trackers(["no_such_tracker"])


def test_a_run_is_named_by_its_folders(tmp_path: Path) -> None:
    assert run_name(tmp_path / "my" / "alignment" / "presafe") == "my/alignment/presafe"


def test_a_trackers_own_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class LoginError(Exception):
        __module__ = "trackio.errors"

    with (
        pytest.raises(RecipeError, match=r"trackio, which align\.report_to names, failed: no key"),
        tracked(["trackio"]),
    ):
        raise LoginError("no\nkey")
    with pytest.raises(ValueError, match="ours"), tracked(["trackio"]):
        raise ValueError("ours")


def test_tensorboard_gets_the_curves(renderer: Renderer, tmp_path: Path) -> None:
    events: Any = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    for name, losses in train(renderer, tmp_path / "run", "tensorboard").items():
        (file,) = (tmp_path / name).rglob("events.out.tfevents.*")
        scalars = events.EventAccumulator(str(file)).Reload().Scalars("train/sft_loss")
        assert [scalar.value for scalar in scalars] == pytest.approx(losses, rel=1e-6)


def records(log: bytes) -> Iterator[bytes]:
    """Read a file of wandb: a header of seven bytes, then LevelDB's log format (leveldb, doc/log_format.md)."""
    place, record = 7, b""
    while place + 7 <= len(log):
        if 32768 - place % 32768 < 7:  # a block ends with zeros where no header fits
            place += 32768 - place % 32768
        length, kind = int.from_bytes(log[place + 4 : place + 6], "little"), log[place + 6]
        record += log[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def test_wandb_gets_a_run_for_each_system(renderer: Renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Failed first: the second system's curves went into the first one's run.
    messages: Any = pytest.importorskip("wandb.proto.wandb_internal_pb2", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    expected = train(renderer, tmp_path / "run", "wandb")
    curves: Curves = {}
    for file in (tmp_path / "wandb").glob("offline-run-*/run-*.wandb"):
        parsed = [messages.Record.FromString(record) for record in records(file.read_bytes())]
        (name,) = {record.run.display_name for record in parsed if record.HasField("run")}
        rows = [
            {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for record in parsed
            if record.HasField("history")
        ]
        curves[name] = [row["train/sft_loss"] for row in rows if "train/sft_loss" in row]
    assert curves == {name: pytest.approx(losses) for name, losses in expected.items()}


def test_trackio_gets_a_run_for_each_system(renderer: Renderer, tmp_path: Path) -> None:
    utils: Any = pytest.importorskip("trackio.utils", reason="trackio is not installed")
    expected = train(renderer, tmp_path / "run", "trackio")
    with sqlite3.connect(utils.TRACKIO_DIR / "presafe.db") as database:
        rows = database.execute("SELECT run_name, metrics FROM metrics ORDER BY run_name, step").fetchall()
    curves: Curves = {name: [] for name, _ in rows}
    for name, metrics in rows:
        if (loss := json.loads(metrics).get("train/sft_loss")) is not None:
            curves[name].append(loss)
    assert curves == {name: pytest.approx(losses) for name, losses in expected.items()}
