"""What a case is, what comes of it, and the corpus of inputs that failed once."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from presafe.errors import PreSafeError
from presafe.runtime.reading import printable

CORPUS = Path(__file__).parent / "corpus"
Expect = Literal["any", "accepted", "refused"]
Verdict = Literal["accepted", "refused", "failed"]
_MAX_MESSAGE = 8_000
"""Most letters of an error's text: 20 problems of a recipe, of about 300 letters each, and a hint."""


class Case(NamedTuple):
    """One input."""

    kind: str
    target: str
    """Which reader of the kind takes it."""
    data: bytes
    expect: Expect = "any"
    """What must come of it, where the maker of the input knows."""
    xfail: str = ""
    """Why it is known to fail; empty where it must hold."""
    signature: str = ""
    """Of the known failure."""
    name: str = ""
    """Of the file in the corpus."""


class Outcome(NamedTuple):
    """What came of a case."""

    verdict: Verdict
    signature: str = ""
    """What failed and where, the same for all inputs that fail in the same way."""
    detail: str = ""
    seconds: float = 0.0


class Fault(Exception):
    """An oracle's word: something wrong was accepted, or refused badly.

    Args:
        rule: The rule that is broken, the same for all inputs that break it.
        detail: The values seen.
    """

    def __init__(self, rule: str, detail: object = "") -> None:
        super().__init__(rule)
        self.rule, self.detail = rule, detail


class Kind(Protocol):
    """One kind of input."""

    name: str
    clock_s: float
    """Seconds that one case may take."""

    def prepare(self, workspace: Path) -> None:
        """Make what the cases start from; called once, before the first fork."""

    def make(self, rng: random.Random) -> Case:
        """Return an input; the same state of `rng` gives the same one."""

    def check(self, case: Case, folder: Path) -> None:
        """Give the input to the product and hold the result to the oracles.

        Args:
            case: The input.
            folder: An empty folder of this case.

        Raises:
            PreSafeError: the product refused the input.
            Fault: an oracle was broken.
            Exception: anything else is a bug of the product.
        """


def check_refusal(error: PreSafeError) -> None:
    """Check that a refusal is one line that a user can read.

    Raises:
        Fault: it is not.
    """
    line = printable(" ".join(str(error).split()))
    if not error.problem.strip():
        raise Fault("a refusal without a text")
    if len(line) > _MAX_MESSAGE:
        raise Fault("a refusal too long to read", len(line))
    try:
        line.encode()
    except UnicodeEncodeError:
        raise Fault("a refusal that cannot be printed", line[:200]) from None


def encode_case(case: Case) -> dict[str, Any]:
    """Return a case as JSON: its data as text where it is UTF-8, else in base64."""
    try:
        data = {"text": case.data.decode()}
    except UnicodeDecodeError:
        data = {"base64": base64.b64encode(case.data).decode()}
    rest = {key: value for key, value in case._asdict().items() if key not in ("data", "name") and value}
    return rest | data


def decode_case(entry: dict[str, Any], name: str = "") -> Case:
    """Return the case that `encode_case` made JSON of."""
    entry = {key: value for key, value in entry.items() if key != "seen"}
    text = entry.pop("text", None)
    data = base64.b64decode(entry.pop("base64")) if text is None else text.encode()
    return Case(data=data, name=name, **entry)


def corpus_cases(kind: str) -> Iterator[Case]:
    """Yield the corpus of a kind, in the order of names."""
    for path in sorted((CORPUS / kind).glob("*.json")):
        yield decode_case(json.loads(path.read_text(encoding="utf-8")), path.stem)


def keep_case(case: Case, outcome: Outcome, folder: Path) -> Path:
    """Write a failing input to a corpus folder, to run first from now on.

    Args:
        case: The input.
        outcome: How it failed.
        folder: The corpus.

    Returns:
        The file.
    """
    digest = hashlib.sha256(case.target.encode() + outcome.signature.encode()).hexdigest()[:10]
    path = folder / case.kind / f"{case.target}-{digest}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = encode_case(case._replace(signature=outcome.signature)) | {"seen": outcome.detail[:600]}
    path.write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
    return path
