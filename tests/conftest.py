"""What the tests share: where a user's own traces and reference runs lie, if anywhere."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# The first example of a test may compile kernels or import scipy: no example is timed.
settings.register_profile("topomoe", deadline=None)
settings.load_profile("topomoe")

# Solved problems of a user's own are neither read nor added to.
os.environ["TOPOMOE_CACHE"] = tempfile.mkdtemp(prefix="topomoe-cache-")
atexit.register(shutil.rmtree, os.environ["TOPOMOE_CACHE"], ignore_errors=True)

SHARED = Path(os.environ.get("TOPOMOE_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def trace_folder() -> Callable[[str], Path]:
    """A function from a trace's name to its folder; skips the test where there is none."""

    def find(name: str) -> Path:
        folder = SHARED / "traces" / name
        if not folder.is_dir():
            pytest.skip(f"no trace folder {name}: set TOPOMOE_SHARED to run this test")
        return folder

    return find


@pytest.fixture(scope="session")
def reference_runs() -> Path:
    """The folder of the outside simulators' stored cases; skips the test where there is none."""
    folder = SHARED / "validation"
    if not folder.is_dir():
        pytest.skip("no validation folder: set TOPOMOE_SHARED to run this test")
    return folder


@pytest.fixture(scope="session")
def topomoe() -> Callable[..., tuple[int | str | None, str, str]]:
    """A function from a command line's words to its exit status, output and error output."""
    from topomoe import cli

    def call(*words: object) -> tuple[int | str | None, str, str]:
        out, err = io.StringIO(), io.StringIO()
        before = sys.argv
        sys.argv = ["topomoe", *map(str, words)]
        try:
            with (
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
                pytest.raises(SystemExit) as exit_,
            ):
                cli.main()
        finally:
            sys.argv = before
        return exit_.value.code, out.getvalue(), err.getvalue()

    return call


@pytest.fixture(scope="session")
def pretrained_model() -> Callable[[Path], Path]:
    """A function that writes a tiny Mixtral of random weights to a folder, and returns the folder.

    Its tokens are bytes; the test is skipped where transformers is absent.
    """

    def write(home: Path) -> Path:
        transformers = pytest.importorskip("transformers")
        import torch
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        config = transformers.AutoConfig.for_model(
            "mixtral",
            vocab_size=256,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_local_experts=4,
            num_experts_per_tok=2,
            max_position_embeddings=64,
        )
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(home)
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        model = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = decoders.ByteLevel()
        transformers.PreTrainedTokenizerFast(tokenizer_object=model).save_pretrained(home)
        return home

    return write
