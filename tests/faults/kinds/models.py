"""Model and adapter folders: refused, or what is computed is finite, the same twice, and not the model without them.

An input is JSON that says what is done to a copy of an intact folder, so that it stays small. Most of the time of a
load goes into its tokenizer and template, so these are shared between loads whose small files have the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from faults.cases import Case, Expect
from faults.mutate import change_json, damage
from faults.oracles import need
from faults.tiny import built_run
from presafe.models import loading
from presafe.models.loading import load_model
from presafe.models.rendering import Renderer

_IDS = torch.tensor([[1, 40, 198, 2, 30]])
_TENSORS: dict[str, Expect] = {
    "drop": "refused",
    "rename": "refused",
    "prefix": "refused",
    "empty": "refused",
    "extra": "refused",
    "nan": "refused",
    "inf": "refused",
    "transpose": "refused",
    "cut_rows": "refused",
    "integers": "any",
    "half": "any",
    "huge": "any",
    "noise": "accepted",
    "order": "accepted",
}
"""What is done to one tensor, and what must come of it."""
_FILES: dict[str, tuple[str, ...]] = {
    "model": ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"),
    "adapter": ("adapter_model.safetensors", "adapter_config.json"),
}
_CHANGE = {"adapter": "adapter_config.json", "model": "config.json"}
_CONFIGS: dict[str, tuple[str, ...]] = {
    "model": ("config.json", "config.json", "tokenizer_config.json", "generation_config.json", "tokenizer.json"),
    "adapter": ("adapter_config.json",),
}
_WHATS = (*("tensor",) * 8, *("bytes",) * 5, *("config",) * 6, "gone")
"""What is done; a file can be gone in few ways only."""


class ModelFolders:
    """Folders of a model or of an adapter, with damaged files, changed configs and changed tensors."""

    name, clock_s = "models", 60.0

    def prepare(self, workspace: Path) -> None:
        """Compute what the intact model says, without and with its adapter."""
        tiny = built_run(workspace)
        self._model, self._adapter = tiny / "student", tiny / "run" / "alignment" / "presafe" / "adapter"
        self._vanilla = _logits(self._model, None)
        self._adapted = _logits(self._model, self._adapter)
        self._names = {
            target: sorted(load_file(folder / _FILES[target][0]))
            for target, folder in (("model", self._model), ("adapter", self._adapter))
        }

    def make(self, rng: random.Random) -> Case:
        """Return what is done to a folder."""
        target = rng.choice(("model", "adapter", "adapter"))
        what = rng.choice(_WHATS)
        seed = rng.randrange(10**6)
        expect: Expect = "any"
        if what == "tensor":
            how = rng.choice(sorted(_TENSORS))
            expect = _TENSORS[how]
            change = {"tensor": how, "name": rng.choice(self._names[target])}
        elif what == "gone":
            change = {"gone": rng.choice(_FILES[target])}
            expect = "refused" if change["gone"] in (_FILES[target][0], _CHANGE[target]) else "any"
        else:
            change = {what: rng.choice(_FILES[target] if what == "bytes" else _CONFIGS[target])}
        return Case(self.name, target, json.dumps(change | {"seed": seed}).encode(), expect)

    def check(self, case: Case, folder: Path) -> None:
        """Load the changed folder twice, and compare what both compute with the intact model and adapter."""
        change = json.loads(case.data)
        intact = self._model if case.target == "model" else self._adapter
        copy = folder / case.target
        shutil.copytree(intact, copy)
        _apply(change, copy, case.target)
        pair = (copy, None) if case.target == "model" else (self._model, copy)
        logits = _logits(*pair)
        need(bool(logits.isfinite().all()), "logits that are not finite were accepted")
        again = _logits(*pair)
        need(bool(torch.equal(logits, again)), "two loads compute different logits", _distance(logits, again))
        if case.target == "adapter":
            least = 0.0 if _is_zero(copy) else 1e-6
            need(_distance(logits, self._vanilla) > least, "an adapter that changes nothing was accepted", change)
        if change.get("tensor") == "order":
            expected = self._vanilla if case.target == "model" else self._adapted
            need(bool(torch.equal(logits, expected)), "the same tensors compute other logits", change)


def _logits(model: Path, adapter: Path | None) -> Tensor:
    with patch.object(loading, "load_renderer", _shared_renderer):
        loaded = load_model(str(model), adapter=adapter)
    with torch.no_grad():
        logits: Tensor = loaded.model(input_ids=_IDS).logits
    return logits


_load_renderer: Callable[..., Renderer] = loading.load_renderer
_renderers: dict[str, Renderer] = {}


def _shared_renderer(address: str, *arguments: Any, **options: Any) -> Renderer:
    """Load a renderer, or return the one of a folder whose files have the same bytes; the weights do not count."""
    files = sorted(path for path in Path(address).iterdir() if path.suffix != ".safetensors")
    hashes = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
    key = "\n".join(hashes)
    if key not in _renderers:
        renderer = _load_renderer(address, *arguments, **options)
        if len(_renderers) > 50:
            _renderers.clear()
        _renderers[key] = renderer
    return _renderers[key]


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max()) if one.shape == other.shape else float("inf")


def _is_zero(adapter: Path) -> bool:
    """Return whether an adapter's file holds a product of zeros, which may change nothing."""
    return not any(
        bool(tensor.any()) for name, tensor in load_file(adapter / _FILES["adapter"][0]).items() if "_B" in name
    )


def _apply(change: dict[str, Any], folder: Path, target: str) -> None:
    rng = random.Random(change["seed"])
    if "gone" in change:
        (folder / change["gone"]).unlink(missing_ok=True)
    elif "bytes" in change:
        file = folder / change["bytes"]
        file.write_bytes(damage(file.read_bytes(), rng))
    elif "set" in change:
        file = folder / _CHANGE[target]
        file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change["set"]), encoding="utf-8")
    elif "config" in change:
        file = folder / change["config"]
        value = change_json(json.loads(file.read_text(encoding="utf-8")), rng)
        file.write_text(json.dumps(value), encoding="utf-8", errors="surrogatepass")
    else:
        file = folder / _FILES[target][0]
        tensors = _changed(load_file(file), change["tensor"], change["name"])
        save_file(tensors, file, metadata={"format": "pt"})


def _changed(tensors: dict[str, Tensor], how: str, name: str) -> dict[str, Tensor]:
    tensor = tensors[name].clone()
    without = {other: value for other, value in tensors.items() if other != name}
    if how == "drop":
        return without
    if how in ("rename", "prefix"):
        return without | {(f"{name}_old" if how == "rename" else f"_orig_mod.{name}"): tensor}
    if how == "extra":
        return tensors | {name.replace("layers.0", "layers.7") + ("2" if "layers.0" not in name else ""): tensor}
    if how == "order":
        return dict(reversed(tensors.items()))
    if how in ("nan", "inf"):
        tensor.view(-1)[0] = float(how)
    elif how == "huge":
        tensor = tensor * 1e30
    elif how == "noise":
        tensor = tensor + torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)) / 100
    elif how == "empty":
        tensor = tensor[:0]
    elif how == "transpose":
        tensor = torch.cat([tensor.T, tensor.T[:1]]).contiguous() if tensor.dim() == 2 else tensor[None].contiguous()
    elif how == "cut_rows":
        tensor = tensor[:-1].contiguous()
    else:
        tensor = tensor.to(torch.int32 if how == "integers" else torch.float16)
    return without | {name: tensor}
