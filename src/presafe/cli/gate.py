"""`presafe gate`: the gate file with which a server reads the decision of a system, and its check against a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from presafe.cli import options
from presafe.cli.output import AsJson, print_json
from presafe.errors import RunError

_ONE_OF = {"tpr_at_fpr_1": 100, "tpr_at_fpr_01": 1000}
"""The gate file's rates of hits, and of how many harmless prompts one may be refused."""


def gate(
    action: Annotated[
        str, typer.Argument(metavar="ACTION", help="calibrate: write the gate file. check: compare a server with it.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run that has aligned the system.")],
    system: Annotated[str, typer.Option("--system", help="Trained system whose head it is.")] = "presafe",
    wrong_refusals: Annotated[
        float | None,
        typer.Option("--wrong-refusals", help="Calibrate: share of harmless prompts that may be refused; else 0.05."),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help="Calibrate: file of your own harmless queries; else the classifier's."),
    ] = None,
    column: options.Column = None,
    server: Annotated[
        str | None, typer.Option("--server", help="Check: the served model, http://host:port#name.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Check: hub id or folder of the tokenizer; else the run's model.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Calibrate RUN/alignment/SYSTEM/gate.json, or check a live server with it.

    check ends with 0 for PASS, 3 for THRESHOLD STALE, 4 for SCORER DEGRADED, 5 for INCONCLUSIVE.
    """
    if action == "calibrate":
        if server is not None or tokenizer is not None:
            raise RunError("`server` and `tokenizer` belong to check.", "Leave them out.")
        rate = 0.05 if wrong_refusals is None else wrong_refusals
        _calibrate(folder, system, rate, prompts, column, as_json=as_json)
    elif action == "check":
        if server is None or (wrong_refusals, prompts, column) != (None, None, None):
            raise RunError(
                "check takes a `server`, and the rate and the queries of the gate file.", "Name http://host:port#name."
            )
        _check(folder, system, server, tokenizer, as_json=as_json)
    else:
        raise RunError(f"no action {action!r}.", "There are: calibrate, check.")


def _calibrate(
    folder: Path, system: str, wrong_refusals: float, prompts: Path | None, column: str | None, *, as_json: bool
) -> None:
    """Write the gate file and print what it holds.

    Raises:
        RunError: the rate is none, or a column is named without a file.
        PreSafeError: as `calibrate`.
    """
    from presafe.runtime.reading import printable
    from presafe.stages.run_folder import RunFolder
    from presafe.workflows.gate import OwnQueries, calibrate

    if not 0 < wrong_refusals < 1:
        raise RunError(f"`wrong_refusals` is a share above 0 and below 1, got {wrong_refusals:g}.")
    if column is not None and prompts is None:
        raise RunError("`column` belongs to a file of `prompts`.", "Name the file.")
    own = None if prompts is None else OwnQueries(prompts, column)
    path = calibrate(RunFolder.existing(folder), system, wrong_refusals, own)
    content = json.loads(path.read_text(encoding="utf-8"))
    if as_json:
        print_json(content)
        return
    promise, calibration = content["promise"], content["calibration"]
    origin = "the run" if prompts is None else printable(prompts)
    print(f"threshold        {content['threshold']:.4f}")
    print(
        f"wrong refusals   at most {promise['wrong_refusals']:.1%} promised, on {promise['n']} harmless queries of "
        f"{origin} (95 %: {promise['low']:.1%} to {promise['high']:.1%})"
    )
    print(f"calibration      {calibration['kind']}, on {calibration['n']} queries")
    for row in content["suites"]:
        print(f"{row['suite']}, {row['expect']}: {_share(row['refused'], 'refused ')}")
        if "ece_raw" in row:
            print(f"  {_ranking(row)}")
    print(f"gate file: {printable(path)}")


def _check(folder: Path, system: str, server: str, tokenizer: str | None, *, as_json: bool) -> None:
    """Compare a server with the gate file, print what differs, and end with the code of the verdict.

    Raises:
        PreSafeError: as `check`.
        Exit: the verdict is another one than PASS.
    """
    from presafe.stages.run_folder import RunFolder
    from presafe.workflows.gate_check import EXIT_CODES, check

    comparison = check(RunFolder.existing(folder), system, server, tokenizer)
    if as_json:
        print_json(comparison)
    else:
        print(comparison["verdict"])
        print(f"read by          {comparison['server']['read_by']}")
        print(f"ranking          AUROC {_change(comparison['ranking'])}")
        print(f"hits             {_change(comparison['hits'])} of harmful queries at the threshold")
        print(f"wrong refusals   {_share(comparison['wrong_refusals'])}, {comparison['promised']:.1%} promised")
        print(f"p                differs by at most {comparison['largest_difference']:.4f}")
        print(f"decisions        {comparison['decisions_changed']} changed")
    if code := EXIT_CODES[comparison["verdict"]]:
        raise typer.Exit(code)


def _ranking(row: dict[str, Any]) -> str:
    """Return how p ranks all harmful prompts above a harmless suite, and its calibration error before and after."""
    n = row["refused"]["n"]
    hits = [f"{row[key]:.1%} at {1 / many:.1%} FPR ({n // many} of {n})" for key, many in _ONE_OF.items()]
    return f"TPR {', '.join(hits)}; ECE {row['ece_raw']:.3f}, calibrated {row['ece_calibrated']:.3f}"


def _share(interval: dict[str, Any], what: str = "") -> str:
    """Return a rate with its interval."""
    return f"{interval['value']:.1%} {what}({interval['low']:.1%} to {interval['high']:.1%}, n = {interval['n']})"


def _change(interval: dict[str, Any]) -> str:
    """Return a difference with its interval."""
    return f"{interval['value']:+.3f} ({interval['low']:+.3f} to {interval['high']:+.3f}, n = {interval['n']})"
