"""The README's Python block and those of the guides run as they stand, in a scratch folder; its tables are true."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from command_line import finish

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
RESULTS = ROOT / "research" / "studies"
SHOWN = {
    "StrongREJECT": ("strong_reject", "refusal_rate"),
    "JailbreakBench": ("jailbreakbench", "refusal_rate"),
    "XSTest unsafe": ("xstest_unsafe", "refusal_rate"),
    "JailbreakBench benign": ("jailbreakbench_benign", "over_refusal_rate"),
    "XSTest safe": ("xstest_safe", "over_refusal_rate"),
    "sums right": ("arithmetic", "accuracy"),
    "harmful refused": ("smolthink_harmful", "refusal_rate"),
    "benign wrongly refused": ("smolthink_benign", "over_refusal_rate"),
    "borderline wrongly refused": ("smolthink_borderline", "over_refusal_rate"),
}
"""Columns of the tables of results. A longer name of a published suite ends in "refused" or "wrongly refused"."""
SYSTEMS = {"PreSafe, fair coins for p′": "random_labels", "SFT only": "sft", "PreSafe + L_start (ours)": "presafe"}


def tables(page: Path) -> list[list[dict[str, str]]]:
    """Return every table of a page, its rows by column."""
    parsed: list[list[dict[str, str]]] = []
    for table in re.findall(r"(?:^\|.*\n)+", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
        parsed.append([dict(zip(head, row, strict=True)) for row in rows])
    return parsed


def scores(file: Path, rows: str) -> dict[tuple[str, str, str, str], dict[str, float]]:
    found = json.loads(file.read_text(encoding="utf-8"))[rows]
    return {(row["system"], row["thinking"], row["suite"], row["metric"]): row for row in found}


def percent(score: dict[str, float], digits: int) -> str:
    """Format a rate with its interval as the tables do; the interval is cut at 0 and 100."""
    low, high = (round(100 * min(max(score[end], 0.0), 1.0)) for end in ("low", "high"))
    return f"{100 * score['value']:.{digits}f} [{low}, {high}]"


def shown(column: str) -> tuple[str, str] | None:
    """Return the suite and metric that a column shows; None if it names the row."""
    return SHOWN.get(column) or SHOWN.get(column.removesuffix(" refused").removesuffix(" wrongly"))


def block(page: Path, language: str, words: str) -> str:
    """Return the one code block of a page that holds some words."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    (block_with_words,) = [code for code in blocks if words in code]
    return block_with_words


