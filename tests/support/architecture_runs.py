"""Probe and run one tiny random model of each architecture, killed once and resumed, and write what happened.

    python tests/support/architecture_runs.py [--table FILE] [NAME ...]

Each model is saved as a folder and then only used through the command line: `presafe probe` with CoT on and off, and
`presafe run` through all five stages, which is killed (SIGKILL) during the alignment and started again. With `--table`
the rows of those that passed are written to the documentation's table; `make architectures` does so for all.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}

from architectures import ARCHITECTURES, class_name, save
from command_line import finish, start
from tiny_models import make_tokenizer
from tiny_run import write_recipe

from presafe.models.family import families
from presafe.models.loading import load_renderer
from presafe.models.rendering import Renderer

MARKS = ("<!-- architectures -->\n", "<!-- /architectures -->\n")
_STEPS = 12
_SHOWN_STEP = re.compile(r"  presafe: ([0-9]+)/12")
_HEAD = ("| class | family | probe | five stages, killed and resumed | LoRA targets by default |", "|" + " --- |" * 5)


class Outcome(NamedTuple):
    """What one architecture did."""

    family: str
    killed_at: str
    """Step at which the run was killed."""
    resumed_at: str
    """First step that the second start reports."""
    targets: tuple[str, ...]


def check(name: str, recipe: Path, folder: Path) -> Outcome:
    """Probe and run one architecture through the command line.

    Raises:
        AssertionError: a command fails or a file is not what it must be.
    """
    model = save(name, make_tokenizer(), folder / "model")
    probe(model, folder / "probe")
    text = recipe.read_text(encoding="utf-8").replace(str(recipe.parent / "student"), str(model))
    own = folder / "own.toml"
    steps = f"max_steps = {_STEPS}\nsave_steps = 4"
    text = text.replace("max_steps = 6", steps).replace("accumulation = 2", "accumulation = 1")
    text = text.replace("[evaluate.suites]", "[evaluate]\nmax_tokens = 8\n[evaluate.suites]")
    own.write_text(text, encoding="utf-8")
    killed_at, resumed_at = run_and_kill(own, folder / "run")
    system = folder / "run" / "alignment" / "presafe"
    trained = [json.loads(line)["step"] for line in (system / "history.jsonl").read_text("utf-8").splitlines()]
    assert trained == list(range(1, _STEPS + 1)), trained
    config = json.loads((system / "adapter" / "adapter_config.json").read_text("utf-8"))
    results = json.loads((folder / "run" / "report" / "results.json").read_text("utf-8"))
    systems = {row["system"] for row in results["rows"]}
    assert {"vanilla", "presafe"} <= systems, systems
    return Outcome(load_renderer(str(model)).family.name, killed_at, resumed_at, tuple(config["target_modules"]))


def probe(model: Path, out: Path) -> None:
    """Measure both modes on two prompts of each suite."""
    done = finish("probe", str(model), "--limit", "2", "--max-tokens", "8", "--out", str(out))
    assert done.returncode == 0, done.stderr[-3000:]
    for mode in ("on", "off"):
        assert list((out / "evaluation" / f"vanilla-{mode}").glob("*.eval"))


def run_and_kill(recipe: Path, out: Path) -> tuple[str, str]:
    """Kill a run in its alignment, start it again, and return the checkpoint that was there and the first step after.

    It is killed as soon as it has written a checkpoint.
    """
    process = start("run", str(recipe), "--out", str(out))
    system = out / "alignment" / "presafe"
    while not (saved := sorted(system.glob("checkpoints/checkpoint-*/trainer_state.json"))):
        assert process.poll() is None, process.stderr.read()[-3000:]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (system / "history.jsonl").exists(), "it had finished before it was killed"
    done = finish("run", str(recipe), "--out", str(out))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 signal: done before" in done.stderr, done.stderr
    first = _SHOWN_STEP.search(done.stderr)
    assert first is not None, done.stderr
    assert int(first[1]) >= 4, done.stderr  # from the checkpoint: a start shows step 1 or 2 first
    return saved[0].parent.name, first[1]


def row(name: str, outcome: Outcome) -> str:
    """Return the line of one architecture in the documentation's table."""
    targets = ", ".join(f"`{target}`" for target in sorted(outcome.targets))
    return f"| `{class_name(name)}` | `{outcome.family}` | yes | yes | {targets} |"


def write_rows(file: Path, outcomes: dict[str, Outcome]) -> None:
    """Write the rows of architectures to a page, and keep those of others."""
    before, _, rest = file.read_text("utf-8").partition(MARKS[0])
    between, _, after = rest.partition(MARKS[1])
    rows = {line.split("`")[1]: line for line in between.splitlines() if line.startswith("| `")}
    rows |= {line.split("`")[1]: line for line in (row(*pair) for pair in outcomes.items())}
    table = "\n".join([*_HEAD, *(rows[name] for name in sorted(rows))])
    file.write_text(f"{before}{MARKS[0]}\n{table}\n\n{MARKS[1]}{after}", encoding="utf-8")


def main() -> None:
    """Check the architectures that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    tokenizer = make_tokenizer()
    outcomes: dict[str, Outcome] = {}
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        (tiny := Path(scratch) / "tiny").mkdir()
        recipe = write_recipe(tiny, tokenizer, Renderer(tokenizer, families()["smolthink"]))
        for name in given.names or ARCHITECTURES:
            (folder := Path(scratch) / name).mkdir()
            begun = time.monotonic()
            try:
                outcomes[name] = check(name, recipe, folder)
            except Exception:
                failed.append(name)
                print(f"{name}: FAILED: {traceback.format_exc()}", flush=True)
            else:
                print(f"{name}: {outcomes[name]} ({time.monotonic() - begun:.0f} s)", flush=True)
                if given.table:
                    write_rows(given.table, outcomes)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
