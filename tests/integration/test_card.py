"""The card of a run's adapter: its own lines load the adapter, without presafe."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from huggingface_hub import ModelCard

_NO_PRESAFE = "import sys; sys.modules['presafe'] = None\n"
"""What makes `import presafe` fail, as in an environment without it."""


def test_plain_peft_loads_the_adapter_by_its_cards_lines(whole_run: Path, tmp_path: Path) -> None:
    adapter = whole_run / "alignment" / "presafe" / "adapter"
    card = ModelCard.load(adapter / "README.md")
    merge, peft, transformers = re.findall(r"```python\n(.*?)```", card.text, flags=re.DOTALL)
    subprocess.run([sys.executable, "-c", merge], cwd=tmp_path, check=True)
    # "smolthink-merged" and "." are relative: give each line the folder that it names
    (tmp_path / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    (tmp_path / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes())
    both = f"""
import torch
{peft}
ids = tokenizer("2 + 2", return_tensors="pt").input_ids
with torch.no_grad():
    plain, wrapped = model.disable_adapter(), model(ids).logits
    with plain:
        without = model(ids).logits
{transformers}
with torch.no_grad():
    native = model(ids).logits
assert not torch.equal(wrapped, without), "the adapter changes nothing"
print((wrapped - native).abs().max().item())
"""
    done = subprocess.run([sys.executable, "-c", _NO_PRESAFE + both], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-4  # peft and transformers load the same adapter
