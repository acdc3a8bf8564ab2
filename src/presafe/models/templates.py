"""Rendering a chat template within bounds of time and memory.

A template is a program of the model's publisher. transformers' sandbox keeps it from files and attributes, but not from
running for ever: loops over ranges nest, a name doubles its own length, and no exception ends `'a' * 10**10` inside the
interpreter. What a program does cannot be told from its text, so it runs in a fork, which can be killed: it has a
clock and a limit of memory. The result is exactly what the same call gives here.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable

from presafe.errors import ModelError

_SECONDS = 10.0
"""Time for one conversation. Those of real models take milliseconds."""
_MEMORY_BYTES = 2**30
"""Memory that it may take beside what the process has already."""
_MAX_BYTES = 2**20
"""Length of what it may write; the text of one question is a line."""
_HINT = "Mend chat_template in the tokenizer's folder, or take the publisher's."


def render_bounded(render: Callable[[], str], what: str) -> str:
    """Return what a template renders, computed in a fork.

    Args:
        render: Renders it.
        what: The conversation, for the error's text.

    Raises:
        ModelError: it fails, takes longer than 10 s or more than 1 GiB of memory, or writes more than 1 MiB.
    """
    result_in, result_out = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads: the child runs none and no lock
        child = os.fork()
    if child == 0:
        try:
            os.close(result_in)
            _answer(render, result_out)
        finally:
            os._exit(0)
    os.close(result_out)
    try:
        content = _read(result_in, time.monotonic() + _SECONDS)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(result_in)
    if content is None:
        raise ModelError(f"the chat template takes more than {_SECONDS:.0f} s for {what}.", _HINT)
    if len(content) > _MAX_BYTES:
        raise ModelError(f"the chat template writes more than {_MAX_BYTES // 2**20} MiB for {what}.", _HINT)
    if not content:
        raise ModelError(f"the chat template fails on {what}: it takes too much memory or stack.", _HINT)
    result = json.loads(content)
    if "problem" in result:
        raise ModelError(f"the chat template fails on {what}: {result['problem']}.", _HINT)
    text: str = result["text"]
    return text


def _answer(render: Callable[[], str], result_out: int) -> None:
    """Write a rendering, or why there is none, as JSON to a pipe; nothing where memory ends."""
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = used + _MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))
    try:
        result = {"text": render()}
    except MemoryError:
        result = {"problem": f"it takes more than {_MEMORY_BYTES // 2**30} GiB of memory"}
    except RecursionError:
        result = {"problem": "it calls itself without end, or is nested too deep"}
    except Exception as error:  # a program's errors are of every kind
        result = {"problem": " ".join(str(error).split())[:300] or type(error).__name__}
    content = memoryview(json.dumps(result).encode())[: _MAX_BYTES + 1]
    while content:
        content = content[os.write(result_out, content) :]


def _read(result_in: int, deadline: float) -> bytes | None:
    """Return what a pipe holds until its end; None where the time ends first."""
    content = b""
    while len(content) <= _MAX_BYTES:
        is_there, _, _ = select.select([result_in], [], [], max(0.0, deadline - time.monotonic()))
        if not is_there:
            return None
        part = os.read(result_in, 65_536)
        if not part:
            break
        content += part
    return content
