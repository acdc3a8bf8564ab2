"""Models: chat families, prompts as token ids, weights, decoding, and the Inspect model provider."""
