"""Bad input on the command line: status 2, one line that names it, nothing written, no code run."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from topomoe import cli

Call = Callable[..., tuple[int | str | None, str, str]]
CANARY = "canary"

SMALL = "--model mixtral-8x7b --grid 2x4 --synthetic-requests 4"
STEPS = f"{SMALL} --slots 16 --batches 2 --batch-tokens 64"
STUDY = f"{STEPS} --topologies mesh --placements contiguous --resamples 0 --pattern-draws 1"
SCENARIO = (
    "--model mixtral-8x7b --grid 2x4 --topologies mesh,torus --layouts 'decode 8' --layers 2 "
    "--pool 2 --draws 2 --epochs 60 --test-epochs 40 --episode-length 20 --decode-tokens 32 "
    "--prefill-tokens 32 --placements mix,domains --synthetic-requests 24"
)
TRAIN = (
    f"{SCENARIO} --timesteps 64 --copies 2 --rollout 8 --batch-size 16 --hidden 4 --candidates 1"
)
ROUTERS = (
    "--domains code --tokenizer bytes --domain-bytes 200000 --adapter-domain code --requests 4 "
    "--hidden 16 --heads 2 --experts 4 --context 16 --steps 1 --validation-sequences 4 --grid 2x2 "
    "--processes 1"
)
# What each command gets before a case's own words; {out} must not be there afterwards.
BASE = {
    "study": f"{STUDY} --out {{out}}",
    "simulate": f"{STEPS} --out {{out}}",
    "network": "--grid 2x4 --demand uniform --out {out}",
    "place": "--trace {bad}/good --devices 8 --slots 16 --out {out}",
    "placements": f"{STEPS} --methods contiguous --parts method --out {{out}}",
    "trace": "--out {out}",
    "train": f"{TRAIN} --out {{out}}",
    "evaluate": f"{SCENARIO} --seeds 1 --out {{out}}",
    "decisions": "--model mixtral-8x7b --synthetic-requests 24 --processes 1 --out {out}",
    "routers": f"{ROUTERS} --out {{out}}",
}


class Bomb:
    """Makes a folder when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def request(**changes: Any) -> dict[str, Any]:
    """Return the fields of a request of six positions, 32 layers, top-2 of 8 experts."""
    rng = np.random.default_rng(0)
    ids = rng.permuted(np.tile(np.arange(8, dtype=np.uint8), (6, 32, 1)), axis=-1)[..., :2]
    fields = {"request_id": np.array("a"), "routed_experts": ids, **changes}
    return {name: value for name, value in fields.items() if value is not None}


