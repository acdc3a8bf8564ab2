"""TRL's conventions: its card names PreSafe, and a script in its manner trains from a YAML file."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from tiny_models import make_model
from trl import ModelConfig, ScriptArguments, TrlParser

from presafe.alignment.trainer import PreSafeConfig
from presafe.errors import PreSafeError, SignalError
from presafe.models.decision_head import DecisionHead
from presafe.trl_script import REFUSED, check_options, load_rows, model_settings, training_row

HONORED = """
dataset_name dataset_config dataset_train_split dataset_test_split

model_name_or_path model_revision dtype attn_implementation use_peft lora_r lora_alpha lora_dropout
lora_target_modules lora_target_parameters lora_modules_to_save use_rslora use_dora

model_init_kwargs trust_remote_code router_aux_loss_coef dataset_num_proc max_length shuffle_dataset packing
padding_free pad_to_multiple_of loss_type activation_offloading

lambda_align lambda_start refusal_start_id contrast_id head decision_position layer head_learning_rate
standardize_head

output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type
lr_scheduler_kwargs warmup_steps optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon
optim_target_modules gradient_accumulation_steps average_tokens_across_devices max_grad_norm
label_smoothing_factor bf16 fp16 bf16_full_eval fp16_full_eval tf32 activation_checkpointing
activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs torch_compile
torch_compile_backend torch_compile_mode use_liger_kernel liger_kernel_config use_cache neftune_noise_alpha
torch_empty_cache_steps auto_find_batch_size logging_strategy logging_steps logging_first_step
log_on_each_node logging_nan_inf_filter include_num_input_tokens_seen log_level log_level_replica disable_tqdm
report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id eval_strategy eval_steps
eval_delay per_device_eval_batch_size prediction_loss_only eval_on_start eval_do_concat_batches
eval_use_gather_object eval_accumulation_steps include_for_metrics batch_eval_metrics save_only_model
save_strategy save_steps save_on_each_node save_total_limit enable_jit_checkpoint load_best_model_at_end
metric_for_best_model greater_is_better ignore_data_skip restore_callback_states_from_checkpoint
full_determinism seed data_seed use_cpu accelerator_config parallelism_config dataloader_drop_last
dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
dataloader_multiprocessing_context dataloader_in_order remove_unused_columns label_names
train_sampling_strategy length_column_name ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers
ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed debug skip_memory_metrics do_eval
resume_from_checkpoint local_rank
"""
"""Options that have an effect: those of the data set, of the model, of TRL's rows, of PreSafe, and the last block,
which transformers' own Trainer reads. `packing`, `padding_free`, `loss_type` and `label_smoothing_factor` are refused
by `PreSafeConfig` itself."""

ROW = {"prompt": "ab", "completion": "c<|im_end|>", "signal": 0.9, "decision_index": 1}


def test_a_row_learns_its_completion_only(tokenizer: Any) -> None:
    row = training_row(ROW, tokenizer)
    prompt, completion = tokenizer("ab").input_ids, tokenizer("c<|im_end|>").input_ids
    assert row["input_ids"] == prompt + completion
    assert row["labels"] == [-100, -100, *completion]
    assert (row["decision_index"], row["start_index"], row["signal"]) == (1, 1, 0.9)
    # a row without a decision (CoT off) has no position either
    assert training_row(ROW | {"signal": None, "decision_index": None}, tokenizer)["decision_index"] == 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"decision_index": 2}, "decision_index 2, and its prompt 2 tokens"),
        ({"decision_index": None}, "decision_index None"),
        ({"signal": 1.5}, "signal 1.5"),
        ({"signal": float("nan")}, "signal nan"),
    ],
)
def test_a_row_of_another_tokenizer_is_refused(tokenizer: Any, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(SignalError, match=problem):
        training_row(ROW | changes, tokenizer)


def test_the_script_trains_from_a_yaml_file(tokenizer: Any, tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "refuse.jsonl").write_text(json.dumps(ROW) + "\n")
    (tmp_path / "data" / "comply.jsonl").write_text(json.dumps(ROW | {"prompt": "abc", "signal": 0.1}) + "\n")
    config = tmp_path / "x.yaml"
    config.write_text(
        f"model_name_or_path: {tmp_path}/model\ndataset_name: {tmp_path}/data\noutput_dir: {tmp_path}/out\n"
        "use_peft: true\nlora_target_modules: [q_proj, v_proj]\nmax_steps: 2\nlambda_align: 0.5\nlearning_rate: 0.01\n"
        "use_cpu: true\nbf16: false\nreport_to: none\nsave_strategy: 'no'\n"
        "eval_strategy: steps\neval_steps: 1\ndataset_test_split: train\npad_to_multiple_of: 8\nmax_length: 4\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "presafe.trl_script", "--config", str(config)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("eval_loss") == 2  # one evaluation a step
    # the second row has three and two tokens
    assert "train: of 2 rows, 1 are cut and 0 are left out, because they are longer than max_length = 4" in done.stderr
    weights = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert any(weight.abs().max() > 0 for name, weight in weights.items() if "lora_B" in name)
    assert not any("presafe_head" in name for name in weights)
    assert DecisionHead(tmp_path / "out").position == "prompt_end"
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert {"trl", "presafe"} <= set(card.data.tags or [])
    assert "trained by PreSafe (arXiv 2603.17368)" in card.text
    # failed first: TRL's card linked huggingface.co/None, and the folder of the rows as a data set of the hub
    metadata = card.data.to_dict()
    assert metadata["library_name"] == "peft"
    assert not metadata.keys() & {"base_model", "datasets"}  # both are folders here
    assert str(tmp_path) not in str(card)
    assert "None" not in card.text


def options(tmp_path: Path, *words: str) -> tuple[Any, Any, Any]:
    """Return the options of a command line that names a model, a data set and an adapter."""
    needed = ["--model_name_or_path", "m", "--dataset_name", "d", "--use_peft", "--output_dir", str(tmp_path)]
    parser = TrlParser((ScriptArguments, PreSafeConfig, ModelConfig))
    script, training, model = parser.parse_args_and_config(args=[*needed, "--use_cpu", "--bf16", "false", *words])
    return script, training, model


def test_every_option_of_trl_is_honored_or_refused() -> None:
    """A new release of TRL or transformers may add an option: decide on it in `trl_script.py`, then name it here."""
    named = {field.name for kind in (ScriptArguments, PreSafeConfig, ModelConfig) for field in fields(kind)}
    honored = HONORED.split()
    assert len(honored) == len(set(honored))
    assert not set(honored) & REFUSED.keys()
    assert set(honored) | REFUSED.keys() == named


@pytest.mark.parametrize(
    "words",
    [
        "--dataset_streaming",
        "--ignore_bias_buffers",
        "--load_in_4bit",
        "--load_in_8bit",
        "--bnb_4bit_quant_type fp4",
        "--use_bnb_nested_quant",
        "--lora_task_type SEQ_CLS",
        "--chat_template_path x.jinja",
        "--dataset_text_field said",
        "--eos_token x",
        "--packing_strategy wrapped",
        "--eval_packing true",
        "--completion_only_loss false",
        "--assistant_only_loss",
        "--do_predict",
        "--push_to_hub",
        "--hub_model_id me/mine",
    ],
)
def test_an_option_without_effect_is_refused_in_one_line(words: str, tmp_path: Path) -> None:
    name = words.split()[0].removeprefix("--")
    with pytest.raises(PreSafeError, match=f"^{name} is .*, which this script does not take: ") as caught:
        check_options(*options(tmp_path, *words.split()))
    assert "\n" not in str(caught.value)


def test_options_that_say_what_is_done_anyway_are_taken(tmp_path: Path) -> None:
    check_options(*options(tmp_path, "--completion_only_loss", "true", "--eval_packing", "false"))
    check_options(*options(tmp_path, "--eval_strategy", "steps", "--eval_steps", "5", "--dataset_test_split", "held"))
    for words in (("--dataset_test_split", "held"), ("--do_eval",)):
        with pytest.raises(PreSafeError, match="need an evaluation"):
            check_options(*options(tmp_path, *words))
    script, training, model = options(tmp_path)
    script.dataset_name = None
    with pytest.raises(PreSafeError, match="no model or no data set"):
        check_options(script, training, model)


def test_the_model_is_loaded_as_the_options_say(tmp_path: Path) -> None:
    words = ["--model_revision", "v2", "--dtype", "auto", "--attn_implementation", "eager", "--trust_remote_code"]
    _, training, model = options(tmp_path, *words, "--model_init_kwargs", '{"dtype": "bfloat16", "use_cache": false}')
    assert model_settings(training, model) == {
        "revision": "v2",
        "trust_remote_code": True,
        "dtype": "bfloat16",  # model_init_kwargs have precedence, as in TRL's own script
        "attn_implementation": "eager",
        "use_cache": False,
    }
    _, training, model = options(tmp_path)
    assert model_settings(training, model) == {
        "revision": "main",
        "trust_remote_code": False,
        "dtype": "float32",
        "attn_implementation": None,
    }


def test_rows_that_are_too_long_are_counted(tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # tokens: prompt 2 + completion 2; 2 + 4; 5 + 2
    rows = [ROW, ROW | {"completion": "cde<|im_end|>"}, ROW | {"prompt": "abcde"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    script, training, _ = options(tmp_path, "--max_length", "4")
    script.dataset_name = str(tmp_path)
    assert [len(row["input_ids"]) for row in load_rows(script, "train", tokenizer, training)] == [4, 6, 7]
    assert "train: of 3 rows, 1 are cut and 1 are left out, because they are longer than max_length = 4" in (
        capsys.readouterr().err
    )
    training.max_length = None
    load_rows(script, "train", tokenizer, training)
    assert capsys.readouterr().err == ""
    training.max_length = 2
    with pytest.raises(SignalError, match="every prompt of the split train has 2 tokens or more"):
        load_rows(script, "train", tokenizer, training)
    with pytest.raises(SignalError, match="has no split 'test'"):
        load_rows(script, "test", tokenizer, training)
