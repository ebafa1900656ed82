"""What the README and the pages tell a reader to type works, in the order they tell it.

The blocks of a page run in one folder that holds a small trace at path/to/traces. Commands are made
smaller, never different.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import itertools
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import topomoe as tm
from topomoe import plots
from topomoe.plots import evaluation, router_figures

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = {"topomoe": "topomoe", "topologies": "topomoe.topologies"} | {
    name: f"topomoe.{name}" for name in ("envs", "agents")
}
SCENARIO = (
    "--epochs 60 --test-epochs 40 --episode-length 20 --pool 2 --draws 2 --layers 2 "
    "--decode-tokens 32 --prefill-tokens 32 --placements mix,recent --synthetic-requests 40"
)
# What makes each command smaller; the flags that show something on a page stay as they are.
SMALLER = {
    "study": "--batches 4 --batch-tokens 256 --resamples 0 --pattern-draws 2",
    "simulate": "--batches 4 --batch-tokens 256",
    "trace": "--requests 8 --positions 24",
    "train": f"{SCENARIO} --seeds 1",
    "evaluate": f"{SCENARIO} --seeds 1",
    "placements": "--batches 2 --batch-tokens 256",
    "delays": "--layers 2 --steps 2 --prefill-tokens 512 --decode-tokens 512 "
    "--training-tokens 512 --row-tokens 128 --pool 2 --epochs 20 --points-per-decade 1 "
    "--clusters 1 --methods b-matching --wiring-routing default",
    "decisions": "--epochs 40 --test-epochs 20 --episode-length 10 --timelines 1 --pool 2 "
    "--layers 2 --decode-tokens 32 --prefill-tokens 32 --synthetic-requests 24 --grid 4x4 "
    "--scenarios pools --phase-lengths 4 --redundancies 1 --switch-delays 1s --devices 16 "
    "--seeds 1 --phases 8 --device-flows 16 --optimal-devices 0 --processes 1",
    "routers": "--hidden 16 --heads 2 --expert-hidden 8 --layers 2 --experts 4 --top-k 2 "
    "--steps 2 --context 16 --batch-sequences 2 --validation-sequences 4 --seeds 1 --requests 8 "
    "--tokenizer bytes --domains prose,code --domain-bytes 200000 --adapter-domain code "
    "--sweep-experts 4 --sweep-top-k 1 --sweep-factors 1 --sweep-steps 2 --timed-steps 1 "
    "--tune-steps 2 --tune-rates 4e-3 --size-experts 4,8 --size-steps 2 --loss-weights 0.1 "
    "--loss-steps 2 --adapter-ranks 2 "
    "--adapter-steps 2 --grid 2x2 --batches 2 --batch-tokens 64 --processes 1",
}
PPO = "--timesteps 1024 --copies 16 --batch-size 128 --candidates 2"
VALUES = "--features linear --ridge 0.1 --horizons 8 --margins 1"
# What makes a training smaller, by learner.
LEARNERS = {
    "ppo": PPO,
    "maskable-ppo": PPO,
    "dqn": "--dqn-timesteps 512 --dqn-copies 16 --dqn-learning-starts 128 --dqn-batch-size 32",
    "fitted-q": VALUES,
    "hindsight": VALUES,
}
# Programs that a block may name beside topomoe; they are not run.
NOT_RUN = ("cd", "git", "pip", "python", "python3", "source")

Call = Callable[..., tuple[int | str | None, str, str]]
Block = tuple[int, str, str]  # line, language, content


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    found = []
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        found.append((text.count("\n", 0, match.start()) + 1, match[1], match[2]))
    return found


def commands(content: str) -> list[list[str]]:
    """Return the words of each command of a shell block, without comments and prompts."""
    joined = content.replace("\\\n", " ")
    lines = [shlex.split(line.removeprefix("$ "), comments=True) for line in joined.splitlines()]
    return [words for words in lines if words]


def smaller(words: list[str]) -> list[str]:
    """Return a command of topomoe with the flags behind it that make it smaller."""
    added = SMALLER.get(words[1], "") if len(words) > 1 else ""
    if "--agent" in words:
        added += f" {LEARNERS[words[words.index('--agent') + 1]]}"
    return [*words, *added.split()]


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))


def run_python(content: str, namespace: dict[str, Any], where: str) -> None:
    """Run a block; a number that a comment gives for a printed line must be printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(content, where, "exec"), namespace)
    numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*", printed.getvalue())]
    for number in re.findall(r"^print\(.*\)  # (\d+\.?\d*)", content, re.MULTILINE):
        near = [abs(value - float(number)) < 1e-9 for value in numbers]
        assert any(near), f"{where}: {number} is not what it prints: {printed.getvalue()}"


@pytest.fixture(scope="module")
def small_trace() -> tm.RoutingTrace:
    """A trace of the shape of DeepSeek-V2-Lite: 26 layers, 64 experts, top-6."""
    return tm.synthetic_trace("deepseek-v2-lite", requests=24, positions=24)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_tells_to_type_works(
    page: Path,
    small_trace: tm.RoutingTrace,
    pretrained_model: Callable[[Path], Path],
    topomoe: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    few = plots.draw.FIGURES[:2]  # each figure has its own tests
    monkeypatch.setattr(plots, "FIGURES", few)
    monkeypatch.setattr(plots.draw, "FIGURES", few)
    monkeypatch.setattr(router_figures, "FIGURES", router_figures.FIGURES[:1])
    drawn = evaluation._figures
    monkeypatch.setattr(evaluation, "_figures", lambda records: itertools.islice(drawn(records), 1))
    tm.save_trace(small_trace, Path("path/to/traces"))
    if "path/to/model" in page.read_text(encoding="utf-8"):
        pretrained_model(Path("path/to/model"))
    namespace: dict[str, Any] = {"__name__": page.stem}
    for line, language, content in blocks(page):
        where = f"{page.name}, line {line}"
        if language == "python":
            run_python(content, namespace, where)
        if language not in ("sh", "bash", "console"):
            continue
        for words in commands(content):
            if words[0] == "topomoe":
                status, _, err = topomoe(*smaller(words)[1:])
                assert status == 0, f"{where}: {shlex.join(words)}: {err}"
            elif words[0] == "make":
                assert set(words[1:]) <= make_targets(), f"{where}: {shlex.join(words)}"
            else:
                assert words[0] in NOT_RUN, f"{where}: what is {shlex.join(words)}?"


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_makefiles_own_commands_have_flags_that_exist(topomoe: Call) -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"\$\(BIN\)/topomoe (.+)", text)
    assert lines
    for line in lines:
        status, _, err = topomoe(*line.split(), "--help")
        assert status == 0, err


def modules_with_examples() -> list[str]:
    """Return the modules of the four code folders that hold a doctest."""
    found = []
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            if ">>> " in path.read_text(encoding="utf-8"):
                parts = path.relative_to(ROOT / folder).with_suffix("").parts
                found.append(".".join([package, *(part for part in parts if part != "__init__")]))
    return found


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_in_docstrings_print_what_they_say(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
