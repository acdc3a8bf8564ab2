"""Recipes: what is refused and how it is message, what is resolved, and that every shipped one loads."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from presafe.cli.options import short_name
from presafe.config.recipe import ModelSettings, Recipe, load_recipe, parse_recipe, shipped_recipes
from presafe.config.sources import SetSource
from presafe.errors import RecipeError

MINIMAL = """
name = "mine"

[model]
address = "smolthink"

[respond]
classifier_queries = [{ set = "harmful", n = 4 }]
alignment_queries = [{ set = "benign", skip = 2, n = 4 }]

[align]
max_steps = 7

[evaluate.suites]
sums = { set = "arithmetic", n = 5 }
"""


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def complaint(path: Path | str) -> str:
    """Return the error of loading a recipe: one line that names it."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_given_values_are_read_and_others_have_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, MINIMAL))
    assert (recipe.name, recipe.model.address, recipe.model.family) == ("mine", "smolthink", None)
    assert recipe.align.max_steps == 7
    assert recipe.align.lambda_align == 1.0
    assert recipe.respond.alignment_queries == (SetSource(set="benign", skip=2, n=4),)
    assert recipe.evaluate.suites == {"sums": SetSource(set="arithmetic", split="held_out", n=5)}


@pytest.mark.parametrize(
    ("gpu", "cpu", "resolved"),
    [
        ("ampere", {}, "bfloat16"),
        ("older", {"amx_bf16": True}, "float32"),
        (None, {"amx_bf16": True}, "bfloat16"),
        (None, {"amx_bf16": False, "avx512_bf16": True}, "bfloat16"),
        (None, {"avx512_f": True, "avx512_bf16": False}, "float32"),
        (None, {}, "float32"),
    ],
)
def test_auto_is_the_fastest_type_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: str | None, cpu: dict[str, bool], resolved: str
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu == "ampere")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu)
    recipe = load_recipe(write(tmp_path, MINIMAL.replace('"smolthink"', '"smolthink"\ndtype = "auto"')))
    assert recipe.model.dtype == resolved
    # What a run keeps is the type, not the wish: on another machine it goes on with the same or not at all.
    assert json.loads(recipe.model_dump_json())["model"]["dtype"] == resolved
    assert ModelSettings.model_validate({"address": "http://127.0.0.1:1#m", "dtype": "auto"}).dtype == "float32"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_steps = 7", "max_stepz = 7", "align.max_stepz: Extra inputs are not permitted"),
        ("max_steps = 7", "lambda_align = -0.1", "align.lambda_align: Input should be greater than or equal to 0"),
        ("max_steps = 7", "lambda_align = nan", "align.lambda_align: Input should be a finite number"),
        ("max_steps = 7", "learning_rate = inf", "align.learning_rate: Input should be a finite number"),
        ("max_steps = 7", "learning_rate = 0", "align.learning_rate: Input should be greater than 0"),
        ("max_steps = 7", "max_steps = 0", "align.max_steps: Input should be greater than or equal to 1 (got 0)"),
        ("max_steps = 7", 'max_steps = "many"', "align.max_steps: Input should be a valid integer"),
        ("max_steps = 7", "max_steps = 7.5", "align.max_steps: Input should be a valid integer"),
        ("max_steps = 7", "seeds = []", "align.seeds: Tuple should have at least 1 item"),
        (
            "max_steps = 7",
            'systems = ["vanilla"]',
            "align.systems.0: Value error, no method of this name; there are: sft,",
        ),
        ("max_steps = 7", 'decision_position = "middle"', "align.decision_position: Input should be 'prompt_end', "),
        ("max_steps = 7", "layer = 0", "align.layer: Input should be greater than or equal to 1"),
        ('address = "smolthink"', "", "model.address: Field required"),
        ("n = 5", "m = 5", "evaluate.suites.sums.m: Extra inputs are not permitted"),
        ('name = "mine"', 'name = ""', "name: String should have at least 1 character"),
        ("[align]", "[algin]", "algin: Extra inputs are not permitted"),
        ('{ set = "arithmetic", n = 5 }', '{ set = "arithmetic" }', "arithmetic is generated, so it needs `n`"),
        ('{ set = "arithmetic", n = 5 }', '{ file = "a.csv" }', "evaluate.suites.sums.expect: Field required"),
        (
            '{ set = "arithmetic", n = 5 }',
            '{ set = "benign", file = "a.csv" }',
            "give one of `set`, `file`, `hub` and `suite`",
        ),
        ('{ set = "arithmetic", n = 5 }', "{ n = 5 }", "give one of `set`, `file`, `hub` and `suite`"),
        (
            '{ set = "arithmetic", n = 5 }',
            '{ set = "benign", column = "x" }',
            "`column` belongs to a `file` or a `hub`",
        ),
        (
            '{ set = "arithmetic", n = 5 }',
            '{ suite = "gsm8k", column = "x" }',
            "`column` belongs to a `file` or a `hub`",
        ),
        (
            '{ set = "arithmetic", n = 5 }',
            '{ suite = "gsm8k", split = "align" }',
            "`split` belongs to a `set` or a `hub`",
        ),
        ('{ set = "harmful", n = 4 }', '{ suite = "advbench" }', "nothing is trained on it"),
        ("skip = 2", "skip = -1", "respond.alignment_queries.0.skip: Input should be greater than or equal to 0"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in MINIMAL
    assert message in complaint(write(tmp_path, MINIMAL.replace(old, new)))


def test_everything_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    message = complaint(write(tmp_path, MINIMAL.replace("max_steps = 7", "max_steps = 0\nlora_rnak = 8")))
    assert "align.max_steps" in message
    assert "align.lora_rnak" in message


def test_a_long_value_is_cut_short(tmp_path: Path) -> None:
    message = complaint(write(tmp_path, MINIMAL.replace("max_steps = 7", f'max_steps = "{"x" * 5000}"')))
    assert len(message) < 400


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    assert "No such file" in complaint(tmp_path / "none.toml")


def test_a_file_that_is_not_text_or_not_toml_says_so(tmp_path: Path) -> None:
    assert "not UTF-8" in complaint(write(tmp_path, b'name = "\xff"'))
    assert "is not TOML" in complaint(write(tmp_path, "name = \n"))
    assert "is not TOML" in complaint(write(tmp_path, MINIMAL + "[model]\n"))


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    assert "smolthink-135m" in complaint("smolthink")


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name
    assert recipe.evaluate.suites
    assert "presafe" in recipe.align.systems


def test_the_default_recipe_is_shipped() -> None:
    assert "smolthink-135m" in shipped_recipes()


def test_a_recipe_can_extend_a_shipped_one(tmp_path: Path) -> None:
    base = load_recipe("smolthink-135m")
    text = 'extends = "smolthink-135m"\nname = "longer"\n[align]\nmax_steps = 999\n'
    recipe = load_recipe(write(tmp_path, text))
    assert (recipe.name, recipe.align.max_steps) == ("longer", 999)
    assert recipe.align.learning_rate == base.align.learning_rate
    assert recipe.respond == base.respond
    assert recipe.evaluate == base.evaluate


def test_suites_are_replaced_and_not_merged(tmp_path: Path) -> None:
    text = 'extends = "smolthink-135m"\n[evaluate.suites]\nsums = { set = "arithmetic", n = 5 }\n'
    assert list(load_recipe(write(tmp_path, text)).evaluate.suites) == ["sums"]


def test_extending_an_unknown_recipe_lists_the_known_ones(tmp_path: Path) -> None:
    message = complaint(write(tmp_path, 'extends = "gpt"\n' + MINIMAL))
    assert "extends 'gpt'" in message
    assert "smolthink-135m" in message


def test_settings_come_back_from_json_as_they_were(tmp_path: Path) -> None:
    # A run folder keeps its recipe as JSON and compares the next one with it.
    own = MINIMAL.replace('{ set = "harmful", n = 4 }', '{ file = "mine.csv", expect = "refuse" }')
    recipe = load_recipe(write(tmp_path, own))
    stored = json.loads(json.dumps(recipe.model_dump(mode="json")))
    assert parse_recipe(stored, "recipe.json") == recipe


def test_a_recipe_cannot_be_changed() -> None:
    recipe = load_recipe("smolthink-135m")
    with pytest.raises(ValueError, match="frozen"):
        recipe.name = "other"


def test_every_setting_has_a_description() -> None:
    def silent(schema: dict[str, object], where: str) -> list[str]:
        properties = schema.get("properties", {})
        assert isinstance(properties, dict)
        return [
            f"{where}.{name}"
            for name, field in properties.items()
            if "description" not in field and "$ref" not in json.dumps(field)
        ]

    schema = Recipe.model_json_schema()
    found = [each for name, part in schema["$defs"].items() for each in silent(part, name)]
    assert found == []


def test_a_familys_file_is_kept_as_its_text(tmp_path: Path) -> None:
    family = tmp_path / "family.toml"
    family.write_text('name = "mine"\n', encoding="utf-8")
    named = MINIMAL.replace('"smolthink"', f'"smolthink"\nfamily = "{family}"')
    # a run goes on with the family it began with, whatever becomes of the file
    assert load_recipe(write(tmp_path, named)).model.family == 'name = "mine"\n'
    family.unlink()
    assert "model.family" in complaint(write(tmp_path, named))


def test_a_resolved_recipe_with_a_file_can_be_read_again(tmp_path: Path) -> None:
    # Failed first: recipe.json holds the default of `split`, which was taken for a setting of the file.
    recipe = load_recipe(write(tmp_path, MINIMAL + 'mine = { file = "mine.csv", expect = "refuse" }\n'))
    assert parse_recipe(recipe.model_dump(mode="json"), "recipe.json") == recipe
    with pytest.raises(RecipeError, match="`split` belongs to"):
        load_recipe(write(tmp_path, MINIMAL + 'mine = { file = "m.csv", expect = "refuse", split = "build" }\n'))


def test_folder_names_keep_the_dots_of_recipe_names() -> None:
    names = [short_name(name) for name in ("qwen3-0.6b", "smolthink-135m", "recipes/my.model-1.5b.toml")]
    assert names == ["qwen3-0.6b", "smolthink-135m", "my.model-1.5b"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # failed first: they were read as 1, 3 and 3
        ("max_steps = 7", "max_steps = true", "align.max_steps: Input should be a valid integer (got True)"),
        ("max_steps = 7", "max_steps = 3.0", "align.max_steps: Input should be a valid integer (got 3.0)"),
        ("max_steps = 7", 'max_steps = "3"', "align.max_steps: Input should be a valid integer (got '3')"),
        ("max_steps = 7", "lambda_align = true", "align.lambda_align: Input should be a valid number (got True)"),
        ("max_steps = 7", "over_refusal = false", "align.over_refusal"),
        # failed first: they were read, and failed after hours in a library that takes less
        ("max_steps = 7", "seeds = [-1]", "align.seeds.0: Input should be greater than or equal to 0 (got -1)"),
        ("max_steps = 7", "seeds = [4294967296]", "align.seeds.0: Input should be less than or equal to 4294967295"),
        ("max_steps = 7", "seeds = [1180591620717411303424]", "align.seeds.0: "),  # 2^70
        ("[align]", "[signal]\nseed = -1\n[align]", "signal.seed: Input should be greater than or equal to 0"),
        (
            "max_steps = 7",
            "max_steps = 2147483648",
            "align.max_steps: Input should be less than or equal to 2147483647",
        ),
        ("max_steps = 7", "learning_rate = 1e300", "align.learning_rate: Input should be less than or equal to 10"),
        (
            "[evaluate.suites]",
            "[evaluate.sampling]\ntemperature = inf\n[evaluate.suites]",
            "evaluate.sampling.temperature",
        ),
        (
            "[evaluate.suites]",
            "[evaluate.sampling]\ntemperature = nan\n[evaluate.suites]",
            "evaluate.sampling.temperature",
        ),
        ("[evaluate.suites]", "[evaluate.sampling]\ntemperature = 1e-40\n[evaluate.suites]", "from 0.001 to 100"),
        ("[evaluate.suites]", "[evaluate.sampling]\ntemperature = 101\n[evaluate.suites]", "less than or equal to 100"),
        (
            "[evaluate.suites]",
            "[evaluate.sampling]\ntop_p = 1e-300\n[evaluate.suites]",
            "evaluate.sampling.top_p: Input should",
        ),
        (
            "[evaluate.suites]",
            "[evaluate.sampling]\ntop_p = nan\n[evaluate.suites]",
            "evaluate.sampling.top_p: Input should",
        ),
        (
            "[evaluate.suites]",
            "[evaluate.sampling]\ntop_k = -1\n[evaluate.suites]",
            "evaluate.sampling.top_k: Input should",
        ),
        ("sums = {", '"a/sums" = {', "holds no slash"),
        ("sums = {", '" " = {', "not blank"),
        ("sums = {", f'"{"x" * 200}" = {{', "at most 180 bytes"),
        ("sums = {", '"two\\nlines" = {', "a name holds no line break"),
        ('name = "mine"', 'name = "a\\u0000b"', "a name holds no line break and no other control character"),
        ('name = "mine"', 'name = "a\\u202eb"', "a name holds no line break and no other control character"),
        (
            'address = "smolthink"',
            'address = "smolthink"\nfamily = "none.toml"',
            "cannot read family none.toml: No such file",
        ),
    ],
)
def test_values_that_libraries_cannot_take_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in MINIMAL
    assert message in complaint(write(tmp_path, MINIMAL.replace(old, new)))


