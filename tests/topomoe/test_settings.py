"""Settings: documentation, TOML and flags all come from the dataclasses' fields."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from topomoe import cli
from topomoe.agents.settings import DQNSettings, ObservationSettings, PPOSettings
from topomoe.agents.value_settings import FittedQSettings, HindsightSettings
from topomoe.commands.settings import (
    DQNTraining,
    EvaluateSettings,
    FittedQTraining,
    HindsightTraining,
    PPOTraining,
)
from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.place_settings import PlacementsSettings, PlaceSettings
from topomoe.placement import MethodOptions, PlacementOptions
from topomoe.settings import build, field_docs, flag_parameters, leaves, merge, to_dict
from topomoe.simulate_settings import SimulateSettings
from topomoe.step import StepSettings
from topomoe.study_settings import StudySettings
from topomoe.topologies import units
from topomoe.topologies.errors import InputError
from topomoe.workload import WorkloadSettings

OF_COMMANDS = (
    StudySettings,
    SimulateSettings,
    PlaceSettings,
    PlacementsSettings,
    PPOTraining,
    DQNTraining,
    FittedQTraining,
    HindsightTraining,
    EvaluateSettings,
)
TYPES = {cls.__name__: cls for cls in OF_COMMANDS}


@dataclass(frozen=True)
class Inner:
    """A table."""

    depth: int = 1
    """How deep."""
    weight: float = 0.5
    """How heavy."""


@dataclass(frozen=True)
class Outer:
    """One field of every kind."""

    name: str = "a"
    """A name,
    on two lines."""
    count: int = 3
    """A count."""
    on: bool = False
    """A switch."""
    names: tuple[str, ...] = ("x", "y")
    """Names."""
    numbers: tuple[int, ...] = ()
    """Numbers."""
    bandwidth: units.Bandwidth = 1e9
    """Bytes/s."""
    wait: units.Seconds = 1.0
    """Seconds."""
    packet: units.Bytes = 1024.0
    """Bytes."""
    limit: int | None = None
    """A limit or none."""
    inner: Inner = field(default_factory=lambda: Inner(depth=7))
    """A table whose default is not that of its type."""

    def __post_init__(self) -> None:
        if self.inner.depth > 2 * self.count + 1:
            raise InputError(f"depth must be <= 2 * count + 1, got {self.inner.depth}")


def write(path: Path, values: dict[str, Any]) -> str:
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    return str(path)


def documented(cls: type) -> list[tuple[type, str]]:
    """Return every field of a dataclass and of the dataclasses in it."""
    found = []
    for item in fields(cls):
        found.append((cls, item.name))
        default = getattr(cls(), item.name)
        if is_dataclass(default):
            found += documented(type(default))
    return found


def test_the_string_under_a_field_is_its_documentation_on_one_line() -> None:
    docs = field_docs(Outer)
    assert docs["name"] == "A name, on two lines."
    assert list(docs) == [item.name for item in fields(Outer)]


@pytest.mark.parametrize("name", TYPES)
def test_every_field_of_a_command_is_documented(name: str) -> None:
    for cls, item in documented(TYPES[name]):
        text = field_docs(cls).get(item, "")
        assert text.endswith((".", ")")), f"{cls.__name__}.{item} has no documentation"


@pytest.mark.parametrize("name", TYPES)
def test_no_flag_occurs_twice(name: str) -> None:
    def paths(cls: type, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        found = []
        for item in fields(cls):
            default = getattr(cls(), item.name)
            here = (*above, item.name)
            found += paths(type(default), here) if is_dataclass(default) else [here]
        return found

    every = paths(TYPES[name])
    assert {path for path, *_ in leaves(TYPES[name]).values()} == set(every)
    own = {"out", "config", "resume", "overwrite"}
    flags = [path[-1] for path in every]
    assert sorted(set(flags) - own) == sorted(flags)


@pytest.mark.parametrize("name", TYPES)
def test_a_command_has_one_flag_for_each_leaf(name: str) -> None:
    command = {
        "StudySettings": cli.study,
        "SimulateSettings": cli.simulate,
        "PlaceSettings": cli.place,
        "PlacementsSettings": cli.placements,
        "PPOTraining": cli.train,
        "DQNTraining": cli.train,
        "FittedQTraining": cli.train,
        "HindsightTraining": cli.train,
        "EvaluateSettings": cli.evaluate,
    }[name]
    parameters = inspect.signature(command).parameters
    assert set(leaves(TYPES[name])) <= set(parameters)
    assert all(parameters[leaf].default is None for leaf in leaves(TYPES[name]))


def test_the_help_of_a_flag_is_its_documentation_and_its_default() -> None:
    def option(flag: str, **how: Any) -> dict[str, Any]:
        return {"flag": flag, **how}

    by_name = {p.name: p.annotation.__metadata__[0] for p in flag_parameters(Outer, option)}
    assert by_name["count"]["help"] == "A count. [default: 3]"
    assert by_name["names"]["help"] == "Names. [default: x,y]"
    assert by_name["numbers"]["help"] == "Numbers."
    assert by_name["depth"]["help"] == "How deep. [default: 7]"  # the table's, not the type's
    assert by_name["bandwidth"]["metavar"] == "400Gbps"
    assert by_name["on"]["flag"] == "--on/--no-on"
    assert by_name["wait"]["flag"] == "--wait"


def test_settings_survive_toml(tmp_path: Path) -> None:
    settings = Outer(
        name='a "quoted" ü name',
        count=5,
        on=True,
        names=("p", "q", "r"),
        numbers=(4, 2),
        bandwidth=1.5e10,
        wait=1e-6 / 3,
        packet=65536.0,
        limit=9,
        inner=Inner(2, 0.1),
    )
    path = write(tmp_path / "a.toml", to_dict(settings))
    assert merge(Outer, path, {}) == settings
    assert merge(Outer, write(tmp_path / "b.toml", to_dict(Outer())), {}) == Outer()


CHANGED = {
    "StudySettings": StudySettings(
        grid="2x4",
        topologies=("mesh", "torus"),
        layers=(0, 2),
        domains=("chat",),
        levels=(0.1,),
        bandwidth=1e9 / 3,
        latency=1e-7,
        workload=WorkloadSettings(batches=3, batch_interval=0.1),
        step=StepSettings(mtu=0.0),
    ),
    "SimulateSettings": SimulateSettings(
        synchronous=True, workload=WorkloadSettings(phase="prefill", batches=2)
    ),
    "PlaceSettings": PlaceSettings(
        load="loads.npy", devices=16, options=PlacementOptions(moves=3, bandwidth=1e9 / 3)
    ),
    "PlacementsSettings": PlacementsSettings(
        methods=("eplb",), tokens=(64,), options=MethodOptions(goal="sum", sweeps=7)
    ),
    "PPOTraining": PPOTraining(
        agent="maskable-ppo",
        seeds=2,
        problem=ScenarioSettings(epochs=200),
        observation=ObservationSettings(queue=False),
        learner=PPOSettings(hidden=(8,), warm_start="fitted-q"),
    ),
    "DQNTraining": DQNTraining(learner=DQNSettings(dqn_hidden=(8,), dqn_buffer=4096)),
    "FittedQTraining": FittedQTraining(learner=FittedQSettings(ridge=(0.5,), queue=False)),
    "HindsightTraining": HindsightTraining(learner=HindsightSettings(horizons=(4,))),
    "EvaluateSettings": EvaluateSettings(
        agents=("rotor", "runs/a"),
        scenario=("hard",),
        problem=ScenarioSettings(library="fabrics"),
    ),
}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("changed", [False, True])
def test_a_written_config_gives_the_same_settings(name: str, changed: bool, tmp_path: Path) -> None:
    settings = CHANGED[name] if changed else TYPES[name]()
    written = {"run": {"kind": "x", "notes": []}, **to_dict(settings), "versions": {"numpy": "2"}}
    assert merge(TYPES[name], write(tmp_path / "config.toml", written), {}) == settings


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", {"count": 10, "name": "file", "inner": {"weight": 0.25}})
    settings = merge(Outer, path, {"name": "flag", "depth": "20", "count": None})
    assert settings == Outer(name="flag", count=10, inner=Inner(depth=20, weight=0.25))
    assert merge(Outer, path, {}).inner == Inner(depth=7, weight=0.25)
    assert merge(Outer, None, {}) == Outer()


def test_one_key_of_a_table_leaves_the_others_at_the_tables_own_defaults() -> None:
    assert merge(Outer, None, {"weight": "2"}).inner == Inner(depth=7, weight=2.0)
    chosen = merge(SimulateSettings, None, {"batch_tokens": "512"})
    assert chosen.workload.batches == SimulateSettings().workload.batches


def test_only_the_outcome_of_file_and_flags_must_hold_together(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", {"problem": {"episode_length": 900}})
    with pytest.raises(
        InputError, match=r"a\.toml: problem: episode_length must be <= test_epochs"
    ):
        merge(EvaluateSettings, path, {})
    assert merge(EvaluateSettings, path, {"test_epochs": "1000"}).problem.test_epochs == 1000
    with pytest.raises(InputError, match=r"a\.toml and flags: problem: episode_length"):
        merge(EvaluateSettings, path, {"test_epochs": "500"})


def test_other_defaults_can_stand_below_file_and_flags(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", {"inner": {"depth": 4}})
    below = Outer(count=9, inner=Inner(depth=1, weight=0.25))
    found = merge(Outer, path, {"name": "x"}, below)
    assert (found.count, found.name, found.inner) == (9, "x", Inner(depth=4, weight=0.25))


def test_a_flag_that_several_dataclasses_have_is_one_flag() -> None:
    def option(flag: str, **how: Any) -> dict[str, Any]:
        return {"flag": flag, **how}

    parameters = flag_parameters([Inner, Outer], option)
    by_name = {p.name: p.annotation.__metadata__[0] for p in parameters}
    assert len(by_name) == len(parameters)
    assert by_name["depth"]["help"] == "How deep. [default: 1]"  # of the first that has it
    assert set(by_name) == {*leaves(Inner), *leaves(Outer)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cuont": 3}, "f.toml: unknown key 'cuont'; did you mean 'count'?"),
        ({"inner": {"dephT": 3}}, "f.toml: inner: unknown key 'dephT'; did you mean 'depth'?"),
        ({"iner": {"depth": 3}}, "f.toml: unknown key 'iner'; did you mean 'inner'?"),
        ({"depth": 3}, "f.toml: unknown key 'depth'"),  # a flag, but a table's key in a file
        ({"inner": 3}, "f.toml: inner must be a table"),
        ({"count": "many"}, "f.toml: count must be a whole number, got 'many'"),
        ({"count": 2.5}, "f.toml: count must be a whole number, got 2.5"),
        ({"count": True}, "f.toml: count must be a whole number, got True"),
        ({"count": float("inf")}, "f.toml: count must be a whole number, got inf"),
        ({"count": {"a": 1}}, "f.toml: count must be a whole number"),
        ({"inner": {"weight": "x"}}, "f.toml: inner: weight must be a number, got 'x'"),
        ({"inner": {"weight": False}}, "f.toml: inner: weight must be a number, got False"),
        ({"on": 1}, "f.toml: on must be true or false, got 1"),
        ({"name": 3}, "f.toml: name must be text, got 3"),
        ({"names": 3}, "f.toml: names must be a list, got 3"),
        ({"names": [1]}, "f.toml: names must be text, got 1"),
        ({"names": ["a", ""]}, "f.toml: names must not hold an empty name"),
        ({"numbers": [1, "b"]}, "f.toml: numbers must be a whole number, got 'b'"),
        ({"bandwidth": "400"}, "f.toml: bandwidth must have a unit such as Gbps"),
        ({"bandwidth": "fast"}, "f.toml: bandwidth must be a number with a unit"),
        ({"bandwidth": True}, "f.toml: bandwidth must be finite and > 0, got True"),
        ({"bandwidth": 0}, "f.toml: bandwidth must be finite and > 0, got 0"),
        ({"bandwidth": float("nan")}, "f.toml: bandwidth must be finite and > 0, got nan"),
        ({"wait": "5GB"}, "f.toml: wait must have a unit such as us, ms or s"),
        ({"wait": -1.0}, "f.toml: wait must be finite and >= 0, got -1.0"),
        ({"packet": "4k"}, "f.toml: packet must have a unit such as B, KiB or MB"),
        ({"packet": [4]}, "f.toml: packet must be a number, got [4]"),
        ({"limit": "a"}, "f.toml: limit must be a whole number, got 'a'"),
        ({"inner": {"depth": 99}}, "f.toml: depth must be <= 2 * count + 1, got 99"),
    ],
)
def test_bad_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        build(Outer, values, "f.toml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", TYPES)
def test_unknown_keys_are_named_at_every_level(name: str) -> None:
    cls = TYPES[name]
    tables = {path[:-1] for path, *_ in leaves(cls).values()}
    for table in tables:
        values: dict[str, Any] = {"zzz": 1}
        for key in reversed(table):
            values = {key: values}
        with pytest.raises(InputError, match="unknown key 'zzz'"):
            build(cls, values, "f.toml")


@pytest.mark.parametrize(
    ("flag", "text", "value"),
    [
        ("bandwidth", "400Gbps", 50e9),
        ("bandwidth", "400Gbit/s", 50e9),
        ("bandwidth", "50GB/s", 50e9),
        ("wait", "25ms", 0.025),
        ("wait", "0", 0.0),
        ("packet", "64KiB", 65536.0),
        ("count", "12", 12),
        ("limit", "4", 4),
        ("on", True, True),
        ("names", "a, b,c", ("a", "b", "c")),
        ("names", "a", ("a",)),
        ("names", "", ()),
        ("numbers", "3,1", (3, 1)),
    ],
)
def test_flags_are_read_with_units_and_as_lists(flag: str, text: Any, value: Any) -> None:
    assert getattr(merge(Outer, None, {flag: text}), flag) == value


def test_toml_takes_the_same_units_and_plain_si_numbers() -> None:
    values = {"bandwidth": "400Gbps", "wait": "25ms", "packet": "64KiB", "numbers": [2]}
    settings = build(Outer, values, "f.toml")
    assert (settings.bandwidth, settings.wait, settings.packet) == (50e9, 0.025, 65536.0)
    assert settings.numbers == (2,)
    assert build(Outer, {"bandwidth": 5e10}, "f.toml").bandwidth == 5e10
    assert build(Outer, {"count": 4.0}, "f.toml").count == 4


@pytest.mark.parametrize(
    ("flag", "text", "message"),
    [
        ("batch_tokens", "1.5", "--batch-tokens must be a whole number, got '1.5'"),
        ("test_fraction", "half", "--test-fraction must be a number, got 'half'"),
        ("latency", "1", "--latency must have a unit"),
        ("topologies", "mesh,,torus", "--topologies must not hold an empty name"),
    ],
)
def test_a_bad_flag_is_named_as_it_is_written(flag: str, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        merge(StudySettings, None, {flag: text})
    assert message in str(caught.value)


def test_files_that_are_no_toml_are_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_bytes(b"a = = 3")
    with pytest.raises(InputError, match=r"bad\.toml: not valid TOML .*line 1"):
        merge(Outer, str(bad), {})
    bad.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"bad\.toml: not valid TOML"):
        merge(Outer, str(bad), {})
    with pytest.raises(InputError, match=r"none\.toml: cannot read the config"):
        merge(Outer, str(tmp_path / "none.toml"), {})
    with pytest.raises(InputError, match="cannot read the config"):
        merge(Outer, str(tmp_path), {})
