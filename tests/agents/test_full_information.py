from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from topomoe.agents import fitted_q, hindsight, value_policy
from topomoe.agents.backward_induction import Values, migration_cost
from topomoe.agents.clairvoyant import plan
from topomoe.agents.hysteresis import tune
from topomoe.agents.rollout import rollout
from topomoe.agents.static import never_switch
from topomoe.agents.value_backup import backup
from topomoe.agents.value_features import observations
from topomoe.agents.value_policy import QPolicy
from topomoe.agents.value_settings import FittedQSettings, HindsightSettings
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.migration import Migration
from topomoe.envs.phases import phase_problem
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.transition import begin, observe, step, transition_cost
from topomoe.topologies.errors import InputError

LEARNERS = {"fitted-q": fitted_q, "hindsight": hindsight}
QUICK = {"units": 32, "ridge": (0.01,), "horizons": (16,), "margins": (1.0, 2.0)}
WHOLE = phase_problem(num_configurations=4, epochs=1500, episode_length=30, noise=0.1, seed=1)
TRAINING, VALIDATION = WHOLE.part(0, 700), WHOLE.part(700, 1000)
TEST = WHOLE.part(1000, 1500).calibrated(TRAINING)
# Two topologies with two placements; moving experts stalls steps and lets the old placement serve.
MIGRATION = Migration(stall=[[0.0, 0.2], [0.1, 0.0]], lag=[[0.0, 0.6], [0.3, 0.0]], slowdown=0.4)


