"""Make docs/assets/report.png: the top of the demo's report, rendered again from its committed results.

The scores, settings and timings are those of research/studies/demo/results.json. What that file does not hold
(examples, paired differences, the classifier's card) is not on the page. Needs headless Chromium and Pillow.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from paths import DOCS, STUDIES
from PIL import Image

from presafe.records import Score
from presafe.report.data import ReportData
from presafe.report.figures import figures
from presafe.report.page import render_page

WIDTH, HEIGHT = 1280, 760
"""Pixels of the page that are shown."""


def page() -> str:
    """Return the report of the demo's committed results as HTML."""
    results = json.loads((STUDIES / "demo" / "results.json").read_text(encoding="utf-8"))
    settings = results["manifest"]["settings"]
    data = ReportData(
        title=settings["name"],
        recipe=settings,
        manifest=results["manifest"],
        timings_s=results["timings_s"],
        scores=tuple(Score.model_validate(row) for row in results["rows"]),
        differences=(),
        classifier=None,
        histories={},
        positions=(),
        examples=(),
    )
    return render_page(data, figures(data))


def main() -> int:
    """Render, photograph and write the picture."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        print("screenshot: needs Chromium; none is on the PATH.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        html, png = Path(folder) / "report.html", Path(folder) / "report.png"
        html.write_text(page(), encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        size = [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={png}"]
        subprocess.run([browser, *flags, *size, html.as_uri()], check=True, capture_output=True)
        picture = Image.open(png).convert("RGB").quantize(64)
        picture.save(DOCS / "assets" / "report.png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
