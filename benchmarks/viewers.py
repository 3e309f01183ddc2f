"""A scan to turn around in a browser: our page beside those of libraries.

Every page shows the same points, coloured by height, at the same size in headless Chromium, with
WebGL in software, so that the processor draws: slower than a GPU, but for all alike.

    python benchmarks/viewers.py --points 150000

Measured: size of the file, seconds until the first picture, pictures a second while it turns,
seconds until all points have another colour. Needs Chromium, and for the others the packages
plotly, k3d and pydeck; those that are not installed are left out. What takes more than two minutes
is a dash.
"""

import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import common

sys.path.insert(0, str(common.ROOT))

from dos_plugin.drawing.viewer import View, write_view
from tests.browser import Browser, find_chromium

WINDOW = (1000, 700)
# Of a page: turn(i) draws the next picture, recolour(i) changes all colours.
OURS = """
window.turn = () => panes[0].turn(0.05, 0);
window.recolour = (i) => setMode(modes[i % 2]);
"""
PLOTLY = """
const plot = document.getElementById("{plot_id}");
window.turn = (i) => Plotly.relayout(plot, {"scene.camera.eye":
  {x: 1.2 * Math.cos(i / 20), y: 1.2 * Math.sin(i / 20), z: 0.8}});
window.recolour = (i) => Plotly.restyle(plot,
  {"marker.color": [plot.data[0].marker.color.map((_, k) => (k * i) % 97)]}, [0]);
window.ready = true;
"""
K3D = """
const world = K3DInstance.getWorld();
window.turn = (i) => K3DInstance.setCamera(
  [60 * Math.cos(i / 20), 60 * Math.sin(i / 20), 30, 0, 0, 0, 0, 0, 1]);
window.recolour = (i) => {
  const points = Object.values(world.ObjectsListJson)[0];
  const data = Float32Array.from(points.attribute.data, (_, k) => ((k * i) % 97) / 97);
  points.attribute = {data, shape: points.attribute.shape};
  return K3DInstance.reload(points, {attribute: points.attribute});
};
window.ready = true;
"""
DECK = """
const colours = (i) => Uint8Array.from({length: 4 * COUNT},
  (_, k) => k % 4 == 3 ? 255 : (k * i) % 255);
const layer = (value) => new deck.PointCloudLayer({id: "points", pointSize: 1, material: false,
  coordinateSystem: deck.COORDINATE_SYSTEM.CARTESIAN, pickable: true, data: {length: COUNT,
  attributes: {getPosition: {value: POSITION, size: 3}, getColor: {value, size: 4}}}});
let view = {target: [0, 0, 0], rotationX: 30, rotationOrbit: 0, zoom: 3.3};
const shown = new deck.Deck({parent: document.body, views: new deck.OrbitView({orbitAxis: "Z"}),
  viewState: view, layers: [layer(colours(7))], onAfterRender: () => { window.ready = true; }});
window.turn = (i) => shown.setProps({viewState: view = {...view, rotationOrbit: 3 * i}});
window.recolour = (i) => shown.setProps({layers: [layer(colours(i))]});
"""
TWICE = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
TURN = """new Promise((done) => {
  let i = 0; const start = performance.now();
  const next = () => {
    const seconds = (performance.now() - start) / 1000;
    if (seconds > SECONDS) done(i / seconds); else { turn(++i); requestAnimationFrame(next); }
  };
  requestAnimationFrame(next);
})"""
RECOLOUR = f"""(async () => {{
  const start = performance.now(); await recolour(NUMBER); await {TWICE};
  return (performance.now() - start) / 1000;
}})()"""


def ours(coord: np.ndarray, file: Path) -> None:
    """The page of dos-plugin view."""
    write_view(file, [View("scan", coord, strength=coord[:, 0])], most_points=len(coord))
    hooks = f"<script>{OURS}</script></body>"
    file.write_text(file.read_text().replace("</body>", hooks))


def plotly(coord: np.ndarray, file: Path) -> None:
    """A page of Plotly."""
    import plotly.graph_objects as go

    x, y, z = coord.T
    marker = {"size": 1.5, "color": z, "colorscale": "Viridis"}
    figure = go.Figure(go.Scatter3d(x=x, y=y, z=z, mode="markers", marker=marker))
    figure.update_layout(scene_aspectmode="data")
    figure.write_html(file, include_plotlyjs=True, post_script=PLOTLY)


