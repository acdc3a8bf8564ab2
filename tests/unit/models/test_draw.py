"""Drawn tokens have the right probabilities, and rounding changes almost none of them."""

from __future__ import annotations

import pytest
import torch

from presafe.models import draw as module
from presafe.models.draw import draw, key_of, noise
from presafe.models.family import Sampling

N = 20_000
KEYS = torch.tensor([key_of(seed, 7) for seed in range(N)], dtype=torch.int32)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(temperature=1.0), [0.3, 0.2, 0.5]),
        # The fewest tokens with 60 % of the mass: .5 and .3 of .8.
        (Sampling(temperature=1.0, top_p=0.6), [0.375, 0.0, 0.625]),
        (Sampling(temperature=1.0, top_k=1), [0.0, 0.0, 1.0]),
        # Of the first two, .625 and .375: one is enough for 60 %.
        (Sampling(temperature=1.0, top_k=2, top_p=0.6), [0.0, 0.0, 1.0]),
        # Halved logits: as √.3, √.2 and √.5, of 1.702 together.
        (Sampling(temperature=2.0), [0.3218, 0.2628, 0.4154]),
        (Sampling(temperature=0.0), [0.0, 0.0, 1.0]),
    ],
    ids=["plain", "top_p", "top_k", "both", "temperature", "greedy"],
)
def test_tokens_come_as_often_as_they_should(sampling: Sampling, expected: list[float]) -> None:
    scores = torch.tensor([0.3, 0.2, 0.5]).log().repeat(N, 1)
    shares = torch.bincount(draw(scores, sampling, KEYS), minlength=3) / N
    # Five standard errors: 5 · √(.5 · .5 / 20000) = .0177.
    assert torch.allclose(shares, torch.tensor(expected), atol=0.0177)
    assert [bool(share) for share in shares] == [bool(share) for share in expected]


def test_rounding_that_swaps_two_tokens_changes_no_draw() -> None:
    # The first two tokens are almost equal; rounding of 1e-6 decides which of them is the more likely one.
    # With noise by rank, half of the draws changed. Here a draw changes with a probability of about 1e-6.
    one = torch.tensor([1.0, 1.0 + 1e-6, 0.0, -1.0]).repeat(N, 1)
    other = torch.tensor([1.0 + 1e-6, 1.0, 0.0, -1.0]).repeat(N, 1)
    for sampling in (
        Sampling(temperature=0.7),
        Sampling(temperature=0.7, top_p=0.95),
        Sampling(temperature=1, top_k=3),
    ):
        first, second = draw(one, sampling, KEYS), draw(other, sampling, KEYS)
        assert int((first != second).sum()) <= 1
        assert set(first.tolist()) >= {0, 1}


def test_the_short_way_to_top_p_draws_what_the_long_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    # 300 tokens: of the even rows 4 hold the mass, of the odd rows almost all are needed.
    scores = torch.randn(64, 300, generator=torch.Generator().manual_seed(0))
    scores[::2, :4] += 12
    sampling = Sampling(temperature=1.0, top_p=0.95)
    monkeypatch.setattr(module, "_HEAD", 300)
    whole = draw(scores, sampling, KEYS[:64])
    monkeypatch.setattr(module, "_HEAD", 8)
    assert draw(scores, sampling, KEYS[:64]).tolist() == whole.tolist()
    assert int(whole[::2].max()) < 4 <= len(set(whole[1::2].tolist()))


def test_noise_is_gumbel_and_every_token_has_its_own() -> None:
    values = noise(KEYS[:2000], torch.arange(50).expand(2000, 50))
    # Mean γ = .5772 and variance π²/6 = 1.645; of 100,000 values five standard errors are .0203 and, with a fourth
    # central moment of 5.4 · 1.645² = 14.6, .0547.
    assert abs(float(values.mean()) - 0.5772) < 0.0203
    assert abs(float(values.var()) - 1.645) < 0.0547
    assert len(set(values.flatten().tolist())) == values.numel()
    # 1,225 correlations of 2,000 values each: five standard errors of 1/√2000 = .112.
    assert float((torch.corrcoef(values.T) - torch.eye(50)).abs().max()) < 0.112


def test_the_hash_wraps_and_shifts_as_published() -> None:
    # SplitMix64 with seed 0: its first outputs are those of states 1, 2 and 3 times the increment.
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    found = noise(torch.tensor([1, 2, 3]), torch.zeros(3, 1, dtype=torch.long)).squeeze(1)
    uniform = torch.tensor([((bits >> 12) + 0.5) / 2**52 for bits in published], dtype=torch.float64)
    assert torch.allclose(found, -(-uniform.log()).log(), rtol=0, atol=1e-12)


def test_a_key_depends_on_seed_and_position() -> None:
    keys = [key_of(seed, position) for seed in range(40) for position in range(50)]
    assert key_of(3, 17) == keys[3 * 50 + 17]
    assert len(set(keys)) == len(keys)
    assert all(-(2**31) <= key < 2**31 for key in keys)
