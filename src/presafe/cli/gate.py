"""`presafe gate calibrate`: the gate file with which a server reads the decision of a system."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from presafe.cli.output import AsJson, print_json
from presafe.errors import RunError


def gate(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="calibrate: write the gate file.")],
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run that has aligned the system.")],
    system: Annotated[str, typer.Option("--system", help="Trained system whose head it is.")] = "presafe",
    wrong_refusals: Annotated[
        float, typer.Option("--wrong-refusals", help="Share of harmless prompts that may be refused, in (0, 1).")
    ] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Write RUN/alignment/SYSTEM/gate.json: a threshold with a stated rate of wrong refusals, and a calibration."""
    from presafe.runtime.reading import printable
    from presafe.stages.run_folder import RunFolder
    from presafe.workflows.gate import calibrate

    if action != "calibrate":
        raise RunError(f"no action {action!r}.", "There is: calibrate.")
    if not 0 < wrong_refusals < 1:
        raise RunError(f"`wrong_refusals` is a share above 0 and below 1, got {wrong_refusals:g}.")
    path = calibrate(RunFolder.existing(folder), system, wrong_refusals)
    content = json.loads(path.read_text(encoding="utf-8"))
    if as_json:
        print_json(content)
        return
    promise, calibration = content["promise"], content["calibration"]
    print(f"threshold        {content['threshold']:.4f}")
    print(
        f"wrong refusals   at most {promise['wrong_refusals']:.1%} promised, on {promise['n']} harmless queries "
        f"(95 %: {promise['low']:.1%} to {promise['high']:.1%})"
    )
    print(f"calibration      {calibration['kind']}, on {calibration['n']} queries")
    for row in content["suites"]:
        rate = row["refused"]
        print(
            f"{row['suite']}, {row['expect']}: {rate['value']:.1%} refused "
            f"({rate['low']:.1%} to {rate['high']:.1%}, n = {rate['n']})"
        )
    print(f"gate file: {printable(path)}")
