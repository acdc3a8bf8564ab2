"""`presafe`: verbs, and what happens to errors.

Exit codes: 0 done, 1 a bug (with its traceback), 2 something the user can mend (one line), 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings
from typing import Annotated, Any

import typer

from presafe import __version__
from presafe.cli.agree import agree
from presafe.cli.compare import compare
from presafe.cli.demo import demo
from presafe.cli.doctor import doctor
from presafe.cli.evaluate import evaluate
from presafe.cli.listing import list_names
from presafe.cli.look import look
from presafe.cli.plan import plan
from presafe.cli.probe import probe
from presafe.cli.report import report
from presafe.cli.run import run
from presafe.cli.score import score
from presafe.cli.study import study
from presafe.cli.sweep import sweep
from presafe.errors import PreSafeError
from presafe.runtime.reading import is_utf8, printable

app = typer.Typer(
    help="The safety decision before the chain of thought: measure the gap, train against it, measure again.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Say the version.")] = False) -> None:
    if version:
        print(f"presafe {__version__}")
        raise typer.Exit


for verb in (demo, plan, run, study, probe, evaluate, sweep, compare, report, look, agree, score, doctor):
    app.command()(verb)
app.command(name="list")(list_names)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_WORDS = ("no space left", "file too large", "disk quota exceeded")
"""How libraries that do not pass the error number on say the same."""


_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""What Typer raises for words that it cannot take. It has no public name."""


def main() -> None:
    """Run the command line; without any words, print its help."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its retries; what came of them is said in our own line
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the bars are ours
    warnings.filterwarnings("ignore")
    try:
        code = app([_checked(word) for word in sys.argv[1:]] or ["--help"], standalone_mode=False)
        sys.stdout and sys.stdout.flush()  # here, where an error has a line: at the end of the process it has none
    except _UsageError as error:
        _leave(f"presafe: {_usage(error)}", 2)
    except PreSafeError as error:
        _leave(f"presafe: {error}", 2)
    except BrokenPipeError:  # who reads our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if not _disk_is_full(error):
            sys.excepthook = sys.__excepthook__  # Inspect's own says nothing of some errors where its display is off
            raise
        _leave(
            "presafe: the disk is full. Free some space and run the same command again: what is done is kept.",
            2,
        )
    else:
        if code == 130:  # how Typer ends after Ctrl-C
            _leave("presafe: interrupted; run the same command again to go on.", 130)
        sys.exit(code)


def _checked(word: str) -> str:
    """A word of the command line.

    Raises:
        PreSafeError: it is no text that a log can hold.
    """
    if not is_utf8(word):
        raise PreSafeError(f"{printable(word)} is not UTF-8 text.", "Rename the file, or write the word in UTF-8.")
    return word


def _usage(error: Any) -> str:
    """What is wrong with the words, and where to read which there are."""
    problem = " ".join(error.format_message().split()).replace("Value error, ", "").removesuffix(".")
    verb = error.ctx.info_name if error.ctx is not None and error.ctx.parent is not None else ""
    return f"{problem}. See `{' '.join(filter(None, ('presafe', verb, '--help')))}`."


def _leave(line: str, code: int) -> None:
    print(printable(" ".join(line.split())), file=sys.stderr)
    sys.exit(code)


def _disk_is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(words in str(error).lower() for words in _FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    main()
