"""Train with `PreSafeTrainer` in the manner of TRL's own scripts: `python -m presafe.trl_script --config x.yaml`.

The options are those of `trl.ScriptArguments`, `PreSafeConfig` and `trl.ModelConfig`. The data set has the columns of
`presafe export-data RUN --format trl`: `prompt`, `completion`, `signal` (p′, or null) and `decision_index`. Its name is
a hub id or a local folder. The output folder gets the adapter without a trace of the head, the head, and TRL's card.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from presafe.errors import PreSafeError, SignalError

_COLUMNS = ("prompt", "completion", "signal", "decision_index")


def training_row(example: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Return a row as `PreSafeCollator` reads it; only the completion is learned.

    Args:
        example: A row with `_COLUMNS`.
        tokenizer: Tokenizes the prompt as TRL does, with the first token that it adds, and the completion without.

    Raises:
        SignalError: p′ is not in [0, 1], or the decision position is not in the prompt.
    """
    prompt = tokenizer(example["prompt"]).input_ids
    completion = tokenizer(example["completion"], add_special_tokens=False).input_ids
    signal, index = example["signal"], example["decision_index"]
    if signal is not None and not 0 <= signal <= 1:
        raise SignalError(f"a row has the signal {signal}.", "It is a probability in [0, 1], or null for none.")
    if index is None and signal is None:
        index = len(prompt) - 1  # nothing reads it
    if index is None or not 0 <= index < len(prompt):
        raise SignalError(
            f"a row has the decision_index {index}, and its prompt {len(prompt)} tokens.",
            "Export the rows again with the tokenizer of this model.",
        )
    return {
        "input_ids": prompt + completion,
        "labels": [-100] * len(prompt) + completion,
        "decision_index": index,
        "start_index": len(prompt) - 1,
        "signal": signal,
    }


def main(words: Sequence[str] | None = None) -> None:
    """Train as the options say.

    Args:
        words: The command line; None takes the process's own.

    Raises:
        SignalError: the data set lacks a column, or as `training_row`.
        PreSafeError: as `PreSafeTrainer`.
    """
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import ModelConfig, ScriptArguments, TrlParser, get_peft_config

    from presafe.alignment.export import export_adapter, whole_weights
    from presafe.alignment.head import save_head
    from presafe.alignment.trainer import PreSafeConfig, PreSafeTrainer

    parser = TrlParser((ScriptArguments, PreSafeConfig, ModelConfig))
    script, training, model = parser.parse_args_and_config(args=list(words) if words is not None else None)
    if not model.use_peft:
        raise PreSafeError("PreSafe trains an adapter.", "Set `use_peft: true` and lora_target_modules.")
    tokenizer = AutoTokenizer.from_pretrained(model.model_name_or_path, revision=model.model_revision)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    data = load_dataset(script.dataset_name, name=script.dataset_config)[script.dataset_train_split]
    if missing := [name for name in _COLUMNS if name not in data.column_names]:
        raise SignalError(f"{script.dataset_name} has no column {missing[0]!r}.", f"It needs {', '.join(_COLUMNS)}.")
    rows = data.map(lambda row: training_row(row, tokenizer), remove_columns=data.column_names)
    trainer = PreSafeTrainer(
        AutoModelForCausalLM.from_pretrained(
            model.model_name_or_path, revision=model.model_revision, dtype=model.dtype or "float32"
        ),
        training,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=get_peft_config(model),
    )
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    weights = whole_weights(trainer)  # every process takes part
    if trainer.is_world_process_zero():
        folder = Path(training.output_dir)
        export_adapter(trainer.model, folder, base_model=model.model_name_or_path, state=weights)
        if training.lambda_align > 0 and training.head != "pooled":
            save_head(trainer.model, folder, position=training.decision_position, layer=training.layer, state=weights)
        trainer.create_model_card(model_name=folder.name, dataset_name=script.dataset_name)
    trainer.end()


if __name__ == "__main__":
    try:
        main()
    except PreSafeError as error:
        print(f"presafe: {error}", file=sys.stderr)
        sys.exit(2)
