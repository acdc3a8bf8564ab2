"""`presafe probe`: how big is the gap of a model?"""

from __future__ import annotations

from presafe.cli import options
from presafe.cli.evaluate import default_folder, measure_and_print
from presafe.cli.measuring import Attacking, Drawing, Measuring, Placing, unpacked

_SUITES = ("smolthink_harmful", "smolthink_benign")


@unpacked
def probe(
    model: options.Model, *, attacking: Attacking, measuring: Measuring, placing: Placing, drawing: Drawing
) -> None:
    """Measure a model as it is: what it refuses with its chain of thought on and off."""
    suites = measuring.read_suites(_SUITES)
    settings = placing.add_to(attacking.add_to(measuring.read_settings(drawing.read())))
    folder = measuring.out or default_folder("probe", model, suites, settings, measuring)
    measure_and_print(model, suites, folder, settings, measuring)