def test_values_at_the_bounds_are_accepted(tmp_path: Path) -> None:
    text = MINIMAL.replace("max_steps = 7", "max_steps = 2147483647\nseeds = [0, 4294967295]\nlearning_rate = 1")
    text += "[evaluate.sampling]\ntemperature = 0.001\ntop_p = 0.000001\ntop_k = 0\n"
    recipe = load_recipe(write(tmp_path, text))
    assert recipe.align.seeds == (0, 2**32 - 1)
    assert (recipe.evaluate.sampling.temperature, recipe.evaluate.sampling.top_p) == (0.001, 1e-6)
    assert parse_recipe(json.loads(recipe.model_dump_json()), "again") == recipe


def test_byte_order_mark_and_windows_line_ends_are_ignored(tmp_path: Path) -> None:
    # Failed first: the mark was "not TOML".
    recipe = load_recipe(write(tmp_path, MINIMAL))
    assert load_recipe(write(tmp_path, b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 100_000, "nested deeper than 32"),
        ("a = " + "[" * 40 + "]" * 40, "nested deeper than 32"),
        ("a = " + "{a = " * 40 + "1" + "}" * 40, "nested deeper than 32"),
        # failed first: 13 seconds and 4 GB
        ("a." * 30_000 + "a = 1", "a key of more than 16 parts"),
        ("[" + '"a" . ' * 30_000 + "a]", "a key of more than 16 parts"),
        ("[" + r'"\"".' * 30_000 + "a]", "a key of more than 16 parts"),
        ("['" + "'.'".join("a" * 17) + "']", "a key of more than 16 parts"),
        ("a = " + "1" * 5000, "Exceeds the limit"),
        ('name = "a\0b"', "it holds NUL bytes"),
        ("# " + "x" * 300_000, "more than 256,000 bytes"),
        ("\n".join(f"key_{n} = 1" for n in range(10_000)), "and 9984 more"),  # with 4 tables that are required
    ],
)
def test_toml_that_would_take_gigabytes_is_refused(tmp_path: Path, text: str, message: str) -> None:
    line = complaint(write(tmp_path, text))
    assert message in line
    assert len(line) < 3000


