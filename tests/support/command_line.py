"""The command line in processes of its own, and a small recipe with every stage."""

from __future__ import annotations

import subprocess
from pathlib import Path

from fork_server import Forked

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
max_tokens = 24
batch_size = 16
[evaluate.suites]
smolthink_harmful = { set = "harmful", n = 6 }
smolthink_benign = { set = "benign", n = 4 }
arithmetic = { set = "arithmetic", n = 4 }
"""


def start(*words: str, **variables: str) -> Forked:
    """Start the command line in a process of its own, as a user runs it, with variables of its environment."""
    return Forked(list(words), Path.cwd(), variables)


def finish(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    process = start(*words, **variables)
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(words, process.wait(), out, err)
