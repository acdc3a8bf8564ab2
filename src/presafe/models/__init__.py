"""Models: how a family is asked, prompts as token ids, weights, decoding, and the Inspect model provider."""
