"""`presafe`: the verbs, and how errors are printed.

Exit codes: 0 done, 1 a bug (with its traceback), 2 something the user can mend (one line), 130 interrupted.

The library names settings, such as `max_tokens`. An error is printed with the option of the verb that sets it, such as
--max-tokens; a setting that the verb has no option for, such as a recipe's, keeps its name.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from presafe import __version__
from presafe.cli.agree import agree
from presafe.cli.compare import compare
from presafe.cli.demo import demo
from presafe.cli.doctor import doctor
from presafe.cli.evaluate import evaluate
from presafe.cli.export import export
from presafe.cli.export_data import export_data
from presafe.cli.gate import gate
from presafe.cli.listing import list_names
from presafe.cli.look import look
from presafe.cli.plan import plan
from presafe.cli.probe import probe
from presafe.cli.push import push
from presafe.cli.report import report
from presafe.cli.run import run
from presafe.cli.score import score
from presafe.cli.serve import serve
from presafe.cli.study import study
from presafe.cli.sweep import sweep
from presafe.cli.tamper import tamper
from presafe.errors import PreSafeError
from presafe.runtime.reading import is_utf8, printable

app = typer.Typer(
    help="The safety decision before the chain of thought: measure the gap, train against it, measure again.",
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _before(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also show what libraries report, and the traceback of an error.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only results and errors.")] = False,
) -> None:
    """Do what the options before the verb ask for."""
    if verbose and quiet:
        raise PreSafeError("-v and -q are opposites.", "Give one of them.")
    if verbose:
        _show_libraries()
    if quiet:
        from presafe.runtime.progress import console

        console.quiet = True
    if version:
        print(f"presafe {__version__}")
        raise typer.Exit


for verb in (
    demo,
    plan,
    run,
    study,
    probe,
    evaluate,
    sweep,
    tamper,
    compare,
    report,
    look,
    agree,
    score,
    export,
    gate,
    serve,
    export_data,
    push,
    doctor,
):
    app.command()(verb)
app.command(name="list")(list_names)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_WORDS = ("no space left", "file too large", "disk quota exceeded")
"""Messages of libraries that do not keep the error number."""
_SETTING = re.compile(r'`([a-z_]+)(?: = "?([^`"]*)"?)?`')
"""A setting as messages of the library name it: `max_tokens`, or with a value: `until = "signal"`."""


_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""What Typer raises for a command line that it cannot read. It has no public name."""


def _show_libraries() -> None:
    """Show the libraries' warnings and reports, which are hidden otherwise."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "info"
    os.environ["HF_HUB_VERBOSITY"] = "info"
    warnings.resetwarnings()
    _shown.add("traceback")


_shown: set[str] = set()
"""What is shown beside one line of an error."""


def main() -> None:
    """Run the command line; without arguments, print the help."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its retries; our own line says how they ended
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the bars are ours
    warnings.filterwarnings("ignore")
    try:
        code = app([_checked(word) for word in sys.argv[1:]] or ["--help"], prog_name="presafe", standalone_mode=False)
        sys.stdout and sys.stdout.flush()  # here an error is still printed; at the end of the process it would not be
    except _UsageError as error:
        _leave(f"presafe: {_usage(error)}", 2)
    except PreSafeError as error:
        if _shown:
            traceback.print_exc()
        _leave(f"presafe: {with_flags(str(error), sys.argv[1:])}", 2)
    except BrokenPipeError:  # the reader of our output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if not _disk_is_full(error):
            sys.excepthook = sys.__excepthook__  # Inspect's own hook prints some errors nowhere
            raise
        _leave("presafe: the disk is full. Free some space and run the same command again: what is done is kept.", 2)
    else:
        if code == 130:  # how Typer ends after Ctrl-C
            _leave("presafe: interrupted; run the same command again to resume.", 130)
        sys.exit(code)


def _checked(word: str) -> str:
    """Return a word of the command line, if a log can hold it.

    Raises:
        PreSafeError: it is not UTF-8 text.
    """
    if not is_utf8(word):
        raise PreSafeError(f"{printable(word)} is not UTF-8 text.", "Rename the file, or write the word in UTF-8.")
    return word


def _usage(error: Any) -> str:
    """Return what is wrong with the command line, and where to read what is right."""
    problem = " ".join(error.format_message().split()).replace("Value error, ", "").removesuffix(".")
    verb = error.ctx.info_name if error.ctx is not None and error.ctx.parent is not None else ""
    return f"{problem}. See `{' '.join(filter(None, ('presafe', verb, '--help')))}`."


def with_flags(message: str, words: Sequence[str]) -> str:
    """Return a message in which settings that the verb has options for are named by these options.

    Args:
        message: Message of an error.
        words: The command line.
    """
    verb = next((word for word in words if not word.startswith("-")), "")
    command = getattr(typer.main.get_command(app), "commands", {}).get(verb)
    flags = {
        option.name: option.opts[0] for option in (command.params if command else []) if option.opts[0].startswith("--")
    }

    def with_flag(setting: re.Match[str]) -> str:
        name, value = setting.groups()
        return " ".join(filter(None, (flags[name], value))) if name in flags else setting[0]

    return _SETTING.sub(with_flag, message)


def _leave(line: str, code: int) -> None:
    """Print one line on stderr and end the process."""
    print(printable(" ".join(line.split())), file=sys.stderr)
    sys.exit(code)


def _disk_is_full(error: BaseException | None) -> bool:
    """Return whether an error, or one that it came from, says that there is no room on the disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(words in str(error).lower() for words in _FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    main()
