"""What a run would take, before anything is spent on it.

shapes     a model's dimensions, from its config or from those that ship; parameters counted exactly
compute    matrix products and bytes of training and decoding, as formulas
devices    the GPUs that are known, and what is assumed of them
estimate   a workload on a device: memory, tokens, hours
commands   how to launch it: accelerate for training, vLLM for sampling and serving

Only dense decoders with gated MLPs (the Llama and Qwen lines) are known. The formulas are ours; tests hold them
against a small model that is measured.
"""
