"""Recipes, studies and families in TOML: what is accepted is what `tomllib` reads."""

from __future__ import annotations

import random
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from faults.cases import Case, Fault
from faults.mutate import damage
from faults.oracles import need, need_finite_numbers, need_same
from presafe.config.files import shipped_names
from presafe.config.recipe import Recipe, load_recipe, parse_recipe
from presafe.models.family import families, find_family
from presafe.study.spec import load_study, study_runs

_TINY = """name = "tiny"
[model]
address = "smolthink"
dtype = "float32"
[respond]
classifier_queries = [{ set = "harmful", split = "align", n = 8 }, { file = "a.jsonl", expect = "comply" }]
alignment_queries = [{ set = "benign", n = 4, skip = 2 }]
seed = 3
[signal]
held_out = 0.5
[align]
systems = ["presafe"]
seeds = [0, 1]
lambda_align = 0.5
over_refusal = 0.25
[evaluate]
max_tokens = 48
samples = 2
sampling = { temperature = 0.7, top_p = 0.9, top_k = 5 }
[evaluate.suites]
"my suite" = { set = "harmful", n = 6 }
"""
_VALUES = (
    "0",
    "-1",
    "1",
    "2",
    "1.0",
    "0.5",
    "1e-40",
    "1e-300",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "true",
    "false",
    '""',
    '" "',
    '"a\\nb"',
    '"\\u202e"',
    '"\\u0000"',
    '"1"',
    "'''x'''",
    "[]",
    "{}",
    "[[]]",
    "[1, true]",
    "1979-05-27",
    "07:32:00",
    "0x10",
    "1_000",
    "99999999999999999999",
    "2147483648",
    "4294967296",
    '["on", "off"]',
    '["on", "on"]',
    '["sft", "presafe"]',
    '"presafe"',
    '"teacher"',
    "{ a = { b = 1 } }",
    '"auto"',
)


class Declarations:
    """Files of TOML that a user writes."""

    name, clock_s = "declarations", 20.0

    def prepare(self, workspace: Path) -> None:
        """Read what ships."""
        package = resources.files("presafe")
        self._texts: dict[str, list[str]] = {
            "recipe": [_TINY, *(_read(package / "recipes", name) for name in shipped_names("recipe"))],
            "study": [_read(package / "studies", name) for name in shipped_names("study")],
            "family": [_read(package / "models" / "families", name) for name in families()],
        }
        self._keys = {
            target: sorted({key for text in texts for key in re.findall(r"^([\w.-]+) *=", text, re.MULTILINE)})
            for target, texts in self._texts.items()
        }
        self._keys["recipe"] += sorted(_keys_of(Recipe.model_json_schema()))

    def make(self, rng: random.Random) -> Case:
        """Return a shipped file with other values, other keys, or damaged bytes."""
        target = rng.choice(("recipe", "study", "family"))
        text = rng.choice(self._texts[target])
        how = rng.randrange(4)
        for _ in range(rng.choice((1, 1, 2, 4)) if how else 0):
            text = self._edited(text, target, rng)
        data = text.encode()
        return Case(self.name, target, damage(data, rng) if how in (0, 3) else data)

    def _edited(self, text: str, target: str, rng: random.Random) -> str:
        lines = text.split("\n")
        places = [number for number, line in enumerate(lines) if re.match(r"^[\w.\"-]+ *= *\S", line)]
        value = rng.choice(_VALUES)
        if rng.random() < 0.4 or not places:
            lines.insert(rng.randrange(len(lines) + 1), f"{rng.choice(self._keys[target])} = {value}")
        else:
            place = rng.choice(places)
            if rng.random() < 0.3 and "{" in lines[place]:
                lines[place] = re.sub(r"= *[^,{}]+", lambda _: f"= {value}", lines[place], count=rng.randint(1, 3))
            else:
                lines[place] = f"{lines[place].partition('=')[0]}= {value}"
        return "\n".join(lines)

    def check(self, case: Case, folder: Path) -> None:
        """Load the file, and compare it with what `tomllib` reads."""
        path = folder / "it.toml"
        path.write_bytes(case.data)
        if case.target == "recipe":
            recipe = load_recipe(path)
            self._check_recipe(recipe, _written(case.data))
        elif case.target == "study":
            study = load_study(path)
            written = _written(case.data)
            need_same(written, study, "a study holds another value than its file")
            runs = study_runs(study)
            seeds = [seed for condition in study.condition for seed in condition.seeds or study.seeds]
            need(len(runs) == len(seeds), "a study has more or fewer runs than conditions and seeds", len(runs))
            for run in runs:
                need(run.recipe.align.seeds == (run.seed,), "a run of a study has another seed", run.name)
                need_round_trip(run.recipe)
        else:
            family = find_family(str(path))
            need_same(_written(case.data), family, "a family holds another value than its file")
            need_finite_numbers(family.model_dump(), "a family holds a number that is not finite")
            family.model_dump_json().encode()
            text = path.read_text(encoding="utf-8-sig")
            if "\n" in text:
                need(find_family(text) == family, "a family's text and its file are read differently")

    def _check_recipe(self, recipe: Recipe, written: dict[str, Any]) -> None:
        if "extends" in written:
            base = written.pop("extends")
            need(base in shipped_names("recipe"), "a recipe extends none that ships", base)
        for model in (written.get("model"), (written.get("respond") or {}).get("teacher")):
            if isinstance(model, dict) and model.get("dtype") == "auto":
                model.pop("dtype")
        need_same(written, recipe, "a recipe holds another value than its file")
        need_round_trip(recipe)


def need_round_trip(recipe: Recipe) -> None:
    """Check that the JSON that a run keeps of a recipe gives the same recipe, all of its numbers finite.

    Raises:
        Fault: it does not.
    """
    settings = recipe.model_dump(mode="json")
    need_finite_numbers(settings, "a recipe holds a number that is not finite")
    recipe.model_dump_json().encode()
    need(parse_recipe(settings, "again") == recipe, "a recipe is another one after it was kept as JSON")


def _written(data: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n"))
    except ValueError as error:
        raise Fault("what is not TOML was accepted", error) from None


def _read(folder: Any, name: str) -> str:
    text: str = (folder / f"{name}.toml").read_text(encoding="utf-8")
    return text


def _keys_of(schema: Any) -> set[str]:
    parts = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    own = set(schema["properties"]) if isinstance(schema, dict) and "properties" in schema else set()
    return own.union(*map(_keys_of, parts))
