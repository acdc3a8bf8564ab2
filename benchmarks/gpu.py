"""One alignment step and decoding at the true shapes of 7B and 8B models, with random weights, on one GPU.

    python benchmarks/gpu.py                                   DeepSeek-R1-Distill-Qwen-7B and -Llama-8B
    python benchmarks/gpu.py --address Qwen/Qwen3-0.6B         another shape that `presafe plan` knows
    python benchmarks/gpu.py --small                           a tiny shape, also on a CPU: does it run?

Weights take no part in how long a step takes, so none are fetched: the model is built on the meta device and filled on
the GPU. In one process, plain SFTTrainer and PreSafeTrainer train the same rows, then the model decodes, by our loop
and in pages (design/0003). The record, with hardware, versions, commit and what `presafe plan` would have said, goes
to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from presafe.alignment.trainer import PreSafeConfig, PreSafeTrainer
from presafe.config.recipe import AlignSettings
from presafe.models.cache import PAGE
from presafe.models.engine import generate_batch
from presafe.models.exchange import Request
from presafe.models.family import Sampling
from presafe.models.paged import PagedDecoder
from presafe.planning.compute import ForwardPass, Row, training_bytes, training_flops
from presafe.planning.devices import Device, assumptions, known_devices
from presafe.planning.estimate import GIB, Answerer, SamplingTask, seconds_per_token
from presafe.planning.shapes import ModelShape, known_shapes
from presafe.runs.manifest import build_manifest, sha256_of

RESULTS = Path(__file__).parent / "results"
DEFAULT = ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B")
SMALL = ModelShape(
    kind="llama",
    vocab_size=512,
    hidden_size=64,
    intermediate_size=128,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    tied=False,
)
WARM_UP = 2
"""Steps that are not timed: kernels are built and memory is claimed in them."""


class Clock(TrainerCallback):
    """Seconds of each step after the first `WARM_UP`."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note when a step begins."""
        self._start = _now()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the seconds of a step, but for the first ones."""
        if state.global_step > WARM_UP:
            self.seconds.append(_now() - self._start)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def device_of(name: str, memory_gib: float) -> Device | None:
    """Return the known GPU of this name, of several the one of nearest memory; None where none is known."""
    alike = [
        gpu
        for key, gpu in known_devices().items()
        if all(word in name.lower() for word in key.split("-") if not word.endswith("gb"))
    ]
    return min(alike, key=lambda gpu: abs(gpu.memory_gib - memory_gib), default=None)


def build_model(shape: ModelShape, device: str) -> Any:
    """Return a model of a shape with random weights, on a device: bfloat16 on a GPU, float32 on a CPU."""
    config = AutoConfig.for_model(
        shape.kind,
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
    )
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model = model.to_empty(device=device)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config).to(device)  # a buffer, which has no weights
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.02, generator=generator)
            else:
                parameter.fill_(1.0)
    return model


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer: the trainers ask for one, which reads nothing here."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    marks = {"<pad>": 0, "<end>": 1, "<unk>": 2}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(marks, unk_token="<unk>")),
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unk>",
    )


def rows_of(shape: ModelShape, num_rows: int, num_tokens: int, num_scored: int) -> list[dict[str, Any]]:
    """Random rows: a prompt, and the tokens that are scored."""
    ids = torch.randint(
        3, shape.vocab_size, (num_rows, num_tokens), generator=torch.Generator().manual_seed(1)
    ).tolist()
    prompt = num_tokens - num_scored
    return [
        {
            "input_ids": row,
            "labels": [-100] * prompt + row[prompt:],
            "decision_index": prompt - 1,
            "signal": float(number % 2),
        }
        for number, row in enumerate(ids)
    ]


def time_steps(
    name: str, shape: ModelShape, settings: argparse.Namespace, device: str, peak: Device | None
) -> dict[str, Any]:
    """Seconds, tokens a second, memory and utilisation of a step of one trainer."""
    ours = name == "presafe"
    model = build_model(shape, device)
    align, clock = AlignSettings(), Clock()
    steps, per_step = WARM_UP + settings.steps, settings.batch_size * settings.accumulation
    rows = rows_of(shape, per_step * steps, settings.num_tokens, settings.num_scored)
    lora = LoraConfig(
        r=settings.rank, lora_alpha=2 * settings.rank, target_modules=list(align.lora_targets), task_type="CAUSAL_LM"
    )
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (PreSafeConfig if ours else SFTConfig)(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=settings.batch_size,
            gradient_accumulation_steps=settings.accumulation,
            learning_rate=1e-4,
            train_sampling_strategy="sequential",
            max_length=None,
            bf16=device == "cuda",
            gradient_checkpointing=device == "cuda",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        tokens = tokenizer()
        plain = {} if ours else {"data_collator": DataCollatorForLanguageModeling(pad_token_id=tokens.pad_token_id)}
        trainer = (PreSafeTrainer if ours else SFTTrainer)(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(
                rows if ours else [{k: r[k] for k in ("input_ids", "labels")} for r in rows]
            ),
            processing_class=tokens,
            peft_config=lora,
            callbacks=[clock],
            **plain,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    seconds = statistics.median(clock.seconds)
    adapter = shape.num_adapter_parameters(settings.rank, align.lora_targets)
    row = Row(settings.num_tokens, settings.num_scored)
    useful, done = (per_step * training_flops(shape, row, adapter, checkpointing=again) for again in (False, True))
    planned = training_bytes(
        shape,
        settings.rank,
        align.lora_targets,
        ForwardPass(settings.batch_size, settings.num_tokens, num_logits=0),
        dtype="bfloat16",
        checkpointing=True,
    )
    return {
        "trainer": name,
        "seconds_a_step": seconds,
        "all_seconds": clock.seconds,
        "tokens_a_second": per_step * settings.num_tokens / seconds,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / GIB if device == "cuda" else None,
        # useful operations only: what checkpointing does again is no use
        "model_flop_utilisation": useful / seconds / (peak.tflops * 1e12) if peak else None,
        "planned": {
            "seconds_a_step": done / (peak.tflops * 1e12 * assumptions().training_utilization) if peak else None,
            "peak_memory_gib": planned.total() / GIB,
        },
    }


def time_decoding(
    shape: ModelShape, settings: argparse.Namespace, device: str, peak: Device | None
) -> list[dict[str, Any]]:
    """Tokens a second of both ways of decoding, drawn as R1's are, no row stopping early."""
    model = build_model(shape, device).eval()
    sampling = Sampling(temperature=0.6, top_p=0.95)
    rows, never = settings.decode_rows, [shape.vocab_size]
    assumed = assumptions()
    prompts = torch.randint(3, shape.vocab_size, (rows, assumed.prompt_tokens)).tolist()
    held = rows * (assumed.prompt_tokens + settings.decode_tokens + PAGE)

    def in_batches(num_tokens: int) -> float:
        start = _now()
        generate_batch(
            model, prompts, max_new_tokens=num_tokens, stop_ids=never, sampling=sampling, seeds=list(range(rows))
        )
        return _now() - start

    async def in_pages(num_tokens: int) -> float:
        decoder = PagedDecoder(model, never, sampling, rows, held)

        async def decode(tokens: int) -> float:
            start = _now()
            requests = [Request(ids, tokens, sampling, seed) for seed, ids in enumerate(prompts)]
            await asyncio.gather(*map(decoder.complete, requests))
            return _now() - start

        try:
            await decode(4)
            return await decode(num_tokens)
        finally:
            decoder.close()

    in_batches(4)
    seconds = {"batches": in_batches(settings.decode_tokens)}
    seconds["pages"] = asyncio.run(in_pages(settings.decode_tokens))
    task = SamplingTask("random prompts", rows, settings.decode_tokens, rows, held)
    planned = None
    if peak:
        planned = seconds_per_token(Answerer(shape, "bfloat16"), task, settings.decode_tokens, peak, assumed)
    return [
        {
            "way": way,
            "rows": rows,
            "tokens": settings.decode_tokens,
            "tokens_a_second": rows * settings.decode_tokens / taken,
            "planned": {"tokens_a_second": 1 / planned if planned else None},
        }
        for way, taken in seconds.items()
    ]


