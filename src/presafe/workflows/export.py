"""Write an aligned system as models that other tools load: merged weights, a classifier, a GGUF file.

OUT/merged/        plain weights with the adapter in them, tokenizer and chat template: transformers, vLLM, SGLang
OUT/classifier/    the same decoder with the head as a sequence classifier: vLLM's /classify, transformers
OUT/model.gguf     the merged weights through llama.cpp's own converter

A folder is written whole or not at all. `merged/presafe_export.json` holds the hashes of the adapter and of the written
weights: `presafe-vllm` serves these weights under a gate file only if both are unchanged.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from presafe.errors import ModelError, RunError
from presafe.models.address import need_weights
from presafe.models.control import ADAPTER_FILES
from presafe.models.decision_head import DecisionHead
from presafe.models.loading import LoadedModel, load_model, load_renderer
from presafe.models.saving import MAX_SHARD, save_model, whole_folder
from presafe.runs.io import write_json
from presafe.runs.manifest import sha256_of_file
from presafe.stages.run_folder import RunFolder

EXPORT_RECORD = "presafe_export.json"
"""File in a folder of merged weights; `presafe-vllm` reads it."""


def export(folder: Path, out: Path, *, merge: bool, classifier: bool, gguf: Path | None) -> list[Path]:
    """Write an aligned system for other tools.

    Args:
        folder: Folder of the system: `RUN/alignment/SYSTEM`.
        out: Where to write.
        merge: Whether to write merged weights; a GGUF file needs them, and they are then written, too.
        classifier: Whether to write the head as a sequence classifier.
        gguf: llama.cpp's `convert_hf_to_gguf.py`; None writes no GGUF file.

    Returns:
        What was written.

    Raises:
        RunError: nothing is asked for; the folder is no system of a run; or OUT holds an export, or cannot be written.
        ModelError: the model or adapter cannot be loaded, the head is one that a classifier cannot be, or the converter
            failed.
    """
    if not (merge or classifier or gguf):
        raise RunError("nothing to write.", "Ask for `merge`, `classifier` or `gguf`.")
    targets = {
        "merged": out / "merged" if merge or gguf else None,
        "classifier": out / "classifier" if classifier else None,
        "gguf": out / "model.gguf" if gguf else None,
    }
    for target in filter(None, targets.values()):
        if target.exists():
            raise RunError(f"{target} exists.", "Name another folder.")
    head = _classifiable_head(folder) if classifier else None
    loaded = load_system(folder)
    written = []
    if targets["merged"]:
        _write_merged(loaded, folder, targets["merged"])
        written.append(targets["merged"])
    if targets["classifier"] and head:
        _write_classifier(loaded, head, targets["classifier"])
        written.append(targets["classifier"])
    if targets["gguf"] and targets["merged"] and gguf:
        _write_gguf(gguf, targets["merged"], targets["gguf"], run_of(folder).recipe.model.family)
        written.append(targets["gguf"])
    return written


def run_of(folder: Path) -> RunFolder:
    """Return the run that a system's folder lies in.

    Raises:
        RunError: the folder is no `RUN/alignment/SYSTEM`.
    """
    if folder.absolute().parent.name != "alignment" or not (folder / "adapter").is_dir():
        raise RunError(f"{folder} is no aligned system.", "Name a folder RUN/alignment/SYSTEM.")
    return RunFolder.existing(folder.absolute().parent.parent)


def load_system(folder: Path) -> LoadedModel:
    """Load an aligned system, its adapter merged, as the run evaluates it.

    Args:
        folder: Folder of the system.

    Raises:
        RunError: as `run_of`.
        ModelError: as `load_model`; or the recipe's model is served.
    """
    settings = run_of(folder).recipe.model
    need_weights(settings.address, "exporting a system")
    return load_model(
        settings.address,
        adapter=folder / "adapter",
        family=settings.family,
        dtype=settings.dtype,
        trust_remote_code=settings.trust_remote_code,
    )


def adapter_hashes(folder: Path) -> dict[str, str]:
    """Return the sha256 of a system's adapter, by the names of its files."""
    return {name: sha256_of_file(folder / "adapter" / name) for name in ADAPTER_FILES}


