"""Draws docs/images/concepts-*.png, the pictures of docs/concepts.md, with the package's own parts.

Usage: ``python docs/figures.py [FOLDER]``

Synthetic streets, the demo's config, one core, no training: the network has random weights, and
centres of k-means of its features stand in for trained prototypes. A picture is numbers first
(:func:`hide_blocks`, :func:`activate`, :func:`use_prototypes`), then a drawing of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("DOS_HOST", "minihost")  # before a registry is asked for

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from scipy.cluster.vq import kmeans2
from torch import Tensor

import dos_plugin.register  # noqa: F401
from dos_plugin.drawing.charts import BLUE, GREY, ORANGE, STYLE
from dos_plugin.drawing.render import BACKGROUND, Camera, birds_eye, project, render
from dos_plugin.host import HOST
from dos_plugin.method import ZipfSinkhorn, row_features
from dos_plugin.method.health import assigned_mass, own_mass
from dos_plugin.method.logits import Logits
from dos_plugin.method.settings import TEACHER_TEMP
from dos_plugin.scenes import CLASS_NAMES, generate_scan
from dos_plugin.seeding import set_seed
from dos_plugin.shipped import config_path
from dos_plugin.transforms.masking import BlockMask
from dos_plugin.whole_file import write_whole

FOLDER = Path(__file__).parent / "images"
CONFIG = "pretrain-dos-v1m1-9-demo"
SCENES = 16, 23  # streets: of the views, and of the prototypes
VIEWS_SEED = 38  # crops that leave a car whole, and a mask that shows some of it
DPI, WIDTH = 130, 9.0  # inches: 1170 pixels, more than a page has
# Of the palette of Okabe and Ito, which all eyes tell apart, also on black.
SEEN, HIDDEN, OTHER = (86, 180, 233), (230, 159, 0), (240, 228, 66)
DARK, PALE, WHITE = (70, 76, 90), (150, 156, 170), (245, 245, 245)
INK = "#3c4048"
# Their darkest colours, too, stand out on black.
SHADES = ListedColormap(plt.get_cmap("cividis")(np.linspace(0.12, 1, 200)))
RANKS = ListedColormap(plt.get_cmap("viridis")(np.linspace(0.28, 1, 200)))
styled: Any = plt.rc_context(STYLE)  # as a decorator


def main(folder: Path) -> None:
    """Write the pictures into a folder."""
    torch.set_num_threads(1)
    street, other_street = map(generate_scan, SCENES)
    activations = activate(other_street)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in {
        "step": step_figure(),
        "views": views_figure(hide_blocks(street)),
        "softmap": softmap_figure(activations),
        "zipf": zipf_figure(activations, use_prototypes(activations)),
    }.items():
        save(figure, folder / f"concepts-{name}.png")


def save(figure: Figure, path: Path, colours: int = 128) -> None:
    """Write a picture in few colours, which takes a third of the room and looks the same."""
    from PIL import Image

    figure.canvas.draw()
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])  # type: ignore[attr-defined]
    plt.close(figure)
    few = image.quantize(colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    write_whole(path, lambda file: few.save(file, "PNG", optimize=True))


# -- what the student sees -------------------------------------------------------------------


class View(NamedTuple):
    """A view of a scan, and what students are given of it; coordinates in metres.

    Attributes:
        coord: (n, 3) points of the view, which the teacher sees.
        point_id: (n,) rows of the scan that they are.
        visible: (n,) bool.
        corner: (3,) a corner of the lattice of mask blocks.
        student: (m, 3) what the backbone of a DOS student got.
        token_student: (n, 3) what that of a student with mask tokens got.
        token: (n,) bool, which of them came as mask tokens.
    """

    coord: np.ndarray
    point_id: np.ndarray
    visible: np.ndarray
    corner: np.ndarray
    student: np.ndarray
    token_student: np.ndarray
    token: np.ndarray


class Hidden(NamedTuple):
    """A scan (N, 3) with classes and instances (N,), its views and the edge of a block, metres."""

    scan: np.ndarray
    segment: np.ndarray
    instance: np.ndarray
    views: list[View]
    block_size: float


def hide_blocks(
    scan: dict[str, np.ndarray], grid_size: float = 0.05, seed: int = VIEWS_SEED
) -> Hidden:
    """Two masked views of a scan, and what two kinds of students see of them.

    Args:
        scan: as of :func:`dos_plugin.scenes.generate_scan`.
        grid_size: voxels of the views, metres.
    """
    config = demo_config()
    steps = config.data.train.transform
    by_type = {step.type: step for step in steps}
    by_type["GridSample"].grid_size = grid_size
    by_type["TwoViews"].view_transform[-2].grid_size = grid_size
    by_type["TwoViews"].update(max_size=65536, view_scale=(0.45, 0.6))
    by_type["Update"].keys_dict = dict(grid_size=grid_size)
    masking = steps.index(by_type["BlockMask"])
    mask = BlockMask(**{k: v for k, v in steps[masking].items() if k != "type"})

    set_seed(seed)
    sample = HOST.Compose(steps[:masking])(points_of(scan))
    corners = []
    for name in mask.views:
        coord = sample[f"{name}_coord"]
        # The mask does not tell its lattice, but the origin is what it draws first.
        state = np.random.get_state()
        corners.append(coord.min(axis=0) - np.random.uniform(0, mask.block_size, 3))
        np.random.set_state(state)
        sample[f"{name}_visible"] = mask.visible(coord)
    batch = HOST.collate_fn([HOST.Compose(steps[masking + 1 :])(sample)])

    with_tokens = dict(config.model, student_input="mask_token")
    with_tokens["backbone"] = dict(config.model.backbone, mask_token=True)
    seen = student_input(config.model, batch)
    tokens = student_input(with_tokens, batch)
    views = []
    for cloud, name in enumerate(mask.views):
        mine, mine_of_all = (in_cloud(inputs["offset"], cloud) for inputs in (seen, tokens))
        views.append(
            View(
                coord=batch[f"{name}_coord"].numpy(),
                point_id=batch[f"{name}_point_id"].numpy(),
                visible=batch[f"{name}_visible"].numpy(),
                corner=corners[cloud],
                student=seen["coord"][mine].numpy(),
                token_student=tokens["coord"][mine_of_all].numpy(),
                token=tokens["mask"][mine_of_all].numpy(),
            )
        )
    return Hidden(scan["coord"], scan["segment"], scan["instance"], views, mask.block_size)


def in_cloud(offset: Tensor, cloud: int) -> slice:
    """The rows of a cloud in a packed batch."""
    return slice(int(offset[cloud - 1]) if cloud else 0, int(offset[cloud]))


def student_input(model_config: Any, batch: dict) -> dict[str, Tensor]:
    """What the backbone of the student is called with in a step of DOS-v1m1."""
    set_seed(0)
    model = HOST.build_model(model_config)
    seen: dict[str, Tensor] = {}
    model.student["backbone"].register_forward_pre_hook(lambda _, args: seen.update(args[0]))
    with torch.no_grad():
        model(dict(batch))
    return seen


@styled
def views_figure(hidden: Hidden) -> Figure:
    """From the scan to what students see: three pictures from above, three of a car."""
    first, second = hidden.views
    figure, axes = plt.subplots(2, 3, figsize=(WIDTH, 6.55), dpi=DPI)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.95, 0.02, 0.1)
    in_view = [np.isin(np.arange(len(hidden.scan)), v.point_id) for v in hidden.views]
    colour = np.array([DARK, SEEN, OTHER, WHITE], np.uint8)[in_view[0] + 2 * in_view[1]]
    show(axes[0, 0], hidden.scan, colour, from_above(hidden.scan))
    axes[0, 0].set_title("A scan and two crops of it")
    words(axes[0, 0], {"view 1": SEEN, "view 2": OTHER, "both": WHITE, "neither": PALE})
    for axis, view, name in ((axes[0, 1], first, "View 1"), (axes[0, 2], second, "View 2")):
        show(axis, view.coord, seen_colours(view.visible), from_above(view.coord))
        axis.set_title(f"{name}, turned and masked")
        words(axis, {"visible": SEEN, "hidden": HIDDEN})

    camera = beside_a_car(hidden, first)
    panels = (
        (first.coord, first.visible, "The teacher sees all of it"),
        (first.student, np.ones(len(first.student), bool), "The DOS student sees this"),
        (first.token_student, ~first.token, "One with mask tokens sees this"),
    )
    for axis, (coord, visible, title) in zip(axes[1], panels):
        show(axis, coord, seen_colours(visible), camera)
        axis.set_title(title)
    draw_blocks(axes[1, 0], first, hidden.block_size, camera)
    words(axes[1, 0], {f"hidden blocks of {hidden.block_size:g} m": HIDDEN})
    words(axes[1, 1], {"visible points, nothing else": SEEN})
    words(axes[1, 2], {"tokens: the shape is given away": HIDDEN})
    return figure


def from_above(coord: np.ndarray) -> Camera:
    """A bird's-eye view of nearly all of some points, at most 64 m."""
    low, high = np.percentile(coord[:, :2], [1, 99], axis=0)
    x, y = ((low + high) / 2).tolist()
    span = min(64.0, 1.06 * float((high - low).max()))
    return Camera((x, y, 100.0), (x, y, 0.0), span=span, point_size=span / 170)


