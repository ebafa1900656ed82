"""From a trace and a fabric to decision problems: what is held out, adds up, and is free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import topomoe as tm
from topomoe.agents.baselines import baseline
from topomoe.agents.clairvoyant import plan
from topomoe.agents.rollout import rollout
from topomoe.envs import placement_library, scenario
from topomoe.envs.cluster import PARTS, CoDesignProblem
from topomoe.envs.group_layout import parse_layout
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.scenario import (
    SCENARIOS,
    SPLIT,
    Problems,
    build_problems,
    load_scenario,
    split_requests,
)
from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.envs.step_price import price_steps
from topomoe.envs.traffic import Contexts
from topomoe.envs.transition import transition_cost
from topomoe.model import model_preset
from topomoe.topologies.errors import InputError

SMALL: dict[str, Any] = {
    "layers": 2,
    "pool": 2,
    "draws": 2,
    "epochs": 60,
    "test_epochs": 40,
    "episode_length": 20,
    "decode_tokens": 32,
    "prefill_tokens": 32,
    "synthetic_requests": 40,
}
TINY = ScenarioSettings(
    model="mixtral-8x7b",
    grid="4x4",
    topologies=("mesh", "torus"),
    layouts=("decode all", "prefill 2x4 + decode 6 scattered"),
    layout_epochs=10.0,
    load_levels=(0.5, 2.0),
    kv_bytes=1e4,
    delay="rotor",
    **SMALL,
)
MODEL = model_preset("mixtral-8x7b")
TRACE = tm.synthetic_trace("mixtral-8x7b", requests=40, positions=24).filter(layers=(0, 31))


@pytest.fixture(scope="module", autouse=True)
def little_annealing() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement_library, "ROUNDS", 2)
        patch.setattr(placement_library, "TRIES", 4)
        yield


@pytest.fixture(scope="module")
def problems() -> Problems:
    return build_problems(TINY, seeds=(0, 7))


def built(trace: tm.RoutingTrace, settings: ScenarioSettings = TINY) -> Problems:
    """Problems from a trace in memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenario, "load_or_make", lambda *_: (MODEL, trace))
        return build_problems(settings)


def sides(problems: Problems) -> list[CoDesignProblem]:
    return [problems.training, problems.validation, *problems.tests.values()]


def arrays(problem: CoDesignProblem) -> dict[str, bytes]:
    """Bytes of everything a timeline holds, by name."""
    found = {}
    for whole in (problem, problem.pool, problem.switching, problem.switching.migration):
        for field in fields(whole):  # type: ignore[arg-type]
            value = getattr(whole, field.name)
            if isinstance(value, np.ndarray):
                found[f"{type(whole).__name__}.{field.name}"] = value.tobytes()
    for name, part in problem.switching.components.items():
        found[name] = part.tobytes()
    found["start"] = repr((problem.switching.start, problem.switching.scale)).encode()
    return found


def cluster_arrays(problems: Problems) -> dict[str, bytes]:
    cluster = problems.training.cluster
    return {
        field.name: np.asarray(getattr(cluster, field.name)).tobytes()
        for field in fields(cluster)
        if field.name not in ("topologies", "placements", "layouts")
    }


# What a problem holds.


def test_costs_add_up_by_parts(problems: Problems) -> None:
    for side in sides(problems):
        problem = side.switching
        assert tuple(problem.components) == PARTS
        assert all((part > 0).all() for part in problem.components.values())
        np.testing.assert_allclose(sum(problem.components.values()), problem.cost, rtol=1e-12)
        assert problem.episode_length == 20
        assert not problem.hypothetical
        each = problem.steps.astype(np.float64).sum(axis=1) * side.repeat
        np.testing.assert_allclose(each, problem.cost, rtol=1e-6)
    assert problems.training.switching.num_epochs == 60
    assert problems.validation.switching.num_epochs == 40
    assert [side.switching.num_epochs for side in problems.tests.values()] == [40, 40]


def test_names_are_topologies_with_placements(problems: Problems) -> None:
    problem = problems.training.switching
    assert problem.topologies == ("mesh", "torus", "fitted-0", "fitted-1")
    domains = tuple(f"domain-{d}" for d in range(4))
    assert problem.placements == ("mix", "annealed", *domains, "recent")
    assert problem.placements == problems.training.cluster.placements
    assert problems.training.fitted.tolist() == [2, 3]


