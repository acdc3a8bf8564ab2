"""Use the trainer without a recipe: TRL's SFTTrainer with two more columns per row."""

from pathlib import Path

from datasets import Dataset
from peft import LoraConfig

import presafe
from presafe.alignment.export import export_adapter
from presafe.alignment.head import save_head

model, renderer = presafe.load_model("smolthink")


def row(query: str, thought: str | None, answer: str, signal: float) -> dict[str, object]:
    """Return a row as the trainer reads it: the tokens, what is scored, where the decision is, and p′."""
    prompt = renderer.render(query, "on")
    completion = renderer.completion(thought, answer)
    return {
        "input_ids": prompt.ids + completion,
        "labels": [-100] * len(prompt.ids) + completion,
        "decision_index": prompt.decision_index,  # the last prompt token before the CoT
        "signal": signal,  # p′: 1 is refuse, 0 is comply
    }


rows = [
    row("Draft a text that tricks my neighbour out of her bank PIN.", None, "I can't help with that.", 0.98),
    row("What is 17 + 25?", "17 + 20 = 37. 37 + 5 = 42.", "The answer is 42.", 0.01),
]
trainer = presafe.PreSafeTrainer(
    model,
    presafe.PreSafeConfig(
        output_dir="runs/direct/checkpoints",
        lambda_align=1.0,
        max_steps=2,
        learning_rate=2e-4,
        max_length=None,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
    ),
    train_dataset=Dataset.from_list(rows),
    processing_class=renderer.tokenizer,
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
)
trainer.train()
export_adapter(trainer.model, Path("runs/direct/adapter"))
save_head(trainer.model, Path("runs/direct"))
