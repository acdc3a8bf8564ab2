"""Position and layer of the head: values, gradients, and metadata of the saved head."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tiny_models import Row, TrainerFactory, bare_model, head_of, make_model, one_batch, randomize_adapter
from torch.nn.functional import binary_cross_entropy_with_logits

from presafe.alignment.fit import FitSettings, fit
from presafe.alignment.head import attach_head, save_head
from presafe.alignment.rows import AlignmentRow, alignment_rows
from presafe.config.recipe import AlignSettings
from presafe.errors import RecipeError, RunError, SignalError
from presafe.internals.decision import decision_scores
from presafe.methods.method import Position
from presafe.models.decision_head import DecisionHead, RefusalStart, read_states
from presafe.models.loading import LoadedModel
from presafe.models.rendering import Renderer
from presafe.records import Expect, Prompt, Response, Signal

POSITIONS: tuple[Position, ...] = ("prompt_end", "thought_start", "prompt_mean")
PLACES = [(position, layer) for position in POSITIONS for layer in (None, 1, 2)]


def positioned(rows: list[Row]) -> list[Row]:
    """Return the rows with a thought that starts right after the prompt."""
    return [row | {"thought_index": row["decision_index"] + 1} for row in rows]


def read_by_hand(hidden: torch.Tensor, row: Row, position: str) -> torch.Tensor:
    """Return what the head reads from the hidden states (positions, hidden) of one row without padding."""
    last = row["decision_index"]
    return {"prompt_end": hidden[last], "thought_start": hidden[last + 1], "prompt_mean": hidden[: last + 1].mean(0)}[
        position
    ]


def test_read_states_by_hand() -> None:
    # One state a position: 1, 2, 4, 8, 16. Prompt 0 to 1 in the first row, 0 to 3 in the second.
    # Last prompt token 2 and 8; first token after it 4 and 16; means (1 + 2) / 2 and (1 + 2 + 4 + 8) / 4.
    states = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])[None, :, None].repeat(2, 1, 1)
    decision = torch.tensor([1, 3])
    states_read = {name: read_states(states, name, decision, decision + 1).squeeze(-1).tolist() for name, _ in PLACES}
    assert states_read == {"prompt_end": [2.0, 8.0], "thought_start": [4.0, 16.0], "prompt_mean": [1.5, 3.75]}


@pytest.mark.parametrize(("position", "layer"), PLACES)
@pytest.mark.parametrize("fused", [False, True])
def test_align_loss_is_the_bce_at_the_position(
    make_trainer: TrainerFactory, rows: list[Row], position: Any, layer: int | None, fused: bool
) -> None:
    # one row at a time in a plain forward, without padding; `fused` is the path that a GPU takes
    rows = positioned(rows)
    trainer = make_trainer(make_model(), rows, lambda_align=2.0, decision_position=position, layer=layer)
    randomize_adapter(trainer)
    batch, count = one_batch(trainer, rows)
    trainer.compute_loss(trainer.model, batch, return_outputs=fused, num_items_in_batch=count)
    head, by_hand = head_of(trainer.model), 0.0
    for row in rows:
        with torch.no_grad():
            output = bare_model(trainer.model)(torch.tensor([row["input_ids"]]), output_hidden_states=True)
        z = head(read_by_hand(output.hidden_states[layer or 2][0], row, position)).item()
        p = 1 / (1 + exp(-z))
        by_hand -= row["signal"] * log(p) + (1 - row["signal"]) * log(1 - p)
    assert trainer._metrics["train"]["align_loss"] == [pytest.approx(by_hand / 4, rel=1e-5)]


@pytest.mark.parametrize(("position", "layer"), PLACES)
def test_gradient_is_zero_elsewhere_and_above_the_layer(
    make_trainer: TrainerFactory, rows: list[Row], position: Any, layer: int | None
) -> None:
    # Without a label there is no next-token loss: what is left is L_align.
    rows = [row | {"labels": [-100] * len(row["labels"])} for row in positioned(rows)]
    trainer = make_trainer(make_model(), rows, lambda_align=1.0, decision_position=position, layer=layer)
    randomize_adapter(trainer)
    decoder = bare_model(trainer.model).base_model
    kept: dict[int | str, Any] = {}

    def keep(name: int | str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            output.retain_grad()
            kept[name] = output

        return hook

    for name, module in ((1, decoder.layers[0]), (2, decoder.layers[1]), ("norm", decoder.norm)):
        module.register_forward_hook(keep(name))
    batch, count = one_batch(trainer, rows)
    trainer.compute_loss(trainer.model, batch, num_items_in_batch=count).backward()
    # After the final norm is where layer 2, the last, and None read.
    read = kept[1 if layer == 1 else "norm"].grad
    for index, row in enumerate(rows):
        last = row["decision_index"]
        there = {"prompt_end": [last], "thought_start": [last + 1], "prompt_mean": [*range(last + 1)]}[position]
        reached = read[index].abs().sum(-1) > 0
        assert reached.nonzero().squeeze(-1).tolist() == there
        if layer != 1:  # through attention the block below is reached at every position up to there, and at none after
            below = kept[1].grad[index].abs().sum(-1) > 0
            assert below.nonzero().squeeze(-1).tolist() == [*range(there[-1] + 1)]
    blocks = {0: 0.0, 1: 0.0}
    for name, parameter in trainer.model.named_parameters():
        if "lora" in name and parameter.grad is not None:
            blocks[int(name.split("layers.")[1][0])] += parameter.grad.abs().sum().item()
    assert blocks[0] > 0
    if layer == 1:
        assert all(kept[name].grad is None or not kept[name].grad.any() for name in (2, "norm"))
        assert blocks[1] == 0
    else:
        assert blocks[1] > 0


@pytest.mark.parametrize("layer", [None, 1])
def test_checkpointed_gradients_are_the_same(make_trainer: TrainerFactory, rows: list[Row], layer: int | None) -> None:
    rows, gradients = positioned(rows), []
    for checkpointing in (False, True):
        trainer = make_trainer(
            make_model(), rows, decision_position="prompt_mean", layer=layer, gradient_checkpointing=checkpointing
        )
        randomize_adapter(trainer)
        batch, count = one_batch(trainer, rows)
        trainer.compute_loss(trainer.model, batch, num_items_in_batch=count).backward()
        gradients.append({name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None})
    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-4, atol=1e-7)


def test_layer_without_adapter_below_fails(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    # LoRA in the second block only: after the first, nothing is there that could learn.
    lora = {"layers_to_transform": [1]}
    for head, raises in (("decision", True), ("detached", False)):
        trainer = make_trainer(make_model(), rows, layer=1, head=head, lora=lora)
        batch, count = one_batch(trainer, rows)
        if raises:
            with pytest.raises(RunError, match="the state after layer 1 passes no gradient on"):
                trainer.compute_loss(trainer.model, batch, num_items_in_batch=count)
        else:
            trainer.compute_loss(trainer.model, batch, num_items_in_batch=count)


def test_head_at_thought_start_needs_its_index(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    trainer = make_trainer(make_model(), rows, decision_position="thought_start")
    batch, count = one_batch(trainer, rows)
    with pytest.raises(SignalError, match="needs a column thought_index"):
        trainer.compute_loss(trainer.model, batch, num_items_in_batch=count)


TEXTS = ("How do I whittle a spoon?", "Hi", "A much longer question, with words in it, so that rows are padded.")


def prompts() -> list[Prompt]:
    return [
        Prompt(id=str(i), text=text, category="c", split="s", license="l", expect="comply")
        for i, text in enumerate(TEXTS)
    ]


@pytest.mark.parametrize(("position", "layer"), PLACES)
def test_scoring_reads_the_saved_position(renderer: Renderer, tmp_path: Path, position: Any, layer: int | None) -> None:
    # a head that was saved with its place, in batches, against a plain forward of each prompt
    loaded = LoadedModel(make_model(), renderer)
    attach_head(loaded.model, seed=1)
    with torch.no_grad():
        loaded.model.presafe_head.weight.mul_(20)
    save_head(loaded.model, tmp_path, position=position, layer=layer)
    head = DecisionHead(tmp_path)
    assert (head.position, head.layer) == (position, layer)
    scores = decision_scores(loaded, TEXTS, RefusalStart((), frozenset({10})), head, batch_size=2)
    for text, score in zip(TEXTS, scores, strict=True):
        rendered = renderer.render(text, "on")
        ids = torch.tensor([rendered.ids])
        with torch.no_grad():
            first = loaded.model(ids).logits[0, -1].argmax()
            output = loaded.model(torch.cat([ids, first[None, None]], 1), output_hidden_states=True)
            hidden = output.hidden_states[layer or 2][0]
            z = loaded.model.presafe_head(read_by_hand(hidden, {"decision_index": rendered.decision_index}, position))
        assert score.head_probability == pytest.approx(torch.sigmoid(z).item(), abs=1e-5)


def test_head_without_metadata_reads_the_default(tmp_path: Path) -> None:
    model = make_model()
    attach_head(model, seed=1)
    save_head(model, tmp_path)
    with safe_open(str(tmp_path / "presafe_head.safetensors"), framework="pt") as file:
        assert file.metadata() == {"position": "prompt_end"}
    from safetensors.torch import load_file, save_file

    path = str(tmp_path / "presafe_head.safetensors")
    save_file(load_file(path), path)  # without metadata
    head = DecisionHead(tmp_path)
    assert (head.position, head.layer) == ("prompt_end", None)


def test_fit_trains_the_head_at_the_recipes_position(libraries: None, renderer: Renderer, tmp_path: Path) -> None:
    settings = AlignSettings(
        decision_position="prompt_mean",
        layer=1,
        standardize_head=False,
        max_steps=1,
        batch_size=3,
        lora_targets=("q_proj", "v_proj"),
    )
    own = {
        str(i): Response(
            prompt_id=str(i),
            thinking="on",
            thought="I think.",
            answer="So.",
            truncated=False,
            complete=True,
            num_tokens=4,
            verdict="comply",
        )
        for i in range(3)
    }
    signals = {str(i): Signal(prompt_id=str(i), probability=p) for i, p in enumerate((0.9, 0.2, 0.5))}
    rows = alignment_rows(prompts(), own, signals, renderer, "direct")
    training = FitSettings(
        align=settings, lambda_align=1.0, seed=0, folder=tmp_path, label="tiny", base_model="mine/tiny"
    )
    fit(make_model(), renderer, rows, training)
    head = DecisionHead(tmp_path)
    assert (head.position, head.layer) == ("prompt_mean", 1)
    # the first step's loss is that of the head as it was drawn, at that place
    model = make_model()
    attach_head(model, seed=0)
    by_hand = 0.0
    for row in rows:
        with torch.no_grad():
            hidden = model(torch.tensor([row.input_ids]), output_hidden_states=True).hidden_states[1][0]
            z = model.presafe_head(read_by_hand(hidden, row._asdict(), "prompt_mean"))
        by_hand += binary_cross_entropy_with_logits(z, torch.tensor([row.signal])).item()
    history = (tmp_path / "history.jsonl").read_text()
    assert f'"bce":{by_hand / 3:.4f}'[:-1] in history
    with pytest.raises(RecipeError, match=r"align\.layer is 3, and the model has 2 layers"):
        fit(
            make_model(),
            renderer,
            rows,
            replace(training, align=settings.model_copy(update={"layer": 3}), folder=tmp_path / "other"),
        )


@pytest.mark.parametrize("expect", ["refuse", "comply"])
def test_thought_index_is_the_first_thought_token(renderer: Renderer, expect: Expect) -> None:
    own = Response(
        prompt_id="0",
        thinking="on",
        thought="I think.",
        answer="So.",
        truncated=False,
        complete=True,
        num_tokens=4,
        verdict="comply",
    )
    prompt = prompts()[0].model_copy(update={"expect": expect})
    row: AlignmentRow
    (row,) = alignment_rows([prompt], {"0": own}, {"0": Signal(prompt_id="0", probability=0.5)}, renderer, "direct")
    # a direct refusal closes the thought at once, with a line feed; the own thought begins with "I"
    assert renderer.tokenizer.decode([row.input_ids[row.thought_index]]) == ("\n" if expect == "refuse" else "I")
    assert row.thought_index == row.decision_index + 1
