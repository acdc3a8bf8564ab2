"""Draw the next token of each row, so that an answer depends on its prompt and seed only.

    g(key, token)   Gumbel noise, from a hash of the key and the token's id
    the next token  the one with the largest log p + g, among those that top-k and top-p keep

The token with the largest sum has probability p (Gumbel-max trick: Maddison, Tarlow and Minka, "A* Sampling", 2014,
section 2). The key comes from the row's seed and the position.

Each token has its own noise, so rounding matters only if two sums are equal to within rounding, or a token lies on the
border of top-k or top-p. Noise by rank is not like that: it belongs to the first, the second, … most likely token. Two
tokens of almost equal probability then swap their noise when rounding swaps them. Rounding differs between batches, so
a rerun with other batches wrote another answer: 1 of 96 at temperature 0.7.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from presafe.models.family import Sampling

_HEAD = 256
"""Most likely tokens in which top-p is tried first: to sort a whole vocabulary takes as long as a row of a model of
135 million weights. Ours.
"""


def key_of(seed: int, position: int) -> int:
    """Return the key of a draw, an integer of 32 bits.

    Args:
        seed: The row's seed.
        position: Number of the row's tokens before the one that is drawn, the prompt included.
    """
    return int.from_bytes(hashlib.sha256(f"{seed} {position}".encode()).digest()[:4], signed=True)


def draw(logits: Tensor, sampling: Sampling, keys: Tensor) -> Tensor:
    """Return the next token of each row.

    Args:
        logits: Shape (rows, vocabulary), finite.
        sampling: How tokens are drawn; greedy takes the most likely one.
        keys: The rows' keys (`key_of`), of shape (rows,); not used in greedy decoding.

    Returns:
        Token ids of shape (rows,), on the device of the logits.
    """
    if sampling.is_greedy:
        return logits.argmax(-1)
    # Relative to the largest, so that a tiny temperature makes no score infinite but −inf.
    scores = (logits.float() - logits.float().amax(-1, keepdim=True)) / sampling.temperature
    if not (sampling.top_k or sampling.top_p < 1):
        tokens = torch.arange(scores.shape[-1], device=scores.device).expand_as(scores)
        return _largest(scores, tokens, keys)
    size = scores.shape[-1]
    width = min(sampling.top_k or _HEAD, size)
    # On a GPU nothing may wait for the outcome of `reached`, so its rows are sorted whole.
    if not sampling.top_k and scores.device.type != "cpu":
        width = size
    kept, tokens, reached = _nucleus(scores, sampling, width)
    chosen = _largest(kept, tokens, keys)
    if width < size and not sampling.top_k and not bool(reached.all()):
        rest = (~reached).nonzero().squeeze(1)
        kept, tokens, _ = _nucleus(scores[rest], sampling, size)
        chosen[rest] = _largest(kept, tokens, keys[rest])
    return chosen


def noise(keys: Tensor, tokens: Tensor) -> Tensor:
    """Return the Gumbel noise of each token of each row, in float64.

    The hash is the last step of SplitMix64 (Steele, Lea and Flood, 2014), in integers that wrap around. Its upper 52
    bits are the fraction u of −log(−log u), between 0 and 1 and never either.

    Args:
        keys: Shape (rows,), of integers.
        tokens: Token ids of shape (rows, tokens).
    """
    bits = keys.long()[:, None] * _INCREMENT + tokens
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        bits = (bits ^ _shifted(bits, shift)) * factor
    bits = bits ^ _shifted(bits, 31)
    uniform = (_shifted(bits, 12).double() + 0.5) / 2.0**52
    return -(-uniform.log()).log()


def _signed(bits: int) -> int:
    """Return 64 bits as torch's signed integer."""
    return bits - (1 << 64) if bits >> 63 else bits


_INCREMENT, _FIRST, _SECOND = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Shift to the right, filling with zeros; torch's own shift fills with the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _largest(scores: Tensor, tokens: Tensor, keys: Tensor) -> Tensor:
    """Return of each row the token with the largest score after its noise is added."""
    picks = (scores.double() + noise(keys, tokens)).argmax(-1, keepdim=True)
    return tokens.gather(-1, picks).squeeze(-1)


def _nucleus(scores: Tensor, sampling: Sampling, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the most likely tokens, the fewest whose mass is at least top-p.

    Args:
        scores: Logits after temperature, of shape (rows, vocabulary).
        sampling: Top-p, and whether the mass is relative to the top-k.
        width: Number of tokens to look at.

    Returns:
        Scores of shape (rows, width), −inf outside; their token ids; and whether these tokens have the mass.
    """
    kept, tokens = scores.topk(width, -1)
    total = (kept if sampling.top_k else scores).logsumexp(-1, keepdim=True)
    probabilities = (kept - total).exp()
    before = probabilities.cumsum(-1) - probabilities
    outside = before >= sampling.top_p
    outside[:, 0] = False  # the most likely token is kept, however small top-p is
    return kept.masked_fill(outside, -torch.inf), tokens, outside[:, -1]
