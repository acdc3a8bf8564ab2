"""`presafe serve`: a front before a served model, which asks a classifier and then forwards or refuses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from presafe.errors import RunError

if TYPE_CHECKING:
    from presafe.gating.gate_file import Mode, Unread


def serve(
    server: Annotated[str, typer.Argument(metavar="MODEL", help="The served model, http://host:port#name.")],
    gate: Annotated[Path, typer.Option("--gate", metavar="FILE", help="Gate file: RUN/alignment/SYSTEM/gate.json.")],
    classifier: Annotated[
        str | None,
        typer.Option(
            "--classifier",
            metavar="ADDRESS|FOLDER",
            help="http://host:port#name of a server of the exported classifier; else a forward pass here, of the "
            "system in FOLDER or beside the gate file.",
        ),
    ] = None,
    mode: Annotated[
        str, typer.Option("--mode", help="monitor: read and answer. gate: refuse at the threshold.")
    ] = "monitor",
    unread: Annotated[
        str | None,
        typer.Option("--unread", help="With gate, a prompt without a decision: refuse (default), answer or 503."),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Where it listens; it asks nobody for a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8010,
    audit: Annotated[
        Path | None, typer.Option("--audit", metavar="FILE", help="One JSON line per request, without a text.")
    ] = None,
) -> None:
    """Stand before a served model: read the decision of each request, then forward or refuse it.

    For servers that take no plug-in. Ctrl-C or SIGTERM ends it.
    """
    if mode not in ("monitor", "gate"):
        raise RunError(f"`mode` is monitor or gate, got {mode!r}.")
    if unread not in (None, "refuse", "answer", "503"):
        raise RunError(f"`unread` is refuse, answer or 503, got {unread!r}.")
    if unread is not None and mode == "monitor":
        raise RunError(
            "`unread` has no effect on a monitor, which always answers.", "Leave it out, or gate with `mode`."
        )
    from presafe.front.serve import FrontSettings
    from presafe.front.serve import serve as run

    run(
        FrontSettings(
            server=server,
            gate=gate,
            classifier=classifier,
            mode=cast("Mode", mode),
            unread=cast("Unread", unread or "refuse"),
            host=host,
            port=port,
            audit=audit,
        )
    )
