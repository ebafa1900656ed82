"""Hostile and truncated files: one clear line, no code executed, no large allocation."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import topomoe as tm
from topomoe.formats import arrays, load_expert_loads
from topomoe.placement import load_placement, save_placement
from topomoe.topologies.errors import InputError

READERS: tuple[Callable[[Any], Any], ...] = (
    load_expert_loads,
    tm.load_trace,
    lambda path: load_placement(path, devices=2),
)


class Runs:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def refused(path: Path, read: Callable[[Any], Any]) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


def archive(path: Path, members: dict[str, bytes], compress: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compress) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    torch = pytest.importorskip("torch")
    marker = tmp_path / "ran"
    content = pickle.dumps({"logical_count": Runs(marker)}, protocol=protocol)
    files = [tmp_path / name for name in ("bare.pt", "saved.pt", "legacy.pt", "made.pt", "a.npy")]
    files[0].write_bytes(content)
    torch.save({"logical_count": Runs(marker)}, files[1])
    torch.save(Runs(marker), files[2], _use_new_zipfile_serialization=False)
    archive(files[3], {"made/data.pkl": content, "made/version": b"3\n"})
    np.save(files[4], np.array([Runs(marker)], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "b.npz", load=np.array([Runs(marker)], dtype=object))
    for path in (*files, tmp_path / "b.npz"):
        for read in READERS:
            refused(path, read)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Runs(marker)))  # that it would have
    assert marker.exists()


@pytest.mark.parametrize("suffix", [".pt", ".npy", ".npz", ".json", ".yaml"])
def test_a_file_cut_anywhere_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    rng = np.random.default_rng(0)
    placement = tm.place(rng.lognormal(0, 1, (2, 6)), 2, 8, method="eplb")
    read: Callable[[Any], Any] = load_expert_loads
    if suffix == ".pt":
        torch = pytest.importorskip("torch")
        torch.save({"logical_count": torch.ones(2, 3, 4, dtype=torch.int32)}, path)
    elif suffix == ".npy":
        np.save(path, np.ones((3, 4)))
    elif suffix == ".npz":
        np.savez_compressed(path, load=rng.random((3, 40)))
    else:
        save_placement(placement, path, format="sglang" if suffix == ".json" else "trtllm")
        read = READERS[2]
    read(path)
    whole = path.read_bytes()
    body = len(whole.rstrip())
    for cut in range(0, body, max(1, body // 60)):
        path.write_bytes(whole[:cut])
        refused(path, read)


def test_one_flipped_byte_never_ends_in_anything_but_an_input_error(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "flipped.pt"
    torch.save({"logical_count": torch.ones(2, 3, 4, dtype=torch.int32)}, path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for where in rng.integers(0, len(whole), 150):
        flipped = bytearray(whole)
        flipped[where] ^= 1 << rng.integers(0, 8)
        path.write_bytes(bytes(flipped))
        with contextlib.suppress(InputError):
            load_expert_loads(path)


def test_tensors_that_claim_more_than_their_bytes_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "large.pt"
    for tensor, match in (
        (torch.ones(1).expand(10**4, 10**5, 10**5), "claims more than its bytes"),
        (torch.ones(2, 3, 4).to_sparse(), "must be a dense tensor"),
        (torch.ones(2, 3, 4, device="meta"), "must be a dense tensor"),
        (torch.ones(2, 3, 4, dtype=torch.complex64), "must hold numbers"),
        (torch.ones(2, 3, 4) > 0, "must hold numbers"),
        (torch.ones(0, 3, 4), "dimensions"),
        (torch.ones(2, 3, 4, 5), "dimensions"),
    ):
        torch.save({"logical_count": tensor}, path)
        assert match in refused(path, load_expert_loads)
    torch.save({"logical_count": torch.full((2, 3), torch.nan)}, path)
    assert "finite" in refused(path, load_expert_loads)
    torch.save([torch.ones(2)], path)
    assert "must hold a mapping" in refused(path, load_expert_loads)


def test_a_compressed_torch_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = archive(
        tmp_path / "bomb.pt", {"a/data/0": bytes(1 << 24), "a/data.pkl": b"."}, zipfile.ZIP_DEFLATED
    )
    assert path.stat().st_size < 1 << 16
    assert "is not compressed, this one is" in refused(path, load_expert_loads)


def test_headers_that_lie_are_refused_before_an_array_is_made(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
    )
    header = buffer.getvalue()
    (tmp_path / "lie.npy").write_bytes(header + bytes(64))
    archive(tmp_path / "lie.npz", {"load.npy": header + bytes(64)})
    archive(tmp_path / "lie2.npz", {"slot_expert.npy": header + bytes(64)})
    for name, read in (("lie.npy", READERS[0]), ("lie.npz", READERS[0]), ("lie2.npz", READERS[2])):
        assert "needs 8000000000000 bytes" in refused(tmp_path / name, read)
    refused(tmp_path / "lie.npy", tm.load_trace)


def test_an_archive_that_unpacks_to_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "MOST_UNPACKED_BYTES", 1 << 20)
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, load=np.ones((3, 1 << 18)))
    assert "is no honest archive" in refused(path, load_expert_loads)
    np.savez_compressed(path, load=np.random.default_rng(0).random((3, 1 << 18)))
    assert load_expert_loads(path).load.shape == (1, 3, 1 << 18)


def test_torch_is_loaded_only_for_its_own_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    placement = tm.place(np.ones((2, 6)), 2, 8, method="eplb")
    for name, form in (("a.json", "sglang"), ("a.yaml", "trtllm"), ("a.npz", "eplb")):
        save_placement(placement, tmp_path / name, format=form)
    code = (
        "import sys, numpy as np, topomoe as tm\n"
        "from topomoe.placement import load_placement, rebalance_experts\n"
        f"tm.formats.load_expert_loads({str(tmp_path / 'a.npy')!r})\n"
        f"[load_placement({str(tmp_path)!r} + '/a' + s, devices=2)"
        " for s in ('.json', '.yaml', '.npz')]\n"
        "rebalance_experts(np.array([[3, 2, 1]]), 4, 1, 1, 2, method='eplb')\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
