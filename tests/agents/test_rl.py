from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from topomoe.agents.clairvoyant import plan
from topomoe.agents.learned import LearnedPolicy, load_agent
from topomoe.agents.rl import EpochRegret, train
from topomoe.agents.rollout import rollout
from topomoe.agents.settings import PPOSettings
from topomoe.agents.static import never_switch
from topomoe.envs.phases import phase_problem
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.sb3 import SB3VecEnv
from topomoe.topologies.errors import InputError

WHOLE = phase_problem(num_configurations=3, epochs=900, episode_length=25, seed=1)
TRAINING = WHOLE.part(0, 600)
TRAINING = TRAINING.calibrated(TRAINING)
TEST = WHOLE.part(600, 900).calibrated(TRAINING)
SHORT = PPOSettings(timesteps=2048, copies=16, rollout=32, batch_size=128, passes=2, hidden=(16,))


@pytest.fixture(scope="module")
def agent() -> LearnedPolicy:
    return train(TRAINING, SHORT, seed=3)


@pytest.fixture
def folder(agent: LearnedPolicy, tmp_path: Path) -> Path:
    agent.save(tmp_path / "agent")
    return tmp_path / "agent"


def test_some_training_beats_never_switching_and_stays_above_the_optimum() -> None:
    settings = PPOSettings(timesteps=32_768, hidden=(64,))
    trained = train(TRAINING, settings, seed=0)
    cost = rollout(trained, TEST).cost.sum(axis=1)
    assert cost.sum() < 0.97 * rollout(never_switch(TRAINING), TEST).cost.sum()
    assert (cost >= plan(TEST)[1] * (1 - 1e-12)).all()
    assert trained.curve[-1][1] < 0.8 * trained.curve[0][1]


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(
    agent: LearnedPolicy,
) -> None:
    again, other = train(TRAINING, SHORT, seed=3), train(TRAINING, SHORT, seed=4)
    assert again.curve == agent.curve
    for key, value in agent.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[key])
    assert other.curve != agent.curve


def test_progress_counts_up_to_the_whole_training() -> None:
    seen: list[tuple[int, int]] = []
    train(TRAINING, SHORT, seed=0, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(512, 2048), (1024, 2048), (1536, 2048), (2048, 2048)]


def test_training_leaves_the_number_of_torch_threads_alone(agent: LearnedPolicy) -> None:
    before = torch.get_num_threads()
    train(TRAINING, SHORT, seed=1)
    assert torch.get_num_threads() == before


def test_the_training_reward_differs_from_the_true_one_by_nothing_the_action_does() -> None:
    plain, shaped = SB3VecEnv(4, TRAINING), EpochRegret(SB3VecEnv(4, TRAINING))
    differences = []
    for actions in ([0, 0, 0, 0], [1, 2, 0, 1]):
        for env in (plain, shaped):
            env.seed(5)
            env.reset()
        true, changed = (env.step(np.array(actions))[1] for env in (plain, shaped))
        differences.append(changed * shaped.unit - true)
    np.testing.assert_allclose(differences[0], differences[1], atol=1e-6)


def test_a_saved_agent_acts_as_before(agent: LearnedPolicy, folder: Path) -> None:
    loaded = load_agent(folder, TEST)
    np.testing.assert_array_equal(rollout(loaded, TEST).choice, rollout(agent, TEST).choice)
    assert (loaded.settings, loaded.seed, loaded.curve) == (agent.settings, 3, agent.curve)
    loaded.save(folder.parent / "again")
    for file in ("agent.json", "policy.safetensors", "learning_curve.csv"):
        assert (folder / file).read_bytes() == (folder.parent / "again" / file).read_bytes()


def test_a_saved_agent_holds_only_json_csv_and_safetensors(folder: Path) -> None:
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["agent.json", "learning_curve.csv", "policy.safetensors"]
    config = json.loads((folder / "agent.json").read_text())
    assert config["switching"] == "reachable"
    assert set(config["versions"]) == {"topomoe", "torch", "stable-baselines3", "numpy"}
    lines = (folder / "learning_curve.csv").read_text().splitlines()
    assert lines[0] == "timesteps,cost_relative_to_never_switch"
    assert len(lines) == 5


def test_an_agent_of_another_environment_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="another environment"):
        load_agent(folder, phase_problem(num_configurations=4, epochs=100))
    renamed = SwitchingProblem(("x", "y", "z"), TEST.cost, TEST.switch_cost)
    with pytest.raises(InputError, match="names"):
        load_agent(folder, renamed)


@pytest.mark.parametrize("file", ["agent.json", "policy.safetensors", "learning_curve.csv"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage", "empty"])
def test_a_damaged_agent_is_refused_by_file(folder: Path, file: str, damage: str) -> None:
    path = folder / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": content[:-9], "garbage": b"\xff\x00,x"}.get(damage, b""))
    if file == "learning_curve.csv" and damage in ("truncated", "empty"):
        content = b"timesteps,cost_relative_to_never_switch\n512,"
        path.write_bytes(content)
    with pytest.raises(InputError, match=file) as caught:
        load_agent(folder)
    assert "\n" not in str(caught.value)


def test_weights_of_another_shape_or_not_finite_are_refused(folder: Path) -> None:
    path = folder / "policy.safetensors"
    weights = load(path.read_bytes())
    for key, value in (
        ("action_net.bias", torch.zeros(7)),
        ("action_net.bias", torch.full((3,), float("nan"))),
        ("extra", torch.zeros(1)),
    ):
        path.write_bytes(save({**weights, key: value}))
        with pytest.raises(InputError, match=key):
            load_agent(folder)
    path.write_bytes(save({**weights, "action_net.bias": torch.ones(3)}))
    with pytest.raises(InputError, match="SHA-256"):
        load_agent(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"settings": {"timestep": 1}},
        {"settings": {"gamma": 2.0}},
        {"names": ["a", "b"]},
        {"observation": {}},
        {"switching": "maybe"},
        {"seed": None},
        {"settings": {"hidden": [10**9]}},
    ],
)
def test_a_wrong_configuration_is_refused(folder: Path, change: dict[str, object]) -> None:
    path = folder / "agent.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=r"agent\.json"):
        load_agent(folder)


@pytest.mark.parametrize(
    "setting",
    [
        {"timesteps": 0},
        {"copies": 0},
        {"gamma": 1.5},
        {"learning_rate": 0.0},
        {"hidden": (0,)},
        {"batch_size": 1000},
        {"observe": "during"},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(setting: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(setting))):
        PPOSettings(**setting)  # type: ignore[arg-type]