def test_an_epoch_costs_what_its_steps_cost_under_each_configuration(problems: Problems) -> None:
    """Priced again one by one, placement recent by its slots where it is not made anew."""
    for side in (problems.training, problems.tests[7]):
        problem, cluster = side.switching, side.cluster
        recent = cluster.placements.index("recent")
        for t in range(0, problem.num_epochs, 7):
            v = side.pool.layout[side.steps[t, 0]]
            assert (side.pool.layout[side.steps[t]] == v).all()
            for k in range(problem.num_configurations):
                a, p = divmod(k, len(cluster.placements))
                slots = side.recent[t] if p == recent else cluster.slot_expert[p, v]
                if p == recent and problem.migration.lag[t, p, p] > 0:  # type: ignore[union-attr]
                    continue
                parts = price_steps(
                    cluster, side.pool, side.steps[t][None], np.array([a]), slots[None]
                )[:, 0]
                for name, part in zip(PARTS, parts.sum(axis=1), strict=True):
                    expected = side.repeat * part
                    assert problem.components[name][t, k] == pytest.approx(expected, rel=1e-9)


def test_no_configuration_of_any_epoch_is_below_its_bound(problems: Problems) -> None:
    for side in sides(problems):
        problem = side.switching
        assert (problem.cost >= problem.bound[:, None] * (1 - 1e-6)).all()
        charged = transition_cost(problem, np.arange(problem.num_epochs))
        assert (charged >= problem.bound[:, None, None] * (1 - 1e-6)).all()


def test_rewiring_costs_the_delay_and_changing_placement_alone_none_of_it(
    problems: Problems,
) -> None:
    problem = problems.training.switching
    topology = problem.topology_of(np.arange(problem.num_configurations))
    np.testing.assert_allclose(
        problem.switch_cost, 10e-6 * (topology[:, None] != topology), rtol=1e-12
    )


def test_moves_slow_the_network_by_the_share_they_take(problems: Problems) -> None:
    migration = problems.training.switching.migration
    assert migration is not None
    assert migration.slowdown == pytest.approx(1 / 9)
    assert migration.lag.shape == (60, 7, 7)
    for p, name in enumerate(problems.training.cluster.placements):
        assert (name == "recent") == bool(migration.lag[:, p, p].any())


def test_all_sides_are_judged_by_the_training_side(problems: Problems) -> None:
    training = problems.training.switching
    staying = training.cost.mean(axis=0) + np.diag(training.metric)
    assert training.start == staying.argmin()
    for side in sides(problems):
        problem = side.switching
        assert problem.start == training.start
        assert problem.scale == training.scale == pytest.approx(staying.min())
        np.testing.assert_array_equal(problem.prior, training.cost.mean(axis=0))
        np.testing.assert_array_equal(problem.metric, training.metric)
        assert side.epoch_seconds == problems.training.epoch_seconds
        assert side.cluster is problems.training.cluster


def test_weights_are_the_devices_of_groups_and_layers_stand_for_all(problems: Problems) -> None:
    cluster = problems.training.cluster
    np.testing.assert_allclose(cluster.weight, [[1, 0, 0], [4 / 14, 4 / 14, 6 / 14]])
    assert cluster.layer_scale == MODEL.num_layers / 2
    assert cluster.pull.shape[:3] == (2, 4, 2)


def test_a_placement_is_whole_in_every_group_of_its_layout(problems: Problems) -> None:
    cluster = problems.training.cluster
    recent = [(side, t) for side in sides(problems) for t in (0, 19, 39)]
    tables = [(cluster.slot_expert[:, v], v) for v in (0, 1)]
    for side, t in recent:
        tables.append((side.recent[t][None], int(side.pool.layout[side.steps[t, 0]])))
    for slots, v in tables:
        device = cluster.slot_device[v]
        assert (slots[..., device < 0] == -1).all()
        group = np.where(device < 0, -1, cluster.group_of[v][device])
        for g in np.unique(group[group >= 0]):
            for row in slots[..., group == g].reshape(-1, int((group == g).sum())):
                assert set(row.tolist()) == set(range(8))


# Features.


