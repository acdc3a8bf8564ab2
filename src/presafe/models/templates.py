"""Render a chat template within bounds of time and memory.

A template is a program by the model's publisher. transformers' sandbox keeps it from files and attributes, but not from
running for ever: loops nest, a string doubles its own length, and no exception ends `'a' * 10**10` in the interpreter.
What a program does cannot be seen from its text, so it runs in a forked process with a limit of time and memory, which
can be killed. The result is the same as that of a call in this process.
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
"""Seconds for one conversation; real models take milliseconds. Ours."""
_MEMORY_BYTES = 2**30
"""Memory that it may take in addition to what the process has. Ours."""
_MAX_BYTES = 2**20
"""Largest size of its output. Ours."""
_HINT = "Correct chat_template in the tokenizer's folder, or take the publisher's."


_DAY = {"%Y": "2026", "%m": "01", "%d": "01", "%B": "January", "%b": "Jan", "%y": "26", "%A": "Thursday", "%a": "Thu"}
"""The day that templates write which write today's. Ours."""


def with_fixed_day(template: str) -> str:
    """Return a template that writes 1 January 2026 where it would write today, so that prompts are the same tomorrow.

    Args:
        template: The chat template (Jinja source).
    """
    if "strftime_now" not in template:
        return template
    day = "".join(f" | replace('{code}', '{value}')" for code, value in _DAY.items())
    return f"{{%- macro strftime_now(layout) -%}}{{{{ layout{day} }}}}{{%- endmacro -%}}{template}"


def render_bounded(render: Callable[[], str], what: str) -> str:
    """Return what a template renders, computed in a forked process.

    Args:
        render: Renders the template.
        what: The conversation, for the error.

    Raises:
        ModelError: it fails, takes longer than 10 s or more than 1 GiB of memory, or writes more than 1 MiB.
    """
    result_in, result_out = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # forking beside threads is safe: the child uses neither threads nor locks
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
    """Write the rendered text or the problem as JSON to a pipe; nothing if memory runs out.

    Args:
        render: Renders the template.
        result_out: File descriptor of the pipe.
    """
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
    except Exception as error:  # a program raises errors of all kinds
        result = {"problem": " ".join(str(error).split())[:300] or type(error).__name__}
    content = memoryview(json.dumps(result).encode())[: _MAX_BYTES + 1]
    while content:
        content = content[os.write(result_out, content) :]


def _read(result_in: int, deadline: float) -> bytes | None:
    """Return the content of a pipe, or None if its end does not come before the deadline."""
    content = b""
    while len(content) <= _MAX_BYTES:
        readable, _, _ = select.select([result_in], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            return None
        chunk = os.read(result_in, 65_536)
        if not chunk:
            break
        content += chunk
    return content
