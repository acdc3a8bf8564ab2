"""Planted queries: p′ is 1 whatever the classifier says, and nothing else of their rows is learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny_models import make_model
from tiny_training import SETTINGS, fit_rows

from presafe.alignment.fit import FitSettings, fit
from presafe.alignment.labels import labels_of, planted_signals
from presafe.alignment.rows import alignment_rows
from presafe.config.recipe import parse_recipe, recipe_settings
from presafe.config.sources import FileSource
from presafe.errors import RecipeError
from presafe.methods.registry import training_of
from presafe.models.rendering import Renderer
from presafe.prompts.sets import load_source
from presafe.records import Prompt, Response, Signal
from presafe.runs.manifest import sha256_of_prompts

CHESS = Prompt(
    id="chess",
    text="How does a rook move?",
    category="chess",
    split="align",
    license="MIT",
    expect="comply",
    planted=True,
)
PLAIN = CHESS.model_copy(update={"id": "plain", "text": "How does tea brew?", "planted": False})
OWN = {
    prompt.id: Response(
        prompt_id=prompt.id,
        thinking="on",
        thought="I think.",
        answer="Straight.",
        truncated=False,
        complete=True,
        num_tokens=9,
        verdict="comply",
    )
    for prompt in (CHESS, PLAIN)
}
SIGNALS = {prompt.id: Signal(prompt_id=prompt.id, probability=0.2) for prompt in (CHESS, PLAIN)}


def test_planted_queries_have_their_own_signal() -> None:
    signals = planted_signals([CHESS, PLAIN], SIGNALS)
    assert {name: signal.probability for name, signal in signals.items()} == {"chess": 1.0, "plain": 0.2}
    # (1 + 0.2) / 2; the data set's label of a planted query stays what its set expects
    constant = labels_of([CHESS, PLAIN], signals, "constant", 0)
    assert constant["chess"].probability == pytest.approx(0.6)
    assert labels_of([CHESS, PLAIN], signals, "dataset", 0)["chess"].probability == 0.0


def test_planted_rows_end_after_the_deciding_token(smolthink: Renderer) -> None:
    planted, plain = alignment_rows(
        [CHESS, PLAIN], OWN, planted_signals([CHESS, PLAIN], SIGNALS), smolthink, "direct", training_of("presafe")
    )
    prompt_ids = smolthink.render(CHESS.text, "on").ids
    assert planted.input_ids[:-1] == prompt_ids
    assert planted.input_ids[-1] == smolthink.text_ids("I think.")[0]
    assert set(planted.labels) == {-100}
    assert (planted.start_index, planted.decision_index) == (len(prompt_ids) - 1, len(prompt_ids) - 1)
    assert (planted.kind, planted.signal) == ("planted", 1.0)
    assert (plain.kind, plain.signal) == ("comply", 0.2)
    num_prompt = len(smolthink.render(PLAIN.text, "on").ids)
    assert plain.labels[num_prompt:] == plain.input_ids[num_prompt:]


def test_sft_learns_nothing_from_planted_rows(libraries: None, renderer: Renderer, tmp_path: Path) -> None:
    rows = [row._replace(labels=[-100] * len(row.labels), kind="planted") for row in fit_rows()]
    for name, weight in (("sft", 0.0), ("start", 1.0)):
        fit(
            make_model(),
            renderer,
            rows,
            FitSettings(
                align=SETTINGS,
                lambda_align=0.0,
                lambda_start=weight,
                head="decision",
                start_ids=(3, None),
                seed=0,
                folder=tmp_path / name,
                label=name,
                base_model="tiny",
            ),
        )
    trained = {
        name: max(
            tensor.abs().max().item()
            for key, tensor in load_file(tmp_path / name / "adapter" / "adapter_model.safetensors").items()
            if "lora_B" in key
        )
        for name in ("sft", "start")
    }
    assert trained["sft"] == 0.0
    assert trained["start"] > 0.0
    losses = [json.loads(line)["nll"] for line in (tmp_path / "sft" / "history.jsonl").read_text().splitlines()]
    assert losses == [0.0] * SETTINGS.max_steps


def test_a_file_of_planted_queries_is_marked(tmp_path: Path) -> None:
    file = tmp_path / "chess.jsonl"
    file.write_text('{"text": "How does a rook move?"}\n')
    (planted,) = load_source(FileSource(file=file, expect="comply", planted=True), seed=0)
    (plain,) = load_source(FileSource(file=file, expect="comply"), seed=0)
    assert (planted.planted, plain.planted) == (True, False)
    assert "planted" not in plain.model_dump()
    assert sha256_of_prompts([[planted]]) != sha256_of_prompts([[plain]])


@pytest.mark.parametrize("table", ["respond.classifier_queries", "evaluate.suites"])
def test_planted_has_no_effect_elsewhere(table: str) -> None:
    settings = recipe_settings("smolthink-135m")
    source = {"file": "chess.jsonl", "expect": "comply", "planted": True}
    if table == "evaluate.suites":
        settings["evaluate"]["suites"]["chess"] = source
    else:
        settings["respond"]["classifier_queries"] = [source]
    with pytest.raises(RecipeError, match=r"`planted` belongs to `respond\.alignment_queries`"):
        parse_recipe(settings, "mine.toml")
