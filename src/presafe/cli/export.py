"""`presafe export`: an aligned system as models that other tools load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from presafe.cli import options


def export(
    folder: Annotated[Path, typer.Argument(metavar="SYSTEM", help="Folder of a system: RUN/alignment/NAME.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", parser=options.folder, help="Folder to write into.")],
    merge: Annotated[bool, typer.Option("--merge", help="Plain merged weights, in OUT/merged.")] = False,
    classifier: Annotated[
        bool, typer.Option("--classifier", help="The head as a sequence classifier, in OUT/classifier.")
    ] = False,
    gguf: Annotated[
        Path | None,
        typer.Option("--gguf", metavar="CONVERTER", help="OUT/model.gguf, by llama.cpp's convert_hf_to_gguf.py."),
    ] = None,
) -> None:
    """Write an aligned system for other tools: merged weights, a classifier, a GGUF file."""
    from presafe.runtime.reading import printable
    from presafe.workflows.export import export as write

    for path in write(folder, out, merge=merge, classifier=classifier, gguf=gguf):
        print(printable(path))
