"""The demo's time line, stage by stage, from its committed results: the demo takes about as long as this benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sides import Sizes

DEMO = Path(__file__).parents[1] / "research" / "studies" / "demo" / "results.json"


def measure(sizes: Sizes) -> dict[str, Any]:
    """Return the seconds of each stage, of which machine and commit they are, and the goal in minutes."""
    results = json.loads(DEMO.read_text(encoding="utf-8"))
    manifest = results["manifest"]
    return {
        "seconds": results["timings_s"],
        "total_minutes": sum(results["timings_s"].values()) / 60,
        "goal_minutes": 7.0,
        "commit": manifest.get("commit"),
        "machine": manifest.get("machine"),
    }