def k3d(coord: np.ndarray, file: Path) -> None:
    """A snapshot of K3D."""
    import k3d as library

    plot = library.plot(grid_visible=False, menu_visibility=False)
    ends = [float(coord[:, 2].min()), float(coord[:, 2].max())]
    colours = library.matplotlib_color_maps.Viridis
    plot += library.points(
        *(coord,),
        **dict(attribute=coord[:, 2], color_map=colours, color_range=ends),
        **dict(point_size=0.1, shader="flat"),
    )
    plot.snapshot_type = "full"
    file.write_text(plot.get_snapshot(additional_js_code=K3D))


def deck_gl(coord: np.ndarray, file: Path) -> None:
    """A page of deck.gl, out of the bundle of pydeck."""
    import base64

    from pydeck.io.html import cdn_picker

    data = base64.b64encode(coord.tobytes()).decode()
    values = (
        f"const COUNT = {len(coord)}, POSITION = new Float32Array("
        f"Uint8Array.from(atob('{data}'), (letter) => letter.charCodeAt(0)).buffer);"
    )
    file.write_text(
        f"<!DOCTYPE html><meta charset='utf-8'><body style='margin: 0; height: 100vh'>"
        f"{cdn_picker(offline=True)}<script>{values}{DECK}</script></body>"
    )


PAGES: dict[str, tuple[Callable[[np.ndarray, Path], None], str | None, str]] = {
    "dos-plugin view": (ours, None, "window.viewer && viewer.ready"),
    "k3d": (k3d, "k3d", "window.ready"),
    "plotly": (plotly, "plotly", "window.ready"),
    "deck.gl": (deck_gl, "pydeck", "window.ready"),
}


def measure(name: str, coord: np.ndarray, folder: Path, seconds: float) -> dict[str, Any]:
    """A row of the table."""
    write, _, ready = PAGES[name]
    file = folder / f"{name.replace(' ', '-')}.html"
    write(coord, file)
    row: dict[str, Any] = {"page": name, "file_mb": round(file.stat().st_size / 1e6, 2)}
    row |= dict.fromkeys(("load_s", "pictures_per_s", "recolour_s"))
    with Browser(*WINDOW) as browser:
        started = time.perf_counter()
        try:
            browser.open(file, ready, 120)
            browser.run(TWICE)
            row["load_s"] = round(time.perf_counter() - started, 2)
            row["pictures_per_s"] = round(browser.run(TURN.replace("SECONDS", str(seconds))), 2)
            changes = [browser.run(RECOLOUR.replace("NUMBER", str(i))) for i in (1, 2, 3)]
            row["recolour_s"] = round(common.median(changes), 2)
        except TimeoutError as error:  # too slow: what was measured counts
            print(f"{name}: {error}", file=sys.stderr)
    return row


def main() -> None:
    """Measure all pages, in alternation."""
    options = common.parser(__doc__, repeats=3, warmup=0)
    options.add_argument("--points", type=int, default=150_000, help="default %(default)s")
    options.add_argument("--pages", nargs="+", choices=PAGES, default=list(PAGES))
    options.add_argument("--turn", type=float, default=4.0, help="seconds; default %(default)s")
    args = options.parse_args()
    if find_chromium() is None:
        sys.exit("no Chromium on the path: apt-get install chromium, or CHROMIUM=...")
    random = np.random.default_rng(args.seed)
    distance, angle = random.gamma(2, 8, args.points), random.uniform(0, 2 * np.pi, args.points)
    height = random.exponential(1.5, args.points) * random.integers(0, 2, args.points)
    coord = np.stack([distance * np.cos(angle), distance * np.sin(angle), height], 1)
    needs = {name: PAGES[name][1] for name in args.pages}
    names = [n for n, need in needs.items() if not need or importlib.util.find_spec(need)]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.repeats):
            for name in names:
                runs[name].append(measure(name, coord.astype("f4"), Path(folder), args.turn))
                print(json.dumps(runs[name][-1]), file=sys.stderr, flush=True)
    rows = [
        {"page": name}
        | {key: _median([row[key] for row in found]) for key in found[0] if key != "page"}
        for name, found in runs.items()
    ]
    common.print_table(rows)
    common.write_json(args.json, rows, {"points": args.points, "window": WINDOW})


def _median(values: list[float | None]) -> float | None:
    """None where one run was too slow to measure."""
    found = [value for value in values if value is not None]
    return common.median(found) if len(found) == len(values) else None


if __name__ == "__main__":
    main()
