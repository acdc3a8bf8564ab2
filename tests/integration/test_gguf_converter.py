"""llama.cpp's own converter on the merged weights of a run: what comes out is the same model.

PRESAFE_GGUF_CONVERTER names `convert_hf_to_gguf.py`; `make test-home` fetches it, with what it imports.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from presafe.cli.main import app
from presafe.models.loading import load_model
from presafe.workflows.export import export

CONVERTER = os.environ.get("PRESAFE_GGUF_CONVERTER", "")

pytestmark = pytest.mark.skipif(not CONVERTER, reason="PRESAFE_GGUF_CONVERTER names no converter: run `make test-home`")


def test_the_converted_model_is_the_merged_one_and_doctor_reads_it(whole_run: Path, tmp_path: Path) -> None:
    system = whole_run / "alignment" / "presafe"
    written = export(system, tmp_path, merge=False, classifier=False, gguf=Path(CONVERTER))
    assert written == [tmp_path / "merged", tmp_path / "model.gguf"]
    (merged, renderer), (converted, _) = (load_model(str(path)) for path in written)
    # The run is in float32, and the converter writes matrices in 16 bits unless it is told otherwise.
    with torch.no_grad():
        for weight in merged.parameters():
            weight.copy_(weight.half().float() if weight.dim() > 1 else weight)
    theirs = dict(converted.named_parameters())
    assert theirs.keys() == {name for name, _ in merged.named_parameters()}
    assert all(torch.equal(theirs[name], weight) for name, weight in merged.named_parameters())
    # Equal weights under another configuration would give other logits.
    ids = torch.tensor([renderer.render("What is 17 + 25?", "on").ids])
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, converted(ids).logits, atol=1e-4)
    shown = [CliRunner().invoke(app, ["doctor", str(path)]).stdout for path in written]
    assert "family: smolthink" in shown[0]
    assert shown[0] == shown[1]
