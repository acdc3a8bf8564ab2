"""The README's Python blocks run as they stand, on the small recipe and in a scratch folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from command_line import finish

README = Path(__file__).parents[2] / "README.md"


RESULTS = README.parent / "studies"
SHOWN = {
    "StrongREJECT refused": ("strong_reject", "refusal_rate"),
    "JailbreakBench refused": ("jailbreakbench", "refusal_rate"),
    "XSTest unsafe refused": ("xstest_unsafe", "refusal_rate"),
    "JailbreakBench benign wrongly refused": ("jailbreakbench_benign", "over_refusal_rate"),
    "XSTest safe wrongly refused": ("xstest_safe", "over_refusal_rate"),
    "sums right": ("arithmetic", "accuracy"),
    "harmful refused": ("smolthink_harmful", "refusal_rate"),
    "benign wrongly refused": ("smolthink_benign", "over_refusal_rate"),
    "borderline wrongly refused": ("smolthink_borderline", "over_refusal_rate"),
    "arithmetic right": ("arithmetic", "accuracy"),
}
"""Columns of the tables of results."""
SYSTEMS = {"control: fair coins for p′": "random_labels", "SFT only": "sft"}


def tables() -> list[list[dict[str, str]]]:
    """Every table of the README, each row by its columns."""
    found: list[list[dict[str, str]]] = []
    for table in re.findall(r"(?:^\|.*\n)+", README.read_text(encoding="utf-8"), flags=re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def scores(file: Path, rows: str) -> dict[tuple[str, str, str, str], dict[str, float]]:
    found = json.loads(file.read_text(encoding="utf-8"))[rows]
    return {(each["system"], each["thinking"], each["suite"], each["metric"]): each for each in found}


def percent(score: dict[str, float], digits: int) -> str:
    """As the tables write a rate with its interval, which is cut at 0 and 100."""
    low, high = (round(100 * min(max(score[end], 0.0), 1.0)) for end in ("low", "high"))
    return f"{100 * score['value']:.{digits}f} % [{low}, {high}]"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def toml() -> list[str]:
    return re.findall(r"```toml\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def run(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_run_in_a_few_lines(small_recipe: Path, whole_run: Path, tmp_path: Path) -> None:
    code = blocks()[0]
    assert len(code.strip().splitlines()) <= 8
    # The block names the demo's recipe and a folder of its own; here the small recipe and its finished run.
    code = code.replace('"smolthink-135m"', repr(str(small_recipe))).replace('"runs/mine"', repr(str(whole_run)))
    printed = run(code, tmp_path)
    assert re.search(r"^vanilla off smolthink_harmful refusal_rate [\d.]+ ", printed, flags=re.MULTILINE)
    assert re.search(r"^presafe on arithmetic accuracy ", printed, flags=re.MULTILINE)


def test_measuring_in_a_few_lines(tmp_path: Path) -> None:
    printed = run(blocks()[1], tmp_path)
    assert re.fullmatch(r"\[\('on', [\d.]+\), \('off', [\d.]+\)\]\n", printed.splitlines(keepends=True)[-1])
    assert (tmp_path / "runs/sums/report.html").exists()


def test_the_trainer_without_a_recipe(tmp_path: Path) -> None:
    run(blocks()[2], tmp_path)
    assert (tmp_path / "runs/direct/adapter/adapter_model.safetensors").exists()
    assert (tmp_path / "runs/direct/presafe_head.safetensors").exists()


def test_the_recipe_in_the_readme_is_valid() -> None:
    import tomllib

    from presafe.config.recipe import parse_recipe

    recipe = parse_recipe(tomllib.loads(toml()[0]), "README")
    assert recipe.align.systems == ("sft", "presafe", "random_labels")


def test_the_family_in_the_readme_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    # SmolLM2's turns end in another token, and it spells the marks, the last piece being a bracket.
    text = toml()[1].replace("</s>", "<|im_end|>").replace('decision_text = "[THINK]"', 'decision_text = "]"')
    file.write_text(text, encoding="utf-8")
    done = finish("doctor", "smolthink", "--family", str(file), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["family"] == "mine"
    assert found["off"]["text"].endswith("[THINK][/THINK]")


def test_the_demos_table_is_its_committed_results() -> None:
    measured = scores(RESULTS / "demo" / "results.json", "rows")
    (table,) = [rows for rows in tables() if "harmful refused" in rows[0]]
    assert len(table) == 4
    for row in table:
        system = row["system"].split(" (")[0]
        for column, (suite, metric) in SHOWN.items():
            if column in row:
                score = measured[SYSTEMS.get(system, system.lower()), row["CoT"], suite, metric]
                assert row[column] == f"{percent(score, 1)}, n = {score['n']}", (system, column)


def test_the_table_on_published_files_is_its_studies() -> None:
    (table,) = [rows for rows in tables() if "StrongREJECT refused" in rows[0]]
    halves = [number for number, row in enumerate(table) if row["system"].startswith("*")]
    assert halves == [2, 6]
    for number, row in enumerate(table):
        if number in halves:
            continue
        study, added = ("rate_5", "-rate_5") if number > halves[1] else ("shipped", "")
        measured = scores(RESULTS / study / "study.json", "scores")
        name, _, mode = row["system"].partition(", CoT ")
        system = "vanilla" if name == "vanilla" else SYSTEMS.get(name, name.lower()) + added
        for column, (suite, metric) in SHOWN.items():
            if column in row:
                score = measured[system, "off" if mode else "on", suite, metric]
                assert row[column] == percent(score, 0), (row["system"], column)
