"""A chat template is a program: it ends in bounded time and memory, or is one line before weights are loaded."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from model_folders import TEMPLATE, edit, tokenizer_folder

import presafe.models.templates as templates
from presafe.errors import ModelError
from presafe.models.loading import load_renderer
from presafe.models.templates import render_bounded


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("{{ 1/0 }}", "division by zero"),
        ("{% for i in range(1000000) %}{% endfor %}", "Range too big"),
        # 10⁵ × 10⁵ × 10⁵ turns, each loop within the sandbox's bound
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}"
            "{% endfor %}",
            "takes more than 2 s",
        ),
        ("{{ 'a' * 10000000000 }}", "memory"),
        ("{{ 9 ** (9 ** 9) }}", "takes more than 2 s"),
        # the text doubles 60 times: 2⁶⁰ letters
        (
            "{% set n = namespace(t='a') %}{% for i in range(60) %}{% set n.t = n.t ~ n.t %}{% endfor %}{{ n.t }}",
            "memory|takes more than 2 s",
        ),
        ("{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}", "calls itself without end"),
        ("{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}", "chat template fails"),
        ("{{ 'ab' * 1000000 }}", "writes more than 1 MiB"),  # 2 × 10⁶ letters
        ("{{ '%1000000000000d' % 1 }}", "chat template fails"),
        ("{% if", "chat template fails"),
    ],
    ids=[
        "division", "range", "nested", "text", "power", "doubling", "recursion", "deep", "long", "format",
        "syntax",
    ],
)  # fmt: skip
def test_a_template_without_bounds_is_one_line_at_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, words: str
) -> None:
    monkeypatch.setattr(templates, "_SECONDS", 2.0)
    folder = tokenizer_folder(tmp_path, TEMPLATE + program)
    start = time.monotonic()
    with pytest.raises(ModelError, match=words) as caught:
        load_renderer(str(folder))
    assert time.monotonic() - start < 20
    assert "\n" not in str(caught.value)


def test_what_is_rendered_is_what_the_library_renders(tmp_path: Path) -> None:
    renderer = load_renderer(str(tokenizer_folder(tmp_path)))
    for text in ("Boil an egg?", "", "Zwölf Öfen 🙂\n\x00", "a" * 200_000):
        messages = [{"role": "user", "content": text}]
        ours = renderer.templated(messages, add_generation_prompt=True)
        assert ours == renderer.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def test_a_child_that_dies_is_one_line() -> None:
    import os
    import signal

    def die() -> str:
        os.kill(os.getpid(), signal.SIGSEGV)
        return ""

    with pytest.raises(ModelError, match="fails on this"):
        render_bounded(die, "this")


def test_a_template_of_no_text_is_one_line(tmp_path: Path) -> None:
    for template in (7, {"a": 1}, [1], [{"name": "default", "template": 7}], [{"name": "default"}]):
        folder = tokenizer_folder(tmp_path / str(abs(hash(str(template)))))
        edit(folder / "tokenizer_config.json", chat_template=template)
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        with pytest.raises(ModelError):
            load_renderer(str(folder))
