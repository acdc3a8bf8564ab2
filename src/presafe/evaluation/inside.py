"""What hidden states know, layer by layer, and where in a response the refusal happens. Pure functions.

    probe       logistic regression fitted on some prompts' states and read on others': can a line tell them?
    direction   mean state of harmful prompts − mean state of harmless ones    (the "refusal direction" of Arditi et al.
                2024, arXiv 2406.11717), and the cosine of two such directions
    plane       the first two principal components
    place       before the thought, inside it, in the answer, or nowhere

The paper's referees asked for activations before and after alignment; which of these they had in mind it does not say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from presafe.intervals import Interval
from presafe.judges.refusal import is_refusal, judge_thought
from presafe.records import Place, Response

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float

_PENALTY = 1.0
"""Weight of ½‖w‖² against the sum of losses: the customary C = 1 of regularised logistic regression."""


class Probe(NamedTuple):
    """A linear probe: features are standardised by the mean and spread of the states that it was fitted on."""

    mean: Float[np.ndarray, " hidden"]
    spread: Float[np.ndarray, " hidden"]
    weight: Float[np.ndarray, " hidden"]
    bias: float

    def logits(self, states: Float[np.ndarray, "prompts hidden"]) -> list[float]:
        """Log-odds that each prompt is harmful."""
        found: list[float] = ((states - self.mean) / self.spread @ self.weight + self.bias).tolist()
        return found


class Plane(NamedTuple):
    """States on their first two principal components, and the share of all variance on each."""

    points: Float[np.ndarray, "prompts 2"]
    shares: tuple[float, float]


def fit_probe(
    states: Float[np.ndarray, "prompts hidden"], harmful: Bool[np.ndarray, " prompts"], penalty: float = _PENALTY
) -> Probe:
    """Logistic regression on standardised features x, to convergence.

        min over w, b of   Σⱼ −ln σ(±(w·xⱼ + b)) + penalty · ½‖w‖²        + where prompt j is harmful

    Args:
        states: Hidden states of one layer.
        harmful: Which prompts are harmful; some are, and some are not.
        penalty: At least 0.
    """
    import numpy as np
    from scipy.optimize import minimize
    from scipy.special import expit

    found = states.astype(np.float64)
    mean, spread = found.mean(0), found.std(0)
    spread[spread == 0] = 1.0  # a feature that is the same for all says nothing
    x, sign = (found - mean) / spread, np.where(harmful, 1.0, -1.0)

    def loss(point: Float[np.ndarray, " one_more"]) -> tuple[float, Float[np.ndarray, " one_more"]]:
        weight, bias = point[:-1], point[-1]
        margin = sign * (x @ weight + bias)
        slope = -sign * expit(-margin)
        gradient = np.concatenate([x.T @ slope + penalty * weight, [slope.sum()]])
        return float(np.logaddexp(0, -margin).sum() + penalty * weight @ weight / 2), gradient

    fitted = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return Probe(mean, spread, fitted[:-1], float(fitted[-1]))


def cosine(
    left: Float[np.ndarray, "prompts hidden"],
    right: Float[np.ndarray, "prompts hidden"],
    harmful: Bool[np.ndarray, " prompts"],
    *,
    seed: int = 0,
    draws: int = 500,
) -> Interval:
    """Cosine of the directions in two sets of states of the same prompts, with a 95 % bootstrap interval over prompts.

    The interval is the basic one, 2θ − quantiles: noise in the means pulls every bootstrap cosine towards 0, and this
    one turns that pull round. Classes are drawn apart, the prompts of both sides together.

    Args:
        left: States such as those with CoT on.
        right: States of the same prompts in the same order, such as those with CoT off.
        harmful: Which prompts are harmful; some are, and some are not.
        seed: Seed of the draws.
        draws: Bootstrap samples.

    Returns:
        The cosine in [−1, 1]; n counts prompts.

    Source: Davison and Hinkley 1997, section 5.2, for the basic interval.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    sides = [side.astype(np.float64) for side in (left, right)]
    once = [side[harmful].mean(0) - side[~harmful].mean(0) for side in sides]
    drawn: list[Float[np.ndarray, "draws hidden"]] = [np.zeros((draws, left.shape[1])) for _ in sides]
    for of, factor in ((harmful, 1), (~harmful, -1)):
        num = int(of.sum())
        shares = rng.multinomial(num, [1 / num] * num, size=draws) / num
        drawn = [sum_ + factor * shares @ side[of] for sum_, side in zip(drawn, sides, strict=True)]
    value = float(_cosines(*(each[None] for each in once))[0])
    low, high = 2 * value - np.percentile(_cosines(*drawn), [97.5, 2.5])
    return Interval(value, max(-1.0, min(value, float(low))), min(1.0, max(value, float(high))), len(harmful))


def _cosines(
    left: Float[np.ndarray, "draws hidden"], right: Float[np.ndarray, "draws hidden"]
) -> Float[np.ndarray, " draws"]:
    import numpy as np

    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    # Two means that are the same have no direction.
    found: Float[np.ndarray, " draws"] = (left * right).sum(1) / np.where(lengths == 0, 1.0, lengths)
    return found


def plane(states: Float[np.ndarray, "prompts hidden"], harmful: Bool[np.ndarray, " prompts"]) -> Plane:
    """Centred states on their first two principal components.

    Args:
        states: Hidden states of one layer, at least two dimensions wide.
        harmful: Turns each component so that the harmful prompts' mean lies at its higher end.
    """
    import numpy as np

    centred = states.astype(np.float64) - states.mean(0, dtype=np.float64)
    _, values, components = np.linalg.svd(centred, full_matrices=False)
    points = centred @ components[:2].T
    points *= np.where(points[harmful].mean(0) < points[~harmful].mean(0), -1.0, 1.0)
    total = float((values**2).sum()) or 1.0
    first, second = (float(value**2) / total for value in values[:2])
    return Plane(points, (first, second))


def place_of(response: Response) -> Place:
    """Where a response with CoT on refuses, by the refusal strings.

    "before" has no thought, so that the decision fell at the decision position. "thought" says no in words before its
    answer does. A thought that says no before an answer that complies has not refused: "nowhere".
    """
    if response.truncated or not response.answer.strip():
        return "unjudged"
    if not is_refusal(response.answer):
        return "nowhere"
    if not response.thought.strip():
        return "before"
    return "thought" if judge_thought(response.thought, truncated=False) == "refuse" else "answer"


def places(responses: Sequence[Response]) -> dict[Place, int]:
    """How many responses refuse where."""
    found: dict[Place, int] = {"before": 0, "thought": 0, "answer": 0, "nowhere": 0, "unjudged": 0}
    for response in responses:
        found[place_of(response)] += 1
    return found
