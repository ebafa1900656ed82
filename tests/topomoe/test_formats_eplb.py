"""The drop-in ``rebalance_experts``: the published example, its invariants, types, refusals."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topomoe.placement import rebalance_experts
from topomoe.placement.eplb_interface import keep_slots
from topomoe.topologies.errors import InputError

# The example that DeepSeek EPLB's page shows, and what its function returns for it.
WEIGHT = np.array(
    [
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ]
)
PUBLISHED = [
    [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
]


def device_max(weight: Any, made: tuple[Any, ...], gpus: int) -> np.ndarray:
    phy2log, _, logcnt = (np.asarray(m) for m in made)
    each = np.take_along_axis(np.asarray(weight, dtype=float) / logcnt, phy2log, axis=1)
    return np.asarray(each.reshape(len(phy2log), gpus, -1).sum(axis=2).max(axis=1))


def greedy(weight: np.ndarray, slots: int, gpus: int) -> np.ndarray:
    """Return the largest device load of the published greedy, global policy, from its description.

    Replicate by load per replica, pack from the heaviest down to the least loaded device with room.
    """
    highest = []
    for row in weight.astype(np.float32):
        count, holder = np.ones(len(row), dtype=int), list(range(len(row)))
        for _ in range(slots - len(row)):
            expert = int(np.argmax(row / count))
            count[expert] += 1
            holder.append(expert)
        each = (row / count)[holder]
        total, used = np.zeros(gpus), np.zeros(gpus, dtype=int)
        for replica in np.argsort(-each, kind="stable"):
            gpu = int(np.argmin(np.where(used < slots // gpus, total, np.inf)))
            total[gpu] += each[replica]
            used[gpu] += 1
        highest.append(total.max())
    return np.array(highest)


def check(weight: np.ndarray, made: tuple[Any, ...], slots: int) -> None:
    phy2log, log2phy, logcnt = made
    layers, experts = weight.shape
    assert phy2log.shape == (layers, slots)
    assert log2phy.shape == (layers, experts, logcnt.max())
    assert all(m.dtype == np.int64 for m in made)
    for layer in range(layers):
        count = np.bincount(phy2log[layer], minlength=experts)
        assert (count == logcnt[layer]).all()
        assert count.min() >= 1
        for expert in range(experts):
            held = np.flatnonzero(phy2log[layer] == expert)
            assert log2phy[layer, expert, : len(held)].tolist() == held.tolist()
            assert (log2phy[layer, expert, len(held) :] == -1).all()


def test_the_published_example_gives_the_published_placement() -> None:
    phy2log, log2phy, logcnt = rebalance_experts(WEIGHT, 16, 4, 2, 8, method="eplb")
    assert phy2log.tolist() == PUBLISHED
    check(WEIGHT, (phy2log, log2phy, logcnt), 16)


def test_the_default_is_never_less_balanced_than_the_published_greedy() -> None:
    rng = np.random.default_rng(0)
    for experts, slots, gpus in ((12, 16, 8), (64, 80, 16), (64, 64, 16), (256, 288, 32)):
        weight = rng.lognormal(0, 0.8, (6, experts))
        made = rebalance_experts(weight, slots, 1, 1, gpus)
        check(weight, made, slots)
        assert (device_max(weight, made, gpus) <= greedy(weight, slots, gpus) * (1 + 1e-6)).all()


def test_groups_stay_on_one_node_each() -> None:
    weight = np.random.default_rng(3).lognormal(0, 0.7, (5, 64))
    for method in ("eplb", "local-search"):
        made = rebalance_experts(weight, 96, 8, 4, 16, method=method)
        check(weight, made, 96)
        for row in made[0].reshape(5, 4, 24):
            groups = [set((node // 8).tolist()) for node in row]
            assert [len(g) for g in groups] == [2, 2, 2, 2]
            assert set().union(*groups) == set(range(8))


def test_a_fall_back_to_the_global_policy_is_warned_of() -> None:
    weight = np.random.default_rng(4).lognormal(0, 0.7, (3, 256))
    with pytest.warns(UserWarning, match=r"num_groups=8 does not divide by num_nodes=16") as said:
        made = rebalance_experts(weight, 384, 8, 16, 128)
    assert len(said) == 1
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = rebalance_experts(weight, 384, 1, 1, 128)
    assert all((a == b).all() for a, b in zip(made, plain, strict=True))


def test_tensors_come_back_as_tensors_and_arrays_as_arrays() -> None:
    torch = pytest.importorskip("torch")
    arrays = rebalance_experts(WEIGHT, 16, 4, 2, 8)
    assert all(type(a) is np.ndarray for a in arrays)
    for dtype in (torch.int32, torch.float32, torch.bfloat16):
        given_ = torch.from_numpy(WEIGHT).to(dtype)
        made = rebalance_experts(given_, 16, 4, 2, 8)
        assert all(m.dtype == torch.int64 and m.device == given_.device for m in made)
        check(given_.double().numpy(), tuple(m.numpy() for m in made), 16)
        if dtype != torch.bfloat16:
            assert all((m.numpy() == a).all() for m, a in zip(made, arrays, strict=True))


@given(
    seed=st.integers(0, 999),
    experts=st.integers(1, 12),
    gpus=st.integers(1, 4),
    more=st.integers(0, 2),
)
def test_every_expert_has_a_slot_and_the_maps_agree(
    seed: int, experts: int, gpus: int, more: int
) -> None:
    slots = (-(-experts // gpus) + more) * gpus
    weight = np.random.default_rng(seed).integers(0, 5, (2, experts))
    weight[:, 0] += 1
    check(weight, rebalance_experts(weight, slots, 1, 1, gpus), slots)


def test_experts_that_stay_on_a_device_keep_their_slot() -> None:
    rng = np.random.default_rng(5)
    weight = rng.lognormal(0, 0.7, (4, 32))
    old, _, _ = rebalance_experts(weight, 48, 1, 1, 8)
    shifted = weight * rng.lognormal(0, 0.3, weight.shape)
    free = rebalance_experts(shifted, 48, 1, 1, 8)
    kept = rebalance_experts(shifted, 48, 1, 1, 8, old_global_expert_indices=old)
    check(shifted, kept, 48)
    on_device = [np.sort(m[0].reshape(4, 8, 6), axis=2) for m in (free, kept)]
    np.testing.assert_array_equal(*on_device)
    stay = np.array(
        [[(o[:, None] == k).any(axis=1) for o, k in zip(*rows, strict=True)]
         for rows in zip(old.reshape(4, 8, 6), kept[0].reshape(4, 8, 6), strict=True)]
    )  # fmt: skip
    np.testing.assert_array_equal(old.reshape(4, 8, 6)[stay], kept[0].reshape(4, 8, 6)[stay])
    assert (keep_slots(old, old, 8) == old).all()


def test_layers_without_load_are_placed_and_warned_of() -> None:
    weight = np.concatenate([np.zeros((3, 12)), WEIGHT])
    with pytest.warns(UserWarning, match="all zero in layers 0, 1, 2") as said:
        made = rebalance_experts(weight, 16, 4, 2, 8)
    assert said[0].filename == __file__
    check(weight, made, 16)
    assert made[2][:3].max() == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((WEIGHT, 15, 1, 1, 8), "num_replicas must be a multiple of num_gpus, got"),
        ((WEIGHT, 8, 1, 1, 8), "num_replicas must be >= the 12 experts of weight, got 8"),
        ((WEIGHT, 16, 5, 5, 8), "experts must be a multiple of num_groups"),
        ((WEIGHT, 15, 4, 2, 5), "num_gpus must be a multiple of num_nodes"),
        ((WEIGHT, 16, 4, 0, 8), "num_nodes must be >= 1, got 0"),
        ((WEIGHT, 16.0, 4, 2, 8), "num_replicas must be a whole number, got 16.0"),
        ((WEIGHT * 0, 16, 4, 2, 8), "weight must not be all zero"),
        ((WEIGHT - 50, 16, 4, 2, 8), "got -10.0 for expert 2 of layer 0"),
        ((WEIGHT * np.nan, 16, 4, 2, 8), "weight must be finite"),
        ((WEIGHT * 1j, 16, 4, 2, 8), "weight must be numbers"),
        ((WEIGHT[0], 16, 4, 2, 8), r"weight must be \[layers, experts\], got shape \(12,\)"),
        ((WEIGHT.astype(str), 16, 4, 2, 8, None, "elpb"), "did you mean 'eplb'"),
        ((WEIGHT, 16, 4, 2, 8, np.zeros((2, 15))), "old_global_expert_indices must be integers"),
        ((WEIGHT, 16, 4, 2, 8, np.full((2, 16), 12)), r"must be in -1\.\.11"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        rebalance_experts(*arguments)
    assert "\n" not in str(caught.value)


def test_tensors_without_plain_numbers_are_refused() -> None:
    torch = pytest.importorskip("torch")
    for weight in (torch.ones(2, 12, device="meta"), torch.ones(2, 12).to_sparse()):
        with pytest.raises(InputError, match="weight must be numbers"):
            rebalance_experts(weight, 16, 1, 1, 8)
