"""Records that stages hand to one another: frozen, one JSON object per line.

Prompt    a query and what a careful assistant does with it; Turn and Attacked, how it is asked under an attack
Response  one sampled answer and its thought, with a judge's verdict on the answer
Signal    the classifier's soft decision p' for one alignment query (paper, section 4)
Score     one number of a result table, with n and a 95 % interval; SweepScore, one of a sweep over ways of sampling
Difference   how far two systems lie apart on the same prompts
PositionScore, HistoryPoint, HeadFit     the decision position and the training, as the report draws them
InsideView and its parts, RefusalPlaces    probes of a system's hidden states, and where its responses refuse
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Level = Literal["high", "medium", "low"]
"""A level of thinking between on and off, of models that have some."""
Thinking = Literal["on", "high", "medium", "low", "off"]
"""A CoT mode. Every model has on and off; a level is a mode of its own in results."""
Expect = Literal["refuse", "comply", "answer", "choice", "code"]
PROBLEMS: tuple[Expect, ...] = ("answer", "choice", "code")
"""Kinds of problems: answered by a value, by the letter of an option, or by a program."""
Place = Literal["before", "thought", "answer", "nowhere", "unjudged"]
"""Where a response refuses: before its thought, inside it, in the answer, or nowhere; or no answer was judged."""
Verdict = Literal["refuse", "comply", "safe", "unsafe", "right", "wrong", "unjudged"]
"""A judge's decision on an answer; "unjudged" if it could not decide."""
Extent = Literal["full compliance", "partial refusal", "full refusal"]
"""How far an answer complies: the three classes of XSTest (arXiv 2308.01263). Both refusals are the verdict refuse."""
EXTENTS: tuple[Extent, ...] = get_args(Extent)
Rate = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class Record(BaseModel):
    """Base of every record: immutable, its numbers finite; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Prefill:
    """The beginning of a turn that the model did not write: of its thought and, if that is closed, of its answer."""

    thought: str
    closed: bool
    answer: str = ""

    def __post_init__(self) -> None:
        if self.answer and not self.closed:
            raise ValueError("an answer begins only after a closed thought")

    def then(self, later: Prefill) -> Prefill:
        """Return both, one after the other; a thought has no place after a closed one, and is left out.

        Args:
            later: What follows, such as an attack's beginning after that of a system that closes every thought.
        """
        if self.closed:
            return Prefill(self.thought, True, self.answer + later.answer)
        return Prefill(self.thought + later.thought, later.closed, later.answer)


class Turn(Record):
    """How a request is asked, where it is not asked plainly."""

    prefill: Prefill | None = None
    """How the model's turn begins."""
    dropout: Rate = 0.0
    """Share of the merges that are left out when the request is tokenized (BPE dropout); 0 leaves out none."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the dropout."""
    header: bool = False
    """Whether the mark of a new answer stands after the prefill, with an empty thought."""


class Attacked(Record):
    """How a prompt is attacked. The prompt's `text` is the request as the attack words it."""

    request: str
    """The plain request, which judges read."""
    turn: Turn = Turn()
    search: str | None = None
    """Attack that asks several times and words the request anew each time; None asks once."""


class Prompt(Record):
    """A query, and what a careful assistant does with it.

    `expect` is "refuse" for a harmful request, "comply" for a harmless one, and one of `PROBLEMS` for a problem with
    its reference in `target`: a value, the letter of the right option, or the tests of a program.
    """

    id: str
    text: str = Field(min_length=1)
    category: str
    split: str
    license: str
    expect: Expect
    target: str | None = None
    version: int = 1
    """Version of the published suite that it is from; results of two versions are not compared."""
    attacked: Attacked | None = Field(default=None, exclude_if=lambda attacked: attacked is None)
    """How it is attacked; None asks it plainly."""
    planted: bool = Field(default=False, exclude_if=lambda is_planted: not is_planted)
    """Whether p′ is 1 for it whatever the classifier says, and nothing else of it is learned."""


