"""Write study.json, study.md and the figures of every committed study again, from the JSON of its runs.

    python tools/docs/summaries.py            all of them; no model is called and no prompt is read

The results and their prompts are not checked here: `presafe study NAME` does that, with the published files.
"""

from __future__ import annotations

import sys
from pathlib import Path

from paths import STUDIES

from presafe.config.files import shipped_names
from presafe.runs.io import read_record
from presafe.study.page import write_study
from presafe.study.records import RunResult, StudySummary
from presafe.study.runner import summary_of
from presafe.study.spec import load_study, study_runs


def study_folders() -> list[Path]:
    """Return the folders of the committed studies."""
    return sorted(runs.parent for runs in STUDIES.glob("*/runs"))


def summary(folder: Path) -> StudySummary:
    """Return the summary of a study's committed runs.

    Args:
        folder: Of the study; it holds its declaration, unless the package ships it.
    """
    name = folder.name
    study = load_study(name if name in shipped_names("study") else folder / f"{name}.toml")
    runs = study_runs(study)
    files = [folder / "runs" / f"{run.name}.json" for run in runs]
    results = [read_record(file, RunResult, hint="Restore it from the repository.") for file in files if file.exists()]
    return summary_of(study, runs, results)


def main() -> None:
    """Write the summary of every study."""
    for folder in study_folders():
        print(folder.name, file=sys.stderr, flush=True)
        write_study(summary(folder), folder)


if __name__ == "__main__":
    main()
