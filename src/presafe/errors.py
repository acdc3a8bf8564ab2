"""What can go wrong, one class per boundary of the project.

A `PreSafeError` is a user's to mend: it says what was wrong, the value seen, and what to do. The command
line prints it without a traceback and exits with code 2. Anything else is a bug and keeps its traceback.
"""


class PreSafeError(Exception):
    """Base of every error that the user can mend.

    Args:
        problem: What was wrong, with the value seen.
        hint: What to do about it; shown on the same line.
    """

    def __init__(self, problem: str, hint: str = "") -> None:
        self.problem, self.hint = problem, hint
        super().__init__(f"{problem} {hint}".strip())


class RecipeError(PreSafeError):
    """A recipe is missing, malformed, or asks for what cannot take effect."""


class PromptError(PreSafeError):
    """A prompt set or file cannot be found, read or mapped."""


class DownloadError(PreSafeError):
    """Weights could not be fetched, or are not the bytes they should be."""


class ModelError(PreSafeError):
    """A model cannot be found, loaded, or used as a reasoning model."""


class JudgeError(PreSafeError):
    """A judge is not known, cannot be reached, or cannot judge what it is asked about."""


class SignalError(PreSafeError):
    """The teacher's decisions cannot train a classifier."""


class RunError(PreSafeError):
    """A run folder is missing, belongs to other settings, or cannot be written."""