def test_features_say_what_the_queue_holds(problems: Problems) -> None:
    names = problems.training.switching.feature_names
    queue = [
        *(f"share of {name}" for name in TRACE.domain_names),
        *(f"layout {name}" for name in TINY.layouts),
        "load level",
    ]
    assert names == (
        *queue,
        *(f"backlog: {name}" for name in queue),
        "expected excess of recent",
        "age of recent",
    )
    for side in sides(problems):
        problem = side.switching
        features = dict(zip(names, problem.features.T, strict=True))
        layout = side.pool.layout[side.steps[:, 0]]
        for v, name in enumerate(TINY.layouts):
            np.testing.assert_array_equal(features[f"layout {name}"], layout == v)
        share = sum(features[f"share of {name}"] for name in TRACE.domain_names)
        np.testing.assert_allclose(share, 1.0, rtol=1e-5)
        level = side.pool.context[side.steps[:, 0]] % 2
        np.testing.assert_array_equal(features["load level"], np.array([0.5, 2.0])[level])


def test_the_backlog_is_of_the_epochs_that_follow(problems: Problems) -> None:
    """Also at the end: the timeline goes on for as long as the queue reaches."""
    for side in sides(problems):
        features = side.switching.features
        for t in range(len(features) - 2):
            later = features[t + 1 : t + 3, :7].mean(axis=0)
            np.testing.assert_allclose(features[t, 7:14], later, rtol=1e-5, atol=1e-7)
    ends = np.stack([side.switching.features[-1, 7:14] for side in sides(problems)])
    np.testing.assert_allclose(ends[:, :4].sum(axis=1), 1.0, rtol=1e-5)


def test_the_last_backlog_is_that_of_a_longer_timeline() -> None:
    """Of 60 epochs with one behind: the phases beyond the end, not the last epoch again."""
    one = replace(TINY, backlog_epochs=1, placements=("mix",), layout_epochs=1.0)
    short = build_problems(one).training.switching.features
    layout = slice(4, 6)
    backlog = slice(11, 13)
    np.testing.assert_array_equal(short[-2, backlog], short[-1, layout])
    changes = (short[:-1, layout] != short[1:, layout]).any(axis=1).mean()
    assert changes > 0.5
    last = [
        build_problems(replace(one, seed=seed, synthetic_requests=20)).training.switching.features
        for seed in range(6)
    ]
    assert any((rows[-1, backlog] != rows[-1, layout]).any() for rows in last)


def test_a_stationary_scenario_has_one_context() -> None:
    still = load_scenario("stationary", {**SMALL, "grid": "4x4", "model": "mixtral-8x7b"})
    made = build_problems(still)
    for side in sides(made):
        assert not side.pool.context.any()
        assert side.switching.feature_names == ()
        assert len(side.switching.migration.lag) == 1  # type: ignore[union-attr]
    assert "domain-3" in made.training.cluster.placements  # to choose, though it never pays


def test_without_phases_all_traffic_is_placed_by_the_mix_of_domains() -> None:
    """Five of six requests are of one domain, to which placements for all traffic then belong."""
    of = TRACE.request_domain
    keep = (of == 0) | np.isin(
        np.arange(40), [np.flatnonzero(of == d)[i] for d in (1, 2, 3) for i in range(4)]
    )
    again = np.concatenate([np.flatnonzero(keep), *[np.flatnonzero(of == 0)] * 5])
    lopsided = TRACE.select(again)
    lopsided = replace(lopsided, request_ids=tuple(f"{i}" for i in range(lopsided.num_requests)))
    still = replace(
        TINY,
        domain_weight=0.0,
        placements=("mix", "domains"),
        layouts=("decode all",),
        load_levels=(1.0,),
        pool=8,
        decode_tokens=256,
        fit_circuits=False,
        topologies=("torus",),
    )
    prior = built(lopsided, still).training.switching.prior
    assert prior[0] < 1.05 * prior.min()
    assert prior[2:].min() > 1.05 * prior[0]


# What is held out.


def test_parts_share_no_request_and_leave_none_out() -> None:
    parts = split_requests(TRACE, 3)
    assert list(parts) == list(SPLIT) == ["library", "training", "validation", "test"]
    ids = [name for part in parts.values() for name in part.request_ids]
    assert sorted(ids) == sorted(TRACE.request_ids)
    for name, part in parts.items():
        assert part.num_requests == pytest.approx(SPLIT[name] * 40, abs=3)
        assert len(np.unique(part.request_domain)) == 4


