"""The end of a run on the terminal: the small table and the report's path, or both as JSON."""

from __future__ import annotations

from presafe.cli.output import print_json, print_report
from presafe.runtime.reading import printable
from presafe.stages.run_folder import RunFolder


def finish(run: RunFolder, *, as_json: bool) -> None:
    """Print the table and the report of a run, or its folder if the report is not written yet."""
    if not run.is_done("report"):
        if as_json:
            print_json({"title": run.recipe.name, "rows": [], "differences": [], "report": None})
        else:
            print(f"stopped as asked; the run is in {printable(run.path)}")
        return
    from presafe.report.results import shown_tables
    from presafe.stages.report import report_data

    data = report_data(run)
    print_report(data, run.path / "report" / "report.html", *shown_tables(data), as_json=as_json)
