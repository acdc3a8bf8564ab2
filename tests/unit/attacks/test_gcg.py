"""Searches by gradient: what they cost, how they resume, what they read, and what they find on a small model."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from attacked_families import renderer_of
from safetensors.torch import save_file
from tiny_models import make_model, make_tokenizer

from presafe.attacks.attack import Decided, Draw, Objective, Query, Reader, Reply
from presafe.attacks.gcg import Adaptive, Gcg
from presafe.attacks.search import Budget, Search, SearchState
from presafe.attacks.suffix import ANSWER, THOUGHT
from presafe.config.measure import MeasureSettings
from presafe.config.recipe import ModelSettings
from presafe.errors import AttackError
from presafe.evaluation.searching import SearchRecord, searching
from presafe.internals.decision import decision_scores
from presafe.internals.searching import CostReader
from presafe.judges.refusal import is_refusal
from presafe.models.decision_head import DecisionHead, DecisionReading, RefusalStart
from presafe.models.family import families
from presafe.models.loading import LoadedModel
from presafe.models.logs import log_files, read_log
from presafe.models.provider import PreSafeAPI
from presafe.models.rendering import Renderer
from presafe.records import Prompt
from presafe.runs.io import read_record
from presafe.workflows.measure import measure

START = RefusalStart((5,), frozenset({7, 9}))


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return LoadedModel(make_model(), Renderer(make_tokenizer(), families()["smolthink"]))


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> DecisionHead:
    folder = tmp_path_factory.mktemp("head")
    torch.manual_seed(2)
    weights = {"weight": torch.randn(1, 32), "bias": torch.tensor([0.3])}
    save_file(weights, str(folder / "presafe_head.safetensors"))
    return DecisionHead(folder)


class Letters:
    """A reader of a model that likes one letter; it may be killed while it scores."""

    def __init__(self, rounds: int | None = None) -> None:
        self.rounds, self.reader = rounds, Reader(is_refusal, lambda texts: [])
        self.reader.costs, self.reader.neighbors = self.costs, self.neighbors
        self.reader.decides = lambda text: Decided(-1.0 if "e" in text[14:] else 1.0, None)

    def costs(self, texts: Sequence[str], objective: Objective) -> list[float]:
        if self.rounds is not None:
            self.rounds -= 1
            if self.rounds < 0:
                raise KeyboardInterrupt
        self.reader.num_read += 10 * len(texts)
        return [float(20 - text.count("e")) for text in texts]

    def neighbors(self, request: str, suffix: str, objective: Objective, draw: Draw) -> list[str]:
        rng = random.Random(draw.seed)
        places = [rng.randrange(len(suffix)) for _ in range(draw.num)]
        return [suffix[:place] + rng.choice("abcdefgh") + suffix[place + 1 :] for place in places]


def searched(search: Search, letters: Letters, state: SearchState | None = None) -> tuple[list[str], Reply, Budget]:
    asked: list[str] = []

    async def ask(query: Query) -> Reply:
        asked.append(query.text)
        return Reply("", "A wren.", SimpleNamespace(metadata=None))

    earlier = state.tokens if state else 0
    budget = search.budget(lambda: earlier + letters.reader.num_read)
    budget.state = state
    kept: list[SearchState] = []
    budget.keep = kept.append
    try:
        reply = asyncio.run(search.run(Query("Name a bird.", seed=1), ask, letters.reader, budget))
    except KeyboardInterrupt:
        return asked, Reply("", "", None), budget
    return asked, reply, budget


def test_each_target_has_its_cost() -> None:
    assert Gcg().objective() == Objective(ANSWER)
    assert Gcg(target="thought").objective() == Objective(THOUGHT)
    assert Gcg(target="odds").objective() == Objective(None, 1.0)
    assert Adaptive(weight=2.5).objective() == Objective(ANSWER, 2.5)
    assert not ANSWER.thought
    assert ANSWER.closed


def test_a_round_costs_its_candidates_and_one_gradient() -> None:
    # 1 for the answer, 4 rounds of 8 candidates and a gradient: 37 of 40; the fifth round does not fit.
    asked, reply, budget = searched(Gcg(queries=40, width=8, length=6), Letters())
    assert budget.state is not None
    assert (budget.state.queries, len(budget.state.costs)) == (36, 4)
    assert budget.state.tokens == 4 * 8 * 10
    assert asked == [f"Name a bird.{budget.state.suffix}"]
    costs = reply.output.metadata["search"]["costs"]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < costs[0]
    assert "silent" not in reply.output.metadata["search"]  # nothing attacked the decision


def test_tokens_and_minutes_end_a_search() -> None:
    # A round reads 80 tokens: after two of them 160 are spent, and a third is not begun.
    _, _, budget = searched(Gcg(queries=1000, width=8, tokens=160), Letters())
    assert budget.state is not None
    assert len(budget.state.costs) == 2
    late = SearchState(suffix=" x", costs=(3.0,), queries=9, tokens=80, seconds=61.0)
    asked, _, budget = searched(Gcg(queries=1000, width=8, minutes=1.0), Letters(), late)
    assert asked == ["Name a bird. x"]
    assert budget.state == late


def test_a_killed_search_ends_as_if_it_had_not_been() -> None:
    search = Adaptive(queries=100, width=8, length=6)
    whole, whole_reply, whole_budget = searched(search, Letters())
    _, _, killed = searched(search, Letters(rounds=4))
    assert killed.state is not None
    assert len(killed.state.costs) == 4
    resumed, reply, budget = searched(search, Letters(), killed.state)
    assert resumed == whole
    assert reply.output.metadata == whole_reply.output.metadata
    assert reply.output.metadata["search"]["silent"] is True
    assert budget.state is not None
    assert whole_budget.state is not None
    assert budget.state.model_dump(exclude={"seconds"}) == whole_budget.state.model_dump(exclude={"seconds"})


def test_a_state_is_read_again_and_a_damaged_one_set_aside(tmp_path: Path) -> None:
    advanced: list[int] = []

    @contextmanager
    def watched(label: str, total: int) -> Iterator[Callable[[int], None]]:
        assert (label, total) == ("gcg:queries=100, p/1", 100)
        yield advanced.append

    api = PreSafeAPI("smolthink")
    api.searches, api.on_search = tmp_path, watched

    def opened(prompt_id: str = "p/1") -> AbstractContextManager[Budget]:
        return searching(api, Gcg(queries=100), "gcg:queries=100", prompt_id, "Name a bird.", 1, lambda: 5)

    state = SearchState(suffix=" x y", costs=(2.0,), queries=65, tokens=40, seconds=3.0)
    with opened() as budget:
        assert (budget.state, budget.count_tokens()) == (None, 5)
        budget.keep(state)
    with opened() as budget:
        assert (budget.state, budget.count_tokens()) == (state, 45)
    # The bar begins where the killed search was, and moves by what a round took.
    assert advanced == [0, 65, 65]
    (file,) = tmp_path.glob("*.json")
    file.write_text('{"attack": "gcg:queries=100"}', encoding="utf-8")
    with opened() as budget:
        assert budget.state is None
    assert [path.name for path in tmp_path.iterdir()] == [f"{file.name}.damaged"]


def test_a_decision_is_silent_if_neither_says_refuse() -> None:
    assert Decided(-0.1, None).is_silent
    assert Decided(-0.1, -2.0).is_silent
    assert not Decided(0.1, -2.0).is_silent
    assert not Decided(-0.1, 2.0).is_silent


def test_the_cost_of_the_decision_is_that_of_complying(loaded: LoadedModel, head: DecisionHead) -> None:
    texts = ["Name a bird.", "Why?"]
    read = decision_scores(loaded, texts, START, head)
    by_odds = CostReader(loaded, DecisionReading(START)).costs(texts, Objective(decision=2.0))
    both = CostReader(loaded, DecisionReading(START, head)).costs(texts, Objective(ANSWER, 2.0))
    begun = CostReader(loaded).costs(texts, Objective(ANSWER))
    for score, odds_cost, cost, begin in zip(read, by_odds, both, begun, strict=True):
        # −ln(1 − P) = ln(1 + e^logit); of the head, −ln(1 − p).
        assert score.head_probability is not None
        odds = math.log1p(math.exp(score.refusal_logit))
        assert odds_cost == pytest.approx(2 * odds, abs=1e-4)
        assert cost == pytest.approx(begin + 2 * odds - 2 * math.log(1 - score.head_probability), abs=1e-4)
    decided = CostReader(loaded, DecisionReading(START, head)).decides("Why?")
    assert decided.odds == pytest.approx(read[1].refusal_logit, abs=1e-4)
    assert decided.head is not None
    assert 1 / (1 + math.exp(-decided.head)) == pytest.approx(read[1].head_probability, abs=1e-5)


def test_the_gradient_is_that_over_one_hot_tokens(loaded: LoadedModel) -> None:
    model, renderer = loaded.model, loaded.renderer
    text, first = "Why? xyz", 5
    gradient = CostReader(loaded)._gradient(text, len(text), first, Objective(ANSWER))
    ids, begun = renderer.render(text, "on").ids, renderer.prefill_ids(ANSWER)
    one_hot = torch.nn.functional.one_hot(torch.tensor([ids + begun]), 260).float().requires_grad_()
    logits = model(inputs_embeds=one_hot @ model.get_input_embeddings().weight).logits[0].log_softmax(-1)
    cost = -torch.stack([logits[len(ids) - 1 + k, token] for k, token in enumerate(begun)]).mean()
    (expected,) = torch.autograd.grad(cost, one_hot)
    start = renderer.text_start("on")
    allowed = gradient.isfinite()
    assert allowed[0].sum() == 95  # the printable characters of ASCII; the marks of the template are not
    slots = expected[0, start + first : start + len(text)]
    torch.testing.assert_close(gradient[allowed], slots[allowed], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("family", ["smolthink", "r1", "qwen3"])
def test_neighbors_change_one_token_of_the_suffix(family: str) -> None:
    renderer = renderer_of(family)
    size = max(renderer.tokenizer.get_vocab().values()) + 1
    reader = CostReader(LoadedModel(make_model(vocab_size=size), renderer))
    request, suffix = "Name a bird. </think> <|im_end|>", " x x x x"
    before = renderer.render(request + suffix, "on").ids
    places = range(renderer.text_start("on") + len(renderer.text_ids(request)), len(before))
    for text in reader.neighbors(request, suffix, Objective(ANSWER), Draw(6, 64, 3)):
        ids = renderer.render(request + text, "on").ids
        (changed,) = [place for place, pair in enumerate(zip(ids, before, strict=True)) if pair[0] != pair[1]]
        assert changed in places
        assert text.isascii()
        assert renderer.tokenizer.decode(ids[changed : changed + 1]) in text
    drawn = [reader.neighbors(request, suffix, Objective(ANSWER), Draw(6, 64, seed)) for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_head_at_the_thought_is_refused(loaded: LoadedModel, head: DecisionHead, tmp_path: Path) -> None:
    weights = {"weight": head.weight, "bias": head.bias}
    save_file(weights, str(tmp_path / "presafe_head.safetensors"), metadata={"position": "thought_start"})
    with pytest.raises(AttackError, match="reads the thought's first token"):
        CostReader(loaded, DecisionReading(START, DecisionHead(tmp_path)))


def test_searches_on_a_model_leave_their_curves(loaded: LoadedModel, tmp_path: Path) -> None:
    loaded.model.save_pretrained(tmp_path / "model")
    loaded.renderer.tokenizer.save_pretrained(tmp_path / "model")
    prompts = [Prompt(id="p/1", text="Name a bird.", category="c", split="s", license="l", expect="refuse")]
    labels = ("gcg:queries=64,width=8", "adaptive:queries=64,width=8")
    settings = MeasureSettings(thinking=("on",), max_tokens=4, attacks=labels)
    model = ModelSettings(address=str(tmp_path / "model"), family="smolthink")
    data = measure(model, {"mine": prompts}, tmp_path / "out", settings)
    for label in labels:
        files = (tmp_path / "out" / "evaluation" / "vanilla-on" / "searches").glob("*.json")
        (record,) = [record for file in files if (record := read_record(file, SearchRecord)).attack == label]
        assert record.prompt_id == "p/1"
        costs = record.state.costs
        assert len(costs) == 7  # 1 + 7 · 9 = 64
        assert costs[-1] < costs[0] - 0.05
        logs = [read_log(path, lambda _: None) for path in log_files(tmp_path / "out")]
        (sample,) = [sample for log in logs for sample in log.samples or [] if log.eval.task == f"mine@{label}"]
        assert sample.output.metadata is not None
        assert sample.output.metadata["search"]["costs"] == list(costs)
        rows = {score.metric: score.value for score in data.scores if score.suite == f"mine@{label}"}
        assert rows["queries_per_answer"] == 64
        assert ("silent" in sample.output.metadata["search"]) == label.startswith("adaptive")
        spent = sample.output.metadata["spent"]
        assert spent["num_read"] > record.state.tokens > 0
