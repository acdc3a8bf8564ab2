"""The end of a run on the terminal: the small table, then the report's path."""

from __future__ import annotations

from presafe.runtime.progress import PlainConsole
from presafe.stages.run_folder import RunFolder


def finish(run: RunFolder) -> None:
    """Print the table and the report of a run, or its folder if the report is not written yet."""
    console = PlainConsole()
    if not run.is_done("report"):
        console.print(f"stopped as asked; the run is in {run.path}", soft_wrap=True)
        return
    from presafe.report.results import summary_table
    from presafe.stages.report import report_data

    console.print(summary_table(report_data(run)))
    console.print(f"report: {run.path / 'report' / 'report.html'}", soft_wrap=True)