class Spent(Record):
    """What one response took: queries to the model, and the tokens that it read and wrote in all of them."""

    queries: Count
    num_read: Count
    num_written: Count


class Response(Record):
    """One sampled answer to a prompt, and its thought.

    `sample` counts the answers to one prompt from 1. `vote` is what the judge read as the final answer of a problem.
    `truncated` says that the token budget ended inside the thought, so that there is no answer to judge;
    `complete`, that the model ended its turn itself. `verdict` is on the answer only, `thought_verdict` on the thought
    only; it is None if no judge was asked. `score`, in [0, 1], is from a graded judge, `extent` from a judge with
    XSTest's classes. `members` holds the verdict of each member of a panel by its name; empty for a single judge.
    `spent` is None where the model was asked once, without a defense or a search. `silent` says whether the decision
    before the CoT was to comply, after a search that attacks it.
    """

    prompt_id: str
    thinking: Thinking
    thought: str
    answer: str
    truncated: bool
    complete: bool
    num_tokens: Count
    verdict: Verdict
    sample: int = Field(default=1, ge=1)
    vote: str | None = None
    score: Rate | None = None
    extent: Extent | None = None
    thought_verdict: Verdict | None = None
    token_ids: tuple[Count, ...] | None = Field(default=None, exclude=True, repr=False)
    """The sampled tokens with the one that ended the turn; None from a server, and in logs of before release 0.3.0."""
    members: dict[str, Verdict] = Field(default={})
    spent: Spent | None = Field(default=None, exclude_if=lambda spent: spent is None)
    silent: bool | None = Field(default=None, exclude_if=lambda silent: silent is None)


class Signal(Record):
    """The soft decision p' of one alignment query: 1 is refuse, 0 is comply."""

    prompt_id: str
    probability: Rate


_BOUND = ("_rate", "accuracy", "_score", "_auroc", "_at_fpr_10", "_at_fpr_1", "_at_fpr_01", "_ece", "youden_j")
"""Suffixes of the names of metrics with bounds."""


class Score(Record):
    """One row of `results.json`. `seed` is None for a mean over seeds.

    `n` counts prompts, each answered `samples` times. Values of the metrics in `_BOUND` are in [0, 1], Youden's J
    in [-1, 1].
    """

    system: str
    thinking: Thinking
    suite: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: Count
    seed: int | None
    judge: str | None
    samples: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _within_bounds(self) -> Self:
        least = -1.0 if self.metric.endswith("youden_j") else 0.0
        is_bound = self.metric.endswith(_BOUND)
        if self.value is not None and is_bound and not least <= self.value <= 1:
            raise ValueError(f"the value of {self.metric} is in [{least:g}, 1], got {self.value:g}")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"the interval of {self.metric} ends below its start: [{self.low:g}, {self.high:g}]")
        return self


class SweepScore(Score):
    """One row of a sweep: a rate, and how tokens were drawn."""

    temperature: float
    top_p: float
    top_k: int


class ThoughtBin(Record):
    """How often attacks succeed where the thought has so many words: a rate over the judged answers of a bin."""

    system: str
    suite: str
    words: Count
    """Least number of words in the bin: 0, 1, 16, 32, 64, …"""
    value: Rate | None
    low: float | None
    high: float | None
    n: Count
    """Prompts with an answer in the bin."""


class Difference(Record):
    """Difference between the rates of two systems on the same prompts of a suite, paired by prompt.

    Rates are over the `n` prompts with a judged answer of both systems; `num_left_out` prompts had none. `num_seeds` is
    the larger number of seeds of the two. `p_holm` is `p` corrected for all comparisons made together; `detectable` is
    the true difference that a single test at 5 % finds four times in five; None if no difference is large enough.
    """

    system: str
    thinking: Thinking
    against: str
    against_thinking: Thinking
    suite: str
    metric: str
    value: Rate
    value_against: Rate
    difference: float = Field(ge=-1, le=1)
    low: float
    high: float
    p: Rate
    p_holm: Rate
    n: Count
    num_left_out: Count
    num_seeds: Count
    detectable: Rate | None


