"""Prompts: the project's sets, generated arithmetic, benchmark problems, local files, and the overlap of two sets."""
