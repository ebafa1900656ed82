from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.patches import Rectangle

from topomoe import topologies
from topomoe.plots import (
    FIGURES,
    draw_study,
    figures_of,
    gains,
    layer_time,
    link_load,
    moe_time,
    pattern_time,
    step_time,
)
from topomoe.plots.link_geometry import (
    chord_curves,
    link_kinds,
    near_segments,
    overhang,
    tiers,
    wrap_segments,
)
from topomoe.plots.style import log_ticks, look, save, topology_styles
from topomoe.run_folder import RunFolder
from topomoe.study_results import read_study


@pytest.fixture(scope="module")
def drawn(small_study: RunFolder) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in draw_study(small_study)}


def test_every_figure_is_there_as_png_and_pdf(drawn: dict[Path, bytes]) -> None:
    names = {figure.NAME for figure in FIGURES}
    assert len(names) == 12
    assert {(path.stem, path.suffix) for path in drawn} == {
        (name, ending) for name in names for ending in (".png", ".pdf")
    }
    for path, content in drawn.items():
        assert path.parent.name == "figures"
        assert content.startswith(b"\x89PNG" if path.suffix == ".png" else b"%PDF")
    assert not [path for path in next(iter(drawn)).parent.iterdir() if path not in drawn]


def test_redrawing_in_another_process_gives_the_same_bytes(
    small_study: RunFolder, drawn: dict[Path, bytes]
) -> None:
    code = (
        "import sys; from topomoe.plots import draw_study; "
        "from topomoe.run_folder import RunFolder; draw_study(RunFolder.open(sys.argv[1]))"
    )
    for path in drawn:
        path.unlink()
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, small_study.path], check=True, env=environment)
    for path, content in drawn.items():
        assert path.read_bytes() == content, path.name


def test_a_users_own_matplotlib_settings_change_nothing(
    small_study: RunFolder, drawn: dict[Path, bytes], tmp_path: Path
) -> None:
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.dpi": 30}):
        with look():
            paths = save(moe_time.draw(read_study(small_study)), tmp_path, "moe_time")
        assert matplotlib.rcParams["font.size"] == 30
    for path in paths:
        assert path.read_bytes() == drawn[small_study.path / "figures" / path.name]


@pytest.mark.parametrize(
    ("figure", "columns"),
    [
        (moe_time, ("dispatch_s", "combine_s", "compute_s", "backward_s")),
        (step_time, ("dispatch_s", "combine_s", "compute_s", "backward_s", "other_s")),
    ],
)
def test_bars_are_as_long_as_the_parts_of_the_results(
    small_study: RunFolder, figure: object, columns: tuple[str, ...]
) -> None:
    results = read_study(small_study)
    with look():
        axes = figure.draw(results).axes  # type: ignore[attr-defined]
    assert [axis.get_title() for axis in axes] == ["contiguous", "eplb", "exact"]
    for axis, group in zip(axes, results.groups, strict=True):
        bars = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
        for number, (_, row) in enumerate(results.of_group(group).iterrows()):
            own = [b for b in bars if b.get_y() < number < b.get_y() + b.get_height()]
            expected = [1e3 * row[c] for c in columns if row[c] > 0]
            np.testing.assert_allclose([bar.get_width() for bar in own], expected)
            assert max(bar.get_x() + bar.get_width() for bar in own) < axis.get_xlim()[1]


def test_dots_of_the_gains_are_those_of_the_table(small_study: RunFolder) -> None:
    from topomoe.study_results import gains as gains_of

    results = read_study(small_study)
    with look():
        axes = gains.draw(results).axes
    table = gains_of(results)
    for axis, kind in zip(axes, ("routing", "placement", "topology"), strict=True):
        dots = [x for line in axis.lines if line.get_marker() != "None" for x in line.get_xdata()]
        ratios = table.loc[table["kind"] == kind, "ratio"].tolist()
        ratios += [1.0] * (len(results.groups) if kind == "topology" else 0)
        np.testing.assert_allclose(np.sort(dots), np.sort(ratios))


