"""A recipe for runs on models of a few thousand weights, with its models and queries: harmless stand-ins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import make_model
from transformers import BertConfig, BertModel

from presafe.models.rendering import Renderer
from presafe.records import Response
from presafe.stages.evaluate import responses_by_suite
from presafe.stages.respond import responses_of
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import evaluated_systems

REFUSED = [f"red stone {number}" for number in range(4)]
ANSWERED = [f"blue leaf {number}" for number in range(4)]
"""Queries that the teacher below refuses, and queries that it answers."""

RECIPE = """
name = "tiny"
[model]
address = "{folder}/student"
[respond]
teacher = {{ address = "{folder}/teacher" }}
classifier_queries = [
    {{ file = "{folder}/red.jsonl", expect = "refuse" }},
    {{ file = "{folder}/blue.jsonl", expect = "comply" }},
]
alignment_queries = [
    {{ file = "{folder}/red2.jsonl", expect = "refuse" }},
    {{ file = "{folder}/blue3.jsonl", expect = "comply" }},
]
teacher_max_tokens = 24
max_tokens = 8
[signal]
encoder = "{folder}/encoder"
epochs = 2
batch_size = 4
[align]
systems = ["presafe"]
max_steps = 6
batch_size = 2
accumulation = 2
learning_rate = 1e-2
[evaluate.suites]
own = {{ file = "{folder}/blue2.jsonl", expect = "comply" }}
"""


def teach(model: Any, renderer: Renderer) -> None:
    """Train a whole tiny model, CoT off, to decline what is red and to answer what is blue."""
    rows = [(text, "I can't help with that.") for text in REFUSED] + [(text, "Sure, here it is.") for text in ANSWERED]
    encoded = [(renderer.render(text, "off").ids, renderer.tokenizer.encode(answer)) for text, answer in rows]
    end = renderer.tokenizer.eos_token_id
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    width = max(len(prompt) + len(answer) + 1 for prompt, answer in encoded)
    ids = torch.full((len(encoded), width), renderer.tokenizer.pad_token_id)
    labels = torch.full_like(ids, -100)
    for row, (prompt, answer) in enumerate(encoded):
        tokens = torch.tensor([*prompt, *answer, end])
        ids[row, : len(tokens)] = tokens
        labels[row, len(prompt) : len(tokens)] = tokens[len(prompt) :]
    mask = (ids != renderer.tokenizer.pad_token_id).long()
    model.train()
    for _ in range(200):
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        if loss < 0.03:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.05, loss
    model.eval()


@pytest.fixture(scope="module")
def recipe(libraries: None, tokenizer: Any, renderer: Renderer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a recipe, its models and its queries."""
    return write_recipe(tmp_path_factory.mktemp("tiny"), tokenizer, renderer)


def write_recipe(folder: Path, tokenizer: Any, renderer: Renderer) -> Path:
    """Write a recipe, its models and its queries, and return the recipe's file."""
    teacher = make_model(1)
    teach(teacher, renderer)
    torch.manual_seed(2)
    encoder = BertModel(
        BertConfig(
            vocab_size=260,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=256,
        )
    )
    for name, model in (("student", make_model()), ("teacher", teacher), ("encoder", encoder)):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    for name, texts in (
        ("red", REFUSED),
        ("blue", ANSWERED),
        ("red2", [f"a {text}" for text in REFUSED]),
        ("blue2", [f"a {text}" for text in ANSWERED]),
        ("blue3", [f"the {text}" for text in ANSWERED]),
    ):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    file = folder / "tiny.toml"
    file.write_text(RECIPE.format(folder=folder))
    return file


def answers(run: RunFolder) -> dict[str, list[Response]]:
    """Return all responses of an evaluated run of the recipe."""
    asked = {name: responses_of(run, name) for name in ("teacher", "traces", "own")}
    return asked | {str(system): responses_by_suite(run, system)["own"] for system in evaluated_systems(run.recipe)}
