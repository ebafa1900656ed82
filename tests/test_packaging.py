"""The four folders install as one package, and importing it stays light."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("topomoe", "topologies", "envs", "agents")
HEAVY = ("scipy", "networkx", "torch", "matplotlib", "numba", "pandas", "pyarrow")
IMPORTED = ("topomoe", "topomoe.envs", "topomoe.topologies", "topomoe.agents")


def run(arguments: list[str], folder: Path, **environment: str) -> str:
    """Standard output of a Python process in ``folder``; its errors are the test's."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        arguments, cwd=folder, env=clean | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def package_name(folder: Path) -> str:
    parts = folder.relative_to(ROOT).parts
    return ".".join(parts if parts[0] == "topomoe" else ("topomoe", *parts))


def sources(*folders: str) -> list[Path]:
    return [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]


def test_packages_are_the_folders_that_hold_code() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = project["tool"]["setuptools"]["packages"]
    found = {package_name(file.parent) for file in sources(*FOLDERS)}
    assert sorted(listed) == sorted(found)
    assert len(listed) == len(set(listed))


def test_every_package_has_an_init_file() -> None:
    for folder in {file.parent for file in sources(*FOLDERS)}:
        assert (folder / "__init__.py").is_file(), folder


def test_nothing_imports_a_folder_by_its_bare_name() -> None:
    """`import envs` beside `import topomoe.envs` would make a second copy of every class."""
    bare = {"topologies", "envs", "agents"}
    for file in sources(*FOLDERS, "tests", "benchmarks"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}:{node.lineno}: relative import"
                names = [node.module or ""]
            else:
                continue
            wrong = [name for name in names if name.split(".")[0] in bare]
            assert not wrong, f"{file}:{node.lineno}: import {wrong[0]} by its full name"


def test_imports_run_one_way() -> None:
    """Topologies know nothing of topomoe, topomoe nothing of envs, envs nothing of agents."""
    above = {
        "topologies": ("topomoe.topologies",),
        "envs": ("topomoe.agents", "topomoe.cli"),
        "agents": ("topomoe.cli",),
    }
    for file in sources("topologies", "envs", "agents"):
        folder = file.relative_to(ROOT).parts[0]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in (n for n in names if n.split(".")[0] == "topomoe"):
                if folder == "topologies":
                    assert name.startswith(above[folder]), f"{file}: imports {name}"
                else:
                    assert not name.startswith(above[folder]), f"{file}: imports {name}"


def test_importing_topomoe_loads_none_of_the_heavy_libraries(tmp_path: Path) -> None:
    code = "import json, sys, topomoe; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(run([sys.executable, "-c", code], tmp_path))
    assert "topomoe" in loaded
    assert not set(HEAVY) & set(loaded)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packaged: building writes into the tree it builds from."""
    copy = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def origins(python: str, folder: Path, **environment: str) -> list[Path]:
    """Where each of the four packages comes from in a fresh interpreter outside the tree."""
    code = (
        "import importlib, json; "
        f"print(json.dumps([importlib.import_module(n).__file__ for n in {IMPORTED}]))"
    )
    return [Path(file) for file in json.loads(run([python, "-c", code], folder, **environment))]


@pytest.mark.slow
def test_a_wheel_holds_and_imports_all_four_folders(copied: Path, tmp_path: Path) -> None:
    wheels, target = tmp_path / "wheels", tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), "."], copied)
    (wheel,) = wheels.glob("topomoe-*.whl")
    run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], tmp_path)

    top = {entry.name for entry in target.iterdir() if not entry.name.endswith(".dist-info")}
    assert top <= {"topomoe", "bin"}, "nothing generic may land in site-packages"
    installed = {file.relative_to(target / "topomoe") for file in (target / "topomoe").rglob("*")}
    for file in sources(*FOLDERS):
        parts = file.relative_to(ROOT).parts
        inside = Path(*parts[1:]) if parts[0] == "topomoe" else Path(*parts)
        assert inside in installed
    assert Path("py.typed") in installed

    files = origins(sys.executable, tmp_path, PYTHONPATH=str(target))
    assert all(file.is_relative_to(target) for file in files), files


@pytest.mark.slow
def test_an_editable_install_imports_all_four_folders(copied: Path, tmp_path: Path) -> None:
    """In a new virtual environment that sees this one's libraries, not its own topomoe."""
    run([sys.executable, "-m", "venv", "--without-pip", "new"], tmp_path)
    python = str(tmp_path / "new" / "bin" / "python")
    (site,) = (tmp_path / "new" / "lib").glob("python*/site-packages")
    # A line in a .pth file adds the folder but runs none of its .pth files, so not the editable
    # install of topomoe that the tests may run from.
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    run([*pip, "install", "--no-deps", "--no-build-isolation", "-e", str(copied)], tmp_path)

    files = origins(python, tmp_path)
    assert all(file.is_relative_to(copied) for file in files), files
    (copied / "topologies" / "added_later.py").write_text("HERE = 1\n")
    run([python, "-c", "from topomoe.topologies.added_later import HERE"], tmp_path)
