"""What hidden states know, layer by layer. Pure functions.

    probe       logistic regression fitted on some prompts' states and applied to others': does a line separate them?
    direction   mean state of harmful prompts − mean state of harmless ones (the "refusal direction" of Arditi et al.
                2024, arXiv 2406.11717), and the cosine of two such directions
    plane       the first two principal components

The paper's referees asked for activations before and after alignment; the reviews do not say which of these they meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from presafe.stats.bootstrap import resample_counts
from presafe.stats.intervals import Interval

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float

_PENALTY = 1.0
"""Weight of ½‖w‖² against the sum of losses: the customary C = 1 of regularized logistic regression."""


class Probe(NamedTuple):
    """A linear probe: features are standardized by the mean and spread of the states it was fitted on."""

    mean: Float[np.ndarray, " hidden"]
    spread: Float[np.ndarray, " hidden"]
    weight: Float[np.ndarray, " hidden"]
    bias: float

    def logits(self, states: Float[np.ndarray, "prompts hidden"]) -> list[float]:
        """Return the log-odds that each prompt is harmful."""
        log_odds: list[float] = ((states - self.mean) / self.spread @ self.weight + self.bias).tolist()
        return log_odds


class Plane(NamedTuple):
    """States on their first two principal components, and each component's share of the variance, in [0, 1]."""

    points: Float[np.ndarray, "prompts 2"]
    shares: tuple[float, float]


def fit_probe(
    states: Float[np.ndarray, "prompts hidden"], harmful: Bool[np.ndarray, " prompts"], penalty: float = _PENALTY
) -> Probe:
    """Fit logistic regression on standardized features x, to convergence.

        min over w, b of   Σⱼ −ln σ(±(w·xⱼ + b)) + penalty · ½‖w‖²        + if prompt j is harmful

    Args:
        states: Hidden states of one layer.
        harmful: Whether each prompt is harmful; at least one is, and at least one is not.
        penalty: At least 0.
    """
    import numpy as np
    from scipy.optimize import minimize
    from scipy.special import expit

    states = states.astype(np.float64)
    mean, spread = states.mean(0), states.std(0)
    spread[spread == 0] = 1.0  # a constant feature carries no information
    x, sign = (states - mean) / spread, np.where(harmful, 1.0, -1.0)

    def loss(point: Float[np.ndarray, " one_more"]) -> tuple[float, Float[np.ndarray, " one_more"]]:
        """Return the loss and its gradient; `point` is the weight followed by the bias."""
        weight, bias = point[:-1], point[-1]
        margin = sign * (x @ weight + bias)
        slope = -sign * expit(-margin)
        gradient = np.concatenate([x.T @ slope + penalty * weight, [slope.sum()]])
        return float(np.logaddexp(0, -margin).sum() + penalty * weight @ weight / 2), gradient

    fitted = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return Probe(mean, spread, fitted[:-1], float(fitted[-1]))


def direction_cosine(
    left: Float[np.ndarray, "prompts hidden"],
    right: Float[np.ndarray, "prompts hidden"],
    harmful: Bool[np.ndarray, " prompts"],
    *,
    seed: int = 0,
    draws: int = 500,
) -> Interval:
    """Return the cosine of the directions in two sets of states of the same prompts, with a bootstrap interval.

    The interval is the basic one, 2θ − quantiles: noise in the means pulls every bootstrap cosine towards 0, and the
    basic interval reverses that pull. Harmful and harmless prompts are resampled separately; each draw takes the same
    prompts on both sides.

    Args:
        left: States such as those with CoT on.
        right: States of the same prompts in the same order, such as those with CoT off.
        harmful: Whether each prompt is harmful; at least one is, and at least one is not.
        seed: Seed of the draws.
        draws: Bootstrap samples.

    Returns:
        The cosine in [−1, 1]; n counts prompts.

    Source: Davison and Hinkley 1997, section 5.2, for the basic interval.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    sides = [side.astype(np.float64) for side in (left, right)]
    left_direction, right_direction = (side[harmful].mean(0) - side[~harmful].mean(0) for side in sides)
    resampled: list[Float[np.ndarray, "draws hidden"]] = [np.zeros((draws, left.shape[1])) for _ in sides]
    for members, sign in ((harmful, 1), (~harmful, -1)):
        num = int(members.sum())
        shares = resample_counts(np.ones(num), num, draws, generator) / num
        resampled = [
            directions + sign * shares @ side[members] for directions, side in zip(resampled, sides, strict=True)
        ]
    cosine = float(_cosines(left_direction[None], right_direction[None])[0])
    low, high = 2 * cosine - np.percentile(_cosines(*resampled), [97.5, 2.5])
    return Interval(cosine, max(-1.0, min(cosine, float(low))), min(1.0, max(cosine, float(high))), len(harmful))


def _cosines(
    left: Float[np.ndarray, "draws hidden"], right: Float[np.ndarray, "draws hidden"]
) -> Float[np.ndarray, " draws"]:
    """Return the cosine of each pair of rows; 0 if a row has length 0, because it has no direction."""
    import numpy as np

    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines: Float[np.ndarray, " draws"] = (left * right).sum(1) / np.where(lengths == 0, 1.0, lengths)
    return cosines


def principal_plane(states: Float[np.ndarray, "prompts hidden"], harmful: Bool[np.ndarray, " prompts"]) -> Plane:
    """Return centered states on their first two principal components.

    Args:
        states: Hidden states of one layer, at least two dimensions wide.
        harmful: Whether each prompt is harmful; each component is oriented so that the harmful prompts' mean lies at
            its higher end.
    """
    import numpy as np

    centered = states.astype(np.float64) - states.mean(0, dtype=np.float64)
    _, values, components = np.linalg.svd(centered, full_matrices=False)
    points = centered @ components[:2].T
    points *= np.where(points[harmful].mean(0) < points[~harmful].mean(0), -1.0, 1.0)
    total = float((values**2).sum()) or 1.0
    first, second = (float(value**2) / total for value in values[:2])
    return Plane(points, (first, second))