def changed(name: str) -> tm.RoutingTrace:
    """The trace with other experts in the requests of one part."""
    ids = set(split_requests(TRACE, TINY.seed)[name].request_ids)
    mine = np.array([request in ids for request in TRACE.request_ids])[TRACE.position_request]
    return replace(TRACE, experts=np.where(mine[:, None], (TRACE.experts + 3) % 8, TRACE.experts))


@pytest.fixture(scope="module")
def unchanged() -> Problems:
    return built(TRACE)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_held_out_requests_change_nothing_else(unchanged: Problems, part: str) -> None:
    after = built(changed(part))
    assert cluster_arrays(unchanged) == cluster_arrays(after)
    assert arrays(unchanged.training) == arrays(after.training)
    same, other = ("validation", "test") if part == "test" else ("test", "validation")
    before = {"validation": unchanged.validation, "test": unchanged.tests[0]}
    now = {"validation": after.validation, "test": after.tests[0]}
    assert arrays(before[same]) == arrays(now[same])
    assert before[other].switching.cost.tobytes() != now[other].switching.cost.tobytes()


def test_training_requests_change_no_held_out_step_nor_any_placement(unchanged: Problems) -> None:
    after = built(changed("training"))
    assert cluster_arrays(unchanged) == cluster_arrays(after)
    assert unchanged.training.switching.cost.tobytes() != after.training.switching.cost.tobytes()
    fixed = np.arange(28) % 7 != 6  # recent begins from what training tells
    for before, now in zip(sides(unchanged)[1:], sides(after)[1:], strict=True):
        np.testing.assert_array_equal(before.pool.counts, now.pool.counts)
        np.testing.assert_array_equal(before.steps, now.steps)
        one, other = before.switching, now.switching
        np.testing.assert_array_equal(one.cost[:, fixed], other.cost[:, fixed])
        np.testing.assert_array_equal(one.bound, other.bound)
        np.testing.assert_array_equal(one.features[:, :14], other.features[:, :14])


def test_requests_of_the_library_change_placements_but_no_steps(unchanged: Problems) -> None:
    after = built(changed("library"))
    assert cluster_arrays(unchanged)["slot_expert"] != cluster_arrays(after)["slot_expert"]
    for before, now in zip(sides(unchanged), sides(after), strict=True):
        np.testing.assert_array_equal(before.pool.counts, now.pool.counts)
        np.testing.assert_array_equal(before.steps, now.steps)
        np.testing.assert_array_equal(before.forecast, now.forecast)


def test_the_queue_tells_domains_and_not_experts(unchanged: Problems) -> None:
    """Other experts of held-out requests: the queue's features stay, demand and cost do not."""
    before, after = unchanged.tests[0].switching, built(changed("test")).tests[0].switching
    np.testing.assert_array_equal(before.features[:, :14], after.features[:, :14])
    np.testing.assert_array_equal(before.features[0], after.features[0])  # nothing has run yet
    np.testing.assert_array_equal(before.features[:, 15], after.features[:, 15])
    assert (before.features[1:, 14] != after.features[1:, 14]).any()
    assert (before.demand != after.demand).any()


def test_held_out_timelines_of_seeds_are_drawn_apart_from_the_same_steps(
    problems: Problems,
) -> None:
    first, other = problems.tests[0], problems.tests[7]
    assert (first.steps != other.steps).any()
    assert (first.switching.features != other.switching.features).any()
    np.testing.assert_array_equal(first.pool.counts, other.pool.counts)
    alone = build_problems(TINY, seeds=(7,))
    assert arrays(alone.tests[7]) == arrays(other)


# Seeds.


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(problems: Problems) -> None:
    again = build_problems(TINY, seeds=(0, 7))
    assert cluster_arrays(problems) == cluster_arrays(again)
    for side, same in zip(sides(problems), sides(again), strict=True):
        assert arrays(side) == arrays(same)
    other = build_problems(replace(TINY, seed=1))
    assert problems.training.switching.cost.tobytes() != other.training.switching.cost.tobytes()


def test_a_longer_timeline_begins_as_the_shorter_one() -> None:
    """Also what is known of its end: the queue reaches into epochs that the longer one runs."""
    short, longer = (build_problems(replace(TINY, test_epochs=n)).tests[0] for n in (20, 40))
    assert len(short.steps) == 20
    np.testing.assert_array_equal(short.steps, longer.steps[:20])
    np.testing.assert_array_equal(short.switching.cost, longer.switching.cost[:20])
    np.testing.assert_array_equal(short.switching.features, longer.switching.features[:20])


