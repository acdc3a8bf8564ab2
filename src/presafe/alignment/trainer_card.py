"""The card that `PreSafeTrainer` writes beside an adapter, in place of TRL's: that one is of a whole model on the hub.

A base or a data set that lies in a folder is named without its path, and stands in no link and in no metadata.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from pathlib import Path

from presafe.models.address import hub_id

_CARD = """# {title}

A LoRA adapter for {base}, trained by PreSafe ({paper}) with `PreSafeTrainer`{data}. This script does not evaluate it:
measure it before you publish it, wrong refusals first.

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
model = PeftModel.from_pretrained(base, ".")
```

Versions: {versions}.

```bibtex
{citation}
```
"""


def trainer_card(
    base: str | None, data_set: str | None, *, title: str, tags: Iterable[str], paper: dict[str, str]
) -> str:
    """Return a card as Markdown with the hub's metadata block.

    Args:
        base: Hub id or folder of the base model; None if its config names none.
        data_set: Hub id or folder of the rows, or None.
        title: Name of the adapter.
        tags: Tags of the trainer.
        paper: Its `id` on arXiv and its `citation` (`PAPER`).
    """
    from huggingface_hub import ModelCardData

    base_id, data_id = (hub_id(name) if name else None for name in (base, data_set))
    metadata = ModelCardData(
        base_model=base_id,
        base_model_relation="adapter" if base_id else None,
        datasets=data_id,
        library_name="peft",
        pipeline_tag="text-generation",
        license="other",
        license_name="see-base-model-and-data",
        model_name=title,
        tags=sorted({*tags, "lora"}),
    )
    packages = ("presafe", "trl", "peft", "transformers", "torch", "datasets")
    text = _CARD.format(
        title=title,
        base=f"`{base_id}`" if base_id else "a base that is not on the hub: give your path to it below",
        name=base_id or (Path(base).name if base else "BASE"),
        data=f" on rows of `{data_id}`" if data_id else "",
        paper=f"arXiv {paper['id']}",
        versions=", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages),
        citation=paper["citation"],
    )
    return f"---\n{metadata.to_yaml().rstrip()}\n---\n\n{text}"
