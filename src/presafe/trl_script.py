"""Train with `PreSafeTrainer` in the manner of TRL's own scripts: `python -m presafe.trl_script --config x.yaml`.

The options are those of `trl.ScriptArguments`, `PreSafeConfig` and `trl.ModelConfig`. Each is honored, or refused with
one line (`REFUSED`); none is ignored. The data set has the columns of `presafe export-data RUN --format trl`:
`prompt`, `completion`, `signal` (p′, or null) and `decision_index`. Its name is a hub id or a local folder. The output
folder gets the adapter without a trace of the head, the head, and TRL's card.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from presafe.errors import PreSafeError, SignalError

_COLUMNS = ("prompt", "completion", "signal", "decision_index")
_NOT_QUANTIZED = "an adapter is trained on whole weights here"
_NOT_PUSHED = "nothing is pushed; upload the output folder with `hf upload`"
REFUSED: Mapping[str, str] = {
    "dataset_streaming": "all rows are read before the first step",
    "ignore_bias_buffers": "it would have no effect",
    "load_in_4bit": _NOT_QUANTIZED,
    "load_in_8bit": _NOT_QUANTIZED,
    "bnb_4bit_quant_type": _NOT_QUANTIZED,
    "use_bnb_nested_quant": _NOT_QUANTIZED,
    "bnb_4bit_quant_storage": _NOT_QUANTIZED,
    "lora_task_type": "the model is a causal language model",
    "chat_template_path": "the prompts of the rows are rendered already",
    "dataset_text_field": f"the columns of a row are {', '.join(_COLUMNS)}",
    "dataset_kwargs": "this script prepares the rows itself",
    "eos_token": "a completion ends as it is written",
    "pad_token": "the tokenizer has its own",
    "truncation_mode": "a row that is cut at its start has lost its decision position",
    "packing_strategy": "rows are not packed, because that loses the decision positions",
    "eval_packing": "rows are not packed, because that loses the decision positions",
    "completion_only_loss": "a row learns its completion only",
    "assistant_only_loss": "a row learns its completion only",
    "do_train": "it would have no effect: this script trains",
    "do_predict": "this script trains, and predicts nothing",
    "push_to_hub": _NOT_PUSHED,
    "hub_token": _NOT_PUSHED,
    "hub_private_repo": _NOT_PUSHED,
    "hub_model_id": _NOT_PUSHED,
    "hub_strategy": _NOT_PUSHED,
    "hub_always_push": _NOT_PUSHED,
    "hub_revision": _NOT_PUSHED,
}
"""Options that only may have their default, and why."""
_SAME_AS_DEFAULT: Mapping[str, Any] = {"completion_only_loss": True, "eval_packing": False}
"""Values that say what the script does anyway."""


def check_options(script: Any, training: Any, model: Any) -> None:
    """Check that every option that is given has an effect.

    Args:
        script: `trl.ScriptArguments`.
        training: `PreSafeConfig`.
        model: `trl.ModelConfig`.

    Raises:
        PreSafeError: the model, the data set or the adapter is not named, or an option is one of `REFUSED`.
    """
    for options in (script, training, model):
        for field in fields(options):
            value = getattr(options, field.name)
            allowed = (field.default, _SAME_AS_DEFAULT.get(field.name, field.default))
            if field.name in REFUSED and value not in allowed:
                raise PreSafeError(
                    f"{field.name} is {value!r}, which this script does not take: {REFUSED[field.name]}.",
                    "Leave it out.",
                )
    if not model.model_name_or_path or not script.dataset_name:
        raise PreSafeError("no model or no data set.", "Name them in model_name_or_path and dataset_name.")
    if not model.use_peft:
        raise PreSafeError("PreSafe trains an adapter.", "Set `use_peft: true` and lora_target_modules.")
    is_default_split = script.dataset_test_split == type(script).dataset_test_split
    if training.eval_strategy == "no" and not (is_default_split and not training.do_eval):
        raise PreSafeError("do_eval and dataset_test_split need an evaluation.", "Set eval_strategy to steps or epoch.")


def model_settings(training: Any, model: Any) -> dict[str, Any]:
    """Return how the model is loaded: the words for transformers' `from_pretrained`.

    Args:
        training: `PreSafeConfig`; its `model_init_kwargs` have precedence.
        model: `trl.ModelConfig`.
    """
    settings = {
        "revision": model.model_revision,
        "trust_remote_code": training.trust_remote_code,
        "dtype": model.dtype or "float32",
        "attn_implementation": model.attn_implementation,
    }
    return settings | (training.model_init_kwargs or {})


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


def load_rows(script: Any, split: str, tokenizer: Any, training: Any) -> Any:
    """Load a split of the data set as rows for `PreSafeTrainer`, and say how many of them are too long.

    Args:
        script: `trl.ScriptArguments`.
        split: Name of the split.
        tokenizer: As `training_row`.
        training: `PreSafeConfig`. The end of a row with more than `max_length` tokens is cut; a row whose prompt alone
            is as long is left out.

    Raises:
        SignalError: there is no such split, it lacks a column, every prompt is too long, or as `training_row`.
    """
    from datasets import load_dataset

    splits = load_dataset(script.dataset_name, name=script.dataset_config)
    if split not in splits:
        raise SignalError(f"{script.dataset_name} has no split {split!r}.", f"It has: {', '.join(splits)}.")
    data = splits[split]
    if missing := [name for name in _COLUMNS if name not in data.column_names]:
        raise SignalError(f"{script.dataset_name} has no column {missing[0]!r}.", f"It needs {', '.join(_COLUMNS)}.")
    rows = data.map(
        lambda row: training_row(row, tokenizer), remove_columns=data.column_names, num_proc=training.dataset_num_proc
    )
    if (most := training.max_length) is None:
        return rows
    lengths = [(start + 1, len(ids)) for start, ids in zip(rows["start_index"], rows["input_ids"], strict=True)]
    num_without = sum(of_prompt >= most for of_prompt, _ in lengths)
    num_cut = sum(of_prompt < most < length for of_prompt, length in lengths)
    if num_without == len(rows):
        raise SignalError(f"every prompt of the split {split} has {most} tokens or more.", "Give a larger max_length.")
    if num_cut or num_without:
        print(
            f"{split}: of {len(rows)} rows, {num_cut} are cut and {num_without} are left out, because they are longer "
            f"than max_length = {most} tokens",
            file=sys.stderr,
        )
    return rows


def main(words: Sequence[str] | None = None) -> None:
    """Train as the options say.

    Args:
        words: The command line; None takes the process's own.

    Raises:
        SignalError: as `load_rows`.
        PreSafeError: as `check_options` and `PreSafeTrainer`.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import ModelConfig, ScriptArguments, TrlParser, get_peft_config

    from presafe.alignment.export import export_adapter, whole_weights
    from presafe.alignment.head import save_head
    from presafe.alignment.trainer import PreSafeCollator, PreSafeConfig, PreSafeTrainer

    parser = TrlParser((ScriptArguments, PreSafeConfig, ModelConfig))
    script, training, model = parser.parse_args_and_config(args=list(words) if words is not None else None)
    check_options(script, training, model)
    settings = model_settings(training, model)
    training.model_init_kwargs = None  # TRL reads them only if it loads the model itself
    of_tokenizer = {name: settings[name] for name in ("revision", "trust_remote_code")}
    tokenizer = AutoTokenizer.from_pretrained(model.model_name_or_path, **of_tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    is_evaluated = training.eval_strategy != "no"
    trainer = PreSafeTrainer(
        AutoModelForCausalLM.from_pretrained(model.model_name_or_path, **settings),
        training,
        train_dataset=load_rows(script, script.dataset_train_split, tokenizer, training),
        eval_dataset=load_rows(script, script.dataset_test_split, tokenizer, training) if is_evaluated else None,
        data_collator=PreSafeCollator(tokenizer.pad_token_id, pad_to_multiple_of=training.pad_to_multiple_of),
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