def placed(problem: SwitchingProblem, migration: Migration = MIGRATION) -> SwitchingProblem:
    return SwitchingProblem(
        names=("a/x", "a/y", "b/x", "b/y"),
        placements=("x", "y"),
        migration=migration,
        cost=problem.cost,
        switch_cost=problem.switch_cost * (np.arange(4)[:, None] // 2 != np.arange(4) // 2),
        components=problem.components,
        features=problem.features,
        feature_names=problem.feature_names,
        episode_length=problem.episode_length,
    )


def quick(name: str, **given: object) -> QPolicy:
    module: ModuleType = LEARNERS[name]
    own = FittedQSettings if name == "fitted-q" else HindsightSettings
    options: dict[str, object] = {**QUICK, **given}
    problems = options.pop("problems", (TRAINING, VALIDATION))
    policy: QPolicy = module.train(problems[0], own(**options), 3, problems[1])  # type: ignore[index, arg-type]
    return policy


@pytest.fixture(scope="module", params=sorted(LEARNERS))
def agent(request: pytest.FixtureRequest) -> QPolicy:
    return quick(request.param)


@pytest.fixture
def folder(agent: QPolicy, tmp_path: Path) -> Path:
    agent.save(tmp_path / "agent")
    return tmp_path / "agent"


def read(folder: Path) -> QPolicy:
    return value_policy.load(folder, json.loads((folder / "agent.json").read_text()))


@pytest.mark.parametrize("target", ["realised", "expected"])
def test_fitted_q_finds_the_optimal_policy_of_a_markov_chain_whose_state_it_sees(
    target: str,
) -> None:
    random = np.random.default_rng(0)
    chain = np.array([[0.8, 0.15, 0.05], [0.05, 0.75, 0.2], [0.3, 0.1, 0.6]])
    table = np.array([[1.0, 1.6, 1.3], [1.5, 1.0, 1.2], [1.9, 1.7, 1.0]])
    switch = np.array([[0.0, 0.7, 0.4], [0.6, 0.0, 0.5], [0.9, 0.3, 0.0]])
    kind = np.zeros(20_000, dtype=np.int64)
    for epoch in range(1, kind.size):
        kind[epoch] = random.choice(3, p=chain[kind[epoch - 1]])
    problem = SwitchingProblem(
        ("a", "b", "c"),
        table[kind],
        switch,
        features=np.eye(3)[kind],
        feature_names=("s0", "s1", "s2"),
        episode_length=50,
    ).part(0, 20_000)
    policy = fitted_q.train(
        problem,
        FittedQSettings(("queue",), (1e-7,), (30,), (1.0,), targets=(target,)),
        validation=problem.part(0, 1000),
    )
    value = np.zeros((3, 3))
    for _ in range(30):
        action_value = switch + table[:, None] + (chain @ value)[:, None]  # [state, from, to]
        value = action_value.min(axis=2)
    state, current = (index.ravel() for index in np.indices((3, 3)))
    observation = np.zeros((9, policy.layout.size), np.float32)
    observation[np.arange(9), current] = 1.0
    observation[:, policy.layout["queue"]] = np.eye(3)[state]
    observation[:, -1] = 35 / 50  # past the opening, before the end: the whole horizon is left
    exact = action_value[state, current]
    learned = policy.q_values(observation) * problem.calibrated(problem).scale
    apart = learned - learned.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(apart, exact - exact.mean(axis=1, keepdims=True), atol=0.03)
    np.testing.assert_array_equal(policy.predict(observation)[0], exact.argmin(axis=1))
    assert (exact.argmin(axis=1) != current).any()
    assert (exact.argmin(axis=1) != (table[state] + switch[current]).argmin(axis=1)).any()


@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("observed", ["before", "after"])
@pytest.mark.parametrize("name", ["fitted-q", "hindsight"])
def test_where_traffic_repeats_and_its_phase_is_seen_the_policy_is_the_optimum(
    name: str, observed: str, moves: bool
) -> None:
    random = np.random.default_rng(5)
    cost = np.tile(random.uniform(0.5, 1.5, (7, 4)), (60, 1))
    problem = SwitchingProblem(
        ("a", "b", "c", "d"),
        cost,
        0.4 * (1.0 - np.eye(4)),
        components={"dispatch": 0.7 * cost, "compute": 0.3 * cost},
        features=np.tile(np.eye(7), (60, 1)),
        feature_names=tuple("0123456"),
        episode_length=20,
    )
    problem = placed(problem) if moves else problem
    problem = problem.calibrated(problem)
    policy = quick(
        name,
        problems=(problem, problem),
        features=("queue",),
        ridge=(1e-9,),
        margins=(1.0,),
        observe=observed,
    )
    run = rollout(policy, problem)
    np.testing.assert_allclose(run.cost.sum(axis=1), plan(problem)[1], rtol=1e-4)
    assert run.switched.any()


@given(seed=st.integers(0, 10_000), places=st.integers(1, 2))
@hypothesis_settings(max_examples=20, deadline=None)
def test_a_backup_takes_the_believed_best_and_charges_what_it_costs(seed: int, places: int) -> None:
    random = np.random.default_rng(seed)
    value, outcome = random.uniform(0, 1, (2, 5, 4))
    switch, paid_switch = random.uniform(0, 0.5, (2, 4, 4))
    move, paid_move = random.uniform(0, 0.5, (2, 5, places, 4))
    place = np.arange(4) % places
    believed = value[:, None] + switch + move[:, place]
    charged = outcome[:, None] + paid_switch + paid_move[:, place]
    best = believed.argmin(axis=2)[..., None]
    expected = np.take_along_axis(charged, best, axis=2)[..., 0]
    found = backup(value, switch, move, outcome, paid_switch, paid_move)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_backup_keeps_the_current_configuration_in_a_tie() -> None:
    flat, zero = np.ones((1, 3)), np.zeros((3, 3))
    outcome = np.array([[5.0, 6.0, 7.0]])
    found = backup(flat, zero, np.zeros((1, 1, 3)), outcome, zero, np.zeros((1, 1, 3)))
    np.testing.assert_array_equal(found, outcome)


def test_migration_costs_are_what_the_transition_charges() -> None:
    problem = placed(WHOLE.part(0, 130))
    move = migration_cost(problem) * problem.scale
    whole = transition_cost(problem, np.arange(130))
    mine = problem.cost[:, None] + problem.switch_cost + move[:, np.arange(4) % 2]
    np.testing.assert_allclose(mine, whole, rtol=1e-12)
    assert not migration_cost(WHOLE).any()


@pytest.mark.parametrize("observed", ["before", "after"])
def test_observations_of_all_epochs_are_those_of_episodes(observed: str) -> None:
    problem = WHOLE.part(0, 90)
    layout = ObservationLayout.of(problem, observed)
    seen = slice(layout["last"].start, layout["left"].start)
    state = begin(problem, [0, 25, 60])
    for age in range(12):
        expected = observe(problem, state, layout)
        every = observations(problem, layout, age)
        found = every[state.start + age]
        np.testing.assert_allclose(found[:, seen], expected[:, seen], rtol=1e-6)
        state = step(problem, state, np.zeros(3, np.int64))[0]
    ageless = observations(problem, layout, None)
    np.testing.assert_allclose(ageless[12, seen], observe(problem, state, layout)[0, seen], 1e-6)


def test_learners_beat_tuned_hysteresis_on_episodes_they_never_saw(agent: QPolicy) -> None:
    cost = rollout(agent, TEST).cost.sum(axis=1)
    best = plan(TEST)[1]
    assert (cost >= best * (1 - 1e-9)).all()
    online = rollout(tune(TRAINING), TEST).cost.sum()
    assert online - cost.sum() > 0.3 * (online - best.sum())


def never_pays(name: str) -> SwitchingProblem:
    if name == "free of gain":
        return phase_problem(5, 1000, 40, penalty=0.0, noise=0.1, seed=4)
    if name == "dear":
        return phase_problem(5, 1000, 40, switch=30.0, seed=4)
    random = np.random.default_rng(9)
    one = phase_problem(1, 1000, 40).cost
    return SwitchingProblem(
        ("a", "b"),
        np.hstack([one, 1.02 * one]),
        0.1 * (1 - np.eye(2)),
        features=random.standard_normal((1000, 20)),
        feature_names=tuple(f"noise {i}" for i in range(20)),
        episode_length=40,
    )


@pytest.mark.parametrize("control", ["free of gain", "dear", "one is always best"])
@pytest.mark.parametrize("name", ["fitted-q", "hindsight"])
def test_where_switching_never_pays_learners_do_not_switch(name: str, control: str) -> None:
    whole = never_pays(control)
    training, validation, test = whole.part(0, 480), whole.part(480, 720), whole.part(720, 1000)
    policy = quick(name, problems=(training, validation), ridge=(0.001, 0.1))
    held_out = test.calibrated(training)
    run = rollout(policy, held_out)
    assert run.switched.mean() <= 0.002
    assert run.cost.sum() <= 1.001 * rollout(never_switch(training), held_out).cost.sum()


def test_without_proof_of_a_gain_the_agent_never_switches(tmp_path: Path) -> None:
    policy = quick("hindsight", proof=1e9)
    assert not rollout(policy, TEST).switched.any()
    observation = observe(TEST, begin(TEST, TEST.episodes()), policy.layout)
    assert (policy.action_logits(observation).argmax(axis=1) == TEST.start).all()
    policy.save(tmp_path)
    assert not rollout(read(tmp_path), TEST).switched.any()


@pytest.mark.parametrize("name", ["fitted-q", "hindsight"])
@pytest.mark.parametrize(
    ("change", "settings"),
    [
        (lambda p: p, {"queue": False}),
        (lambda p: p, {"observe": "after"}),
        (placed, {}),
        (placed, {"observe": "after", "queue": False}),
        (lambda p: SwitchingProblem(("a",), p.cost[:, :1], [[0.0]], episode_length=30), {}),
        (lambda p: SwitchingProblem(tuple("abcd"), p.cost, p.switch_cost, episode_length=1), {}),
        (lambda p: SwitchingProblem(tuple("abcd"), p.cost[:5], p.switch_cost), {}),
        (
            lambda p: SwitchingProblem(
                tuple("abcd"),
                p.cost,
                p.switch_cost,
                features=np.ones((p.num_epochs, 2)),
                feature_names=("one", "two"),
                demand=p.features[:, :1],
                demand_names=("hot",),
                episode_length=45,
            ),
            {},
        ),
    ],
    ids=["no queue", "after", "placed", "placed after", "K=1", "H=1", "T=5", "constant"],
)
@pytest.mark.filterwarnings("error")
def test_every_kind_of_problem_is_learned_and_nothing_is_lost_in_a_file(
    name: str,
    change: Callable[[SwitchingProblem], SwitchingProblem],
    settings: dict[str, object],
    tmp_path: Path,
) -> None:
    training, test = change(TRAINING), change(WHOLE.part(1000, 1500)).calibrated(change(TRAINING))
    policy = quick(
        name, problems=(training, None), features=("linear", "queue-products", "random"), **settings
    )
    run = rollout(policy, test)
    never = rollout(never_switch(training, policy.layout.observe), test)
    assert run.cost.sum() <= 1.01 * never.cost.sum()
    policy.save(tmp_path)
    loaded = read(tmp_path)
    loaded.check(test)
    np.testing.assert_array_equal(rollout(loaded, test).choice, run.choice)


def test_a_switch_that_is_made_anew_each_epoch_is_priced_by_what_is_seen() -> None:
    # Moving is dear in every second epoch, which the feature tells; costs favour switching.
    epochs = 800
    kind = (np.arange(epochs) // 10) % 2
    dear = np.arange(epochs) % 2
    cost = np.stack([1.0 + kind, 2.0 - kind], axis=1)
    stall = 3.0 * dear[:, None, None] * (1.0 - np.eye(2))
    problem = SwitchingProblem(
        ("t/x", "t/y"),
        cost,
        np.zeros((2, 2)),
        placements=("x", "y"),
        migration=Migration(stall, np.zeros_like(stall)),
        features=np.stack([kind, dear], axis=1),
        feature_names=("kind", "dear"),
        episode_length=50,
    )
    policy = quick("fitted-q", problems=(problem, problem), features=("queue-products",))
    run = rollout(policy, problem.calibrated(problem))
    assert run.switched.any()
    assert not dear[run.epoch[run.switched]].any()


def test_logits_are_log_probabilities_that_prefer_what_the_policy_does(agent: QPolicy) -> None:
    observation = observe(TEST, begin(TEST, TEST.episodes()), agent.layout)
    logits = agent.action_logits(observation, temperature=0.1)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(np.exp(logits).sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(logits.argmax(axis=1), agent.predict(observation)[0])
    with pytest.raises(InputError, match="temperature"):
        agent.action_logits(observation, temperature=0.0)


def test_the_same_settings_give_the_same_bytes(agent: QPolicy, folder: Path) -> None:
    quick(agent.algorithm).save(folder.parent / "again")
    read(folder).save(folder.parent / "loaded")
    for file in ("agent.json", "policy.safetensors", "learning_curve.csv"):
        for other in ("again", "loaded"):
            assert (folder / file).read_bytes() == (folder.parent / other / file).read_bytes()


def test_a_saved_agent_acts_as_before(agent: QPolicy, folder: Path) -> None:
    loaded = read(folder)
    np.testing.assert_array_equal(rollout(loaded, TEST).choice, rollout(agent, TEST).choice)
    assert (loaded.settings, loaded.seed, loaded.curve) == (agent.settings, 3, agent.curve)
    assert sorted(path.name for path in folder.iterdir()) == [
        "agent.json",
        "learning_curve.csv",
        "policy.safetensors",
    ]
    assert loaded.curve[-1][1] < 1.0


def test_progress_counts_every_policy_tried() -> None:
    seen: list[tuple[int, int]] = []
    settings = HindsightSettings(("linear",), (0.01, 0.1), (8, 16), (1.0, 2.0))
    hindsight.train(TRAINING, settings, 0, VALIDATION, lambda *at: seen.append(at))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_an_agent_of_another_environment_is_refused(agent: QPolicy) -> None:
    for other, what in (
        (phase_problem(num_configurations=3, epochs=50), "names"),
        (placed(TEST), "names"),
        (SwitchingProblem(TEST.names, TEST.cost, TEST.switch_cost), "feature_names"),
    ):
        with pytest.raises(InputError, match=what):
            agent.check(other)


def test_validation_of_another_environment_is_refused() -> None:
    for other, what in (
        (phase_problem(num_configurations=3, epochs=300, episode_length=30), "names"),
        (phase_problem(num_configurations=4, epochs=300, episode_length=20), "episodes of 30"),
    ):
        with pytest.raises(InputError, match=what):
            hindsight.train(TRAINING, validation=other)


@pytest.mark.parametrize("file", ["policy.safetensors", "learning_curve.csv"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage", "empty"])
def test_a_damaged_agent_is_refused_by_file(folder: Path, file: str, damage: str) -> None:
    path = folder / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        changed = {"truncated": content[: len(content) // 2], "garbage": b"\xff\x00,x"}
        path.write_bytes(changed.get(damage, b""))
    if file == "learning_curve.csv" and damage == "truncated":
        path.write_bytes(content + b"16,")
    with pytest.raises(InputError, match=file) as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_weights_of_another_shape_or_not_finite_are_refused(folder: Path) -> None:
    path = folder / "policy.safetensors"
    weights = load_arrays(path.read_bytes())
    stages = weights["weight"]
    for key, value in (
        ("metric", np.zeros((7, 7), np.float32)),
        ("metric", np.full((4, 4), np.nan, np.float32)),
        ("metric", np.zeros((4, 4))),
        ("extra", np.zeros(1, np.float32)),
        ("weight", stages[:3]),
        ("weight", stages[:, :-1].copy()),
        ("weight", stages[:0]),
        ("migration", np.zeros((13, 2, 4), np.float32)),
        ("migration", np.zeros((1, 1, 4), np.float32)),
    ):
        path.write_bytes(save_arrays({**weights, key: value}))
        with pytest.raises(InputError, match=r"policy\.safetensors"):
            read(folder)
    path.write_bytes(save_arrays({**weights, "metric": np.ones((4, 4), np.float32)}))
    with pytest.raises(InputError, match="SHA-256"):
        read(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "ppo"},
        {"settings": {"ridges": [1]}},
        {"settings": {"ridge": [-1.0]}},
        {"settings": {"ridge": 1.0}},
        {"settings": None},
        {"choice": {}},
        {"choice": {"features": "all"}},
        {"names": ["a", "b"]},
        {"names": 3},
        {"demand_names": None},
        {"observation": {}},
        {"switching": "maybe"},
        {"switches": 1},
        {"seed": None},
        {"placements": 3},
        {"placements": 0},
        {"episode_length": 0},
        {"episode_length": 1e9},
    ],
)
def test_a_wrong_configuration_is_refused(folder: Path, change: dict[str, object]) -> None:
    path = folder / "agent.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=r"agent\.json") as caught:
        read(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "setting",
    [
        {"features": ()},
        {"features": ("cubic",)},
        {"ridge": (0.0,)},
        {"units": 0},
        {"units": 10**9},
        {"ridge": (float("nan"),)},
        {"horizons": (0,)},
        {"horizons": (1.5,)},
        {"margins": (0.5,)},
        {"margins": ()},
        {"targets": ("true",)},
        {"targets": ()},
        {"proof": -1.0},
        {"observe": "during"},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(setting: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(setting))):
        FittedQSettings(**setting)  # type: ignore[arg-type]


def test_in_a_tie_the_policy_stays(agent: QPolicy) -> None:
    values = Values(np.zeros_like(agent.values.weight), np.zeros_like(agent.values.migration))
    free = np.zeros((4, 4), np.float32)
    idle = QPolicy(agent.origin, agent.features, values, free, free)
    observation = np.zeros((4, agent.layout.size), np.float32)
    observation[:, agent.layout["current"]] = np.eye(4)
    np.testing.assert_array_equal(idle.predict(observation)[0], np.arange(4))


@pytest.mark.parametrize("name", ["fitted-q", "hindsight"])
def test_a_larger_margin_switches_less(name: str) -> None:
    eager, wary = (quick(name, margins=(margin,), proof=0.0) for margin in (1.0, 3.0))
    assert rollout(wary, TEST).switched.mean() < rollout(eager, TEST).switched.mean()


def test_the_chosen_policy_is_fitted_to_the_validation_episodes_too() -> None:
    one = {"features": ("linear",), "margins": (1.0,), "proof": 0.0}
    other = WHOLE.part(900, 1200)
    policies = [quick("hindsight", problems=(TRAINING, v), **one) for v in (VALIDATION, other)]
    assert policies[0].origin.choice == policies[1].origin.choice
    assert not np.array_equal(policies[0].values.weight, policies[1].values.weight)


def test_hindsight_values_are_below_what_can_be_had_and_targets_differ() -> None:
    one = {
        "features": ("linear",),
        "ridge": (1e3,),
        "proof": 0.0,
    }  # nothing but the mean is learned
    mean = {
        target: quick("fitted-q", targets=(target,), **one).values.weight[:, -1].mean()
        for target in ("realised", "expected")
    }
    mean["hindsight"] = quick("hindsight", **one).values.weight[:, -1].mean()
    assert mean["hindsight"] < 0.98 * min(mean["realised"], mean["expected"])
    informed = {
        target: quick("fitted-q", targets=(target,), features=("linear",), ridge=(0.3,)).values
        for target in ("realised", "expected")
    }

    assert not np.allclose(informed["realised"].weight, informed["expected"].weight, rtol=1e-3)