def seen_colours(visible: np.ndarray) -> np.ndarray:
    """(N, 3) uint8: one colour for visible points, another one for hidden ones."""
    return np.where(visible[:, None], SEEN, HIDDEN).astype(np.uint8)


def beside_a_car(hidden: Hidden, view: View) -> Camera:
    """Looks at the car with most points from where the sensor is, from above."""
    car = hidden.segment[view.point_id] == CLASS_NAMES.index("car")
    numbers, count = np.unique(hidden.instance[view.point_id][car], return_counts=True)
    its = hidden.instance[view.point_id] == numbers[count.argmax()]
    x, y, z = view.coord[its].mean(axis=0).tolist()
    towards = np.array([-x, -y]) / np.hypot(x, y)
    left, back = np.array([-towards[1], towards[0]]), 6.3
    position = np.array([x, y]) + back * (0.94 * towards + 0.34 * left)
    return Camera((*position.tolist(), z + 3.6), (x, y, z - 0.2), 50.0, point_size=0.055)


def draw_blocks(axis: Axes, view: View, size: float, camera: Camera) -> None:
    """Edges of the hidden blocks near what a camera looks at, over the picture that it took."""
    height, width = axis.images[0].get_array().shape[:2]  # type: ignore[union-attr]
    near = np.linalg.norm(view.coord - np.array(camera.target), axis=1) < 2.4
    cell = np.floor((view.coord - view.corner)[near & ~view.visible] / size)
    cells, count = np.unique(cell, axis=0, return_counts=True)
    corners = np.array(list(product((0, 1), repeat=3)))
    edges = [(a, b) for a, b in combinations(corners, 2) if abs(a - b).sum() == 1]
    for block in cells[count > 12]:
        for edge in edges:
            column, row, _ = project(view.corner + size * (block + edge), camera, width, height)
            axis.plot(column, row, color=np.divide(HIDDEN, 255), linewidth=0.6, alpha=0.7)