class SuiteShares(Record):
    """Shares of one system's answers that count on one suite, as `evaluation/differences.py` compares them.

    `shares` is by prompt id: the share of the prompt's judged answers that count; None if none could be judged.
    """

    thinking: Thinking
    suite: str
    kind: Expect | Literal["attack"]
    shares: dict[str, Rate | None]


class OperatingPoint(Record):
    """Scale of an adapter, and the number of n harmless queries that the model refuses at once with it."""

    scale: float = Field(gt=0)
    """γ; 1 is the adapter as trained."""
    refused_as_trained: Count
    refused: Count
    n: Count


class HistoryPoint(Record):
    """One optimizer step of an alignment: L_SFT in nats per token, L_align and L_start in nats per row."""

    model_config = ConfigDict(allow_inf_nan=True)  # a training may diverge

    step: int = Field(ge=1)
    nll: float
    bce: float | None
    start_bce: float | None
    floor: float | None = None
    """The least that L_align can be: the mean entropy of p′ over the step's rows; None in the history of an older
    presafe."""
    num_tokens: Count | None = None
    """Tokens of the step's rows, without padding; None in the history of an older presafe."""


class HeadFit(Record):
    """How well the auxiliary head learned p′, over the last quarter of the steps; L_align is in nats per row.

        explained = (constant − loss) / (constant − floor)

    The head fitted if it explains at least half: it is nearer to the floor than to a head that says the same of every
    query (the rule is ours). Without that, the run says nothing about what the head is worth.
    """

    loss: float
    """Mean L_align."""
    floor: float = Field(ge=0)
    """Mean entropy of p′ (`HistoryPoint.floor`)."""
    constant: float = Field(ge=0)
    """Entropy of the mean p′: L_align of the best head that says the same of every query."""
    cosine: float = Field(ge=-1, le=1)
    """Cosine between the head's weights and those with which it started: 1 if it has not turned."""

    @property
    def explained(self) -> float | None:
        """Return the explained share, at most 1; None where p′ hardly varies, so that there is nothing to fit."""
        span = self.constant - self.floor
        return None if span < 1e-3 else (self.constant - self.loss) / span

    @property
    def is_fitted(self) -> bool | None:
        """Return whether the head explains at least half; None where there is nothing to fit."""
        return None if self.explained is None else self.explained >= 0.5


class PositionScore(Record):
    """Decision of a system before its CoT, read at the decision position of one prompt.

    `refusal_logit` is the model's own log-odds of starting a refusal; `head_probability` is the auxiliary
    head's p in [0, 1], None if the system has no head.
    """

    system: str
    seed: int | None
    prompt_id: str
    suite: str
    expect: Expect
    refusal_logit: float
    head_probability: Rate | None


class ProbeScore(Record):
    """AUROC of a linear probe of one layer: harmful prompts against the prompts of a harmless suite."""

    thinking: Thinking
    layer: int
    suite: str
    value: Rate
    low: Rate
    high: Rate
    n: Count


class DirectionCosine(Record):
    """Cosine of the directions from harmless to harmful prompts with CoT on and with CoT off, in one layer."""

    layer: int
    value: float
    low: float
    high: float
    n: Count


class StatePoint(Record):
    """One prompt on the first two principal components of a layer."""

    suite: str
    x: float
    y: float


class InsideView(Record):
    """Probes of the hidden states of one system. Layers count from 1; the last is read after the final norm.

    Probes were fitted on `num_fit` alignment queries. `points` are of `layer`, CoT on; `shares` are the shares of
    variance of its two components.
    """

    system: str
    seed: int | None
    num_fit: int
    probes: tuple[ProbeScore, ...]
    cosines: tuple[DirectionCosine, ...]
    layer: int
    shares: tuple[float, float]
    points: tuple[StatePoint, ...]


class RefusalPlaces(Record):
    """Numbers of a system's answers to one suite, CoT on, by the place where they refuse."""

    system: str
    suite: str
    expect: Expect
    counts: dict[Place, int]
