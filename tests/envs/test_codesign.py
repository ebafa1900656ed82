from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as check_env_sb3
from stable_baselines3.common.vec_env import DummyVecEnv

from topomoe.envs.cluster import CoDesignProblem
from topomoe.envs.codesign_env import CoDesignEnv
from topomoe.envs.codesign_layout import CoDesignLayout
from topomoe.envs.codesign_state import begin, plans
from topomoe.envs.codesign_task import CoDesignTask
from topomoe.envs.codesign_transition import masks, observe, step
from topomoe.envs.codesign_vector import CoDesignVectorEnv, PlacementVectorEnv
from topomoe.envs.moves import aligned, moved_seconds
from topomoe.envs.placement_env import PlacementEnv
from topomoe.envs.proposals import apply_moves, propose
from topomoe.envs.sb3 import SB3VecEnv
from topomoe.envs.step_price import price_steps
from topomoe.envs.switching import TopologySwitchEnv
from topomoe.envs.tiny_cluster import tiny_problem
from topomoe.envs.transition import charge
from topomoe.topologies.errors import InputError

PROBLEM = tiny_problem(160, 12, layers=2)
CHANGES = np.flatnonzero(np.diff(PROBLEM.pool.layout[PROBLEM.steps[:, 0]])) + 1
A, P, C = 4, 4, 5
REBALANCE = 1 + P + C
ENVS = {"Placement": PlacementEnv, "CoDesign": CoDesignEnv}
VECTORS = {"Placement": PlacementVectorEnv, "CoDesign": CoDesignVectorEnv}


def task(**options: Any) -> CoDesignTask:
    return CoDesignTask.of(PROBLEM, C, **options)


def random_actions(game: CoDesignTask, state: Any, rng: np.random.Generator) -> Any:
    """Choices that the masks allow, drawn evenly."""
    both = [mask for mask in masks(game, state) if mask.shape[1]]
    drawn = [(rng.random(mask.shape) * mask).argmax(axis=1) for mask in both]
    return np.stack(drawn, axis=1)