def test_link_maps_say_the_busiest_link_of_each_topology(small_study: RunFolder) -> None:
    results = read_study(small_study)
    with look():
        figure = link_load.draw(results)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert len(titles) == len(results.topologies)
    for name, title in zip(results.topologies, titles, strict=True):
        rows = results.rows(
            "link", results.last_group, topology=name, routing=results.default_routing[name]
        )
        busiest = 1e6 * (rows["load_bytes"] / rows["capacity_bytes_per_s"]).max()
        assert title.startswith(f"{name} ({results.default_routing[name]})")
        assert f"busiest {busiest:.4g} us" in title


@pytest.mark.parametrize(
    "changes",
    [
        {
            "grid": "1x8",
            "topologies": ("torus", "fat-tree"),
            "replica_routings": ("weighted", "even"),
        },
        {"grid": "3x3", "slots": 18, "resamples": 0},
        {
            "topologies": ("mesh",),
            "placements": ("exact",),
            "routings": ("none",),
            "failures": ("links:1",),
        },
        {"topologies": ("ring.csv", "torus"), "failures": ()},
    ],
)
def test_other_grids_and_choices_draw_without_a_warning(
    changes: dict[str, object],
    study_runner: Callable[..., RunFolder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ring.csv").write_text("".join(f"{i},{(i + 1) % 8}\n" for i in range(8)))
    results = read_study(study_runner(tmp_path / "run", **changes))
    recwarn.clear()
    for figure in figures_of(results):
        with look():
            figure.draw(results).draw_without_rendering()
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("name", ["mesh", "torus", "twisted-torus", "leaf-spine", "optical"])
@pytest.mark.parametrize("grid", [(4, 4), (2, 8), (5, 3)])
def test_every_link_is_drawn_in_one_way(name: str, grid: tuple[int, int]) -> None:
    topology = topologies.make(name, grid=grid)
    source, target = topology.links[:, 0], topology.links[:, 1]
    kinds = link_kinds(source, target, grid)
    masks = (kinds.up, kinds.down, kinds.near, kinds.wrap, kinds.chord, kinds.upper)
    assert (np.sum(masks, axis=0) == 1).all()
    if name in ("mesh", "torus", "twisted-torus"):
        assert not (kinds.up | kinds.chord | kinds.upper).any()
        assert kinds.wrap.any() == (name != "mesh")
    if name == "leaf-spine":
        assert kinds.up.sum() == kinds.down.sum() == topology.num_devices
        tier = tiers(source, target, topology.num_devices)
        assert tier.tolist() == [0] * topology.num_devices + [1] * grid[0] + [2] * grid[1]


def test_the_two_directions_of_a_link_do_not_lie_on_each_other() -> None:
    source, target = np.array([0, 1, 0, 4]), np.array([1, 0, 4, 0])
    there, back, down, up = near_segments(source, target, columns=4, beside=0.1)
    np.testing.assert_allclose(there, [[0, 0.1], [1, 0.1]])
    np.testing.assert_allclose(back, [[1, -0.1], [0, -0.1]])
    np.testing.assert_allclose(down[:, 0], -0.1)
    np.testing.assert_allclose(up[:, 0], 0.1)


def test_wraps_leave_the_grid_on_one_side_and_come_back_on_the_other() -> None:
    leaves, returns = wrap_segments(np.array([3]), np.array([0]), (2, 4), beside=0.0)
    assert leaves[0].tolist() == [3, 0]
    assert leaves[1, 0] > 3
    assert returns[1].tolist() == [0, 0]
    assert returns[0, 0] < 0


def test_the_one_combination_of_a_study_is_drawn_once(small_study: RunFolder) -> None:
    results = read_study(small_study)
    with look():
        assert len(layer_time.draw(results).axes) == 2
    only = results.frame["topology"].eq("mesh") & results.frame["placement"].eq("exact")
    one = replace(
        results, frame=results.frame[only & results.frame["routing"].eq("dimension-order")]
    )
    with look():
        axes = layer_time.draw(one).axes
    assert [axis.get_title() for axis in axes] == ["mesh, exact"]


@pytest.mark.parametrize(("kept", "said"), [(4, "all 4 panels"), (2, "all 2 panels"), (1, "")])
def test_the_pattern_caption_counts_its_panels(
    small_study: RunFolder, kept: int, said: str
) -> None:
    results = read_study(small_study)
    names = list(results.rows("pattern")["pattern"].unique())[:kept]
    frame = results.frame
    frame = frame[(frame["record"] != "pattern") | frame["pattern"].isin(names)]
    text = pattern_time.caption(replace(results, frame=frame))
    assert "64 KiB a pair" in text
    assert said in text
    assert ("panels" in text) == (kept > 1)


def test_the_link_caption_counts_the_backward_pass_in_training(small_study: RunFolder) -> None:
    results = read_study(small_study)
    training = replace(results, config={**results.config, "workload": {"phase": "training"}})
    assert "bytes of dispatch and combine over" in link_load.caption(results)
    assert "bytes of all all-to-alls" in link_load.caption(training)


@pytest.mark.parametrize("grid", [(2, 4), (32, 32)])
def test_circuits_stay_inside_their_panel(grid: tuple[int, int]) -> None:
    rows, columns = grid
    corners = np.array([0, columns - 1, (rows - 1) * columns, rows * columns - 1])
    source, target = np.repeat(corners, 4), np.tile(corners, 4)
    apart = source != target
    curves = chord_curves(source[apart], target[apart], columns)
    edge = overhang(curves, grid)
    assert 0 < edge <= 0.06 * max(grid)
    middle = curves[:, 0] / 4 + curves[:, 1] / 2 + curves[:, 2] / 4
    assert (middle >= -edge - 1e-9).all()
    assert (middle <= np.array([columns - 1, rows - 1]) + edge + 1e-9).all()
    assert overhang(curves[:0], grid) == 0


def test_labels_of_the_gains_name_the_placement_first(
    study_runner: Callable[..., RunFolder], tmp_path: Path
) -> None:
    run = study_runner(
        tmp_path / "run",
        topologies=("mesh", "torus"),
        placements=("contiguous", "exact"),
        replica_routings=("weighted", "even"),
        resamples=0,
        failures=(),
    )
    with look():
        axes = gains.draw(read_study(run)).axes
    several = [axis for axis in axes if not axis.get_title(loc="left").startswith("routing")]
    assert len(several) == 3
    for axis in several:
        for label in axis.get_yticklabels():
            placement, replicas = label.get_text().split(", ")
            assert placement in ("contiguous", "exact")
            assert replicas in ("weighted", "even")


@given(
    st.floats(1e-6, 1e6),
    st.floats(1.001, 1e6),
)
def test_ticks_are_round_numbers_inside_the_axis(low: float, span: float) -> None:
    ticks = log_ticks(low, low * span)
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= low * span for tick in ticks)
    assert len(ticks) >= 2


def test_topologies_differ_in_colour_or_marker_and_keep_them_in_any_company() -> None:
    names = ("torus", "a.csv", "mesh", "b.csv", "optical", "c.csv", "fat-tree", "d.csv")
    styles = topology_styles(names)
    assert len({(s["color"], s["marker"]) for s in styles.values()}) == len(names)
    assert topology_styles(("mesh",))["mesh"]["color"] == styles["mesh"]["color"]


def test_all_named_topologies_differ_in_colour_and_in_marker() -> None:
    styles = topology_styles((*topologies.names(), "own.csv"))
    assert styles.pop("own.csv")["color"] not in {s["color"] for s in styles.values()}
    for part in ("color", "marker"):
        assert len({style[part] for style in styles.values()}) == len(styles)


def test_importing_topomoe_loads_no_matplotlib_and_figures_no_pyplot() -> None:
    code = (
        "import sys, topomoe; assert 'matplotlib' not in sys.modules; "
        "import topomoe.plots; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
