"""What every placement, and every placement method, must satisfy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.placement import (
    LayerPlacement,
    Placement,
    certificate,
    load_placement,
    methods,
    place,
    save_placement,
)
from topomoe.topologies.errors import InputError

# The others need a trace (locality) or seconds a layer (milp); their own tests hold them to this.
GENERAL = [method for method in methods() if method not in ("locality", "milp")]


def two_layers() -> Placement:
    """Three experts on two devices of two slots; expert 0 split 1/4 to 3/4, then expert 2 whole."""
    return Placement(
        np.array([[0, 1, 2, 0], [0, 1, 2, 1]], dtype=np.int32),
        np.array([[0.25, 1, 1, 0.75], [1, 1, 1, 0]]),
        num_devices=2,
        num_experts=3,
    )


def doubles(placement: Placement) -> int:
    """How many slots repeat an expert that their device holds already."""
    rows = placement.slot_expert.reshape(placement.num_layers * placement.num_devices, -1)
    return sum(row.size - np.unique(row).size for row in rows)


def test_device_load_adds_each_slots_share_of_its_expert() -> None:
    placement = two_layers()
    load = [[8.0, 1.0, 3.0], [4.0, 6.0, 5.0]]
    # Layer 0: device 0 has 8/4 + 1 = 3, device 1 has 3 + 8 * 3/4 = 9. Layer 1: 4 + 6 and 5 + 0.
    np.testing.assert_allclose(placement.device_load(load), [[3, 9], [10, 5]])
    np.testing.assert_allclose(placement[0].device_load(load[0]), [3, 9])
    np.testing.assert_allclose(placement.balancedness(load), [6 / 9, 7.5 / 10])


def test_a_layer_without_load_counts_as_balanced() -> None:
    np.testing.assert_array_equal(two_layers().balancedness(np.zeros((2, 3))), [1, 1])


def test_replicas_count_slots_of_share_zero_too() -> None:
    np.testing.assert_array_equal(two_layers().replicas(), [[2, 1, 1], [1, 2, 1]])


def test_slot_s_is_on_device_s_over_slots_a_device() -> None:
    np.testing.assert_array_equal(two_layers().slot_device, [0, 0, 1, 1])


def test_layers_are_indexed_and_iterated_like_a_sequence() -> None:
    placement = two_layers()
    assert len(placement) == placement.num_layers == 2
    np.testing.assert_array_equal(placement[-1].slot_expert, [0, 1, 2, 1])
    assert [layer.slot_share[0] for layer in placement] == [0.25, 1.0]
    with pytest.raises(IndexError):
        placement[2]


def test_a_placement_keeps_its_own_read_only_arrays() -> None:
    share = np.ones((1, 2))
    placement = Placement(np.array([[0, 1]], dtype=np.int32), share, 1, 2)
    share[:] = 7
    np.testing.assert_array_equal(placement.slot_share, [[1, 1]])
    with pytest.raises(ValueError, match="read-only"):
        placement.slot_share[0, 0] = 2


def test_migration_counts_slots_whose_expert_is_new_to_the_device() -> None:
    before = two_layers()
    after = Placement(
        np.array([[1, 0, 2, 1], [2, 0, 1, 2]], dtype=np.int32),
        np.array([[0.5, 1, 1, 0.5], [0.5, 1, 1, 0.5]]),
        2,
        3,
    )
    # Layer 0: device 0 keeps {0, 1}; device 1 had {2, 0}, so 1 is new. Layer 1: device 0 had
    # {0, 1}, so 2 is new; device 1 had {2, 1}.
    np.testing.assert_array_equal(after.migration_slots(before), [[0, 1], [1, 0]])
    np.testing.assert_array_equal(before.migration_slots(before), np.zeros((2, 2)))


def test_migration_from_another_number_of_slots_is_counted() -> None:
    before = place(np.ones(4), 2, 4, method="contiguous")  # {0, 1} and {2, 3}
    after = place(np.ones(4), 2, 6, method="contiguous")  # {0, 1, 2} and {3, 0, 1}
    np.testing.assert_array_equal(after.migration_slots(before), [[1, 2]])
    with pytest.raises(InputError, match="must share"):
        after.migration_slots(place(np.ones(4), 1, 4))


@pytest.mark.parametrize(
    ("expert", "share", "devices", "message"),
    [
        ([[0, 1, 2]], [[1, 1, 1]], 2, "multiple of devices, got slots=3 and devices=2"),
        ([[0, 1, 1, 1]], [[1, 1, 0, 0]], 2, "layer 0 lacks expert 2"),
        ([[0, 1, 2, 3]], [[1, 1, 1, 1]], 2, r"lie in 0\.\.2, got 3"),
        ([[0, 1, 2, -1]], [[1, 1, 1, 0]], 2, r"lie in 0\.\.2, got -1"),
        ([[0, 1, 2, 2]], [[1, 1, 1, 0.1]], 2, "got 1.1 for expert 2 of layer 0"),
        ([[0, 1, 2, 2]], [[1, 1, 1.5, -0.5]], 2, "must be >= 0"),
        ([[0, 1, 2, 2]], [[1, 1, 1, np.nan]], 2, "must be >= 0"),
        ([[0, 1, 2, 2]], [[1, 1, 1]], 2, "shaped"),
        ([[0.0, 1.0, 2.0, 2.0]], [[1, 1, 1, 0]], 2, "must hold integers"),
        ([0, 1, 2, 2], [1, 1, 1, 0], 2, r"must be \[M, S\]"),
        ([[0, 1, 2, 2]], [[1, 1, 1, 0]], 0, "num_devices must be >= 1"),
    ],
)
def test_an_invalid_placement_is_refused(
    expert: list[list[int]], share: list[list[float]], devices: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Placement(np.array(expert), np.array(share), devices, 3)


def test_an_invalid_layer_is_refused() -> None:
    with pytest.raises(InputError, match="layer 0 lacks expert 1"):
        LayerPlacement(np.array([0, 0]), np.array([0.5, 0.5]), 1, 2)
    with pytest.raises(InputError, match=r"must be \[S\]"):
        LayerPlacement(np.array([[0, 1]]), np.array([[1.0, 1.0]]), 1, 2)


def test_loads_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"\[2, 3\], got shape \(2, 4\)"):
        two_layers().device_load(np.ones((2, 4)))
    with pytest.raises(InputError, match=r"\[3\], got shape \(4,\)"):
        two_layers()[0].device_load(np.ones(4))


@settings(deadline=None, max_examples=60)
@given(data=st.data())
@pytest.mark.parametrize("method", GENERAL)
def test_every_method_places_every_expert_without_doubles(method: str, data: st.DataObject) -> None:
    devices = data.draw(st.integers(1, 12), label="devices")
    per_device = data.draw(st.integers(1, 8), label="slots per device")
    experts = data.draw(st.integers(1, devices * per_device), label="experts")
    load = data.draw(
        st.lists(st.sampled_from([0, 1, 1, 2, 3, 50]), min_size=experts, max_size=experts).filter(
            any
        ),
        label="load",
    )
    placement = place(load, devices, devices * per_device, method=method, seed=3)
    # Construction has checked ids, presence and share sums.
    forced = devices * max(0, per_device - experts)
    assert doubles(placement) == forced
    np.testing.assert_allclose(placement.device_load(load).sum(), sum(load))


@pytest.mark.parametrize("method", GENERAL)
def test_equal_arguments_give_equal_bytes(method: str) -> None:
    load = np.random.default_rng(1).lognormal(0, 0.7, (3, 20))
    first = place(load, 4, 24, method=method, seed=5)
    again = place(load.copy(), 4, 24, method=method, seed=5)
    assert first.slot_expert.tobytes() == again.slot_expert.tobytes()
    assert first.slot_share.tobytes() == again.slot_share.tobytes()


@pytest.mark.parametrize("method", GENERAL)
def test_no_method_beats_the_bound(method: str) -> None:
    load = np.random.default_rng(2).lognormal(0, 1.5, (20, 13))
    for devices, slots in [(4, 16), (13, 13), (5, 15), (20, 20), (3, 24)]:
        gaps = certificate(place(load, devices, slots, method=method), load).gap
        assert (gaps >= 0).all()


def test_contiguous_numbers_slots_as_experts_then_starts_again() -> None:
    placement = place(np.ones((2, 5)), 2, 8, method="contiguous")
    np.testing.assert_array_equal(placement.slot_expert, [[0, 1, 2, 3, 4, 0, 1, 2]] * 2)
    np.testing.assert_array_equal(placement.slot_share[0], [0.5, 0.5, 0.5, 1, 1, 0.5, 0.5, 0.5])


def test_round_robin_deals_experts_to_devices_in_turn() -> None:
    placement = place(np.ones(6), 3, 6, method="round-robin")
    np.testing.assert_array_equal(placement.slot_expert, [[0, 3, 1, 4, 2, 5]])


def test_round_robin_shifts_the_second_deal_that_would_repeat_experts() -> None:
    # 4 experts on 2 devices: cards 0..3 give {0, 2} and {1, 3}; cards 4, 5 would be 0 and 1 again.
    placement = place(np.ones(4), 2, 6, method="round-robin")
    np.testing.assert_array_equal(placement.slot_expert, [[0, 2, 1, 1, 3, 2]])


def test_random_placements_differ_by_seed_and_layer_and_spread_replicas_evenly() -> None:
    first = place(np.ones((2, 32)), 8, 40, method="random", seed=0)
    second = place(np.ones((2, 32)), 8, 40, method="random", seed=1)
    assert (first.slot_expert != second.slot_expert).any()
    assert (first.slot_expert[0] != first.slot_expert[1]).any()
    counts = first.replicas()
    assert set(counts.ravel()) == {1, 2}
    assert (counts.sum(axis=1) == 40).all()


def test_as_many_slots_as_experts_on_each_device_balance_any_load() -> None:
    load = [7.0, 0.0, 2.0]
    for method in methods():
        placement = place(load, 2, 8, method=method)
        np.testing.assert_allclose(placement.device_load(load), [[4.5, 4.5]])


@dataclass
class Counted:
    """Something that counts its token-expert pairs, as a trace does."""

    pairs: np.ndarray

    def load(self) -> np.ndarray:
        return self.pairs


def test_a_trace_is_placed_by_its_load() -> None:
    load = np.random.default_rng(0).integers(1, 50, (2, 10))
    by_trace = place(Counted(load), 5, 15)
    np.testing.assert_array_equal(by_trace.slot_expert, place(load, 5, 15).slot_expert)


def test_several_loads_count_alike_whatever_their_size() -> None:
    one = np.array([[4.0, 2.0, 1.0, 1.0]])
    two = np.array([[1.0, 1.0, 1.0, 5.0]])
    together = one + two  # both have mean 2
    loads = np.stack([one, 1000 * two])
    for method in ("eplb", "exact"):
        placement = place(loads, 2, 6, method=method)
        expected = place(together, 2, 6, method=method)
        np.testing.assert_array_equal(placement.slot_expert, expected.slot_expert)
        np.testing.assert_allclose(placement.slot_share, expected.slot_share)


def test_slots_default_to_the_fewest_that_hold_every_expert() -> None:
    assert place(np.ones(10), 4).num_slots == 12
    assert place(np.ones(8), 4).num_slots == 8


@pytest.mark.parametrize(
    ("load", "options", "message"),
    [
        (np.ones(8), {"slots": 4}, "slots must be >= experts, got slots=4 and experts=8"),
        (np.ones(8), {"slots": 10}, "multiple of devices, got slots=10 and devices=4"),
        (np.ones(8), {"slots": 8.0}, "slots must be an integer"),
        (np.ones(8), {"devices": 0}, "devices must be >= 1"),
        (np.ones(8), {"grid": (3, 2)}, "got grid=3x2 and devices=4"),
        (np.ones(8), {"method": "epbl"}, "unknown placement method 'epbl'; did you mean 'eplb'"),
        ([1, np.nan], {}, "finite and >= 0, got nan for expert 1 of layer 0"),
        ([[1, 1], [1, -2]], {}, "got -2.0 for expert 1 of layer 1"),
        ([1, np.inf], {}, "must be finite"),
        ([1e308, 1e308], {}, "must have a finite sum"),
        ([[1, 1], [0, 0]], {}, "all zero, as layer 1 is"),
        ([[[1, 1]], [[0, 0]]], {}, "all zero, as layer 0 of load 1 is"),
        (1.0, {}, r"must be \[E\], \[M, E\] or \[D, M, E\], got shape \(\)"),
        (np.ones((0, 4)), {}, r"got shape \(0, 4\)"),
        ([[1, 2], [3]], {}, "load must be numbers"),
        (["a"], {}, "load must be numbers"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    load: object, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        place(load, **{"devices": 4, **options})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_stored_placement_comes_back_the_same_and_in_equal_bytes(tmp_path: Path) -> None:
    placement = place(np.random.default_rng(0).lognormal(0, 0.7, (4, 16)), 4, 20)
    save_placement(placement, tmp_path / "a.npz")
    save_placement(placement, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    back = load_placement(tmp_path / "a.npz")
    np.testing.assert_array_equal(back.slot_expert, placement.slot_expert)
    assert back.slot_share.tobytes() == placement.slot_share.tobytes()
    assert (back.num_devices, back.num_experts) == (4, 16)


def test_a_damaged_or_foreign_file_is_refused_by_name(tmp_path: Path) -> None:
    good = tmp_path / "good.npz"
    save_placement(two_layers(), good)
    bad = tmp_path / "bad.npz"
    fields = dict(np.load(good))

    def refused(match: str) -> None:
        with pytest.raises(InputError, match=match) as caught:
            load_placement(bad)
        assert "bad.npz" in str(caught.value)

    refused("no such placement file")
    for length in (0, 10, 400, len(good.read_bytes()) - 30):
        bad.write_bytes(good.read_bytes()[:length])
        refused("not a readable placement file")
    np.savez(bad, **{name: field for name, field in fields.items() if name != "num_devices"})
    refused("no field 'num_devices'")
    np.savez(bad, **{**fields, "slot_share": fields["slot_share"] * 2})
    refused("slot_share must sum to 1")
    np.savez(bad, **{**fields, "slot_expert": fields["slot_expert"] * 1.0})
    refused("Cannot cast|cannot cast")
    np.savez(bad, **{**fields, "slot_share": fields["slot_share"].astype(str)})
    refused("slot_share must be floats")
    np.savez(bad, **{**fields, "num_experts": np.array([3, 3])})
    refused("num_experts must be one integer")
    np.savez(bad, **{**fields, "num_devices": np.array(two_layers(), dtype=object)})
    refused("not a readable placement file")
    with bad.open("wb") as file:
        np.save(file, np.ones(3))
    refused("not a single array")