# Libraries.


def test_fabrics_are_hypothetical_and_wirings_are_not(problems: Problems) -> None:
    fabrics = replace(TINY, library="fabrics", topologies=("mesh", "leaf-spine", "torus"))
    made = build_problems(fabrics)
    for side in sides(made):
        assert side.cluster.hypothetical
        assert side.switching.hypothetical
        assert side.switching.switching == "hypothetical"
        assert side.switching.topologies == ("mesh", "leaf-spine", "torus")
        assert (side.fitted == -1).all()
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(made.training.cluster.reconfiguration, 10e-6 * off)
    assert not problems.training.cluster.hypothetical


def test_a_wiring_is_in_the_library_once() -> None:
    """On two by two devices the torus is the mesh."""
    small = replace(TINY, grid="2x2", layouts=("decode all",), topologies=("mesh", "torus"))
    made = build_problems(small).training
    assert made.cluster.topologies.count("torus") == 0
    assert made.cluster.topologies[0] == "mesh"
    assert 0 <= made.fitted[0] < len(made.cluster.topologies)


def test_fitted_wirings_carry_their_layouts_demand_soonest() -> None:
    layouts = [
        parse_layout(text, 16, np.random.default_rng(0)) for text in ("decode 4x4 scattered",)
    ]
    same = (layouts[0].group_of[:, None] == layouts[0].group_of) & ~np.eye(16, dtype=bool)
    names, made, fitted = scenario.build_topologies(TINY, (4, 4), layouts, [1e6 * same])
    assert names == ["mesh", "torus", "fitted-0"]
    assert fitted.tolist() == [2]
    seconds = [tm.topologies.route(t).transfer_time(1e6 * same[None])[0] for t in made]
    assert seconds[2] < 0.8 * min(seconds[:2])


def test_without_fitting_there_are_the_named_wirings_alone() -> None:
    made = build_problems(replace(TINY, fit_circuits=False)).training
    assert made.cluster.topologies == ("mesh", "torus")
    assert (made.fitted == -1).all()


def test_half_the_bandwidth_only_slows_communication_and_moves() -> None:
    plain = replace(TINY, placements=("mix", "domains"), topologies=("torus",), fit_circuits=False)
    fast, slow = (
        build_problems(replace(plain, bandwidth=bandwidth)).training.switching
        for bandwidth in (2e9, 1e9)
    )
    for part in ("dispatch", "combine"):
        ratio = slow.components[part] / fast.components[part]
        assert (ratio > 1.5).all()
        assert (ratio <= 2 + 1e-9).all()
    np.testing.assert_array_equal(slow.components["compute"], fast.components["compute"])
    np.testing.assert_array_equal(slow.components["other"], fast.components["other"])


def test_experts_of_twice_the_size_take_twice_as_long_to_move() -> None:
    plain = replace(TINY, placements=("mix", "domains"), migration_scale=1e-3)
    once, twice = (
        build_problems(replace(plain, migration_scale=scale)).training.switching.migration
        for scale in (1e-3, 2e-3)
    )
    assert once is not None
    assert twice is not None
    assert once.lag.max() <= 0.5
    np.testing.assert_allclose(twice.lag, 2 * once.lag, rtol=1e-9)


# Whether it pays to switch.


def test_nobody_switches_where_it_takes_seconds() -> None:
    """A negative control: bring-up of NICs and endless moves outlast every episode's gain."""
    slow = replace(
        TINY,
        delay="nic-bring-up",
        migration_scale=1e6,
        placements=("mix", "domains"),
        layouts=("decode all",),
    )
    made = build_problems(slow)
    training, test = made.training.switching, made.tests[0].switching
    choice, total = plan(test)
    assert (choice == test.start).all()
    never = rollout(baseline("never-switch", training, test), test)
    np.testing.assert_allclose(total, never.cost.sum(axis=1))


