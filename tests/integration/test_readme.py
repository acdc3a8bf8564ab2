"""The README's Python blocks run as they stand, on the small recipe and in a scratch folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from command_line import finish

README = Path(__file__).parents[2] / "README.md"


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

    from presafe.recipe import parse_recipe

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