def measure(shapes: dict[str, ModelShape], settings: argparse.Namespace) -> dict[str, Any]:
    """Return the record of every shape on this machine."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    memory = torch.cuda.get_device_properties(0).total_memory / GIB if device == "cuda" else 0.0
    peak = device_of(name, memory)
    measured: dict[str, Any] = {}
    for address, shape in shapes.items():
        training = []
        for trainer in ("sft", "presafe"):
            training.append(time_steps(trainer, shape, settings, device, peak))
            _release()
        decoding = time_decoding(shape, settings, device, peak)
        _release()
        measured[address] = {"parameters": shape.num_parameters(), "training": training, "decoding": decoding}
    return {
        "device": name,
        "cuda": torch.version.cuda,
        "settings": vars(settings),
        "models": measured,
        "manifest": build_manifest(vars(settings), sha256_of([])),
    }


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def read_settings(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="One alignment step and decoding, with random weights.")
    parser.add_argument("--address", action="append", choices=sorted(known_shapes()), help="shape; may be repeated")
    parser.add_argument("--small", action="store_true", help="a tiny shape, which a CPU can do")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=8)
    parser.add_argument("--num-tokens", type=int, default=1024, help="of a row")
    parser.add_argument("--num-scored", type=int, default=896, help="of them scored")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5, help="timed")
    parser.add_argument("--decode-rows", type=int, default=32)
    parser.add_argument("--decode-tokens", type=int, default=256)
    settings = parser.parse_args(words)
    if settings.small:
        small = {"batch_size": 2, "accumulation": 2, "num_tokens": 64, "num_scored": 48, "rank": 8, "steps": 2}
        vars(settings).update(small | {"decode_rows": 4, "decode_tokens": 16})
    return settings


def main(words: list[str] | None = None) -> int:
    """Measure, print and write; without a GPU only the small version."""
    settings = read_settings(words)
    if not torch.cuda.is_available() and not settings.small:
        print("no GPU here: nothing measured. `--small` runs a tiny shape on the CPU.", file=sys.stderr)
        return 2
    shapes = (
        {"small": SMALL} if settings.small else {name: known_shapes()[name] for name in settings.address or DEFAULT}
    )
    record = measure(shapes, settings)
    print(json.dumps(record, indent=2))
    if not settings.small:  # times of a tiny shape mean nothing
        name = "".join(letter if letter.isalnum() else "-" for letter in record["device"].lower())
        file = RESULTS / f"gpu-{name}-{record['manifest']['created_utc'][:10]}.json"
        RESULTS.mkdir(exist_ok=True)
        file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        print(f"record: {file}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