def test_the_clairvoyant_takes_the_best_of_every_epoch_where_switching_is_free() -> None:
    free = replace(
        TINY,
        delay="plzt",
        migration_scale=1e-9,
        bandwidth=1e9,
        placements=("mix", "annealed", "domains"),
    )
    test = build_problems(free).tests[0].switching
    assert len(np.unique(test.cost.argmin(axis=1))) > 1
    choice, total = plan(test)
    assert (np.diff(choice, axis=1) != 0).any()
    np.testing.assert_allclose(total, test.cost.min(axis=1).reshape(2, 20).sum(axis=1), rtol=1e-3)


# Presets and files.


@pytest.mark.parametrize("grid", ["4x4", "8x8"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_builds_small(name: str, grid: str) -> None:
    changes = {**SMALL, "model": "mixtral-8x7b", "grid": grid}
    if grid == "4x4":
        changes["layouts"] = ["decode all"]
    made = build_problems(load_scenario(name, changes))
    problem = made.tests[0].switching
    assert problem.num_epochs == 40
    assert (problem.cost >= problem.bound[:, None] * (1 - 1e-6)).all()
    assert len(made.training.cluster.layouts) == (4 if (name, grid) == ("pools", "8x8") else 1)


def test_scenarios_are_those_they_are_named_for() -> None:
    assert SCENARIOS == ("default", "pools", "hard", "stationary", "slow-migration")
    default, pools, hard, stationary, slow = map(load_scenario, SCENARIOS)
    assert len(pools.layouts) > 1
    assert len(default.layouts) == 1
    assert any("scattered" in layout for layout in pools.layouts)
    assert pools.kv_bytes == 1e5
    assert len(hard.load_levels) > 1
    assert hard.phase_regularity == 1.0
    assert stationary.domain_weight == 0.0
    assert slow.migration_scale >= 10 * default.migration_scale


def test_overrides_change_fields_of_a_shipped_scenario() -> None:
    changed = load_scenario("hard", {"epochs": 500, "delay": "siph"})
    assert (changed.epochs, changed.delay) == (500, "siph")
    assert changed.load_levels == load_scenario("hard").load_levels


def test_a_file_of_ones_own_is_a_scenario(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('grid = "4x4"\nlayouts = ["prefill 2x8"]\nkv_bytes = "2MB"\nepochs = 300\n')
    mine = load_scenario(str(path), {"epochs": 200})
    assert (mine.grid, mine.layouts, mine.kv_bytes, mine.epochs) == (
        "4x4",
        ("prefill 2x8",),
        2e6,
        200,
    )
    assert mine.phase_epochs == ScenarioSettings().phase_epochs


BAD_FILES = {
    "phase_epoch = 3.0": "unknown key 'phase_epoch'; did you mean 'phase_epochs'",
    "epochs = 0": "epochs must be >= 1, got 0",
    "epochs = 2.5": "epochs must be a whole number",
    'epochs = "many"': "epochs must be a whole number",
    "layouts = []": "layouts must",
    'delay = "mem"': "unknown reconfiguration delay 'mem'; did you mean 'mems'",
    "[epochs]\nx = 1": "epochs",
    "epochs = = 3": "not valid TOML",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_bad_file_is_refused_by_name_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=BAD_FILES[text]) as caught:
        load_scenario(str(path))
    assert "\n" not in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_a_missing_unreadable_or_unknown_scenario_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: no such file"):
        load_scenario(str(tmp_path / "none.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.toml: cannot be read"):
        load_scenario(str(tmp_path / "binary.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(InputError, match=r"folder\.toml: cannot be read"):
        load_scenario(str(tmp_path / "folder.toml"))
    with pytest.raises(InputError, match=r"unknown scenario .*'defualt'; did you mean 'default'"):
        load_scenario("defualt")


# Errors.


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("library", "wiring", "unknown library 'wiring'; did you mean 'wirings'"),
        ("delay", "mem", "unknown reconfiguration delay 'mem'; did you mean 'mems'"),
        ("topologies", (), "topologies must name one or more different"),
        ("topologies", ("mesh", "mesh"), "topologies must name one or more different"),
        ("layouts", ("decode 8", "decode 8"), "layouts must name one or more different"),
        ("placements", ("mixed",), "unknown placement of a library 'mixed'; did you mean 'mix'"),
        ("placements", ("recent",), "placements must hold one beside recent"),
        ("pool", 0, "pool must be >= 1, got 0"),
        ("refresh_epochs", 0, "refresh_epochs must be >= 1, got 0"),
        ("epochs", 10, "episode_length must be <= epochs, got 20 and 10"),
        ("test_epochs", 10, "episode_length must be <= test_epochs, got 20 and 10"),
        ("episode_length", 0, "episode_length must be >= 1, got 0"),
        ("layers", -1, "layers must be >= 0, got -1"),
        ("backlog_epochs", -1, "backlog_epochs must be >= 0, got -1"),
        ("phase_epochs", 0.5, "phase_epochs must be >= 1 and finite, got 0.5"),
        ("phase_epochs", float("nan"), "phase_epochs must be >= 1 and finite, got nan"),
        ("layout_epochs", float("inf"), "layout_epochs must be >= 1 and finite, got inf"),
        ("phase_regularity", 1e-320, r"phase_regularity must be >= 0.01"),
        ("bandwidth", 0.0, "bandwidth must be > 0 and finite, got 0"),
        ("kv_bytes", -1.0, r"kv_bytes must be in \[0, 1e\+15\], got -1"),
        ("latency", float("nan"), r"latency must be in \[0, 1000\], got nan"),
        ("base_share", 1.0, r"base_share must be in \(0, 1\), got 1"),
        ("migration_share", 0.0, r"migration_share must be in \(0, 1\), got 0"),
        ("memory", 0.0, r"memory must be in \(0, 1\], got 0"),
        ("domain_weight", 1.1, r"domain_weight must be in \[0, 1\], got 1.1"),
        ("redundancy", 0.9, "redundancy must be >= 1 and finite, got 0.9"),
        ("load_levels", (), "load_levels must be > 0 and finite"),
        ("load_levels", (1.0, 0.0), "load_levels must be > 0 and finite"),
    ],
)
def test_settings_name_the_field(field: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        replace(TINY, **{field: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"grid": "4by4"}, "grid must be rows x columns such as 16x8, got '4by4'"),
        ({"topologies": ("mesh", "tours")}, "unknown wiring 'tours'; did you mean 'torus'"),
        ({"library": "fabrics", "topologies": ("tours",)}, "unknown topology 'tours'"),
        ({"model": "mixtral"}, "unknown model 'mixtral'"),
        ({"trace": "no/such/folder"}, "no/such/folder"),
        ({"layouts": ("decode 17",)}, "needs 17 devices, the grid has 16"),
        ({"layouts": ("decode",)}, "a layout is pools like"),
        ({"ports": 3}, "degree=3"),
        ({"synthetic_requests": 12}, "at least 4 requests of each domain with phases, chat"),
        ({"synthetic_requests": 1}, "domain_weight must be 0"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_problems(replace(TINY, **changed))
    assert "\n" not in str(caught.value)


def test_a_domain_that_a_part_lacks_is_named() -> None:
    contexts = Contexts((), np.array([0, 2]), np.array([1.0]))
    whole = split_requests(TRACE, 0)
    scenario.check_domains(whole.values(), contexts, TRACE.domain_names)
    law = TRACE.domain_names.index("law")
    assert law == 2
    whole["test"] = whole["test"].select(np.flatnonzero(whole["test"].request_domain != law))
    with pytest.raises(InputError, match="at least 4 requests of each domain with phases, law"):
        scenario.check_domains(whole.values(), contexts, TRACE.domain_names)
    without = replace(contexts, domains=np.array([0, 1]))
    scenario.check_domains(whole.values(), without, TRACE.domain_names)


def test_placements_of_domains_alone_need_domains() -> None:
    one = TRACE.select(np.flatnonzero(TRACE.request_domain == 2))
    for placements in (("domains",), ("domains", "recent")):
        still = replace(TINY, domain_weight=0.0, placements=placements)
        with pytest.raises(InputError, match="placements must hold mix or annealed"):
            built(one, still)
    assert built(one, replace(TINY, domain_weight=0.0)).training.cluster.placements == (
        "mix",
        "annealed",
        "recent",
    )


def test_a_problem_of_a_scenario_survives_its_file(problems: Problems, tmp_path: Path) -> None:
    problem = problems.tests[7].switching
    problem.save(tmp_path / "test.npz")
    again = SwitchingProblem.load(tmp_path / "test.npz")
    again.save(tmp_path / "again.npz")
    assert (tmp_path / "test.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    np.testing.assert_array_equal(again.steps, problem.steps)
    assert again.demand_names == ("concentration", "locality")
    assert again.placements == problem.placements
