"""A gate file with its head in a folder: what the tests of this plug-in read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from presafe_vllm.settings import Settings, settings_from

TAIL = [7, 8, 9]
REFUSAL = [20, 21, 2]
"""Ids of a refusal; the last ends the turn."""


def write_gate(folder: Path, **changes: Any) -> Path:
    """Write a gate file with a head of width 4 beside it; a change of None leaves an entry out."""
    head = folder / "presafe_head.safetensors"
    save_file({"weight": torch.ones(1, 4), "bias": torch.zeros(1)}, head, metadata={"position": "prompt_end"})
    gate = {
        "schema": 1,
        "head": head.name,
        "head_sha256": hashlib.sha256(head.read_bytes()).hexdigest(),
        "adapter_sha256": {"adapter_config.json": "0" * 64},
        "threshold": 0.5,
        "calibration": {"slope": 2.0, "intercept": 0.0, "kind": "temperature"},
        "decision_tail": TAIL,
        "refusal_ids": REFUSAL,
        "refusal": "I can't help with that.",
        "suites": [],
    } | changes
    path = folder / "gate.json"
    path.write_text(json.dumps({key: value for key, value in gate.items() if value is not None}), encoding="utf-8")
    return path


def settings_of(folder: Path, models: str = "own=gate", **variables: str) -> Settings:
    """Return the settings of a gate file written by `write_gate`."""
    return settings_from(write_gate(folder), {"PRESAFE_GATE_MODELS": models, **variables})