def _write_merged(loaded: LoadedModel, folder: Path, target: Path) -> None:
    """Write the merged model, its tokenizer and template, and the record of what it was made from."""
    with whole_folder(target) as part:
        save_model(loaded, part)
        weights = {path.name: sha256_of_file(path) for path in sorted(part.glob("*.safetensors"))}
        record = {"schema": 1, "adapter_sha256": adapter_hashes(folder), "weights_sha256": weights}
        write_json(part / EXPORT_RECORD, record)


def _classifiable_head(folder: Path) -> DecisionHead:
    """Return a system's head, if a sequence classifier reads the same state.

    Raises:
        ModelError: there is no head, or it reads elsewhere than the prompt's last token after the final norm.
    """
    head = DecisionHead(folder)
    if head.position != "prompt_end" or head.layer is not None:
        raise ModelError(
            f"the head in {folder} reads {head.position} after layer {head.layer or 'the last'}; a sequence classifier "
            "reads the prompt's end after the final norm.",
            "Align with the head at its default place.",
        )
    return head


def _write_classifier(loaded: LoadedModel, head: DecisionHead, target: Path) -> None:
    """Write the decoder and the head as a sequence classifier with one label.

    vLLM applies weight and bias. transformers has no bias in its classifiers and leaves it out: the config holds it as
    `presafe_bias`, to be added to the logit.
    """
    from huggingface_hub import save_torch_state_dict
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    head.need_fit(loaded.model)
    config = loaded.model.config.to_dict()
    architecture = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.get(config["model_type"])
    if architecture is None:
        raise ModelError(f"transformers has no sequence classifier of {config['model_type']}.", "Export it merged.")
    output = loaded.model.get_output_embeddings()
    left_out = {f"{name}.weight" for name, module in loaded.model.named_modules() if module is output}
    weights: dict[str, Any] = {
        name: tensor for name, tensor in loaded.model.state_dict().items() if name not in left_out
    }
    dtype = loaded.model.dtype
    weights |= {"score.weight": head.weight.to(dtype), "score.bias": head.bias.to(dtype)}
    config |= {
        "architectures": [architecture],
        "num_labels": 1,
        "id2label": {"0": "refuse"},
        "label2id": {"refuse": 0},
        "problem_type": "multi_label_classification",  # a sigmoid, where the default would be a softmax of one label
        "pad_token_id": loaded.renderer.tokenizer.pad_token_id,
        "presafe_bias": float(head.bias),
    }
    with whole_folder(target) as part:
        save_torch_state_dict(weights, str(part), max_shard_size=MAX_SHARD, metadata={"format": "pt"})
        write_json(part / "config.json", config)
        loaded.renderer.tokenizer.save_pretrained(part)


def _write_gguf(converter: Path, merged: Path, target: Path, family: str | None) -> None:
    """Run llama.cpp's converter on merged weights, and read its result as `presafe doctor` does.

    Raises:
        ModelError: it fails, or its result is asked otherwise than the merged model.
    """
    if not converter.is_file():
        raise ModelError(f"there is no {converter}.", "Name llama.cpp's convert_hf_to_gguf.py with `gguf`.")
    part = target.with_name(f".{target.name}.part")
    command = [sys.executable, str(converter), str(merged), "--outfile", str(part)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    try:
        if done.returncode != 0 or not part.is_file():
            last = done.stdout.strip().splitlines()[-1:] or ["it wrote nothing"]
            raise ModelError(
                f"{converter.name} ended with code {done.returncode}: {last[0]}.",
                f"It runs in presafe's environment: install there what it lacks, delete {merged}, and export again.",
            )
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    asked = [load_renderer(str(path), family).render("What is 17 + 25?", "on").ids for path in (merged, target)]
    if asked[0] != asked[1]:
        raise ModelError(f"{target} cuts a prompt into other tokens than {merged}.", "Do not use it.")
