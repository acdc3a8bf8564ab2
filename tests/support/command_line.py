"""The command line in processes of its own, and a small recipe with every stage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial

SMALL = """
name = "small"
[model]
address = "smolthink"
[respond]
classifier_queries = [
    { set = "harmful", split = "align", n = 8 },
    { set = "arithmetic", split = "align", n = 8 },
]
alignment_queries = [
    { set = "harmful", split = "align", skip = 100, n = 6 },
    { set = "benign", split = "align", skip = 110, n = 4 },
    { set = "arithmetic", split = "align", skip = 8, n = 4 },
]
teacher_max_tokens = 12
max_tokens = 64
batch_size = 4
[signal]
epochs = 3
batch_size = 4
save_steps = 2
[align]
max_steps = 4
batch_size = 2
[evaluate]
max_tokens = 64
batch_size = 16
[evaluate.suites]
smolthink_harmful = { set = "harmful", n = 6 }
smolthink_benign = { set = "benign", n = 4 }
arithmetic = { set = "arithmetic", n = 4 }
"""


def start(*words: str, **variables: str) -> subprocess.Popen[str]:
    """Start the command line in a process of its own, as a user runs it."""
    return subprocess.Popen(
        [sys.executable, "-m", "presafe.cli.main", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | variables,
        # so that Ctrl-C reaches it even if the tests run in the background, with SIGINT ignored
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )


def finish(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    process = start(*words, **variables)
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(words, process.returncode, out, err)
