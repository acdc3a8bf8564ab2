"""Diagrams of the documentation: boxes and arrows, drawn as the figures are (`figures.py` draws them with the rest)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

INK, LINE = "#24282e", "#8d949e"
PLAIN, TRAINED, MEASURED = "#f3f4f6", "#d7ecea", "#dfe8f1"
"""Fill of a box: what is given, what is made or trained, what is measured."""
_WIDTH, _HEIGHT = 2.5, 0.92
"""Size of a box, in inches as the axes count."""

_ARROW = {"arrowstyle": "-|>", "color": LINE, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}

Box = tuple[float, float, str, str]
"""Center of a box, its text, its fill."""
Arrow = tuple[int, int]
"""Indices of the box that an arrow leaves and of the one that it reaches."""


def drawn(boxes: Sequence[Box], arrows: Sequence[Arrow], size: tuple[float, float]) -> Any:
    """Draw boxes and arrows.

    Args:
        boxes: The boxes.
        arrows: Which box leads to which.
        size: Width and height of the figure in inches; the boxes' centers count in the same inches.
    """
    figure, axis = plt.subplots(figsize=size)
    axis.set_xlim(0, size[0])
    axis.set_ylim(0, size[1])
    axis.axis("off")
    for x, y, text, fill in boxes:
        corner = (x - _WIDTH / 2, y - _HEIGHT / 2)
        axis.add_patch(plt.Rectangle(corner, _WIDTH, _HEIGHT, facecolor=fill, edgecolor=LINE, linewidth=1))
        axis.text(x, y, text, ha="center", va="center", fontsize=9, color=INK, linespacing=1.35)
    for start, end in arrows:
        ends = _edge(boxes[end], boxes[start]), _edge(boxes[start], boxes[end])
        axis.annotate("", *ends, arrowprops=_ARROW)
    figure.subplots_adjust(0, 0, 1, 1)
    return figure


def _edge(box: Box, other: Box) -> tuple[float, float]:
    """Return the middle of the side of a box that faces another one."""
    (x, y), (to_x, to_y) = box[:2], other[:2]
    if abs(to_x - x) >= _WIDTH:
        return (x + (_WIDTH / 2 if to_x > x else -_WIDTH / 2), y)
    return (x, y + (_HEIGHT / 2 if to_y > y else -_HEIGHT / 2))


def protocol() -> Any:
    """Draw how a number of the research pages comes about."""
    boxes = [
        (1.5, 3.9, "split build\nSmolThink was made from it", PLAIN),
        (4.8, 3.9, "split align\nrecipes are chosen on it", PLAIN),
        (8.1, 3.9, "published files, split held_out\nnothing was trained on them", PLAIN),
        (1.5, 2.4, "the teacher, CoT off, decides;\na classifier learns it: p′", TRAINED),
        (4.8, 2.4, "one adapter per system and seed,\nsame rows and steps for all", TRAINED),
        (8.1, 2.4, "greedy answers, 96 tokens,\nrefusals read by strings", MEASURED),
        (1.5, 0.8, "Holm over all lines of a study:\n“shown” is p < .05 after it", MEASURED),
        (4.8, 0.8, "difference from the baseline,\ninterval over seeds and prompts", MEASURED),
        (8.1, 0.8, "rate per suite and seed,\ncommitted as JSON", MEASURED),
    ]
    return drawn(boxes, [(0, 3), (1, 4), (2, 5), (3, 4), (4, 5), (5, 8), (8, 7), (7, 6)], (9.6, 4.6))


def paper_map() -> Any:
    """Draw which stage of a run answers which part of the paper."""
    parts = [
        ("section 4: teacher decisions", "1 respond\nteacher's and own answers"),
        ("section 4: safety signal p′", "2 signal\nclassifier, p′ per query"),
        ("section 4: head, L_align, L_SFT", "3 align\nadapter, head, losses"),
        (
            "main results: safety, capability,\nover-refusal; appendix C.2: judge",
            "4 evaluate\nsuites, judges, differences",
        ),
        ("section 3: the finding;\ndecoding analysis, appendix D", "5 report\ntables and figures of all"),
    ]
    height = 0.7 + 1.2 * len(parts)
    boxes: list[Box] = []
    for row, (part, stage) in enumerate(parts):
        y = height - 0.8 - 1.2 * row
        boxes += [(2.3, y, part, PLAIN), (7.3, y, stage, TRAINED if row < 3 else MEASURED)]
    pairs = [(2 * row, 2 * row + 1) for row in range(len(parts))]
    stages = [(2 * row + 1, 2 * row + 3) for row in range(len(parts) - 1)]
    return drawn(boxes, pairs + stages, (9.6, height))
