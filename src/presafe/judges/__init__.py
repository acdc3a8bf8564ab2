"""Judges: verdicts on an answer, and how far they agree with labels."""
