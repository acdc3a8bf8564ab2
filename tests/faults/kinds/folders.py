"""Files of a run folder: JSON records, manifests, timings and Inspect's logs, with changed values or damaged bytes."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from faults.cases import Case
from faults.mutate import change_json, damage, json_bytes
from faults.oracles import need, need_finite_numbers, need_same, second_json
from faults.tiny import built_run
from presafe.models.logs import DamagedLogError, check_sample, read_log, response_of
from presafe.records import Difference, HistoryPoint, PositionScore, Response, Score, Signal
from presafe.runs.folder import read_records, read_timings
from presafe.runs.io import read_json, read_record
from presafe.runs.manifest import read_manifest
from presafe.signals.calibration import ClassifierCard

_LINES: dict[str, tuple[str, type[BaseModel]]] = {
    "scores": ("evaluation/scores.jsonl", Score),
    "differences": ("evaluation/differences.jsonl", Difference),
    "positions": ("evaluation/positions/presafe-on.jsonl", PositionScore),
    "history": ("alignment/presafe/history.jsonl", HistoryPoint),
    "signals": ("signals/signals.jsonl", Signal),
}
_OBJECTS = {"manifest": "manifest.json", "timings": "timings.json", "settings": "recipe.json"}
_CARD = "signals/classifier.json"
_MAY_DIVERGE = ("history",)


class FolderFiles:
    """One file of a run folder."""

    name, clock_s = "folders", 30.0

    def prepare(self, workspace: Path) -> None:
        """Read the files of a finished run, and write its answers as records."""
        run = built_run(workspace) / "run"
        files = {target: name for target, (name, _) in _LINES.items()} | _OBJECTS | {"card": _CARD}
        self._files = {target: (run / name).read_bytes() for target, name in files.items()}
        self._log = next((run / "evaluation" / "vanilla-on").glob("*sums*.eval"))
        self._bytes = self._log.read_bytes()
        self._answers = _answers(self._log)
        self._files["responses"] = "".join(answer.model_dump_json() + "\n" for answer in self._answers).encode()
        with zipfile.ZipFile(self._log) as entries:
            self._entries = {name: entries.read(name) for name in entries.namelist()}
        self._samples = sorted(name for name in self._entries if name.startswith("samples/"))

    def make(self, rng: random.Random) -> Case:
        """Return a file with other values or damaged bytes."""
        target = rng.choice((*sorted(self._files), "eval", "eval", "eval_json"))
        if target == "eval":
            return Case(self.name, target, damage(self._bytes, rng))
        if target == "eval_json":
            return Case(self.name, target, self._changed_log(rng))
        data = self._files[target]
        if rng.random() < 0.3:
            return Case(self.name, target, damage(data, rng))
        if target in _LINES or target == "responses":
            lines = data.split(b"\n")[:-1]
            place = rng.randrange(len(lines))
            lines[place] = json_bytes(change_json(json.loads(lines[place]), rng), rng).replace(b"\n", b"")
            return Case(self.name, target, b"\n".join(lines) + b"\n")
        return Case(self.name, target, json_bytes(change_json(json.loads(data), rng), rng))

    def _changed_log(self, rng: random.Random) -> bytes:
        """Return a log, whole as a zip, in which one sample says something else."""
        changed = rng.choice(self._samples)
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as entries:
            for name, content in self._entries.items():
                if name == changed:
                    sample = json.loads(content)
                    part = rng.choice(("output", "scores", "metadata", "epoch", "id", "input", "messages", "target"))
                    sample[part] = change_json(sample.get(part), rng)
                    content = json.dumps(sample, ensure_ascii=True).encode()
                info = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
                info.compress_type = zipfile.ZIP_DEFLATED
                entries.writestr(info, content)
        return file.getvalue()

    def check(self, case: Case, folder: Path) -> None:
        """Read the file, and read it again with other code."""
        if case.target == "eval_scan":
            for place in self._places(json.loads(case.data)["step"]):
                data = self._bytes[:place] + bytes([self._bytes[place] ^ 1]) + self._bytes[place + 1 :]
                with suppress(DamagedLogError):
                    self._check_log(case._replace(target="eval", data=data), folder)
        elif case.target in ("eval", "eval_json"):
            self._check_log(case, folder)
        elif case.target in _LINES or case.target == "responses":
            kind = Response if case.target == "responses" else _LINES[case.target][1]
            path = folder / "it.jsonl"
            path.write_bytes(case.data)
            records: list[Any] = read_records(path, kind, "")
            diverged = case.target in _MAY_DIVERGE
            lines = [second_json(line, allows_nan=diverged) for line in case.data.decode().split("\n") if line.strip()]
            need_same(lines, records, "a record holds another value than its line")
            if not diverged:
                need_finite_numbers([record.model_dump() for record in records], "a record holds no finite number")
        elif case.target == "card":
            path = folder / "it.json"
            path.write_bytes(case.data)
            card = read_record(path, ClassifierCard)
            need_same(second_json(case.data.decode()), card, "a card holds another value than its file")
            need_finite_numbers(card.model_dump(), "a card holds no finite number")
        else:
            self._check_object(case, folder)

    def _check_object(self, case: Case, folder: Path) -> None:
        path = folder / _OBJECTS[case.target]
        path.write_bytes(case.data)
        if case.target == "timings":
            timings = read_timings(folder)
            if path.exists():
                need_same(
                    second_json(case.data.decode()), timings, "timings are others than in the file", is_exact=True
                )
                need(all(value >= 0 for value in timings.values()), "seconds below 0", timings)
            else:
                need(timings == {} and (folder / f"{path.name}.damaged").exists(), "a damaged file was not kept")
            return
        value = read_manifest(folder) if case.target == "manifest" else read_json(path)
        need_same(second_json(case.data.decode()), value, "an object is another than in its file", is_exact=True)
        need_finite_numbers(value, "an object holds no finite number")
        json.dumps(value, allow_nan=False)

    def _places(self, step: int) -> Iterator[int]:
        """Yield every `step`-th place in the samples of the log."""
        with zipfile.ZipFile(self._log) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename in self._samples]
        for entry in entries:
            start = entry.header_offset + 30 + len(entry.filename)
            yield from range(start, start + entry.compress_size, step)

    def _check_log(self, case: Case, folder: Path) -> None:
        path = folder / self._log.name
        path.write_bytes(case.data)
        log = read_log(path, check_sample)
        answers = [response_of(sample, "on") for sample in log.samples or [] if sample.scores]
        need_finite_numbers([answer.model_dump() for answer in answers], "an answer holds no finite number")
        if case.target == "eval":
            need(
                log.status != "success" or len(answers) == len(self._answers),
                "a finished log lost answers",
                len(answers),
            )
            for answer in answers:
                need(answer in self._answers, "damaged bytes changed an answer", answer)
            return
        with zipfile.ZipFile(io.BytesIO(case.data)) as entries:
            samples = [json.loads(entries.read(name)) for name in self._samples]
        named = {(_name_of(sample["id"]), sample["epoch"]): sample for sample in samples}
        need(len(named) == len(answers), "another number of answers than in the log", len(answers))
        for answer in answers:
            sample = named[answer.prompt_id, answer.sample]
            (choice,) = sample["output"]["choices"]
            content = choice["message"]["content"]
            text = content if isinstance(content, str) else "\n".join(p["text"] for p in content if p["type"] == "text")
            need_same(text, answer.answer, "an answer is another than in its log")
            verdict = next(score["value"] for name, score in sample["scores"].items() if name != "thought")
            need_same(verdict, answer.verdict, "a verdict is another than in its log")


def _name_of(sample_id: Any) -> str:
    """Return an id as a log's reader has it: 1.0 and true are 1."""
    return str(int(sample_id) if isinstance(sample_id, bool | float) else sample_id)


def _answers(path: Path) -> list[Response]:
    return [response_of(sample, "on") for sample in read_log(path, check_sample).samples or []]