# -- softmap and clusters --------------------------------------------------------------------


class Activations(NamedTuple):
    """Voxels of a scan and their cosines with K prototypes, the most used prototype first.

    Attributes:
        coord: (N, 3) metres.
        logits: cosines over the teacher's temperature.
        cosine: (N, K).
        softmap: (N, K), columns sum to 1.
        share: (N, K) cluster assignments, rows sum to 1.
    """

    coord: np.ndarray
    logits: Logits
    cosine: np.ndarray
    softmap: np.ndarray
    share: np.ndarray


def activate(
    scan: dict[str, np.ndarray], num_prototypes: int = 64, grid_size: float = 0.2
) -> Activations:
    """Features of a scan by random weights, and prototypes out of k-means.

    Args:
        scan: as of :func:`dos_plugin.scenes.generate_scan`.
        num_prototypes: K.
        grid_size: voxels, metres.
    """
    config = demo_config().model
    voxels = HOST.Compose(
        [
            dict(type="Height"),
            dict(type="GridSample", grid_size=grid_size, mode="train", return_grid_coord=True),
            dict(type="ToTensor"),
            dict(type="Collect", keys=("coord", "grid_coord"), feat_keys=("strength", "height")),
        ]
    )
    set_seed(0)
    inputs = voxels(points_of(scan))
    backbone = HOST.build_model(config.backbone).eval()
    with torch.no_grad():
        feat, _ = row_features(backbone(inputs), len(inputs["coord"]), config.up_cast_level)
    unit = torch.nn.functional.normalize((feat - feat.mean(0)) / feat.std(0), dim=1)
    centres, _ = kmeans2(unit.numpy(), num_prototypes, minit="++", seed=0)
    prototypes = torch.nn.functional.normalize(torch.from_numpy(centres), dim=1)
    # As training would order them: the Zipf prior gives most to the first.
    use = own_mass(Logits(unit, prototypes, TEACHER_TEMP))
    prototypes = prototypes[use.argsort(descending=True)]
    logits = Logits(unit, prototypes, TEACHER_TEMP)
    softmap = ZipfSinkhorn(num_iters=0)(unit, prototypes, TEACHER_TEMP)
    all_logits = logits.block(slice(None))
    return Activations(
        inputs["coord"].numpy(),
        logits,
        (all_logits * TEACHER_TEMP).numpy(),
        softmap.numpy(),
        torch.softmax(all_logits, dim=1).numpy(),
    )