def run(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_readme_is_a_front_door() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 190
    assert [line for line in lines if len(line) > 120] == []
    first = next(number for number, line in enumerate(lines) if line.startswith("make demo"))
    assert first < 40
    assert lines[first - 1] == "```sh"


def test_a_run_in_a_few_lines(small_recipe: Path, whole_run: Path, tmp_path: Path) -> None:
    code = block(README, "python", "run_stages")
    assert len(code.strip().splitlines()) <= 10
    # The block names the demo's recipe and a folder of its own; here the small recipe and its finished run.
    code = code.replace('"smolthink-135m"', repr(str(small_recipe))).replace('"runs/mine"', repr(str(whole_run)))
    printed = run(code, tmp_path)
    assert re.search(r"^vanilla off smolthink_harmful refusal_rate [\d.]+ ", printed, flags=re.MULTILINE)
    assert re.search(r"^presafe on arithmetic accuracy ", printed, flags=re.MULTILINE)


def test_measuring_in_a_few_lines(tmp_path: Path) -> None:
    printed = run(block(DOCS / "guides" / "measure.md", "python", "presafe.measure"), tmp_path)
    assert re.fullmatch(r"\[\('on', [\d.]+\), \('off', [\d.]+\)\]\n", printed.splitlines(keepends=True)[-1])
    assert (tmp_path / "runs/sums/report.html").exists()


def test_the_guide_shows_the_trainer_that_the_examples_run() -> None:
    # tests/examples runs examples/trainer_only.py, and the site puts the file in the place of this line
    assert block(DOCS / "guides" / "align.md", "python", "trainer_only") == '--8<-- "examples/trainer_only.py"\n'


def test_the_recipes_of_readme_and_guide_are_valid(tmp_path: Path) -> None:
    from presafe import load_recipe

    for page in (README, DOCS / "guides" / "align.md"):
        file = tmp_path / f"{page.stem}.toml"
        file.write_text(block(page, "toml", "R1-Distill-Qwen-1.5B"), encoding="utf-8")
        recipe = load_recipe(file)
        assert recipe.align.systems == ("sft", "presafe", "random_labels")
        assert recipe.align.learning_rate == 2e-4  # not SmolThink's, which is five times as high
        assert recipe.evaluate.max_tokens == 4096


def test_the_family_in_the_reference_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    # SmolLM2's turns end in another token, and it spells the marks, the last piece being a bracket.
    text = block(DOCS / "reference" / "families.md", "toml", "decision_text")
    file.write_text(
        text.replace("</s>", "<|im_end|>").replace('decision_text = "[THINK]"', 'decision_text = "]"'), encoding="utf-8"
    )
    done = finish("doctor", "smolthink", "--family", str(file), "--json")
    assert done.returncode == 0, done.stderr
    diagnosis = json.loads(done.stdout)
    assert diagnosis["family"] == "mine"
    assert diagnosis["off"]["text"].endswith("[THINK][/THINK]")


def test_the_demos_table_is_its_committed_results() -> None:
    measured = scores(RESULTS / "demo" / "results.json", "rows")
    for page in (README, DOCS / "start" / "demo.md"):
        (table,) = [rows for rows in tables(page) if "harmful refused" in rows[0]]
        assert len(table) == 4
        for row in table:
            system = SYSTEMS.get(row["system"], row["system"].replace("PreSafe + L_start", "presafe"))
            cells = {column: found for column in row if (found := shown(column)) is not None}
            assert len(cells) == 4
            for column, (suite, metric) in cells.items():
                score = measured[system, row["CoT"], suite, metric]
                assert row[column] == f"{percent(score, 1)}, n = {score['n']}", (system, column)


def test_the_table_of_results_is_its_study() -> None:
    measured = scores(RESULTS / "shipped" / "study.json", "scores")
    (table,) = [rows for rows in tables(README) if "StrongREJECT" in rows[0]]
    assert [(row["system"], row["CoT"]) for row in table] == [
        ("vanilla", "on"),
        ("vanilla", "off"),
        ("SFT only", "on"),
        ("PreSafe + L_start (ours)", "on"),
    ]
    for row in table:
        cells = {column: found for column in row if (found := shown(column)) is not None}
        assert len(cells) == 6
        for column, (suite, metric) in cells.items():
            score = measured[SYSTEMS.get(row["system"], row["system"]), row["CoT"], suite, metric]
            assert row[column] == percent(score, 0), (row["system"], column)


def test_the_table_on_published_files_is_its_studies() -> None:
    (table,) = [rows for rows in tables(DOCS / "research" / "index.md") if "StrongREJECT refused" in rows[0]]
    assert [row["rate"] for row in table] == ["–"] * 2 + ["the teacher's"] * 3 + ["half of it"] * 3
    for row in table:
        study, added = ("rate_5", "-rate_5") if row["rate"] == "half of it" else ("shipped", "")
        measured = scores(RESULTS / study / "study.json", "scores")
        name, _, mode = row["system"].partition(", CoT ")
        system = "vanilla" if name == "vanilla" else SYSTEMS[row["system"]] + added
        cells = {column: found for column in row if (found := shown(column)) is not None}
        assert len(cells) == 6
        for column, (suite, metric) in cells.items():
            score = measured[system, "off" if mode.startswith("off") else "on", suite, metric]
            assert row[column] == percent(score, 0), (row["system"], column)
