"""Shares that minimise the worst device's roofline seconds at a batch size, not its tokens.

A replica that gets x > 0 tokens takes max(a x, w) seconds: their FLOPs, or reading the expert's
weights. So a sliver costs as much as w / a tokens, and equal tokens are not equal seconds. This is
makespan scheduling of splittable jobs with a least cost a piece and S/N pieces a machine, which is
NP-hard (with S = E it is bin packing); ``time_lower_bound`` says how far from the best it ends.

1. Starts: the greedy's placement (``eplb``), that of equal tokens (``exact``), and experts packed
   by a deadline, which splits few (``deadline_packing``).
2. A local search over pieces (``exact_time_kernel``) lowers the seconds of the expected tokens.
3. A batch's counts vary around them, and the worst device is one that got more. From the best ends
   of step 2 the search goes on with the mean and deviation of each device's seconds over batches,
   as long as expected seconds stay within 0.3 % of the least found and at most those of ``eplb``.
4. All candidates, ``eplb`` with even shares among them, run the same sampled batches; the least
   mean of the worst device's seconds wins if it also beats ``eplb`` on batches that had no part in
   the choice, so that none is worse than ``eplb``.
5. Pieces are merged where no maximum rises by it (``fewest_pieces``).

Slots without a piece hold the hottest experts that their device lacks, with share 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from topomoe.compute import roofline
from topomoe.model import MODELS, MoEModel, device_preset, model_preset
from topomoe.placement import eplb, exact
from topomoe.placement.exact import fill_slots
from topomoe.placement.problem import PlacementProblem, Slots
from topomoe.placement.timing.deadline_packing import pack_by_deadline
from topomoe.placement.timing.exact_time_kernel import improve, worst_score
from topomoe.placement.timing.fewest_pieces import merge_pieces
from topomoe.placement.timing.time_bounds import bound_in_tokens, expected_tokens

_POURED = (0, 6, 4)  # packings: every expert by best fit, or the heaviest E/6 or E/4 poured last
_HIGHEST = 1.5  # times the bound: no deadline above is packed for
_FIRST_VISITS, _SECOND_VISITS = 3.0, 0.7  # of devices in the searches of a layer, times slots
_FEW = 8  # slots a device; of more, a visit takes longer, and fewer are made
_GOAL = 1.0002  # times the bound: a search ends
_CLOSE = 1.001  # times the bound: no other start is tried
_SLACK = 1.003  # times the least expected seconds, that batches may be served better
_SAMPLES = 32  # batches that decide
_FRESH = 128  # batches that confirm it: the best of several on few may be so by chance
_CLEAR = 0.998  # times the seconds of eplb: less of a gain may be chance
_FAR = 2.0  # times the deviations of the usual worst device, where the batches decide nothing

FloatArray = NDArray[np.float64]
Pieces = tuple[NDArray[np.int32], FloatArray]  # expert [S], -1 for none, and share [S]


def assign(problem: PlacementProblem) -> Slots:
    """Return the placement whose worst device takes the least seconds for a batch.

    ``problem.options``: batch_tokens over all devices, device, and the model that
    ``timed_model`` finds. Raises InputError for unknown names and for loads of another number of
    experts than a model named.
    """
    model = timed_model(problem)
    token_seconds, weight_seconds = roofline(model, device_preset(problem.options.device))
    search = _Search(
        weight_seconds / token_seconds,
        problem.options.batch_tokens,
        problem.options.batch_tokens * model.top_k,
        model.num_experts,
        problem.num_devices,
    )
    tokens = expected_tokens(problem.load, model, problem.options.batch_tokens)
    greedy, level = eplb.assign(problem), exact.assign(problem)
    slot_expert, slot_share = np.empty_like(greedy[0]), np.empty_like(greedy[1])
    rng, fresh = (np.random.default_rng((problem.seed, stream)) for stream in (1, 2))
    for layer, row in enumerate(tokens):
        expert, share = search.best(
            row,
            (greedy[0][layer], greedy[1][layer]),
            (level[0][layer], level[1][layer]),
            rng,
            fresh,
        )
        fill_slots(row, problem.slots_per_device, expert, share)
        total = np.bincount(expert, share, problem.num_experts)
        slot_expert[layer], slot_share[layer] = expert, share / total[expert]
    return slot_expert, slot_share


def timed_model(problem: PlacementProblem) -> MoEModel:
    """Return the model whose experts are timed.

    The one that the options name; else the preset with the trace's or the loads' number of experts
    (or one less, where it has a shared expert, which is then routed); else experts of
    DeepSeek-V3's shape: of a model, only the knee and the tokens of an expert matter, and the knee
    is that of every model of one or two bytes a weight.
    """
    experts = problem.num_experts
    top_k = problem.trace.usual_top_k if problem.trace is not None else None
    if problem.options.timed_model:
        return model_preset(problem.options.timed_model)
    for model in MODELS.values():
        routed = experts - 1 if model.num_shared_experts else experts
        if model.num_experts in (experts, routed) and top_k in (None, model.top_k):
            return model
    known = MODELS["deepseek-v3"]
    return replace(known, num_experts=experts, top_k=top_k or min(known.top_k, experts))


@dataclass(frozen=True)
class _Search:
    """The search of one layer after the other."""

    knee: float  # tokens
    batch_tokens: int
    pairs: int  # of tokens and routed experts, a batch
    routed: int  # experts; one more column is the shared expert
    devices: int

    def best(
        self,
        tokens: FloatArray,
        greedy: Pieces,
        level: Pieces,
        rng: np.random.Generator,
        fresh: np.random.Generator,
    ) -> Pieces:
        """Return the pieces that take the least seconds for ``tokens`` [E].

        ``greedy`` and ``level`` are the layer's placements by ``eplb`` and by ``exact``; ``rng``
        draws the batches that decide, ``fresh`` those that confirm it.
        """
        slots = len(greedy[0])
        bound = bound_in_tokens(tokens, self.devices, slots, self.knee)
        greedy, level = _without_idle(tokens, greedy), _without_idle(tokens, level)
        limit = self.expected(tokens, greedy)
        known = np.zeros(len(tokens))  # no spread
        visits = slots * min(1.0, _FEW / (slots // self.devices))
        found = []
        for pieces in self.starts(tokens, greedy, level, bound):
            first = round(_FIRST_VISITS * visits)
            goal = _GOAL * bound
            improve(tokens, known, self.knee, 0.0, self.devices, first, goal, np.inf, *pieces)
            found.append((self.expected(tokens, pieces), pieces))
            if found[-1][0] <= _CLOSE * bound:
                break
        least = min(cost for cost, _ in found)
        ceiling = min(_SLACK * least, limit)
        spread = 1.0 - np.minimum(tokens / self.batch_tokens, 1.0)  # binomial: an expert a token
        deviations = NormalDist().inv_cdf(self.devices / (self.devices + 1.0))
        for cost, pieces in [one for one in found if one[0] <= ceiling]:
            again = (pieces[0].copy(), pieces[1].copy())
            improve(
                tokens,
                spread,
                self.knee,
                deviations,
                self.devices,
                round(_SECOND_VISITS * visits),
                0.0,
                max(ceiling, cost),
                *again,
            )
            found.append((self.expected(tokens, again), again))
        found.append((limit, greedy))

        counts = self.batches(tokens, rng, _SAMPLES)
        sampled = [self.mean_over(counts, pieces) for _, pieces in found]
        far = _FAR * deviations
        unlikely = [
            worst_score(tokens, spread, self.knee, far, self.devices, *pieces)
            for _, pieces in found
        ]
        for most in (ceiling, limit):
            close = [
                (mean, unlikely[i], i)
                for i, (mean, (cost, _)) in enumerate(zip(sampled, found, strict=True))
                if cost <= most
            ]
            chosen = min(close)
            if chosen[0] <= sampled[-1]:
                break
        unclear = limit <= ceiling and chosen[0] > _CLEAR * sampled[-1]
        if not unclear and found[chosen[2]][1] is not greedy:
            new = self.batches(tokens, fresh, _FRESH)
            unclear = self.mean_over(new, found[chosen[2]][1]) > self.mean_over(new, greedy)
        expert, share = greedy if unclear else found[chosen[2]][1]
        merge_pieces(tokens, spread, counts, self.knee, deviations, self.devices, expert, share)
        return expert, share

    def starts(
        self, tokens: FloatArray, greedy: Pieces, level: Pieces, bound: float
    ) -> Iterator[Pieces]:
        """Yield where to search from; one packing alone where that is as good as it gets."""
        order = np.argsort(-tokens, kind="stable")
        for part in _POURED:
            poured = len(tokens) // part if part else 0
            expert, share = np.empty_like(greedy[0]), np.empty_like(greedy[1])
            high = _HIGHEST * bound
            packed = pack_by_deadline(
                tokens, order, poured, self.knee, bound, high, self.devices, expert, share
            )
            if part == 0:
                close = packed and self.expected(tokens, (expert, share)) <= _CLOSE * bound
                if not close:
                    yield greedy[0].copy(), greedy[1].copy()
                    yield level
            if packed:
                yield expert, share

    def expected(self, tokens: FloatArray, pieces: Pieces) -> float:
        """Return the worst device's cost of the expected tokens."""
        return self.mean_over(tokens[None], pieces)

    def mean_over(self, counts: FloatArray, pieces: Pieces) -> float:
        """Return the worst device's cost, the mean over batches of ``counts`` [B, E]."""
        amount = counts[:, pieces[0]] * pieces[1]
        cost = np.where(amount > 0, np.maximum(amount, self.knee), 0.0)
        return float(cost.reshape(len(counts), self.devices, -1).sum(axis=2).max(axis=1).mean())

    def batches(self, tokens: FloatArray, rng: np.random.Generator, count: int) -> FloatArray:
        """Return counts [B, E] of sampled batches; the shared expert gets what it expects."""
        shares = tokens[: self.routed] / tokens[: self.routed].sum()
        counts = np.tile(tokens, (count, 1))
        counts[:, : self.routed] = rng.multinomial(self.pairs, shares, size=count)
        return counts


def _without_idle(tokens: FloatArray, pieces: Pieces) -> Pieces:
    """Return the slots with a share, and one, the first, of each expert without tokens."""
    expert, share = pieces[0].copy(), pieces[1].copy()
    first = np.zeros(len(expert), dtype=bool)
    first[np.unique(expert, return_index=True)[1]] = True
    idle = tokens[expert] == 0
    share[idle] = np.where(first[idle], 1.0, 0.0)
    expert[share == 0] = -1
    return expert, share
