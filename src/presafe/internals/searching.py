"""Read of a model what searches for a suffix need: the cost of a prompt with CoT on, and its gradient over tokens.

    begins       −ln P of the tokens of a beginning, on average
    decision     weight · (−ln(1 − P) of a refusal by the model's own odds, and the same by the head)

Costs and gradients come from one function, which takes token ids or embeddings. Neighbors of a suffix are drawn as GCG
draws them: one place, and one of the tokens there along which the cost falls most steeply. Those that the tokenizer
would cut in another way are left out.

Source: Zou et al., arXiv 2307.15043, algorithm 1; the decision's cost: ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from presafe.attacks.attack import Decided, Draw, Objective
from presafe.errors import AttackError
from presafe.internals.decision import log_odds_of_all
from presafe.internals.forward import padded_batches
from presafe.models.decision_head import DecisionReading, read_states, start_log_odds, states_at
from presafe.models.loading import LoadedModel
from presafe.models.output import logits_of, need_own_logits
from presafe.records import Prefill

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

_BATCH = 32
_DRAWN = 4
"""Neighbors drawn for each one that is wanted, because the tokenizer does not keep all. Ours."""


class _Rows(NamedTuple):
    """Prompts, each with what follows it, as the model reads them."""

    inputs: dict[str, Tensor]
    """Ids or embeddings, and the mask."""
    decision: Int[Tensor, " rows"]
    """Position of the last prompt token."""


class CostReader:
    """Reads one model for searches.

    Args:
        loaded: The model, its adapter merged.
        decision: How its decision is read; None where no search reads it.

    Raises:
        ModelError: the head is not one of this model's size, or as `need_own_logits`.
        AttackError: the head reads the thought's first token, which has no gradient.
    """

    def __init__(self, loaded: LoadedModel, decision: DecisionReading | None = None) -> None:
        need_own_logits(loaded.model)
        if decision and decision.head:
            decision.head.need_fit(loaded.model)
            if decision.head.position == "thought_start":
                raise AttackError(
                    "the head reads the thought's first token, and a search needs a state of the prompt.",
                    "Attack a system whose `decision_position` is prompt_end or prompt_mean.",
                )
        self._loaded, self._decision = loaded, decision
        self._allowed: Tensor | None = None
        self.num_read = 0
        """Tokens read so far."""

    def costs(self, texts: Sequence[str], objective: Objective) -> list[float]:
        """Return the cost of each text as a prompt with CoT on, in nats.

        Args:
            texts: The user prompts.
            objective: What the cost is.
        """
        import torch

        costs = torch.zeros(len(texts), dtype=torch.float64)
        with torch.inference_mode():
            if objective.begins is not None:
                costs += self.begin_costs(texts, objective.begins)
            if objective.decision:
                for indices, rows in self._batches(texts, self._refusing()):
                    costs[indices] += objective.decision * self._decision_cost(rows).cpu()
        return [float(cost) for cost in costs]

    def begin_costs(self, texts: Sequence[str], prefill: Prefill) -> Float[Tensor, " texts"]:
        """Return −ln P of a prefill's tokens, on average, after each text; gradients of the weights can be taken.

        Args:
            texts: The user prompts.
            prefill: The beginning; it has at least one token.
        """
        import torch

        costs = torch.zeros(len(texts), dtype=torch.float64)
        for indices, rows in self._batches(texts, self._begun(prefill)):
            costs = costs.index_add(0, torch.tensor(indices), self._begin_cost(rows, prefill).cpu())
        return costs

    def decides(self, text: str) -> Decided:
        """Return the decision about a text, as log-odds of a refusal.

        Args:
            text: The user prompt.
        """
        import torch

        with torch.inference_mode():
            ((_, rows),) = self._batches([text], self._refusing())
            odds, head = self._log_odds(rows)
        return Decided(float(odds[0]), None if head is None else float(head[0]))

    def neighbors(self, request: str, suffix: str, objective: Objective, draw: Draw) -> list[str]:
        """Return suffixes that differ from a suffix in one token.

        Args:
            request: The request.
            suffix: The suffix after it.
            objective: What the cost is.
            draw: How they are drawn.

        Returns:
            At most `draw.num`, all different.

        Raises:
            AttackError: the tokenizer keeps none of them.
        """
        import torch

        renderer = self._loaded.renderer
        ids = renderer.text_ids(request + suffix)
        pairs = zip(ids, renderer.text_ids(request), strict=False)
        first = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        gradient = self._gradient(request + suffix, len(ids), first, objective)
        steepest = (-gradient).topk(min(draw.topk, int(self._allowed_ids().sum())), dim=1).indices.cpu()
        random = torch.Generator().manual_seed(draw.seed)
        num = _DRAWN * draw.num
        places = torch.randint(len(ids) - first, (num,), generator=random)
        chosen = steepest[places, torch.randint(steepest.shape[1], (num,), generator=random)]
        request_text = renderer.tokenizer.decode(ids[:first])
        kept: dict[str, None] = {}
        for place, token in zip(places.tolist(), chosen.tolist(), strict=True):
            changed = [*ids[: first + place], token, *ids[first + place + 1 :]]
            text = renderer.tokenizer.decode(changed)[len(request_text) :]  # some tokenizers drop a first space
            if text != suffix and renderer.text_ids(request + text) == changed:
                kept[text] = None
            if len(kept) == draw.num:
                break
        if not kept:
            raise AttackError(
                "the tokenizer cuts every neighbor of the suffix in another way.", "Take `suffix_search` in its place."
            )
        return list(kept)

    def _gradient(
        self, text: str, num_ids: int, first: int, objective: Objective
    ) -> Float[Tensor, "places vocabulary"]:
        """Return the gradient of the cost over the one-hot tokens of a text from one on; infinite where not allowed."""
        import torch

        model, renderer = self._loaded.model, self._loaded.renderer
        embed = model.get_input_embeddings()
        rendered = renderer.render(text, "on")
        prompt = embed(torch.tensor([rendered.ids], device=model.device)).detach().requires_grad_()

        def rows(after: list[int]) -> _Rows:
            self.num_read += len(rendered.ids) + len(after)
            tail = embed(torch.tensor([after], dtype=torch.long, device=model.device)).detach()
            decision = torch.tensor([rendered.decision_index], device=model.device)
            return _Rows({"inputs_embeds": torch.cat([prompt, tail], dim=1)}, decision)

        with torch.enable_grad():
            parts = []
            if objective.begins is not None:
                parts.append(self._begin_cost(rows(self._begun(objective.begins)), objective.begins).sum())
            if objective.decision:
                parts.append(objective.decision * self._decision_cost(rows(self._refusing())).sum())
            (gradient,) = torch.autograd.grad(torch.stack(parts).sum(), prompt)
        start = renderer.text_start("on")
        places = gradient[0, start + first : start + num_ids].float()
        over_tokens = places @ embed.weight.float().T
        masked: Tensor = over_tokens.masked_fill(~self._allowed_ids().to(over_tokens.device), torch.inf)
        return masked

    def _allowed_ids(self) -> Tensor:
        """Return which tokens a suffix may hold: printable ASCII, and no control token."""
        import torch

        if self._allowed is None:
            tokenizer = self._loaded.renderer.tokenizer
            allowed = torch.zeros(self._loaded.model.get_input_embeddings().weight.shape[0], dtype=torch.bool)
            plain = sorted(set(tokenizer.get_vocab().values()) - tokenizer.added_tokens_decoder.keys())
            texts = tokenizer.batch_decode([[index] for index in plain])
            for index, text in zip(plain, texts, strict=True):
                allowed[index] = bool(text) and text.isascii() and text.isprintable()
            self._allowed = allowed
        return self._allowed

    def _begun(self, prefill: Prefill) -> list[int]:
        return self._loaded.renderer.prefill_ids(prefill)

    def _refusing(self) -> list[int]:
        """Return the ids after a prompt at which the odds of a refusal are read."""
        return [*self._loaded.renderer.opening_ids(), *self._reading().start.shared]

    def _reading(self) -> DecisionReading:
        if self._decision is None:
            raise AttackError("nothing says how this system's decision is read.")
        return self._decision

    def _batches(self, texts: Sequence[str], after: list[int]) -> list[tuple[list[int], _Rows]]:
        """Return prompts in padded batches, each with the same ids after it."""
        import torch

        rendered = [self._loaded.renderer.render(text, "on") for text in texts]
        sequences = [[*prompt.ids, *after] for prompt in rendered]
        self.num_read += sum(map(len, sequences))
        return [
            (
                batch.indices,
                _Rows(
                    {"input_ids": batch.ids, "attention_mask": batch.mask},
                    torch.tensor([rendered[index].decision_index for index in batch.indices], device=batch.ids.device),
                ),
            )
            for batch in padded_batches(sequences, _BATCH, self._loaded.model.device)
        ]

    def _decode(self, rows: _Rows, layer: int | None = None) -> Any:
        return self._loaded.model.base_model(**rows.inputs, use_cache=False, output_hidden_states=layer is not None)

    def _logits(self, output: Any, first: Tensor, num: int) -> Float[Tensor, "rows steps vocabulary"]:
        """Return the logits at some positions of each row, from one on, in float64."""
        import torch

        index = torch.arange(len(first), device=first.device)
        positions = first[:, None] + torch.arange(num, device=first.device)
        return logits_of(self._loaded.model, output.last_hidden_state[index[:, None], positions]).double()

    def _begin_cost(self, rows: _Rows, prefill: Prefill) -> Float[Tensor, " rows"]:
        """Return −ln P of a beginning's tokens, on average, for each row."""
        import torch

        ids = torch.tensor(self._begun(prefill), device=rows.decision.device)
        logits = self._logits(self._decode(rows), rows.decision, len(ids))
        chosen = ids[None, :, None].expand(len(rows.decision), -1, 1)
        return -logits.log_softmax(-1).gather(-1, chosen)[..., 0].mean(-1)

    def _log_odds(self, rows: _Rows) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"] | None]:
        """Return the log-odds of a refusal in each row: the model's own, and the head's if there is one."""
        import torch

        start, head = self._reading()
        output = self._decode(rows, head.layer if head else None)
        first = rows.decision + len(self._loaded.renderer.opening_ids())
        logits = self._logits(output, first, len(start.links))
        odds = log_odds_of_all(torch.stack([start_log_odds(logits[:, i], ids) for i, ids in enumerate(start.links)]))
        if head is None:
            return odds, None
        return odds, head.logit(read_states(states_at(output, head.layer), head.position, rows.decision))

    def _decision_cost(self, rows: _Rows) -> Float[Tensor, " rows"]:
        """Return −ln(1 − P) of a refusal for each row, by the odds and by the head."""
        from torch.nn.functional import softplus

        odds, head = self._log_odds(rows)
        return softplus(odds) if head is None else softplus(odds) + softplus(head.double())
