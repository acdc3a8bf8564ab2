"""Model internals of a tiny run: hidden states, resumption by system, and the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import make_model

import presafe.workflows.internals as look_module
from presafe.alignment.fit import FitSettings, fit
from presafe.alignment.rows import alignment_rows
from presafe.cli.look import look as command
from presafe.config.recipe import load_recipe
from presafe.errors import PromptError, RunError
from presafe.internals.states import hidden_states
from presafe.internals.views import views_of
from presafe.models.loading import LoadedModel, release_model
from presafe.models.rendering import Renderer
from presafe.records import Signal, Thinking
from presafe.runs.io import write_text
from presafe.signals.calibration import ClassifierCard
from presafe.stages.evaluate import evaluate
from presafe.stages.run_folder import RunFolder
from presafe.stats.intervals import wilson
from presafe.workflows.internals import look

RECIPE = """
name = "tiny"
[model]
address = "{folder}/model"
[respond]
classifier_queries = [{{ file = "{folder}/red.jsonl", expect = "refuse" }}]
alignment_queries = [
    {{ file = "{folder}/red.jsonl", expect = "refuse" }},
    {{ file = "{folder}/blue.jsonl", expect = "comply" }},
]
[align]
systems = ["presafe"]
max_steps = 1
batch_size = 4
learning_rate = 1e-1
warmup_steps = 0
[evaluate]
max_tokens = 4
[evaluate.suites]
red2 = {{ file = "{folder}/red2.jsonl", expect = "refuse" }}
blue2 = {{ file = "{folder}/blue2.jsonl", expect = "comply" }}
sums = {{ set = "arithmetic", n = 2 }}
"""


@pytest.mark.parametrize("thinking", ["on", "off"])
def test_hidden_states_match_a_plain_forward(renderer: Renderer, thinking: Thinking) -> None:
    loaded = LoadedModel(make_model(), renderer)
    texts = ["Hi", "A longer question, so that rows are padded.", "ok"]
    per_prompt = hidden_states(loaded, texts, thinking, batch_size=2)
    assert per_prompt.shape == (3, 2, 32)
    for text, states in zip(texts, per_prompt, strict=True):
        ids = torch.tensor([renderer.render(text, thinking).ids])
        with torch.no_grad():
            plain = loaded.model(ids, output_hidden_states=True).hidden_states
        # [0] are the embeddings; the last is after the final norm
        for layer in (1, 2):
            np.testing.assert_allclose(states[layer - 1], plain[layer][0, -1].numpy(), atol=1e-5)


@pytest.fixture(scope="module")
def run(
    libraries: None, tokenizer: Any, renderer: Renderer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunFolder]:
    """Provide a run whose only system took one large step; nothing was sampled."""
    folder = tmp_path_factory.mktemp("look")
    make_model().save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for name, words in (
        ("red", "red stone number"),
        ("blue", "a blue leaf"),
        ("red2", "some red rock"),
        ("blue2", "the blue tree"),
    ):
        lines = [json.dumps({"prompt": f"{words} {number}"}) + "\n" for number in range(6)]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    (folder / "tiny.toml").write_text(RECIPE.format(folder=folder))
    recipe = load_recipe(folder / "tiny.toml")
    run = RunFolder.open_for(folder / "run", recipe)
    queries = [query for query in run.workload.alignment if query.expect == "refuse"]
    signals = {query.id: Signal(prompt_id=query.id, probability=0.9) for query in queries}
    fit(
        make_model(),
        renderer,
        alignment_rows(queries, {}, signals, renderer, "direct"),
        FitSettings(
            align=recipe.align,
            lambda_align=1.0,
            seed=0,
            folder=run.path / "alignment" / "presafe",
            label="presafe",
            base_model=recipe.model.address,
        ),
    )
    yield run
    release_model()


def test_look_reads_a_run_system_by_system(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def counted(loaded: LoadedModel, prompts: Any, thinking: Thinking, **rest: Any) -> Any:
        passes.append((len(prompts), thinking))
        return hidden_states(loaded, prompts, thinking, **rest)

    monkeypatch.setattr(look_module, "hidden_states", counted)
    vanilla, presafe = look(run, limit=5)
    assert (vanilla.system, vanilla.seed, presafe.system, presafe.seed) == ("vanilla", None, "presafe", 0)
    # five queries of each class and five prompts of each suite; the sums are left out
    assert passes == [(20, "on"), (20, "off")] * 2
    assert vanilla.num_fit == 10
    assert [(p.layer, p.thinking, p.suite, p.n) for p in vanilla.probes] == [
        (layer, mode, "blue2", 10) for layer in (1, 2) for mode in ("on", "off")
    ]
    assert [(cosine.layer, cosine.n) for cosine in vanilla.cosines] == [(1, 10), (2, 10)]
    assert vanilla.layer == 2  # the last, where the head reads
    assert [point.suite for point in vanilla.points] == ["red2"] * 5 + ["blue2"] * 5
    # the step changed what is inside
    assert vanilla.cosines != presafe.cosines
    assert views_of(run.path) == [vanilla, presafe]

    # the same again: nothing is read; with one system gone, that one; with other settings, both
    assert look(run, limit=5) == [vanilla, presafe]
    assert len(passes) == 4
    file = run.path / "inside.json"
    seen = json.loads(file.read_text())
    file.write_text(json.dumps(seen | {"systems": seen["systems"][:1]}))
    assert look(run, limit=5) == [vanilla, presafe]
    assert len(passes) == 6
    assert [view.layer for view in look(run, limit=5, layer=1)] == [1, 1]
    assert len(passes) == 10


def test_look_fails_for_missing_layer_or_kind(run: RunFolder) -> None:
    with pytest.raises(RunError, match="the model has 2 layers, and there is no layer 3"):
        look(run, layer=3)
    evaluate = run.recipe.evaluate
    only = evaluate.model_copy(update={"suites": {"red2": evaluate.suites["red2"]}})
    one_kind = RunFolder(run.path, run.recipe.model_copy(update={"evaluate": only}))
    with pytest.raises(PromptError, match="the run's suites have one kind"):
        look(one_kind)


def test_look_command_adds_internals_to_the_report(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError, match="is not evaluated yet"):
        command(run.path, limit=3)
    for stage in ("respond", "signal", "align"):  # the fixture did their work by hand
        write_text(run.path / "stages" / stage, "done\n")
    with run.working_on("evaluate"):
        evaluate(run)
    none = wilson(1, 2)
    card = ClassifierCard(num_train=2, held_out=none, ece=0.0, traces=none, teacher_unjudged=0, bins=())
    (run.path / "signals").mkdir()
    (run.path / "signals" / "classifier.json").write_text(card.model_dump_json())
    command(run.path, limit=3)
    page = (run.path / "report" / "report.html").read_text()
    assert "on 6 of the" in " ".join(page.split())
    assert 'id="places"' in page
    for name in ("probes", "directions", "plane"):
        assert (run.path / "report" / "figures" / f"{name}.svg").exists()
    assert str(run.path / "report" / "report.html") in capsys.readouterr().out
    assert run.timings()["look"] > 0