def test_a_key_of_sixteen_parts_is_unknown(tmp_path: Path) -> None:
    assert "a: Extra inputs" in complaint(write(tmp_path, f"{'.'.join('a' * 16)} = 1"))


def test_a_pipe_device_or_folder_is_refused_as_a_recipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    (tmp_path / "folder.toml").mkdir()
    assert "a pipe or a device" in complaint(tmp_path / "pipe.toml")
    assert "a pipe or a device" in complaint(tmp_path / "zero.toml")
    assert "Is a directory" in complaint(tmp_path / "folder.toml")
    with pytest.raises(RecipeError, match="its name holds a control character"):
        load_recipe(tmp_path / "two\nlines.toml")
    family = MINIMAL.replace('address = "smolthink"', f'address = "smolthink"\nfamily = "{tmp_path}/pipe.toml"')
    assert "a pipe or a device" in complaint(write(tmp_path, family))


KEYS = st.sampled_from(["name", "model", "respond", "signal", "align", "evaluate", "extends"])
VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(KEYS | st.text(max_size=5), parts, max_size=3),
)


@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow])  # the first draw imports much
@given(settings=st.dictionaries(KEYS, VALUES))
def test_settings_of_any_kind_are_a_recipe_or_one_line(settings: dict[str, object]) -> None:
    with pytest.raises(RecipeError) as caught:  # none can be whole by chance
        parse_recipe(settings, "mine")
    assert "\n" not in str(caught.value)
