"""`presafe push`: an adapter and its card to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from presafe.cli.output import AsJson, print_json


def push(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run with a report.")],
    repository: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Repository on the hub; created if needed.")],
    system: Annotated[str, typer.Option("--system", help="Trained system whose adapter it is.")] = "presafe",
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be sent; send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send an adapter, its card and its head to the hub; prompts and responses are never sent."""
    from presafe.stages.run_folder import RunFolder
    from presafe.workflows.push import check_repository, files_to_push
    from presafe.workflows.push import push as send

    check_repository(repository)
    files = files_to_push(RunFolder.existing(folder), system)
    address = None if dry_run else send(files, repository, private=not public)
    if as_json:
        sizes = [{"name": file.name, "path": str(file.path), "bytes": file.num_bytes} for file in files]
        print_json({"repository": repository, "files": sizes, "commit": address})
        return
    print(f"{'would send' if dry_run else 'sent'} to {repository}:")
    for file in files:
        print(f"  {file.name:28} {file.num_bytes:>12,} bytes  {file.path}")
    if address:
        print(address)