def write_traces(root: Path) -> None:
    """Write a trace of two requests and one hostile trace a folder."""
    ids = request()["routed_experts"]
    second = request(request_id=np.array("b"))
    for name, files in {
        "good": (request(), second),
        "single": (request(),),
        "object": (request(routed_experts=np.array([Bomb(root / CANARY)], dtype=object)),),
        "object-id": (request(request_id=np.array([Bomb(root / CANARY)], dtype=object)), second),
        "other-key": (request(routed_experts=None, experts=ids),),
        "float": (request(routed_experts=ids.astype(float)),),
        "flat": (request(routed_experts=ids[0]),),
        "negative": (request(routed_experts=-ids.astype(np.int16)),),
        "too-large": (request(num_experts=np.array(4)),),
        "twice": (request(routed_experts=np.ones_like(ids)),),
        "no-position": (request(routed_experts=ids[:0]),),
        "layers": (request(), request(request_id=np.array("b"), routed_experts=ids[:, :5])),
        "same-id": (request(), request()),
        "unknown-shape": (
            request(routed_experts=ids[:, :3]),
            second | {"routed_experts": ids[:, :3]},
        ),
    }.items():
        (root / name).mkdir()
        for number, fields in enumerate(files):
            np.savez(root / name / f"{number}.npz", **fields)
    whole = (root / "good" / "0.npz").read_bytes()
    for name, content in {"truncated": whole[: len(whole) // 2], "zero": b""}.items():
        (root / name).mkdir()
        (root / name / "0.npz").write_bytes(content)
    (root / "empty").mkdir()
    (root / "pickle.npz").write_bytes(pickle.dumps(Bomb(root / CANARY)))
    (root / "pickle-folder").mkdir()
    shutil.copy(root / "pickle.npz", root / "pickle-folder" / "0.npz")


def write_others(root: Path) -> None:
    """Write bad configs, edge lists and arrival traces, and places that cannot be written to."""
    configs = {
        "unknown-key": "slotz = 3\n",
        "unknown-nested": "[workload]\nbatchez = 3\n",
        "unknown-table": "[stepp]\nmtu = 3\n",
        "wrong-type": 'slots = "many"\n',
        "wrong-nested": "[step]\ntile_tokens = 1.5\n",
        "date": "slots = 1979-05-27\n",
        "no-table": "workload = 3\n",
        "list": "grid = [2, 4]\n",
        "bool": "bandwidth = true\n",
        "nan": "bandwidth = nan\n",
        "range": "base_share = 1.0\n",
        "syntax": "slots = = 3\n",
    }
    for name, text in configs.items():
        (root / f"{name}.toml").write_text(text)
    (root / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    edges = {
        "words": "0 1 2 3 4 5 6\n",
        "negative": "0 1 -5Gbps\n",
        "zero": "0 1 0Gbps\n",
        "nan": "0 1 nanGbps\n",
        "self": "0 1\n0 0\n",
        "twice": "0 1\n1 0\n",
        "apart": "0 1\n2 3\n4 5\n6 7\n",
        "one-way": "".join(f"{i} > {i + 1}\n" for i in range(7)),
        "gap": "0 1\n1 3\n3 0\n",
        "minus": "0 1\n1 -2\n",
        "three": "0 1\n1 2\n2 0\n",
        "comment": "# nothing\n",
        "medium": "0 1 1Gbps 1us glass\n",
    }
    for name, text in edges.items():
        (root / f"{name}.edges").write_text(text)
    (root / "bytes.edges").write_bytes(b"\xff\xfe")
    demands = {
        "unknown": "0,1,5\n0,9,5\n",
        "negative": "0,1,-5\n",
        "nan": "0,1,nan\n",
        "words": "0,1\n",
    }
    for name, text in demands.items():
        (root / f"demand-{name}.csv").write_text(text)
    np.save(root / "demand-shape.npy", np.zeros((3, 3)))
    np.save(root / "demand-object.npy", np.array([Bomb(root / CANARY)]), allow_pickle=True)
    circuits = {
        "unknown": "0,1\n0,8\n",
        "stays": "3,3\n",
        "ports": "0,1\n0,2\n0,3\n0,4\n0,5\n",
        "words": "0,one\n",
        "none": "# nothing\n",
    }
    for name, text in circuits.items():
        (root / f"circuits-{name}.txt").write_text(text)
    prices = {
        "syntax": "[nic_port\n",
        "negative": '[nic_port]\ndollars = -3\nwatts = 1\nper = "Gbps"\nsource = "mine"\n',
        "unknown": "[nics]\ndollars = 3\n",
    }
    for name, text in prices.items():
        (root / f"prices-{name}.toml").write_text(text)
    loads = np.ones((2, 3, 8))
    nan, minus, zero = loads.copy(), loads.copy(), loads.copy()
    nan[1, 2, 4] = np.nan
    minus[0, 1, 3] = -2
    zero[:] = 0
    for name, load in {"fine": loads, "nan": nan, "minus": minus, "zero": zero}.items():
        np.save(root / f"load-{name}.npy", load)
    np.save(root / "load-object.npy", np.array([Bomb(root / CANARY)]), allow_pickle=True)
    np.save(root / "load-flat.npy", np.ones((2, 2, 3, 8)))
    whole = (root / "load-fine.npy").read_bytes()
    (root / "load-half.npy").write_bytes(whole[: len(whole) // 2])
    (root / "load-pickle.pt").write_bytes(pickle.dumps(Bomb(root / CANARY)))
    (root / "load-half.json").write_text('[{"logical_count": [[1, 2')
    (root / "location-yaml.yaml").write_text(f"!!python/object/apply:os.mkdir ['{root}/{CANARY}']")
    (root / "folder.csv").mkdir()
    (root / "arrivals.csv").write_text("time\n1\nsoon\n")
    (root / "column.csv").write_text("when\n1\n")
    scenarios = {
        "unknown": "phase_epoch = 3.0\n",
        "type": 'epochs = "many"\n',
        "zero": "episode_length = 0\n",
        "syntax": "epochs = = 3\n",
    }
    for name, text in scenarios.items():
        (root / f"scenario-{name}.toml").write_text(text)
    (root / "file").write_text("mine")
    (root / "foreign").mkdir()
    (root / "foreign" / "notes").write_text("mine")


def write_runs(root: Path, call: Call) -> None:
    """Run every command once, without figures, and damage copies of what it wrote."""
    for words in (
        f"study {STUDY} --out {root}/study",
        f"simulate {STEPS} --out {root}/simulate",
        f"train {TRAIN} --out {root}/train",
        f"train {TRAIN} --topologies mesh --out {root}/other",
        f"place --trace {root}/good --devices 4 --slots 8 --out {root}/four.npz --figure none",
        f"place --trace {root}/good --devices 8 --slots 16 --out {root}/eight.npz --figure none",
    ):
        status, _, err = call(*shlex.split(words))
        assert status == 0, err

    def damaged(
        name: str, source: str, file: str, content: bytes | Callable[[bytes], bytes]
    ) -> None:
        shutil.copytree(root / source, root / name)
        path = root / name / file
        path.write_bytes(content if isinstance(content, bytes) else content(path.read_bytes()))

    def half(content: bytes) -> bytes:
        return content[: len(content) // 2]

    def flipped(content: bytes) -> bytes:
        return content[:-8] + bytes(8)

    def other_names(content: bytes) -> bytes:
        return json.dumps(json.loads(content) | {"names": ["mesh", "rows"]}).encode()

    def huge(content: bytes) -> bytes:
        config = json.loads(content)
        return json.dumps(config | {"settings": {**config["settings"], "hidden": [10**9]}}).encode()

    def other_algorithm(content: bytes) -> bytes:
        return json.dumps(json.loads(content) | {"algorithm": "ppq"}).encode()

    def other_digest(content: bytes) -> bytes:
        return re.sub(rb'training_sha256 = "..', b'training_sha256 = "xx', content)

    def other_key(content: bytes) -> bytes:
        return content.replace(b"phase_epochs", b"phase_epoch")

    bomb = pickle.dumps(Bomb(root / CANARY))
    foreign = io.BytesIO()
    pd.DataFrame({"a": [1]}).to_parquet(foreign)
    for kind in ("study", "train"):
        damaged(f"{kind}-half-table", kind, "results.parquet", half)
        damaged(f"{kind}-foreign-table", kind, "results.parquet", foreign.getvalue())
        damaged(f"{kind}-bad-config", kind, "config.toml", b"= =")
        damaged(f"{kind}-byte-config", kind, "config.toml", b"\xff\xfe")
        damaged(f"{kind}-no-kind", kind, "config.toml", b"run = 3\n")
        damaged(f"{kind}-odd-kind", kind, "config.toml", b'[run]\nkind = "tour"\n')
        shutil.copytree(root / kind, root / f"{kind}-no-table")
        (root / f"{kind}-no-table" / "results.parquet").unlink()
    damaged("agent-weights", "train", "seed-0/policy.safetensors", flipped)
    damaged("agent-half", "train", "seed-0/policy.safetensors", half)
    damaged("agent-pickle", "train", "seed-0/policy.safetensors", bomb)
    damaged("agent-json", "train", "seed-0/agent.json", half)
    damaged("agent-empty", "train", "seed-0/agent.json", b"{}")
    damaged("agent-names", "train", "seed-0/agent.json", other_names)
    damaged("agent-curve", "train", "seed-0/learning_curve.csv", b"a,b\n1\n")
    damaged("agent-huge", "train", "seed-0/agent.json", huge)
    damaged("agent-nested", "train", "seed-0/agent.json", b"[" * 100_000)
    damaged("agent-algorithm", "train", "seed-0/agent.json", other_algorithm)
    damaged("other-digest", "train", "config.toml", other_digest)
    damaged("renamed-setting", "train", "config.toml", other_key)
    shutil.copytree(root / "train", root / "no-seed")
    shutil.rmtree(root / "no-seed" / "seed-0")
    for name, content in (("started", bomb), ("started-half", b"\x00" * 64)):
        shutil.copytree(root / "train", root / name)
        (root / name / "results.parquet").unlink()
        (root / name / "seed-0" / "agent.json").unlink()
        (root / name / "seed-0" / "checkpoint.safetensors").write_bytes(content)


@pytest.fixture(scope="session")
def bad(tmp_path_factory: pytest.TempPathFactory, topomoe: Call) -> Path:
    """A folder of everything that can be wrong with a file."""
    root = tmp_path_factory.mktemp("bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "redraw", lambda folder: None)
        patch.setattr(cli, "draw", lambda folder: [])
        write_traces(root)
        write_others(root)
        write_runs(root, topomoe)
    return root


# The words of a command (its BASE comes before them) and what its one line must say.
TRACES: dict[str, tuple[str, ...]] = {
    "{bad}/none": ("{bad}/none", "no such file or folder"),
    "{bad}/empty": ("{bad}/empty", "no .npz file"),
    "{bad}/truncated": ("{bad}/truncated/0.npz", "truncated"),
    "{bad}/zero": ("{bad}/zero/0.npz", "is empty"),
    "{bad}/object": ("{bad}/object/0.npz", "routed_experts: holds Python objects", "never loaded"),
    "{bad}/object-id": ("0.npz", "request_id: holds Python objects", "never loaded"),
    "{bad}/pickle-folder": ("{bad}/pickle-folder/0.npz", "no .npz archive"),
    "{bad}/pickle.npz": ("{bad}/pickle.npz", "no .npz archive"),
    "{bad}/other-key": ("{bad}/other-key/0.npz", "no field routed_experts"),
    "{bad}/float": ("{bad}/float/0.npz", "routed_experts must be integers", "float64"),
    "{bad}/flat": ("{bad}/flat/0.npz", "[positions, layers, top-k]", "(32, 2)"),
    "{bad}/negative": ("{bad}/negative/0.npz", "routed_experts", "must be in 0..", "got -"),
    "{bad}/too-large": ("{bad}/too-large/0.npz", "must be < num_experts", "4 experts"),
    "{bad}/twice": ("{bad}/twice/0.npz", "names an expert twice"),
    "{bad}/no-position": ("{bad}/no-position/0.npz", "routed_experts is empty"),
    "{bad}/layers": ("{bad}/layers/1.npz", "5 layers", "0.npz has 32"),
    "{bad}/same-id": ("{bad}/same-id/1.npz", "request_id 'a'", "0.npz"),
}
STEP_CASES: dict[str, tuple[str, ...]] = {
    "--slots 4": ("slots must be >= experts", "slots=4", "experts=8"),
    "--slots 17": ("slots must be a multiple of devices", "slots=17", "devices=8"),
    "--slots -8": ("slots must be >= 0, got -8",),
    "--slots 1.5": ("--slots must be a whole number, got '1.5'",),
    "--grid 16": ("grid must be rows x columns", "'16'"),
    "--grid 0x8": ("grid must have rows >= 1", "0x8"),
    "--grid axb": ("grid must be rows x columns", "'axb'"),
    "--grid 16x8x2": ("grid must be rows x columns", "'16x8x2'"),
    "--grid 1x1": ("grid must hold at least 2 devices", "1x1"),
    "--bandwidth nanGbps": ("--bandwidth must be a number with a unit", "'nanGbps'"),
    "--bandwidth -400Gbps": ("--bandwidth must be a number", "'-400Gbps'"),
    "--bandwidth 0Gbps": ("--bandwidth must be finite and > 0, got 0.0",),
    "--bandwidth 1e999Gbps": ("--bandwidth must be finite and > 0, got inf",),
    "--bandwidth 400": ("--bandwidth must have a unit such as Gbps", "'400'"),
    "--latency -1us": ("--latency must be a number", "'-1us'"),
    "--latency 1": ("--latency must have a unit", "'1'"),
    "--mtu 4096": ("--mtu must have a unit such as B, KiB", "'4096'"),
    "--test-fraction 0": ("test_fraction must be in (0, 1), got 0.0",),
    "--test-fraction 1": ("test_fraction must be in (0, 1), got 1.0",),
    "--test-fraction 1.5": ("test_fraction must be in (0, 1), got 1.5",),
    "--test-fraction nan": ("test_fraction must be in (0, 1), got nan",),
    "--batches 0": ("workload: batches must be a whole number >= 1, got 0",),
    "--batch-tokens -5": ("batch_tokens must be a whole number >= 1, got -5",),
    "--seed -1": ("seed must be >= 0, got -1",),
    "--base-share 0": ("base_share must be in (0, 1), got 0.0",),
    "--base-share 1": ("base_share must be in (0, 1), got 1.0",),
    "--ports 0": ("ports must be >= 1, got 0",),
    "--synthetic-requests 1": ("at least 2 requests",),
    "--normalise iso-prot": ("unknown normalisation 'iso-prot'; did you mean 'iso-port'?",),
    "--model mixtral": ("unknown model 'mixtral'; did you mean 'mixtral-8x7b'?",),
    "--device h101": ("step: unknown device 'h101'; did you mean 'h100'?",),
    "--phase decod": ("workload: unknown phase 'decod'; did you mean 'decode'?",),
    "--origins unifrom": ("unknown origins 'unifrom'; did you mean 'uniform'?",),
    "--schedule phase": ("unknown schedule 'phase'; did you mean 'phases'?",),
    "--arrivals poison": ("unknown arrivals 'poison'; did you mean 'poisson'?",),
    "--circuits tours": ("unknown wiring 'tours'; did you mean 'torus'?",),
    "--replica-routing wieghted": ("replica routing 'wieghted'; did you mean 'weighted'?",),
    "--overlap two": ("unknown overlap 'two'; did you mean 'two-batch'?",),
    "--copies node-relay --node-size 3": ("node_size must divide devices", "node_size=3"),
    "--arrivals recorded": ("arrivals = recorded and arrival_trace go together",),
    "--arrivals recorded --arrival-trace {bad}/none.csv": ("{bad}/none.csv", "cannot be read"),
    "--arrivals recorded --arrival-trace {bad}/arrivals.csv": ("line 3: time must be", "'soon'"),
    "--arrivals recorded --arrival-trace {bad}/column.csv": ("{bad}/column.csv", "columns"),
    "--trace {bad}/single": ("at least 2 requests",),
    "--trace {bad}/unknown-shape --model ''": ("no model preset has 3 MoE layers", "top-2"),
    "--config {bad}/none.toml": ("{bad}/none.toml: cannot read the config", "No such file"),
    "--config {bad}": ("{bad}: cannot read the config", "Is a directory"),
    "--config {bad}/unknown-key.toml": ("unknown-key.toml: unknown key 'slotz'", "'slots'?"),
    "--config {bad}/unknown-nested.toml": ("workload: unknown key 'batchez'", "'batches'?"),
    "--config {bad}/unknown-table.toml": ("unknown key 'stepp'; did you mean 'step'?",),
    "--config {bad}/wrong-type.toml": ("wrong-type.toml: slots must be a whole number, got 'm",),
    "--config {bad}/wrong-nested.toml": ("step: tile_tokens must be a whole number, got 1.5",),
    "--config {bad}/date.toml": ("date.toml: slots must be a whole number, got datetime.date",),
    "--config {bad}/no-table.toml": ("no-table.toml: workload must be a table",),
    "--config {bad}/list.toml": ("list.toml: grid must be text, got [2, 4]",),
    "--config {bad}/bool.toml": ("bool.toml: bandwidth must be", "got True"),
    "--config {bad}/nan.toml": ("nan.toml: bandwidth must be finite and > 0, got nan",),
    "--config {bad}/range.toml": ("base_share must be in (0, 1), got 1.0",),
    "--config {bad}/syntax.toml": ("syntax.toml: not valid TOML", "line 1"),
    "--config {bad}/bytes.toml": ("bytes.toml: not valid TOML",),
    "--config {bad}/train/config.toml": ("train/config.toml: unknown key 'agent'",),
    "--slotz 3": ("--slotz", "--slots"),
    "extra": ("extra",),
    "--slots": ("--slots",),
    "--out {bad}/file": ("--out: {bad}/file is a file, not a folder",),
    "--out {bad}/file/run": ("--out: {bad}/file is a file, not a folder",),
    "--out {bad}/foreign": ("--out: {bad}/foreign is not empty and holds no run",),
    "--out {bad}/study": ("--out: {bad}/study already holds a run", "--overwrite replaces it"),
    "--out ''": ("--out must name a folder",),
}
EDGES: dict[str, tuple[str, ...]] = {
    "{bad}/none.edges": ("{bad}/none.edges: cannot read the edge list (No such file",),
    "{bad}/folder.csv": ("{bad}/folder.csv: cannot read the edge list (Is a directory)",),
    "{bad}/bytes.edges": ("{bad}/bytes.edges: cannot read the edge list",),
    "{bad}/words.edges": ("{bad}/words.edges: line 1 must be 'node node",),
    "{bad}/negative.edges": ("{bad}/negative.edges: line 1: capacity must be", "'-5Gbps'"),
    "{bad}/zero.edges": ("line 1: capacity must be finite and > 0, got 0.0",),
    "{bad}/nan.edges": ("line 1: capacity must be", "'nanGbps'"),
    "{bad}/self.edges": ("line 2: a link must join two different nodes",),
    "{bad}/twice.edges": ("line 2: link 1->0 is already there",),
    "{bad}/apart.edges": ("{bad}/apart.edges", "disconnected", "device 2"),
    "{bad}/one-way.edges": ("{bad}/one-way.edges", "disconnected"),
    "{bad}/gap.edges": ("{bad}/gap.edges: devices must be numbered 0..N-1 without a gap",),
    "{bad}/minus.edges": ("{bad}/minus.edges: line 2: a node must not start with -, got -2",),
    "{bad}/three.edges": ("{bad}/three.edges has 3 devices, the grid 2x4",),
    "{bad}/comment.edges": ("{bad}/comment.edges: the edge list holds no link",),
    "{bad}/medium.edges": ("line 1: medium must be electrical or optical, got 'glass'",),
}
STUDY_CASES: dict[str, tuple[str, ...]] = {
    "--failures switches:1": ("no topology of the study has what switches:1 fails",),
    "--topologies tours": ("unknown topology 'tours'; did you mean 'torus'?",),
    "--topologies ''": ("topologies must name at least one",),
    "--topologies mesh,,torus": ("--topologies must not hold an empty name",),
    "--topologies mesh,mesh": ("topologies must not name anything twice, got mesh,mesh",),
    "--placements contiguous,exat": ("placement method 'exat'; did you mean 'exact'?",),
    "--replica-routings weighted,evn": ("unknown replica routing 'evn'; did you mean 'even'?",),
    "--routings ecpm": ("unknown routing 'ecpm'; did you mean 'ecmp'?",),
    "--normalise iso-port --ports 1": ("mesh needs 3 ports a device, iso-port gives 1",),
    "--levels 2": ("levels must be in 0..1",),
    "--levels nan": ("levels must be in 0..1",),
    "--levels ''": ("levels must name at least one",),
    "--pattern-draws 0": ("pattern_draws must be >= 1, got 0",),
    "--resamples 1": ("resamples must be 0 (no interval) or >= 2, got 1",),
    "--layers 99": ("layers must be in 0..31, got [99]",),
    "--layers 1,1": ("layers must not name anything twice, got 1,1",),
    "--domains caht": ("unknown domain 'caht'; did you mean 'chat'?",),
    "--out {bad}/study --resume --seed 3": ("--resume: {bad}/study/config.toml", "seed is 0"),
    "--out {bad}/study --resume --batches 3": ("workload.batches is 2 there and 3 here",),
    "--out {bad}/train --resume": ("--resume: {bad}/train/config.toml is of train, not of study",),
    "--out {bad}/study-bad-config --resume": ("config.toml: not valid TOML",),
}
SIMULATE_CASES: dict[str, tuple[str, ...]] = {
    "--topology tours": ("unknown topology 'tours'; did you mean 'torus'?",),
    "--routing ugal": ("routing ugal is made for a demand",),
    "--topology optical --circuits b-matching": ("circuits b-matching are chosen for a demand",),
    "--routing ecpm": ("unknown routing 'ecpm'; did you mean 'ecmp'?",),
    "--topology fat-tree --routing dimension-order": ("dimension-order needs a mesh or torus",),
    "--placement exat": ("unknown placement method 'exat'; did you mean 'exact'?",),
    "--placement {bad}/none.npz": ("{bad}/none.npz: no such placement file",),
    "--placement {bad}/truncated/0.npz": ("{bad}/truncated/0.npz: not a readable placement",),
    "--placement {bad}/good/0.npz": ("{bad}/good/0.npz: no field 'slot_expert'",),
    "--placement {bad}/pickle.npz": ("{bad}/pickle.npz: not a readable placement",),
    "--placement {bad}/four.npz": ("{bad}/four.npz: is for 4 devices, not 8",),
    "--groups 0": ("groups must be >= 1, got 0",),
    "--groups 3": ("groups must divide devices", "groups=3", "devices=8"),
    "--group-layout scatter": ("unknown group layout 'scatter'; did you mean 'scattered'?",),
    "--topology optical --normalise iso-port --ports 1": ("optical needs ports >= 2",),
}
SCENARIO_CASES: dict[str, tuple[str, ...]] = {
    "--scenario defualt": (
        "unknown scenario",
        "'defualt'; did you mean 'default'?",
    ),
    "--scenario {bad}/none.toml": ("{bad}/none.toml: no such file",),
    "--scenario {bad}/scenario-unknown.toml": (
        "scenario-unknown.toml: unknown key 'phase_epoch'; did you mean 'phase_epochs'?",
    ),
    "--scenario {bad}/scenario-type.toml": ("scenario-type.toml: epochs must be a whole number",),
    "--scenario {bad}/scenario-zero.toml": ("scenario-zero.toml: episode_length must be >= 1",),
    "--scenario {bad}/scenario-syntax.toml": ("scenario-syntax.toml: not valid TOML",),
    "--delay mem": ("unknown reconfiguration delay 'mem'; did you mean 'mems'?",),
    "--library wiring": ("unknown library 'wiring'; did you mean 'wirings'?",),
    "--library fabrics --topologies mesh,tours": ("unknown topology 'tours'", "'torus'?"),
    "--topologies tours": ("unknown wiring 'tours'; did you mean 'torus'?",),
    "--topologies mesh,mesh": ("topologies must name one or more different",),
    "--topologies ''": ("topologies must name one or more different",),
    "--placements domain": ("unknown placement of a library 'domain'; did you mean 'domains'?",),
    "--layouts 'decode 9'": ("layout 'decode 9' needs 9 devices, the grid has 8",),
    "--episode-length 0": ("problem: episode_length must be >= 1, got 0",),
    "--episode-length 61": ("episode_length must be <= epochs, got 61 and 60",),
    "--episode-length 41": ("episode_length must be <= test_epochs, got 41 and 40",),
    "--phase-epochs nan": ("phase_epochs must be >= 1 and finite, got nan",),
    "--base-share 1": ("problem: base_share must be in (0, 1), got 1.0",),
    "--migration-share 0": ("problem: migration_share must be in (0, 1), got 0.0",),
    "--grid 2x": ("grid must be rows x columns", "'2x'"),
    "--trace {bad}/none": ("{bad}/none: no such file or folder",),
    "--seeds 0": ("seeds must be >= 1, got 0",),
    "--config {bad}/study/config.toml": ("study/config.toml: unknown key",),
}
TRAIN_CASES: dict[str, tuple[str, ...]] = {
    "--agent pppo": ("unknown agent 'pppo'; did you mean 'ppo'?",),
    "--timesteps 0": ("learner: timesteps must be >= 1, got 0",),
    "--batch-size 7": ("batch_size must divide copies * rollout", "batch_size=7"),
    "--learning-rate inf": ("learning_rate", "finite", "got inf"),
    "--gamma 2": ("gamma must be 0..1, got 2.0",),
    "--hidden 8,a": ("--hidden must be a whole number, got 'a'",),
    "--observe befor": ("unknown observe 'befor'; did you mean 'before'?",),
    "--warm-start greedy": ("unknown warm_start 'greedy'",),
    "--agent dqn": ("--timesteps is not a setting of dqn",),
    "--ridge 0.1": ("--ridge is not a setting of ppo",),
    "--processes -1": ("processes must be >= 0, got -1",),
    "--config {bad}/renamed-setting/config.toml": (
        "renamed-setting/config.toml: problem: unknown key 'phase_epoch'",
    ),
    "--out {bad}/train": ("{bad}/train already holds a run; --resume continues it",),
    "--out {bad}/train --resume --hidden 5": ("learner.hidden is [4] there and [5] here",),
    "--out {bad}/other-digest --resume": ("run.training_sha256 is 'xx",),
    "--out {bad}/started --resume": ("checkpoint.safetensors: not a training's checkpoint",),
    "--out {bad}/started-half --resume": ("checkpoint.safetensors: not a training's checkpoint",),
    "--out {bad}/study --resume": ("study/config.toml is of study, not of train",),
    "--out {bad}/file": ("--out: {bad}/file is a file, not a folder",),
}
EVALUATE_CASES: dict[str, tuple[str, ...]] = {
    "--agents clairvoyent": ("'clairvoyent'; did you mean 'clairvoyant'?",),
    "--agents rotor,": ("--agents must not hold an empty name",),
    "--agents rotor,rotor": ("agents must not name anything twice, got rotor,rotor",),
    "--agents rotor --scenario default,default": ("scenario must not name anything twice",),
    "--agents periodic-eplb": (
        "periodic-eplb on scenario default: periodic-eplb needs the placement",
    ),
    "--agents {bad}/none": ("unknown agent or folder of topomoe train '{bad}/none'",),
    "--agents {bad}/file": ("unknown agent or folder of topomoe train '{bad}/file'",),
    "--agents {bad}/empty": ("{bad}/empty: not a finished run, config.toml is missing",),
    "--agents {bad}/study": ("{bad}/study: a run of topomoe study, not of topomoe train",),
    "--agents {bad}/started": ("{bad}/started: not a finished run, results.parquet is missing",),
    "--agents {bad}/no-seed": ("{bad}/no-seed/seed-0/agent.json: cannot be read",),
    "--agents {bad}/train,{bad}/other": (
        "topologies is ('mesh', 'torus') in {bad}/train and ('mesh',) in {bad}/other",
    ),
    "--agents rotor,{bad}/other --scenario default": (
        "{bad}/other on scenario default: ",
        "another environment: names",
    ),
    "--agents {bad}/other-digest": (
        "the training problem is no longer that of {bad}/other-digest/config.toml",
    ),
    "--agents {bad}/renamed-setting": (
        "renamed-setting/config.toml: problem: unknown key 'phase_epoch'",
    ),
    "--agents {bad}/train-bad-config": ("train-bad-config/config.toml: not valid TOML",),
    "--agents {bad}/agent-names": ("{bad}/agent-names/seed-0/agent.json",),
    "--agents {bad}/agent-weights": ("policy.safetensors", "SHA-256"),
    "--agents {bad}/agent-half": ("{bad}/agent-half/seed-0/policy.safetensors: cannot be read",),
    "--agents {bad}/agent-pickle": ("agent-pickle/seed-0/policy.safetensors: cannot be read",),
    "--agents {bad}/agent-json": ("{bad}/agent-json/seed-0/agent.json: cannot be read",),
    "--agents {bad}/agent-nested": ("{bad}/agent-nested/seed-0/agent.json: cannot be read",),
    "--agents {bad}/agent-empty": ("{bad}/agent-empty/seed-0/agent.json: format must be",),
    "--agents {bad}/agent-huge": ("{bad}/agent-huge/seed-0/agent.json",),
    "--agents {bad}/agent-algorithm": ("unknown algorithm 'ppq'",),
    "--agents {bad}/agent-curve": ("learning_curve.csv: cannot be read",),
    "--agents rotor --out {bad}/foreign": ("{bad}/foreign is not empty and holds no run",),
    "--agents rotor --out {bad}/study": ("already holds a run; --overwrite replaces it",),
}
CIRCUITS = "--topology optical --circuits {bad}/circuits"
NETWORK_CASES: dict[str, tuple[str, ...]] = {
    "--topology tours": ("unknown topology 'tours'; did you mean 'torus'",),
    "--routings dimension": ("unknown routing 'dimension'; did you mean 'dimension-order'",),
    "--routings ecmp,ecmp": ("routings must not name anything twice",),
    "--topology leaf-spine --routings o1turn": ("leaf-spine", "o1turn"),
    "--demand zip": ("unknown demand 'zip'; did you mean 'zipf'",),
    "--demand {bad}/none.npy": ("{bad}/none.npy: cannot read the demand",),
    "--demand {bad}/demand-unknown.csv": ("demand-unknown.csv: line 2: device must be in 0..7",),
    "--demand {bad}/demand-negative.csv": ("demand-negative.csv: line 1: bytes must be",),
    "--demand {bad}/demand-nan.csv": ("demand-nan.csv: line 1: bytes must be finite",),
    "--demand {bad}/demand-words.csv": ("line 1 must be 'source,destination,bytes'",),
    "--demand {bad}/demand-shape.npy": ("demand-shape.npy: demand must have shape [8, 8]",),
    "--demand {bad}/demand-object.npy": ("demand-object.npy: not a NumPy file",),
    "--level 2 --demand hotspot": ("level must be in [0, 1], got 2.0",),
    "--bytes-per-pair 3x": ("--bytes-per-pair", "3x"),
    "--bandwidth 0Gbps": ("bandwidth must be finite and > 0",),
    "--latency -1us": ("latency", "-1us"),
    "--normalise iso": ("unknown normalisation 'iso'",),
    "--max-min-rtol 1": ("max_min_rtol must be in [0, 1), got 1.0",),
    "--grid 3x3 --topology hypercube": ("power of two",),
    "--topology rails --node-size 3": ("node_size must divide devices",),
    f"{CIRCUITS}-unknown.txt": ("circuits must join devices 0..7, circuit 1 is 0->8",),
    f"{CIRCUITS}-stays.txt": ("a circuit must join two devices, circuit 0 stays at 3",),
    f"{CIRCUITS}-ports.txt": ("at most degree=4 transmit ports a device, device 0 uses 5",),
    f"{CIRCUITS}-words.txt": ("line 1 must be 'transmitter,receiver'",),
    f"{CIRCUITS}-none.txt": ("circuits-none.txt: holds no circuit",),
    f"{CIRCUITS}-missing.txt": ("cannot read the circuits",),
    "--topology optical --circuits tour": ("unknown wiring 'tour'",),
    "--failures links:99": ("random_links must be <=", "got 99"),
    "--failures switches:1": ("random_switches: torus has no switches that could fail",),
    "--grid 100000x100000": ("grid must hold at most 65536 devices, got 100000x100000",),
    "--failures link:0-7": ("has no link 0-7",),
    "--failures switch:8": ("switches of torus are none",),
    "--failures device:8": ("devices of torus are 0..7, got 8",),
    "--failures device:0+device:x": ("device:x",),
    "--failures link:0-1+link:0-3+link:0-4": ("partitioned, no path from device 0",),
    "--prices {bad}/none.toml": ("{bad}/none.toml",),
    "--prices {bad}/prices-syntax.toml": ("prices-syntax.toml", "TOML"),
    "--prices {bad}/prices-negative.toml": ("prices-negative.toml", "dollars"),
    "--prices {bad}/prices-unknown.toml": ("prices-unknown.toml", "nics"),
    "--config {bad}/syntax.toml": ("syntax.toml: not valid TOML",),
    "--config {bad}/unknown-key.toml": ("unknown-key.toml: unknown key 'slotz'",),
    "--export simgird": ("unknown export format 'simgird'; did you mean 'simgrid'",),
    "--export graphml --out ''": ("--export needs a folder",),
    "--topology mesh --export astra-sim": ("astra-sim", "mesh"),
    "--out {bad}/file": ("--out: {bad}/file is a file, not a folder",),
    "--out {bad}/study": ("already holds a run; --overwrite replaces it",),
}
RUN_CASES: dict[str, tuple[str, ...]] = {
    "{bad}/none": ("{bad}/none: not a finished run, config.toml is missing",),
    "{bad}/empty": ("{bad}/empty: not a finished run, config.toml is missing",),
    "{bad}/file": ("{bad}/file: not a finished run, config.toml is missing",),
    "{bad}/study-no-table": ("study-no-table: not a finished run, results.parquet is missing",),
    "{bad}/study-half-table": ("study-half-table/results.parquet: cannot read the table",),
    "{bad}/study-foreign-table": ("study-foreign-table/results.parquet: not the results",),
    "{bad}/study-bad-config": ("study-bad-config/config.toml: not valid TOML",),
    "{bad}/study-byte-config": ("study-byte-config/config.toml: not valid TOML",),
    "{bad}/study-no-kind": ("study-no-kind/config.toml: no key kind in the table run",),
    "{bad}/study-odd-kind": ("{bad}/study-odd-kind",),
    "{bad}/simulate": ("{bad}/simulate",),
    "": ("RUN",),
}
OTHERS: dict[str, tuple[str, ...]] = {
    "plot {bad}/train-half-table": ("train-half-table/results.parquet: cannot read the table",),
    "plot {bad}/train-foreign-table": ("train-foreign-table/results.parquet: not the results",),
    "plot {bad}/train-bad-config": ("train-bad-config/config.toml: not valid TOML",),
    "report {bad}/train": ("{bad}/train: a run of kind 'train' has no report",),
    "stduy --out {out}": ("'stduy'", "'study'"),
    "--versoin": ("--versoin",),
    "place --slots 4": ("slots must be >= experts", "slots=4", "experts=8"),
    "place --slots 17": ("slots must be a multiple of devices", "slots=17", "devices=8"),
    "place --slots -8": ("slots must be >= 0, got -8",),
    "place --devices 0": ("devices must be >= 1, got 0",),
    "place --devices x": ("--devices must be a whole number, got 'x'",),
    "place --grid 4x4": ("grid must have as many places as devices", "4x4", "devices=8"),
    "place --grid 8": ("grid must be rows x columns", "'8'"),
    "place --trace ''": ("give --trace or --load, not both or neither",),
    "place --load {bad}/load-fine.npy": ("give --trace or --load, not both or neither",),
    "place --shared-expert routd": ("unknown shared_expert 'routd'; did you mean 'routed'?",),
    "place --shared-expert routed": ("routed needs a model with one shared expert", "mixtral"),
    "place --format sglnag": ("unknown", "'sglnag'; did you mean 'sglang'?"),
    "place --figure p.svg": ("figure must end in .png or .pdf, got p.svg",),
    "place --figure {bad}/file/p.png": ("--figure: {bad}/file is a file, not a folder",),
    "place --device h101": ("unknown device 'h101'",),
    "place --objective best": ("unknown objective 'best'",),
    "place --sweeps 0": ("sweeps must be >= 1, got 0",),
    "place --config {bad}/unknown-key.toml": ("unknown-key.toml: unknown key 'slotz'",),
    "place --previous {bad}/none.npz": ("{bad}/none.npz",),
    "place --previous {bad}/pickle.npz": ("{bad}/pickle.npz",),
    "place --previous {bad}/four.npz": ("{bad}/four.npz", "devices"),
    "place --previous {bad}/location-yaml.yaml": ("location-yaml.yaml",),
    "decisions --parts gain": ("unknown part 'gain'; did you mean 'gains'?",),
    "decisions --parts ''": ("parts must name one or more different ones, got []",),
    "decisions --scenarios pool": ("unknown scenario 'pool'; did you mean 'pools'?",),
    "decisions --scenarios hard --parts size": ("need default or pools among scenarios",),
    "decisions --phase-lengths 0.5": ("phase_lengths must be >= 1 and finite, got 0.5",),
    "decisions --switch-delays soon": ("--switch-delays", "soon"),
    "decisions --redundancies 1,1": ("redundancies must hold one or more different values",),
    "decisions --epochs 0": ("epochs must be >= 1, got 0",),
    "decisions --test-epochs 60": ("test_epochs must hold two episodes of 50 epochs", "got 60"),
    "decisions --grid 3x4": ("grid must make a grid of 4, 8, 12 ... rows, got 3x4",),
    "decisions --devices 12": ("devices must make a grid of 4, 8, 12 ... rows, got 12",),
    "decisions --timelines 0": ("timelines must be >= 1, got 0",),
    "decisions --processes -1": ("processes must be >= 0, got -1",),
    "decisions --trace {bad}/missing": ("{bad}/missing",),
    "decisions --out {bad}/study": ("already holds a run; --overwrite replaces it",),
    "routers --routers softtk": ("unknown router 'softtk'; did you mean 'softk'?",),
    "routers --parts pareta": ("unknown part 'pareta'; did you mean 'pareto'?",),
    "routers --parts ''": ("parts must name one or more different ones, got []",),
    "routers --assignments rerout": ("unknown assignment 'rerout'; did you mean 'reroute'?",),
    "routers --assignment-routers hash": ("unknown assignment router 'hash'",),
    "routers --losses ginny": ("unknown balance loss 'ginny'; did you mean 'gini'?",),
    "routers --balance-loss ginny": ("unknown balance_loss 'ginny'; did you mean 'gini'?",),
    "routers --adapter-variants routd": ("unknown adapter variant 'routd'",),
    "routers --adapter-domain prose": ("unknown adapter_domain 'prose'",),
    "routers --domains prosa": ("unknown domain 'prosa'; did you mean 'prose'?",),
    "routers --top-k 5": ("top_k must be <= experts, got 5 of 4",),
    "routers --hidden 18 --heads 4": ("hidden must be an even multiple of heads",),
    "routers --capacity-factors 0": ("router expert-choice needs a capacity_factor > 0",),
    "routers --capacity-factors nan": ("capacity_factors must be >= 0 and finite, got nan",),
    "routers --seeds 0": ("seeds must be >= 1, got 0",),
    "routers --size-experts 8,8": ("size_experts must hold one or more different values",),
    "routers --learning-rate 0": ("learning_rate must be > 0",),
    "routers --requests 1": ("requests must be >= 2 a domain, got 1",),
    "routers --context 1000000": ("domain code", "1000001 tokens"),
    "routers --pretrained {bad}/none": ("pretrained: {bad}/none", "config.json"),
    "routers --pretrained {bad}/empty": ("pretrained: {bad}/empty", "config.json"),
    "routers --trace {bad}/none": ("{bad}/none", "no such file or folder"),
    "routers --topologies tours": ("unknown topology 'tours'; did you mean 'torus'",),
    "routers --slots 3": ("slots must be >= experts", "slots=3", "experts=4"),
    "routers --config {bad}/unknown-key.toml": ("unknown-key.toml: unknown key 'slotz'",),
    "routers --quick --steps 0": ("steps must be >= 1, got 0",),
    "routers --processes -1": ("processes must be >= 0, got -1",),
    "routers --out {bad}/study": ("already holds a run; --resume continues it",),
    "routers --resume --out {bad}/study": ("is of study, not of routers",),
    "placements --methods exat": ("unknown placement method 'exat'; did you mean 'exact'?",),
    "placements --methods eplb,eplb": ("methods must not name anything twice, got eplb,eplb",),
    "placements --parts metod": ("unknown part 'metod'; did you mean 'method'?",),
    "placements --slots 4": ("slots must be >= experts", "slots=4", "experts=8"),
    "placements --slots 17": ("slots must be a multiple of devices", "slots=17", "devices=8"),
    "placements --topologies tours": ("unknown topology 'tours'; did you mean 'torus'",),
    "placements --tokens 0": ("tokens must be >= 1, got 0",),
    "placements --trace {bad}/good --model mixtral-8x7b": ("trace must hold at least 3 requests",),
    "placements --out {bad}/study": ("already holds a run; --overwrite replaces it",),
    "placements --out {bad}/foreign": ("{bad}/foreign is not empty and holds no run",),
    "place --seed -1": ("seed must be >= 0, got -1",),
    "place --method exat": ("unknown placement method 'exat'; did you mean 'exact'?",),
    "place --model mixtral": ("unknown model 'mixtral'; did you mean 'mixtral-8x7b'?",),
    "place --test-fraction 1": ("test_fraction must be in (0, 1), got 1.0",),
    "place --trace {bad}/single": ("at least 2 requests",),
    "place --out {bad}/file/p.npz": ("--out: {bad}/file is a file, not a folder",),
    "place --out {bad}/empty": ("{bad}/empty: cannot be written (is a folder)",),
    "trace": ("give a folder of traces or --synthetic MODEL, not both or neither",),
    "trace {bad}/good --synthetic deepseek-v3": ("not both or neither",),
    "trace --synthetic mixtral": ("unknown synthetic preset 'mixtral'; did you mean 'mixtral-8x",),
    "trace --synthetic mixtral-8x7b --requests 0": ("requests must be >= 1, got 0",),
    "trace --synthetic mixtral-8x7b --positions 0": ("positions must be in 1..1e6, got 0",),
    "trace --synthetic mixtral-8x7b --seed -1": ("seed must be >= 0, got -1",),
    "trace {bad}/good --out {bad}/file": ("{bad}/file", "a trace is saved to a folder"),
    "trace {bad}/good --out {bad}/file/sub": ("{bad}/file", "cannot be written"),
    "trace {bad}/good --out {bad}/truncated": ("{bad}/truncated: holds files of another trace",),
}

# Recorded loads: what place says of --load FILE.
LOADS: dict[str, tuple[str, ...]] = {
    "{bad}/none.npy": ("{bad}/none.npy",),
    "{bad}/load-nan.npy": ("{bad}/load-nan.npy", "nan"),
    "{bad}/load-minus.npy": ("{bad}/load-minus.npy", "-2"),
    "{bad}/load-zero.npy": ("{bad}/load-zero.npy", "all zero"),
    "{bad}/load-object.npy": ("{bad}/load-object.npy",),
    "{bad}/load-flat.npy": ("{bad}/load-flat.npy",),
    "{bad}/load-half.npy": ("{bad}/load-half.npy",),
    "{bad}/load-pickle.pt": ("{bad}/load-pickle.pt",),
    "{bad}/load-half.json": ("{bad}/load-half.json",),
    "{bad}/load-fine.npy --model deepseek-v3": (
        "load-fine.npy: load must have the 58 MoE layers of deepseek-v3",
        "3",
    ),
    "{bad}/load-fine.npy --slots 4": ("slots must be >= experts, got slots=4 and experts=8",),
    "{bad}/load-fine.npy --slots 17": ("slots must be a multiple of devices",),
    "{bad}/load-fine.npy --shared-expert routed": ("routed needs a model",),
    "{bad}/load-fine.npy --previous {bad}/eight.npz": ("{bad}/eight.npz", "3 layers", "32"),
}


def cases() -> list[tuple[str, tuple[str, ...]]]:
    found = []
    for command in ("study", "simulate"):
        found += [(f"{command} {words}", say) for words, say in STEP_CASES.items()]
    for option, commands in (("--trace ", ("study", "simulate", "place")), ("", ("trace",))):
        for command in commands:
            found += [(f"{command} {option}{path}", say) for path, say in TRACES.items()]
    for command in ("study --topologies", "simulate --topology"):
        found += [(f"{command} {path}", say) for path, say in EDGES.items()]
    found += [(f"place --trace '' --load {words}", say) for words, say in LOADS.items()]
    for command, table in (
        ("study", STUDY_CASES),
        ("simulate", SIMULATE_CASES),
        ("train", SCENARIO_CASES),
        ("train", TRAIN_CASES),
        ("evaluate", SCENARIO_CASES),
        ("evaluate", EVALUATE_CASES),
        ("network", NETWORK_CASES),
        ("plot", RUN_CASES),
        ("report", RUN_CASES),
    ):
        found += [(f"{command} {words}", say) for words, say in table.items()]
    found += list(OTHERS.items())
    # An empty --out is how simulate is told to print only.
    return [case for case in found if case[0] != "simulate --out ''"]


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of every file and folder below ``root``."""
    found = {}
    for folder, _, files in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            status = os.stat(path)
            found[path] = (status.st_size, status.st_mtime_ns)
    return found


@pytest.mark.parametrize(("words", "says"), cases(), ids=[words for words, _ in cases()])
def test_bad_input_is_one_clear_line_and_writes_nothing(
    words: str,
    says: tuple[str, ...],
    bad: Path,
    topomoe: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"bad": bad, "name": bad.name, "out": tmp_path / "out"}
    command, *own = words.split(maxsplit=1)
    line = f"{command} {BASE.get(command, '')} {' '.join(own)}".format(**places)
    before = snapshot(bad)
    status, out, err = topomoe(*shlex.split(line))
    assert status == 2, err
    assert out == ""
    assert err.startswith("topomoe: ")
    assert err.count("\n") == 1, err
    for fragment in says:
        assert fragment.format(**places) in err
    assert list(tmp_path.iterdir()) == []
    assert snapshot(bad) == before


def test_no_bad_input_ran_what_it_holds(bad: Path, topomoe: Call, tmp_path: Path) -> None:
    hostile = [bad / "pickle.npz", bad / "object" / "0.npz", bad / "object-id" / "0.npz"]
    for path in hostile:
        for words in (
            f"trace {path}",
            f"place --trace {path}",
            f"study --trace {path.parent} --out {tmp_path / 'out'}",
            f"simulate {STEPS} --placement {path}",
        ):
            assert topomoe(*words.split())[0] == 2
    for path in (bad / "load-pickle.pt", bad / "load-object.npy", bad / "location-yaml.yaml"):
        assert topomoe("place", "--load", path)[0] == 2
        words = f"place --trace {bad / 'good'} --devices 8 --previous {path}"
        assert topomoe(*words.split())[0] == 2
    words = f"evaluate --agents {bad / 'agent-pickle'} --out {tmp_path / 'out'}"
    assert topomoe(*words.split())[0] == 2
    words = f"train {TRAIN} --out {bad / 'started'} --resume"
    assert topomoe(*shlex.split(words))[0] == 2
    assert not (bad / CANARY).exists()
    # What they hold does run when unpickled: the check above can fail.
    pickle.loads(pickle.dumps(Bomb(tmp_path / CANARY)))
    assert (tmp_path / CANARY).is_dir()


def test_a_bad_command_line_leaves_a_run_as_it_was(bad: Path, topomoe: Call) -> None:
    before = snapshot(bad / "study")
    words = f"study {STUDY} --slots 4 --out {bad / 'study'} --overwrite"
    assert topomoe(*words.split())[0] == 2
    assert snapshot(bad / "study") == before
