"""Prompts: the project's sets, generated arithmetic, local files, and the overlap of two sets."""