@pytest.mark.parametrize("name", ENVS)
@pytest.mark.parametrize(("observe_", "queue"), [("before", True), ("after", False)])
def test_checkers_find_nothing_to_warn_of(name: str, observe_: str, queue: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = gymnasium.make(f"topomoe/{name}-v0", problem=PROBLEM, observe=observe_, queue=queue)
        check_env(made.unwrapped)
        check_env_sb3(ENVS[name](PROBLEM, observe=observe_, queue=queue), warn=True)


@pytest.mark.parametrize("name", ENVS)
def test_made_by_name_with_a_vector_of_copies(name: str) -> None:
    copies = gymnasium.make_vec(f"topomoe/{name}-v0", num_envs=3, problem=PROBLEM)
    assert isinstance(copies, VECTORS[name])
    assert copies.reset(seed=1)[0].shape == (3, copies.single_observation_space.shape[0])
    one = gymnasium.make(f"topomoe/{name}-v0", problem=PROBLEM)
    assert one.action_space == copies.single_action_space


def test_without_a_problem_a_small_one_is_built_in() -> None:
    observation, info = CoDesignEnv().reset(seed=0)
    assert observation.shape == CoDesignEnv().observation_space.shape
    assert info["topology"] == "torus"


@pytest.mark.parametrize("name", ENVS)
@pytest.mark.parametrize("queue", [True, False])
def test_the_copies_are_those_of_gymnasiums_own_vector_environment(name: str, queue: bool) -> None:
    ours = VECTORS[name](4, PROBLEM, moves=C, queue=queue)
    theirs = SyncVectorEnv(
        [lambda: ENVS[name](PROBLEM, moves=C, queue=queue)] * 4,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    for one, other in zip(ours.reset(seed=9), theirs.reset(seed=9), strict=True):
        same(one, other)
    ours.action_space.seed(3)
    endings = masked = 0
    for _ in range(30):
        row = ours.action_space.sample()  # masked ones too
        mine, reference = ours.step(row), theirs.step(row)
        for one, other in zip(mine, reference, strict=True):
            same(one, other)
        singles = [env.action_masks() for env in theirs.envs]
        np.testing.assert_array_equal(ours.action_masks(), np.stack(singles))
        endings += int(mine[2].sum())
        masked += int(np.sum(mine[4].get("masked", 0)))
    assert endings == 4 * (30 // 12)
    assert masked > 0


def same(first: Any, second: Any) -> None:
    """Same keys and values, however deep; what a mask leaves out is not compared."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            mask = first.get(f"_{key}")
            if isinstance(mask, np.ndarray) and not isinstance(first[key], dict):
                same(list(first[key][mask]), list(second[key][mask]))
            else:
                same(first[key], second[key])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one, other)
    else:
        np.testing.assert_array_equal(first, second)


def test_library_actions_cost_what_the_table_environment_charges() -> None:
    ours, table = CoDesignEnv(PROBLEM, moves=C), TopologySwitchEnv(PROBLEM.switching)
    rng = np.random.default_rng(2)
    for episode in range(6):
        assert ours.reset(options={"episode": episode})[1]["epoch"] == 12 * episode
        table.reset(options={"episode": episode})
        for _ in range(12):
            topology, placement = rng.integers(A), rng.integers(P)
            _, mine, _, _, info = ours.step(np.array([topology, 1 + placement]))
            _, reward, _, _, said = table.step(int(topology * P + placement))
            assert mine == reward
            for key in ("dispatch", "compute", "combine", "other", "reconfiguration", "cost"):
                assert info[key] == said[key]
            assert (info["migration"], info["switched"]) == (said["migration"], said["switched"])
            assert (info["topology"], info["placement"]) == (said["topology"], said["placement"])
            assert info["moved"] == 0.0


def test_pricing_a_placement_afresh_is_what_the_table_says_of_it() -> None:
    """Copies told that their placement has left the library, though it has not."""
    game = task()
    rng = np.random.default_rng(4)
    state = begin(game, rng.integers(0, 148, 60))
    for _ in range(12):
        epoch = state.start + state.done
        action = np.stack([rng.integers(A, size=60), 1 + rng.integers(P, size=60)], axis=1)
        before = state.topology * P + state.base
        expected = charge(PROBLEM.switching, epoch, before, action[:, 0] * P + action[:, 1] - 1)
        _, _, priced = step(game, replace(state, moved=np.ones(60, dtype=bool)), action)
        np.testing.assert_allclose(priced.cost, expected.cost, rtol=1e-14)
        np.testing.assert_allclose(priced.migration, expected.migration, rtol=1e-12, atol=1e-15)
        for name, part in expected.components.items():
            np.testing.assert_allclose(priced.components[name], part, rtol=1e-12)
        state, _, _ = step(game, state, action)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("queue", [False, True])
def test_every_unmasked_choice_gives_a_valid_placement(fixed: bool, queue: bool) -> None:
    game = task(fixed=fixed, queue=queue)
    rng = np.random.default_rng(1)
    state = begin(game, rng.integers(0, 148, 80))
    low, high = game.layout.bounds()
    moved = returned = 0
    for _ in range(12):
        action = random_actions(game, state, rng)
        state, reward, outcome = step(game, state, action[:, 0] if fixed else action)
        assert not outcome.masked.any()
        observation = observe(game, state)
        assert ((observation >= low) & (observation <= high)).all()
        for slots, v in zip(state.slot_expert, state.layout, strict=True):
            device = PROBLEM.cluster.slot_device[v]
            group = np.where(device < 0, -1, PROBLEM.cluster.group_of[v][device])
            for row in slots:
                pairs = list(zip(device[device >= 0].tolist(), row[device >= 0], strict=True))
                assert len(set(pairs)) == len(pairs)
                for g in np.unique(group[group >= 0]):
                    assert set(row[group == g].tolist()) == set(range(16))
        parts = sum(outcome.components.values()) + outcome.reconfiguration + outcome.migration
        np.testing.assert_allclose(parts, outcome.cost, rtol=1e-12)
        np.testing.assert_allclose(reward, -outcome.cost / PROBLEM.switching.scale)
        moved += int((outcome.moved > 0).sum())
        returned += int(outcome.returned.sum())
    assert moved > 100
    assert returned > 0


def test_keeping_costs_nothing_beyond_the_epoch() -> None:
    game = task()
    rng = np.random.default_rng(5)
    state = begin(game, np.arange(40))
    for _ in range(3):
        state, _, _ = step(game, state, random_actions(game, state, rng))
    keep = np.stack([state.topology, np.zeros(40, dtype=int)], axis=1)
    same_layout = game.of_epoch[state.start + state.done] == state.layout
    after, _, outcome = step(game, state, keep)
    assert state.moved.sum() > 10
    assert not outcome.switched.any()
    assert not outcome.reconfiguration.any()
    assert not outcome.migration.any()
    coming = game.of_epoch[np.minimum(state.start + 4, 159)] == state.layout
    kept = same_layout & coming
    np.testing.assert_array_equal(after.slot_expert[kept], state.slot_expert[kept])


def test_a_masked_choice_is_as_if_kept_and_noted() -> None:
    game = task()
    state = begin(game, np.arange(60))
    empty = ~state.moves.valid[:, -1]
    assert empty.any()
    last_move = np.full(60, REBALANCE - 1)
    tried, reward, outcome = step(game, state, np.stack([state.topology, last_move], axis=1))
    np.testing.assert_array_equal(outcome.masked, empty)
    kept, same_reward, _ = step(
        game, state, np.stack([state.topology, np.zeros(60, dtype=int)], axis=1)
    )
    np.testing.assert_array_equal(reward[empty], same_reward[empty])
    np.testing.assert_array_equal(tried.slot_expert[empty], kept.slot_expert[empty])


def test_circuits_for_the_forecast_demand_are_those_of_the_coming_layout() -> None:
    at = int(CHANGES[0])
    for queue, where in ((True, at), (False, at - 1)):
        game = task(queue=queue)
        state, _, _ = step(game, begin(game, [at - 1]), [[0, 0]])
        _, _, outcome = step(game, state, [[A, 0]])
        assert outcome.topology[0] == PROBLEM.fitted[game.of_epoch[where]]
    without = replace(PROBLEM, fitted=np.array([-1, 3], dtype=np.int16))
    game = CoDesignTask.of(without, C)
    state = begin(game, [at - 1, at])
    np.testing.assert_array_equal(masks(game, state)[0][:, -1], game.of_epoch[[at - 1, at]] == 1)


def test_a_change_of_layout_takes_placements_back_without_a_charge() -> None:
    at = int(CHANGES[0])
    for queue in (True, False):
        game = task(queue=queue)
        state, _, outcome = step(game, begin(game, [at - 1]), [[0, REBALANCE]])
        assert outcome.moved[0] > 0
        kept, _, after = step(game, state, [[0, 0]])
        library = charge(PROBLEM.switching, np.array([at]), *np.zeros((2, 1), dtype=int))
        assert after.cost[0] == library.cost[0]
        assert after.moved[0] == 0
        assert after.returned[0]
        assert not outcome.returned[0]
        assert not kept.moved[0]
    # Unannounced, a move proposed for the old layout comes too late.
    moves = step(game, state, [[0, 1 + P]])[2] if state.moves.valid[0, 0] else after
    assert moves.moved[0] == 0


@pytest.mark.parametrize("queue", [True, False])
def test_observations_do_not_know_the_coming_epoch(queue: bool) -> None:
    """What follows the last epoch is exchanged, its queue features apart: nothing is seen of it."""
    at = int(CHANGES[0])
    steps = PROBLEM.steps.copy()
    steps[at:] = steps[at:][::-1]
    if not queue:
        steps[at] = PROBLEM.steps[at - 1]  # no change of layout
    elif PROBLEM.pool.layout[steps[at, 0]] != PROBLEM.pool.layout[PROBLEM.steps[at, 0]]:
        steps[at] = PROBLEM.steps[at, ::-1]
    components = {name: part.copy() for name, part in PROBLEM.switching.components.items()}
    for part in components.values():
        part[at:] = part[at:][::-1]
    switching = replace(
        PROBLEM.switching, components=components, cost=sum(components.values()), metric=()
    )
    forecast = PROBLEM.forecast.copy()
    forecast[at + 1 :] = forecast[at + 1 :][::-1]
    other = replace(PROBLEM, steps=steps, switching=switching, forecast=forecast)
    seen = []
    for problem in (PROBLEM, other):
        game = CoDesignTask.of(problem, C, queue=queue)
        state = begin(game, [at - 2])
        for action in ([[1, 2]], [[0, REBALANCE]]):
            state, _, _ = step(game, state, action)
        seen.append(observe(game, state))
    np.testing.assert_array_equal(*seen)


def test_after_observes_the_coming_costs_of_the_library() -> None:
    game = task(observe="after")
    state, _, _ = step(game, begin(game, [3]), [[2, 3]])
    observation = observe(game, state)[0]
    cost = PROBLEM.switching.cost[4] / PROBLEM.switching.scale
    np.testing.assert_allclose(observation[game.layout["coming"]], cost, rtol=1e-6)
    last = PROBLEM.switching.cost[3] / PROBLEM.switching.scale
    np.testing.assert_allclose(observation[game.layout["last"]], last, rtol=1e-6)
    assert observation[game.layout["topology"]].tolist() == [0, 0, 1, 0]
    assert observation[game.layout["placement"]].tolist() == [0, 0, 1, 0]
    assert observation[game.layout["left"]] == pytest.approx(11 / 12)


def test_the_parts_of_an_observation_fill_it_in_order() -> None:
    for layout in (
        CoDesignLayout(3, 2, 4, 5, 6, True),
        CoDesignLayout(3, 2, 4, 5, 6, fixed=True, observe="after", queue=False),
    ):
        at = 0
        for part, size in layout.sizes.items():
            assert layout[part] == slice(at, at + size)
            at += size
        assert layout.size == at == len(layout.bounds()[0])
    with pytest.raises(InputError, match="part of an observation"):
        _ = layout["gain"]


@pytest.mark.parametrize("at", [10, 60, int(CHANGES[0]), int(CHANGES[1])])
def test_a_forecast_that_comes_true_saves_what_was_promised(at: int) -> None:
    """Steps whose counts are the forecast's own, at the usual numbers of tokens."""
    cluster, pool = PROBLEM.cluster, PROBLEM.pool
    share = PROBLEM.forecast[at] / PROBLEM.forecast[at].sum(axis=1, keepdims=True)
    v = int(task().of_epoch[at])
    usual = pool.counts[pool.layout == v].sum(axis=3).mean(axis=0)
    counts = (usual[..., None] * share).astype(np.float32)[None]
    true = replace(
        pool,
        counts=counts,
        background=pool.background[:1],
        shared=np.zeros((1, counts.shape[1])),
        other=np.zeros((1, counts.shape[1])),
        layout=np.array([v], dtype=np.int16),
    )
    game = task()
    state = begin(game, [at])
    moved = [apply_moves(state.slot_expert, state.moves, np.array([c])) for c in range(C)]
    slots = np.concatenate([state.slot_expert, game.plans.target[[at]], *moved])
    count = len(slots)
    parts = price_steps(
        cluster, true, np.zeros(count, dtype=int), np.full(count, state.topology[0]), slots
    )
    seconds = parts.sum(axis=0)
    saved = 1 - seconds[1:] / seconds[0]
    observation = observe(game, state)[0]
    gains = observation[game.layout["gains"]]
    assert observation[game.layout["rebalance"]][0] == pytest.approx(saved[0], abs=1e-5)
    assert state.moves.valid.any()
    np.testing.assert_allclose(gains, saved[1:], atol=1e-5)
    present = gains[state.moves.valid[0]]
    assert (np.diff(present) <= 0).all()


@pytest.mark.parametrize("queue", [True, False])
def test_what_is_kept_from_earlier_epochs_is_what_would_be_worked_out_anew(queue: bool) -> None:
    game = task(queue=queue)
    rng = np.random.default_rng(8)
    state = begin(game, np.tile([20, 30, int(CHANGES[0]) - 3], 10))
    for _ in range(6):
        state, _, _ = step(game, state, random_actions(game, state, rng))
        fresh = plans(
            task(queue=queue),
            state.start + state.done,
            state.topology,
            state.base,
            state.layout,
            state.slot_expert,
        )
        for name in ("layer", "slot", "expert", "gain", "imbalance"):
            np.testing.assert_array_equal(
                getattr(state.moves, name), getattr(fresh["moves"], name), err_msg=name
            )
        np.testing.assert_array_equal(state.target_gain, fresh["target_gain"])
        np.testing.assert_array_equal(state.target_share, fresh["target_share"])
    epoch = state.start + state.done
    row = np.where(game.of_epoch[epoch] == state.layout, epoch, game.stale[epoch])
    target = game.plans.target[row]
    seconds = moved_seconds(
        PROBLEM.cluster,
        state.slot_expert,
        aligned(PROBLEM.cluster, target, state.slot_expert, state.layout),
        state.layout,
    )
    share = np.minimum(seconds / PROBLEM.epoch_seconds, 1.0)
    np.testing.assert_allclose(state.target_share, share)
    alone = propose(PROBLEM.cluster, state.slot_expert, PROBLEM.forecast, state.layout, C, epoch)
    np.testing.assert_allclose(state.moves.imbalance, alone.imbalance)
    np.testing.assert_array_equal(state.moves.valid, alone.valid)
    for n in range(len(epoch)):
        ours, theirs = (
            {(layer, *slots) for layer, slots in zip(m.layer[n], m.slot[n].tolist(), strict=True)}
            for m in (state.moves, alone)
        )
        assert ours == theirs


def test_rebalancing_takes_the_target_and_is_charged() -> None:
    game = task(fixed=True)
    state = begin(game, np.arange(0, 120, 7))
    share = observe(game, state)[:, game.layout["rebalance"]][:, 1]
    _, _, outcome = step(game, state, np.full(len(share), 1 + C))
    assert (share > 0).any()
    np.testing.assert_array_equal(outcome.migration > 0, share > 0)


def test_placements_stay_on_one_topology() -> None:
    env = PlacementEnv(PROBLEM, topology="expander", moves=C)
    env.reset(seed=0)
    names = {
        env.step(int(env.action_space.sample(env.action_masks().astype(np.int8))))[4]["topology"]
        for _ in range(12)
    }
    assert names == {"expander"}
    best = PROBLEM.cluster.topologies[PROBLEM.switching.start // P]
    assert PlacementEnv(PROBLEM).reset(seed=0)[1]["topology"] == best
    with pytest.raises(InputError, match="topology"):
        PlacementEnv(PROBLEM, topology="expandr")


@pytest.mark.parametrize("name", ENVS)
def test_actions_that_are_no_choice_are_refused(name: str) -> None:
    env, copies = ENVS[name](PROBLEM, moves=C), VECTORS[name](2, PROBLEM, moves=C)
    wrong: list[Any] = [[0, REBALANCE + 1], [A + 1, 0], [0, -1], [0.5, 0], [0]]
    if name == "Placement":
        wrong = [C + 2, -1, 0.5, [0, 0]]
    for made in (env, copies):
        with pytest.raises(InputError, match="reset"):
            made.step(np.zeros_like(copies.action_space.sample()))
        with pytest.raises(InputError, match="reset"):
            made.action_masks()
        made.reset(seed=0)
    for action in wrong:
        with pytest.raises(InputError, match="action"):
            env.step(np.array(action))
        with pytest.raises(InputError, match="action"):
            copies.step(np.array([action, action]))


def test_wrong_arguments_are_refused_by_name() -> None:
    for arguments, match in (
        ({"observe": "befor"}, "observe"),
        ({"moves": -1}, "moves"),
        ({"render_mode": "human"}, "render_mode"),
        ({"part": "tests"}, "part of a scenario"),
        ({"problem": PROBLEM.switching}, "CoDesignProblem"),
        ({"problem": PROBLEM, "scenario": "default"}, "got both"),
    ):
        with pytest.raises(InputError, match=match):
            CoDesignEnv(**arguments)
    with pytest.raises(InputError, match="num_envs"):
        CoDesignVectorEnv(0, PROBLEM)
    lacking = replace(PROBLEM, cluster=replace(PROBLEM.cluster, placements=("recent", *"abc")))
    with pytest.raises(InputError, match="recent"):
        CoDesignTask.of(lacking)


def test_a_placement_made_anew_as_time_goes_on_is_followed() -> None:
    recent = np.stack(
        [PROBLEM.cluster.slot_expert[1 + t // 40 % 3, v] for t, v in enumerate(task().of_epoch)]
    )
    renamed = replace(PROBLEM.cluster, placements=("recent", *PROBLEM.cluster.placements[1:]))
    problem: CoDesignProblem = replace(PROBLEM, cluster=renamed, recent=recent)
    game = CoDesignTask.of(problem, C)
    state = begin(game, [38])
    for epoch in range(38, 44):
        np.testing.assert_array_equal(
            game.library_slots(np.array([epoch]), np.array([0]))[0], recent[epoch]
        )
        state, _, outcome = step(game, state, [[0, 0]])
        assert outcome.moved[0] == 0.0


def test_pictures_and_lines_tell_where_an_episode_stands() -> None:
    env = CoDesignEnv(PROBLEM, render_mode="ansi")
    env.reset(options={"episode": 0})
    assert env.render() == "epoch 0: starts in torus/mix"
    env.step(np.array([1, 2]))
    assert str(env.render()).startswith("epoch 0: expander/topic-0, cost ")
    drawn = CoDesignEnv(PROBLEM, render_mode="rgb_array")
    drawn.reset(options={"episode": 0})
    empty = drawn.render()
    drawn.step(np.array([1, 2]))
    full = drawn.render()
    assert isinstance(empty, np.ndarray)
    assert isinstance(full, np.ndarray)
    assert full.dtype == np.uint8
    assert full.shape == empty.shape
    assert (full != empty).any()
    assert CoDesignEnv(PROBLEM).render() is None


@pytest.mark.parametrize("name", ENVS)
def test_copies_stored_and_loaded_go_on_as_if_never_stopped(name: str) -> None:
    copies, again = VECTORS[name](3, PROBLEM, moves=C), VECTORS[name](3, PROBLEM, moves=C)
    copies.reset(seed=5)
    copies.action_space.seed(6)
    for _ in range(7):
        copies.step(copies.action_space.sample())
    again.load_state_dict(copies.state_dict())
    np.testing.assert_array_equal(again.action_masks(), copies.action_masks())
    for _ in range(20):  # past the end of an episode
        action = copies.action_space.sample()
        for one, other in zip(copies.step(action), again.step(action), strict=True):
            same(one, other)


def test_states_of_other_copies_are_refused() -> None:
    copies = CoDesignVectorEnv(2, PROBLEM, moves=C)
    with pytest.raises(InputError, match="reset"):
        copies.state_dict()
    copies.reset(seed=0)
    good = copies.state_dict()
    wrong = {
        "start": good["start"] + 10_000,
        "base": good["base"][:1],
        "moved": good["moved"].astype(int),
        "slot_expert": good["slot_expert"] + 16,
        "average": good["average"] * np.nan,
    }
    for field, value in wrong.items():
        with pytest.raises(InputError, match=field):
            copies.load_state_dict({**good, field: value})
    for missing in ("own", "generators"):
        with pytest.raises(InputError, match=missing):
            copies.load_state_dict({key: good[key] for key in good if key != missing})
    copies.load_state_dict(good)


@pytest.mark.parametrize("name", ENVS)
def test_the_sb3_adaptor_is_dummy_vec_env_over_the_single_environment(name: str) -> None:
    ours = SB3VecEnv.of(VECTORS[name](3, PROBLEM, moves=C), "full")
    theirs = DummyVecEnv([lambda: ENVS[name](PROBLEM, moves=C)] * 3)
    for env in (ours, theirs):
        env.seed(11)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    ours.copies.action_space.seed(2)
    for _ in range(15):
        row = ours.copies.action_space.sample()
        mine, reference = ours.step(row), theirs.step(row)
        for part in range(3):
            np.testing.assert_array_equal(mine[part], reference[part])
        for info, said in zip(mine[3], reference[3], strict=True):
            for key, value in said.items():
                np.testing.assert_array_equal(info[key], value)
        both = ours.env_method("action_masks"), theirs.env_method("action_masks")
        np.testing.assert_array_equal(*both)
