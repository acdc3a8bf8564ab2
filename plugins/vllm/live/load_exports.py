"""Load what `presafe export` wrote, in vLLM's own environment; reads prompts.json, and writes result.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vllm import LLM, SamplingParams


def main() -> None:
    """Continue each prompt with the merged weights, and classify it with the head."""
    exported, folder = Path(sys.argv[1]), Path(sys.argv[2])
    prompts = [{"prompt_token_ids": ids} for ids in json.loads((folder / "prompts.json").read_text())]
    model = LLM(str(exported / "merged"), dtype="float32", max_model_len=512, enforce_eager=True)
    greedy = SamplingParams(temperature=0, max_tokens=60)
    tokens = [list(output.outputs[0].token_ids) for output in model.generate(prompts, greedy, use_tqdm=False)]
    model.llm_engine.engine_core.shutdown()
    head = LLM(str(exported / "classifier"), runner="pooling", dtype="float32", max_model_len=512, enforce_eager=True)
    classes = [output.outputs.probs[0] for output in head.classify(prompts, use_tqdm=False)]
    head.llm_engine.engine_core.shutdown()
    (folder / "result.json").write_text(json.dumps({"tokens": tokens, "classes": classes}))


if __name__ == "__main__":
    main()
