"""Errors that a user can correct, one class per boundary of the project.

A `PreSafeError` says what was wrong, the value seen, and what to do. The command line prints it without a traceback and
exits with code 2. Any other error is a bug and keeps its traceback.
"""


class PreSafeError(Exception):
    """Base of every error that a user can correct.

    Args:
        problem: What was wrong, with the value seen.
        hint: What to do about it; it follows on the same line.
    """

    def __init__(self, problem: str, hint: str = "") -> None:
        self.problem, self.hint = problem, hint
        super().__init__(f"{problem} {hint}".strip())


class RecipeError(PreSafeError):
    """A recipe is missing, malformed, or has a setting that cannot take effect."""


class PromptError(PreSafeError):
    """A prompt set or file cannot be found, read or mapped."""


class DownloadError(PreSafeError):
    """Weights could not be fetched, or are not the bytes they should be."""


class ModelError(PreSafeError):
    """A model cannot be found, loaded, or used as a reasoning model."""


class JudgeError(PreSafeError):
    """A judge is not known, cannot be reached, or cannot judge these answers."""


class AttackError(PreSafeError):
    """An attack or a defense is not known, or cannot do what its settings ask for."""


class SignalError(PreSafeError):
    """The teacher's decisions cannot train a classifier."""


class RunError(PreSafeError):
    """A run folder is missing, belongs to other settings, or cannot be written."""
