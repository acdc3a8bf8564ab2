"""`presafe smolthink`: train SmolThink-135M's adapter again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from presafe.bounds import MAX_SEED, MOST


def smolthink(
    work: Annotated[Path, typer.Option("--work", help="Answers and checkpoints; resumed.")] = Path("runs/smolthink"),
    out: Annotated[Path, typer.Option("--out", help="Where the adapter goes.")] = Path("runs/smolthink/adapter"),
    seed: Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of lessons and training.")] = 0,
    max_steps: Annotated[
        int, typer.Option("--max-steps", min=-1, max=MOST, help="Stop early; -1 trains to the end.")
    ] = -1,
) -> None:
    """Train SmolThink-135M from SmolLM2-135M-Instruct: about an hour on two CPU cores."""
    from presafe.smolthink.build import build_smolthink

    build_smolthink(work, out, seed=seed, max_steps=max_steps)
    print(f"adapter: {out}")