def chosen(activations: Activations) -> tuple[int, int, int]:
    """A prototype, the one most like it, and the least used one."""
    prototypes = activations.logits.prototypes
    like = prototypes @ prototypes.T - 2 * torch.eye(len(prototypes))
    first = 0
    return first, int(like[first].argmax()), len(prototypes) - 1


@styled
def softmap_figure(activations: Activations) -> Figure:
    """Rows: cosines, softmaps, cluster assignments; columns: a table of all, three prototypes."""
    count = len(activations.coord)
    columns = chosen(activations)
    names = ("points by prototypes", "A: most used", "B: nearest to A", "C: least used")
    rows = (
        ("cosine", activations.cosine, Normalize(-0.3, 0.9)),
        ("softmap, times N", activations.softmap * count, LogNorm(0.1, 100)),
        ("cluster assignment", activations.share, Normalize(0, 1)),
    )
    figure, axes = plt.subplots(
        3, 5, figsize=(WIDTH, 6.2), dpi=DPI, width_ratios=(0.68, 1, 1, 1, 0.04)
    )
    figure.subplots_adjust(0.005, 0.008, 0.925, 0.955, 0.03, 0.05)
    order = np.argsort(activations.share.argmax(axis=1), kind="stable")
    for line, (name, values, norm) in zip(axes, rows):
        line[0].imshow(SHADES(norm(values[order])), aspect="auto")
        line[0].set(xticks=[], yticks=[])
        line[0].grid(False)
        for axis, prototype in zip(line[1:], columns):
            colour = (255 * SHADES(norm(values[:, prototype]))[:, :3]).astype(np.uint8)
            camera = replace(birds_eye(40.0), point_size=0.25)
            show(axis, activations.coord, colour, camera)
        bar = figure.colorbar(ScalarMappable(norm, SHADES), cax=line[-1])
        bar.set_label(name, fontsize=9.5, color=INK)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
    for axis, name in zip(axes[0], names):
        axis.set_title(name, fontsize=10.5, color=INK)
    look: dict = dict(fill=False, ec="#ff9d3b", lw=2)
    axes[1, 0].add_patch(Rectangle((10, 0), 2, count - 1, **look))
    axes[2, 0].add_patch(Rectangle((-0.4, count * 0.3), values.shape[1] - 0.3, count // 30, **look))
    words(axes[0, 0], {f"{count:,}\nby {values.shape[1]}": WHITE})
    words(axes[1, 0], {"each column\nsums to 1": WHITE})
    words(axes[2, 0], {"each row\nsums to 1": WHITE})
    for prototype, softmap, share in zip(columns, axes[1, 1:], axes[2, 1:]):
        words(softmap, {f"in sum {activations.softmap[:, prototype].sum():.2f}": WHITE})
        words(share, {f"in sum {activations.share[:, prototype].sum():.0f} points": WHITE})
    return figure


# -- the Zipf prior --------------------------------------------------------------------------


class Use(NamedTuple):
    """Use of K prototypes by the points of a scan, for one alpha.

    Attributes:
        alpha: Zipf exponent.
        prior: (K,).
        own: (K,) without Sinkhorn.
        assigned: (K,) by number of iterations, before the last scaling of the columns.
        strongest: (N,) prototype with the largest share of each point, after the default
            number of iterations.
    """

    alpha: float
    prior: np.ndarray
    own: np.ndarray
    assigned: dict[int, np.ndarray]
    strongest: np.ndarray


def use_prototypes(
    activations: Activations,
    alphas: Sequence[float] = (0.0, 1.3, 3.0),
    iterations: Sequence[int] = (3, 50),
) -> list[Use]:
    """What Zipf-Sinkhorn makes of the logits of a scan, for each alpha."""
    logits = activations.logits
    found = []
    for alpha in alphas:
        runs = [ZipfSinkhorn(alpha, number) for number in iterations]
        scalings = [sinkhorn.scaling(logits) for sinkhorn in runs]
        found.append(
            Use(
                alpha,
                runs[0].prior(len(logits.prototypes)).numpy(),
                own_mass(logits).numpy(),
                {n: assigned_mass(logits, s).numpy() for n, s in zip(iterations, scalings)},
                logits.block(slice(None), scalings[0].bias).argmax(dim=1).numpy(),
            )
        )
    return found


@styled
def zipf_figure(activations: Activations, uses: Sequence[Use]) -> Figure:
    """For each alpha the scan by the rank of each point's prototype, and their use by rank."""
    count = len(activations.logits.prototypes)
    rank, norm = np.arange(1, count + 1), LogNorm(1, count)
    figure, axes = plt.subplots(
        3, len(uses), figsize=(WIDTH, 5.9), dpi=DPI, height_ratios=(1.2, 1, 0.05), squeeze=False
    )
    figure.subplots_adjust(0.075, 0.08, 0.985, 0.955, 0.05, 0.09)
    for column, use in enumerate(uses):
        above, below, bar = axes[:, column]
        colour = (255 * RANKS(norm(1 + use.strongest))[:, :3]).astype(np.uint8)
        camera = replace(birds_eye(40.0), point_size=0.25)
        show(above, activations.coord, colour, camera)
        above.set_title(f"alpha = {use.alpha:g}", fontsize=10.5, color=INK)
        first = (use.strongest == 0).mean()
        words(above, {f"rank 1 is strongest at {100 * first:.0f} % of points": WHITE})
        few, many = sorted(use.assigned)
        below.loglog(rank, use.prior, color=GREY, linewidth=6, alpha=0.45, label="Zipf prior")
        below.loglog(rank, use.own, color=ORANGE, linestyle="--", label="without Sinkhorn")
        below.loglog(rank, use.assigned[few], color=BLUE, label=f"{few} iterations")
        look: dict = dict(color="black", linestyle=":", label=f"{many} iterations")
        below.loglog(rank, use.assigned[many], **look)
        below.set(xlim=(1, count), ylim=(1e-6, 1.5))
        below.tick_params(labelbottom=False, labelleft=not column, labelsize=8)
        if not column:
            below.set_ylabel("share of all points")
            below.legend(loc="lower left", fontsize=9)
        strip = figure.colorbar(ScalarMappable(norm, RANKS), cax=bar, orientation="horizontal")
        strip.set_label("rank of the prototype", fontsize=9.5, color=INK)
        strip.outline.set_visible(False)
        strip.set_ticks([n for n in (1, 2, 5, 10, 20, 50) if n <= count])
        strip.ax.xaxis.set_major_formatter("{x:.0f}")
        strip.minorticks_off()
        bar.tick_params(labelsize=8)
    return figure


# -- a step ----------------------------------------------------------------------------------


@styled
def step_figure() -> Figure:
    """The way from a scan to the loss, as boxes and arrows."""
    figure, axis = plt.subplots(figsize=(WIDTH, 4.2), dpi=DPI)
    figure.subplots_adjust(0, 0, 1, 1)
    axis.set(xlim=(0, 90), ylim=(0, 42))
    axis.axis("off")
    student, teacher, shared = "#dceaf7", "#fbe6d2", "#eef0f3"
    tall = 8.0

    def box(x: float, y: float, text: str, note: str, fill: str, width: float) -> None:
        """A box centred at x, y: its name in bold, two lines below."""
        corner = (x - width / 2, y - tall / 2)
        look = "round,pad=0,rounding_size=1"
        axis.add_patch(FancyBboxPatch(corner, width, tall, look, fc=fill, ec="#9aa1ad", lw=0.8))
        axis.text(x, y + 2, text, ha="center", va="center", weight="bold", color=INK)
        axis.text(x, y - 1.4, note, ha="center", va="center", fontsize=8, color=INK)

    def arrow(*corners: tuple[float, float], colour: str = INK, **look: Any) -> None:
        """A line through corners with a head at its end."""
        axis.plot(*zip(*corners[:-1]), color=colour, linewidth=1.2, **look)
        axis.add_patch(
            FancyArrowPatch(
                *corners[-2:],
                arrowstyle="-|>",
                mutation_scale=11,
                shrinkA=0,
                shrinkB=0,
                color=colour,
                linewidth=1.2,
                **look,
            )
        )

    def say(x: float, y: float, text: str, colour: str = INK, side: str = "center") -> None:
        """Small words."""
        axis.text(x, y, text, ha=side, va="center", fontsize=8.5, color=colour)

    up, middle, down = 32.0, 20.0, 8.0
    box(8, middle, "Two views", "crop, turn, scale;\nmask in blocks", shared, 13)
    box(28, up, "Student", "backbone and head,\nunit vectors", student, 15)
    box(28, down, "Teacher", "backbone and head,\nunit vectors", teacher, 15)
    box(47, middle, "Prototypes", "K unit vectors,\ncosines with them", shared, 14)
    box(64, up, "Softmap", "per prototype,\nover points", student, 14)
    box(64, down, "Zipf-Sinkhorn", "points even, prototypes\nby a power law", teacher, 18)
    box(81, middle, "Loss", "KL(target, softmap),\nmean over prototypes", shared, 16)

    arrow((8, middle + 4), (8, up), (20.5, up))
    arrow((8, middle - 4), (8, down), (20.5, down))
    say(14, up + 1.3, "visible points")
    say(14, down + 1.3, "all points")
    arrow((35.5, up), (57, up))
    arrow((35.5, down), (55, down))
    say(42.5, up + 1.3, "what it sees")
    say(45, down + 1.3, "the same places, in its")
    say(45, down - 1.5, "own and in the other view")
    arrow((54, middle + 1), (64, middle + 1), (64, up - 4))
    arrow((54, middle - 1), (64, middle - 1), (64, down + 4))
    arrow((71, up), (79, up), (79, middle + 4))
    arrow((73, down), (81, down), (81, middle - 4))
    say(77, down + 1.3, "target")
    arrow((28, up - 4), (28, down + 4), colour=ORANGE)
    say(28.8, middle, "EMA after each\noptimizer step", ORANGE, "left")
    say(28, down - 5.5, "no gradient", ORANGE)
    back: dict = dict(colour=BLUE, linestyle="--")
    arrow((83, middle + 4), (83, 39), (28, 39), (28, up + 4), **back)
    arrow((50, 39), (50, 38), (50, middle + 4), **back)
    say(66, 40.3, "gradient", BLUE)
    return figure


# -- small parts -----------------------------------------------------------------------------


def points_of(scan: dict[str, np.ndarray]) -> dict[str, Any]:
    """A scan as the first transform of a pipeline gets it."""
    keys = ["coord", "strength"]
    return {**{key: scan[key].copy() for key in keys}, "name": "street", "index_valid_keys": keys}


def demo_config() -> Any:
    """The demo's config, a new copy."""
    return HOST.Config.fromfile(str(config_path(CONFIG)))


def show(axis: Axes, coord: np.ndarray, colour: np.ndarray, camera: Camera) -> None:
    """Points as a camera sees them, pixel by pixel as large as the axes."""
    box = axis.get_window_extent()
    picture = render(coord, colour, camera, round(box.width), round(box.height))
    axis.imshow(picture, interpolation="none", aspect="auto")
    axis.axis("off")
    axis.title.set(fontsize=10.5, color=INK)


def words(axis: Axes, colours: dict[str, tuple[int, int, int]]) -> None:
    """Words in their colours in the lower left corner."""
    for line, (word, colour) in enumerate(reversed(colours.items())):
        axis.text(
            0.03,
            0.03 + 0.065 * line,
            word,
            color=np.divide(colour, 255),
            fontsize=9,
            transform=axis.transAxes,
            bbox=dict(facecolor=np.divide(BACKGROUND, 255), edgecolor="none", pad=1.5),
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
