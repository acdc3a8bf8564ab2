"""Reference pages that the code writes: the command line, the recipe and the Python API, as Markdown."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import typer
from paths import ROOT

import presafe
from presafe.cli.main import app

_TITLES = {
    "ModelSettings": "`[model]`, and `[respond.teacher]`",
    "RespondSettings": "`[respond]`: stage 1",
    "SignalSettings": "`[signal]`: stage 2",
    "AlignSettings": "`[align]`: stage 3",
    "EvaluateSettings": "`[evaluate]`: stage 4",
    "SamplingSettings": "`[evaluate.sampling]`",
    "SetSource": "A source of prompts: `set`",
    "FileSource": "A source of prompts: `file`",
    "HubSource": "A source of prompts: `hub`",
    "SuiteSource": "A source of prompts: `suite`, to evaluate on",
    "SafetyData": "`[align.data.METHOD]`",
}


def command_line() -> str:
    """Return the reference of every command, from the command line's own help."""
    lines = [
        "# Command line",
        "",
        "Generated from `presafe --help`. A wrong use ends with one line and exit code 2.",
        "",
    ]
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
        options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
        words = [_metavar(argument) for argument in arguments]
        lines += [f"## presafe {name}", "", (command.help or "").strip(), ""]
        lines += ["```text", " ".join(["presafe", name, *words, *(["[OPTIONS]"] if options else [])]), "```", ""]
        if arguments or options:
            lines += ["| argument or option | meaning | default |", "| --- | --- | --- |"]
        for argument in arguments:
            lines.append(
                f"| `{_metavar(argument)}` | {_cell(getattr(argument, 'help', None))} | {_default(argument)} |"
            )
        for option in options:
            names = ", ".join(f"`{word}`" for word in sorted(option.opts, key=len, reverse=True))
            variable = f" Environment: `{option.envvar}`." if option.envvar else ""
            lines.append(f"| {names} | {_cell(option.help)}{variable} | {_default(option)} |")
        lines.append("")
    return "\n".join(lines)


def _metavar(argument: Any) -> str:
    word = (argument.metavar or argument.name.upper()).strip("[]")
    return word if argument.required else f"[{word}]"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if value is None or value == [] or callable(value):
        return "–"
    return f"`{'on' if value is True else 'off' if value is False else value}`"


def _cell(text: str | None) -> str:
    parts = " ".join((text or "").split()).replace("|", "\\|").split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


def recipe() -> str:
    """Return the reference of every setting of a recipe, from the settings' own schema."""
    lines = [
        "# Recipe",
        "",
        "Generated from the settings classes. A recipe is a TOML file. An unknown key, a value out of bounds and a",
        "setting that cannot take effect are errors.",
        "",
        '`extends = "NAME"` starts from a shipped recipe (`presafe list recipes`). Your tables are merged over its',
        "tables; your suites and lists of queries replace its own.",
        "",
    ]
    schema = presafe.Recipe.model_json_schema()
    lines += ["## The whole recipe", "", *_settings(schema, schema), ""]
    order = [*_TITLES, *schema["$defs"]]
    for name in sorted(schema["$defs"], key=order.index):
        definition = schema["$defs"][name]
        if "properties" in definition:
            lines += [f"## {_title(name)}", "", _cell(definition.get("description")), ""]
            lines += [*_settings(definition, schema), ""]
    return "\n".join(lines)


def _title(name: str) -> str:
    return _TITLES.get(name, f"`{name}`")


def _settings(definition: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    lines = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    required = set(definition.get("required", ()))
    for key, value in definition["properties"].items():
        default = "required" if key in required else _value(value.get("default"))
        kind = _kind(value, schema).replace("|", "\\|")
        lines.append(f"| `{key}` | {kind} | {default} | {_cell(value.get('description'))} |")
    return lines


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, dict):
        return "see its table" if value else "none"
    if isinstance(value, list | tuple):
        return ", ".join(f"`{word}`" for word in value) or "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(value: dict[str, Any], schema: dict[str, Any]) -> str:
    if "$ref" in value:
        return f"table: {_title(value['$ref'].rsplit('/', 1)[1]).split(':')[0].replace('`', '')}"
    if "anyOf" in value:
        kinds = [_kind(option, schema) for option in value["anyOf"] if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in value:
        return ", ".join(f"`{word}`" for word in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    kind = value.get("type", "any")
    if kind == "array":
        items = value.get("items", {})
        return f"list of {_kind(items, schema) if items else 'values'}"
    if kind == "object":
        inner = value.get("additionalProperties")
        return f"table of {_kind(inner, schema)}" if isinstance(inner, dict) else "table"
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {value[word]:g}" for word, sign in words.items() if word in value]
    return " ".join([{"integer": "whole number", "number": "number", "string": "text"}.get(kind, kind), *bounds])


def api() -> str:
    """Return the page of the public names, which mkdocstrings fills from their docstrings."""
    lines = [
        "# Python API",
        "",
        "The public names of the package. `import presafe` loads neither torch nor Inspect; a name loads what it needs",
        "when it is first used. Names that are not on this page may change without notice.",
        "",
    ]
    for name in sorted(presafe.__all__, key=str.lower):
        lines += [f"::: presafe.{name}", ""]
    return "\n".join(lines)


def modules() -> str:
    """Return every room and its modules, each with the first sentence of its docstring."""
    package = ROOT / "src" / "presafe"
    folders = sorted(folder for folder in package.iterdir() if (folder / "__init__.py").exists())
    lines = ["| module | what it holds |", "| --- | --- |"]
    lines += [
        f"| `{file.name}` | {_sentence(file)} |" for file in sorted(package.glob("*.py")) if file.stem != "__init__"
    ]
    for folder in folders:
        lines.append(f"| **`{folder.name}/`** | **{_sentence(folder / '__init__.py')}** |")
        files = sorted(file for file in folder.glob("*.py") if file.stem != "__init__")
        lines += [f"| `{folder.name}/{file.name}` | {_sentence(file)} |" for file in files]
    return "\n".join(lines)


def _sentence(file: Path) -> str:
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return _cell(text.split("\n\n")[0]).replace("[", "\\[")
