"""The card of a run's adapter: its own lines load the adapter, without presafe.

PRESAFE_PEFT_PYTHON names the interpreter of another environment, with peft, transformers and torch only; without it,
this one runs the lines and finds no presafe.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from huggingface_hub import ModelCard

from presafe.stages.cards import write_cards
from presafe.stages.report import report_data
from presafe.stages.run_folder import RunFolder

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
    python = os.environ.get("PRESAFE_PEFT_PYTHON", sys.executable)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-c", _NO_PRESAFE + both]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-4  # peft and transformers load the same adapter


def test_the_line_for_vllm_names_the_base_and_the_folder(whole_run: Path) -> None:
    # vLLM is not installed here: its options are those that vLLM 0.33 documents for LoRA
    card = ModelCard.load(whole_run / "alignment" / "presafe" / "adapter" / "README.md")
    (line,) = re.findall(r"```sh\n(.*?)\n```", card.text, flags=re.DOTALL)
    words = shlex.split(line)
    assert words[:4] == ["vllm", "serve", "smolthink-merged", "--enable-lora"]
    assert words[4::2] == ["--max-lora-rank", "--lora-modules"]
    rank = json.loads((whole_run / "alignment" / "presafe" / "adapter" / "adapter_config.json").read_text())["r"]
    assert int(words[5]) >= rank
    assert words[7] == "presafe=."


def test_a_card_that_its_author_changed_is_kept(whole_run: Path, tmp_path: Path) -> None:
    run = RunFolder.existing(shutil.copytree(whole_run, tmp_path / "run"))
    data = report_data(run)
    card = run.path / "alignment" / "presafe" / "adapter" / "README.md"
    written = card.read_text(encoding="utf-8")
    card.write_text("an older card\n", encoding="utf-8")
    assert card.with_name("README.new.md") in write_cards(run, data)
    assert card.read_text(encoding="utf-8") == "an older card\n"
    assert card.with_name("README.new.md").read_text(encoding="utf-8") == written
    card.with_name("README.new.md").write_text("own notes", encoding="utf-8")
    assert not any(path.parent == card.parent for path in write_cards(run, data))  # neither is ours
    assert card.with_name("README.new.md").read_text(encoding="utf-8") == "own notes"
    card.write_bytes(b"\xff")
    write_cards(run, data)  # what cannot be read is no reason to fail
    card.write_text(written.rstrip("\n"), encoding="utf-8")
    assert card in write_cards(run, data)  # as it was written: it is written again
    assert ModelCard.load(card).text.rstrip().endswith("-->")
