"""Estimates of what a run would take, before anything is spent on it.

shapes     a model's dimensions, from its config or from the shipped table; parameters counted exactly
compute    matrix products and bytes of training and decoding, as formulas
devices    known GPUs, and assumptions about them
estimate   a workload on a device: memory, tokens, hours
commands   how to launch it: accelerate for training, vLLM for sampling and serving

Only dense decoders with gated MLPs (the Llama and Qwen families) are supported. The formulas are ours; tests compare
them with a small model that is measured.
"""
