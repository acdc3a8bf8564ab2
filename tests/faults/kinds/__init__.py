"""One module a kind of input: what is made, what takes it, and what must hold."""

from __future__ import annotations

from faults.cases import Kind
from faults.kinds.declarations import Declarations
from faults.kinds.folders import FolderFiles
from faults.kinds.models import ModelFolders
from faults.kinds.prompts import PromptFiles
from faults.kinds.replies import Replies
from faults.kinds.runs import Corruptions, Kills
from faults.kinds.servers import Servers

FUZZED: tuple[Kind, ...] = (Declarations(), PromptFiles(), Replies(), FolderFiles(), ModelFolders())
"""Kinds with thousands of inputs."""
WHOLE: tuple[Kind, ...] = (Servers(), Corruptions(), Kills())
"""Kinds of which a case takes a second or more."""
KINDS = {kind.name: kind for kind in (*FUZZED, *WHOLE)}
