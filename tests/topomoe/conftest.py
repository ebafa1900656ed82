"""A small finished study, run once, for the tests of figures, tables and report."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from topomoe.run_folder import RunFolder
from topomoe.settings import to_dict
from topomoe.study import prepare, run_study
from topomoe.study_settings import StudySettings
from topomoe.workload import WorkloadSettings

if TYPE_CHECKING:
    from topomoe.moe.language_model import LanguageModel
    from topomoe.moe.text import Corpora


def run_small_study(path: Path, notes: tuple[str, ...] = (), **changes: object) -> RunFolder:
    """Run a study of seconds in ``path`` and return its folder."""
    chosen: dict[str, object] = {
        "model": "mixtral-8x7b",
        "grid": "2x4",
        "slots": 16,
        "topologies": ("leaf-spine", "mesh", "twisted-torus", "optical"),
        "placements": ("contiguous", "eplb", "exact"),
        "synthetic_requests": 12,
        "pattern_draws": 3,
        "resamples": 2,
        "routings": ("ecmp", "ecmp-hash", "valiant", "ugal", "optimal"),
        "optimum": True,
        "failures": ("links:1", "2", "switches:1"),
        "failure_draws": 2,
        "workload": WorkloadSettings(batches=4, batch_tokens=128),
    }
    settings = StudySettings(**{**chosen, **changes})  # type: ignore[arg-type]
    given = prepare(settings)
    folder = RunFolder.start(path, "study", to_dict(settings), notes=(*given.notes, *notes))
    run_study(settings, given, folder)
    return folder


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The small study's folder with results, nothing drawn or written from them."""
    return run_small_study(
        tmp_path_factory.mktemp("study") / "run", notes=("a <b>note</b> & more",)
    )


@pytest.fixture
def study_copy(small_study: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the small study's config and results that a test may damage."""
    made = shutil.ignore_patterns("figures", "tables", "report.html")
    shutil.copytree(small_study.path, tmp_path / "copy", ignore=made)
    return RunFolder(tmp_path / "copy")


@pytest.fixture(scope="session")
def study_runner() -> Callable[..., RunFolder]:
    """``run_small_study``, for other settings."""
    return run_small_study


@pytest.fixture(scope="session")
def small_model() -> Callable[..., LanguageModel]:
    """A function from a router, a seed and other settings to a language model of bytes."""
    from topomoe.moe.language_model import LanguageModel
    from topomoe.moe.settings import LanguageModelSettings

    def build(router: str = "softk", seed: int = 0, **changes: Any) -> LanguageModel:
        chosen: dict[str, Any] = {
            "layers": 2,
            "hidden": 16,
            "heads": 2,
            "expert_hidden": 8,
            "experts": 6,
            "top_k": 1 if router == "top1" else 2,
            "router": router,
        }
        return LanguageModel(LanguageModelSettings(**{**chosen, **changes}), 256, seed)

    return build


@pytest.fixture(scope="session")
def small_corpora() -> Callable[..., Corpora]:
    """A function from a seed to bytes of random words; those of two domains share few letters."""
    from topomoe.moe.text import Corpora, Document, make_corpus, make_tokenizer

    words = {
        "letters": ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
        "signs": ["x=1;", "y+=2;", "(z)", "[0]", "if:", "for:", "def()", "return", "->", "{}"],
    }

    def build(seed: int = 0) -> Corpora:
        rng = np.random.default_rng(seed)
        documents = [
            Document(f"{domain}-{number}", domain, " ".join(rng.choice(words[domain], size=150)))
            for domain in words
            for number in range(8)
        ]
        tokenizer = make_tokenizer("bytes", 256, documents)
        corpus = make_corpus(documents, tuple(words), tokenizer)
        return Corpora(*corpus.split(0.25, 0.25, seed=0), tokenizer=tokenizer, facts={})

    return build


@pytest.fixture(scope="session")
def assert_self_contained() -> Callable[[str], None]:
    """A function that asserts that a page of HTML needs no other file and no network."""

    def check(page: str) -> None:
        links = re.findall(r"(?:src|href)\s*=\s*[\"']?([^\"'>\s]*)", page)
        assert links
        assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
        for forbidden in ("<script", "<link", "<iframe", "@import", "url(", "http:", "https:"):
            assert forbidden not in page
        for target in (link[1:] for link in links if link.startswith("#")):
            assert f'id="{target}"' in page

    return check
