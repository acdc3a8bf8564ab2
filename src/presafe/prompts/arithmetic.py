"""Generate arithmetic and two-step word problems with worked solutions from a seed.

A problem's split depends on a hash of its kind and its sorted numbers, so that the same problem in other words, or with
its summands swapped, is never in two splits, whatever the seeds.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import NamedTuple

from presafe.errors import PromptError
from presafe.records import Prompt

SPLITS = ("build", "align", "held_out")


class Problem(NamedTuple):
    """A problem, its worked solution and its result."""

    kind: str
    numbers: tuple[int, ...]
    text: str
    working: str
    result: int


def _add_steps(a: int, b: int) -> str:
    """Return the steps of a + b, with b below 100, each easy for a small model: tens, ones, and both together."""
    tens, ones = a // 10 * 10 + b // 10 * 10, a % 10 + b % 10
    steps = []
    if a >= 10 and b >= 10:
        steps.append(f"{a // 10 * 10} + {b // 10 * 10} = {tens}.")
    if a % 10 and b % 10:
        steps.append(f"{a % 10} + {b % 10} = {ones}.")
    if tens and ones:
        steps.append(f"{tens} + {ones} = {a + b}.")
    return " ".join(steps)


def _subtract_steps(a: int, b: int) -> str:
    """Return the steps of a - b, with b below 100: tens, ones (perhaps negative), and both together."""
    tens, ones = a // 10 * 10 - b // 10 * 10, a % 10 - b % 10
    steps = []
    if b >= 10:
        steps.append(f"{a // 10 * 10} - {b // 10 * 10} = {tens}.")
    if b % 10:
        steps.append(f"{a % 10} - {b % 10} = {ones}.")
    if a >= 10 and (a % 10 or b % 10):
        steps.append(f"{tens} {'-' if ones < 0 else '+'} {abs(ones)} = {a - b}.")
    return " ".join(steps)


def _product_steps(a: int, b: int) -> str:
    """Return the steps of a · b, with a below 10: the tens of b, its ones, then their sum."""
    tens, ones = b // 10 * 10, b % 10
    steps = [f"{a} * {factor} = {a * factor}." for factor in (tens, ones) if factor]
    return " ".join([*steps, _add_steps(a * tens, a * ones)] if tens and ones else steps)


def _add(rng: random.Random) -> Problem:
    """Draw a sum."""
    a, b = rng.randint(11, 99), rng.randint(11, 99)
    text = rng.choice(
        [
            f"What is {a} + {b}?",
            f"Calculate {a} + {b}.",
            f"Add {a} and {b}.",
            f"{a} + {b} = ?",
            f"Work out {a} + {b}.",
        ]
    )
    return Problem("add", (a, b), text, _add_steps(a, b), a + b)


def _subtract(rng: random.Random) -> Problem:
    """Draw a difference."""
    a = rng.randint(30, 99)
    b = rng.randint(11, a - 5)
    text = rng.choice(
        [
            f"What is {a} - {b}?",
            f"Calculate {a} - {b}.",
            f"Subtract {b} from {a}.",
            f"{a} - {b} = ?",
            f"Take {b} away from {a}.",
        ]
    )
    return Problem("subtract", (a, b), text, _subtract_steps(a, b), a - b)


def _multiply(rng: random.Random) -> Problem:
    """Draw a product."""
    a, b = rng.randint(2, 9), rng.randint(12, 99)
    text = rng.choice(
        [
            f"What is {a} * {b}?",
            f"Calculate {a} * {b}.",
            f"What is {a} times {b}?",
            f"Multiply {b} by {a}.",
            f"{a} * {b} = ?",
        ]
    )
    return Problem("multiply", (a, b), text, _product_steps(a, b), a * b)


def _chain(rng: random.Random) -> Problem:
    """Draw a sum and a difference."""
    a, b = rng.randint(11, 69), rng.randint(11, 69)
    c = rng.randint(5, min(a + b - 5, 49))
    text = rng.choice(
        [
            f"What is {a} + {b} - {c}?",
            f"Calculate {a} + {b} - {c}.",
            f"{a} + {b} - {c} = ?",
            f"Work out {a} + {b} - {c}.",
        ]
    )
    working = f"{_add_steps(a, b)} {_subtract_steps(a + b, c)}"
    return Problem("chain", (a, b, c), text, working, a + b - c)


_NAMES = ("Mia", "Ben", "Sara", "Tom", "Lena", "Omar", "Ines", "Paul", "Aisha", "Leo", "Nina", "Kofi")
_THINGS = ("apples", "books", "stickers", "marbles", "cards", "pens", "cookies", "coins", "shells", "stamps")


def _story(rng: random.Random) -> Problem:
    """Draw a word problem of two steps."""
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    form = rng.randrange(4)
    if form == 0:
        a, b, c = rng.randint(11, 49), rng.randint(2, 9), rng.randint(3, 9)
        text = f"{name} has {a} {thing} and buys {b} bags with {c} {thing} each. How many {thing} does {name} have now?"
        working, result = f"{b} * {c} = {b * c}. {_add_steps(a, b * c)}", a + b * c
    elif form == 1:
        a, b = rng.randint(20, 69), rng.randint(11, 29)
        c = rng.randint(4, 15)
        text = f"{name} has {a} {thing}, gets {b} more and then gives {c} away. How many {thing} are left?"
        working, result = f"{_add_steps(a, b)} {_subtract_steps(a + b, c)}", a + b - c
    elif form == 2:
        a, b = rng.randint(3, 9), rng.randint(4, 9)
        c = rng.randint(2, a * b - 3)
        text = f"There are {a} boxes with {b} {thing} in each. {name} takes {c} {thing}. How many {thing} remain?"
        working, result = f"{a} * {b} = {a * b}. {_subtract_steps(a * b, c)}", a * b - c
    else:
        a, b, c = rng.randint(2, 9), rng.randint(11, 19), rng.randint(2, 9)
        text = (
            f"One pack costs {b} dollars. {name} buys {a} packs and pays {c} dollars for delivery. What is the total?"
        )
        working, result = f"{_product_steps(a, b)} {_add_steps(a * b, c)}", a * b + c
    return Problem(f"story_{form}", (a, b, c), text, working, result)


_KINDS: tuple[Callable[[random.Random], Problem], ...] = (
    _add,
    _story,
    _subtract,
    _chain,
    _multiply,
    _story,
    _add,
    _chain,
)
_MAX_MISSES = 10_000
"""Draws in a row without a new problem, after which the generator is exhausted (there are only 704 products). Ours."""


def split_of(problem: Problem) -> str:
    """Return the only split that a problem can be in: 60 % build, 20 % align, 20 % held out."""
    key = f"{problem.kind} {sorted(problem.numbers)}".encode()
    bucket = hashlib.sha256(key).digest()[0] % 5
    return SPLITS[max(0, bucket - 2)]


def generate_problems(split: str, n: int, seed: int) -> list[Problem]:
    """Generate `n` different problems of one split; their kinds take turns.

    Args:
        split: "build", "align" or "held_out".
        n: Number of problems, at least 1.
        seed: Seed of the draw.

    Raises:
        PromptError: there are fewer different problems.
    """
    rng = random.Random(f"{split} {seed}")
    problems: list[Problem] = []
    seen: set[tuple[str, tuple[int, ...]]] = set()
    misses = 0
    while len(problems) < n:
        problem = _KINDS[len(problems) % len(_KINDS)](rng)
        key = (problem.kind, problem.numbers)
        if key not in seen and split_of(problem) == split:
            seen.add(key)
            problems.append(problem)
            misses = 0
        else:
            misses += 1
        if misses > _MAX_MISSES:
            raise PromptError(f"there are only {len(problems)} different problems of split {split!r}, not {n}.")
    return problems


def arithmetic_prompts(split: str, n: int, seed: int) -> list[Prompt]:
    """Generate the same problems as prompts with a reference answer; arguments as `generate_problems`."""
    return [
        Prompt(
            id=f"arithmetic-{split}-{seed}-{number:04d}",
            text=problem.text,
            category=problem.kind,
            split=split,
            license="Apache-2.0",
            expect="answer",
            target=str(problem.result),
        )
        for number, problem in enumerate(generate_problems(split, n, seed), start=1)
    ]
