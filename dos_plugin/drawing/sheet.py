"""Sheets of pictures of scans, a row each, and animations of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dos_plugin.drawing.render import BACKGROUND, Camera, cameras, render
from dos_plugin.whole_file import write_whole

# Sizes in pixels and colours.
SQUARE, WIDE, GAP, BAND = 560, 960, 6, 48
SHEET, BRIGHT, PALE = (28, 32, 42), (236, 240, 246), (150, 158, 172)
FRAME_MS, LAST_FRAME_MS = 700, 2500


def scan_sheet(
    coords: Sequence[np.ndarray],
    colours: Sequence[np.ndarray],
    names: Sequence[str],
    title: str,
    note: str = "",
    legend: Sequence[tuple[str, tuple[int, int, int]]] = (),
    over: Callable[[int, np.ndarray, Camera], np.ndarray] | None = None,
    span: float = 0.0,
) -> np.ndarray:
    """One picture of several scans: a row each, bird's-eye view and perspective side by side.

    Args:
        coords: (M, 3) points of each scan, metres.
        colours: (M, 3) uint8 of each scan.
        names: name of each scan.
        title: above, on the left.
        note: above, on the right.
        legend: words and the colours that stand for them, in a line below.
        over: draws onto a picture of the scan of that number, taken by that camera; gives the
            picture.
        span: width of the bird's-eye view, metres; 0: as suits the scan.

    Returns:
        (H, W, 3) uint8.
    """
    from PIL import Image, ImageDraw, ImageFont

    rows = len(coords)
    width = SQUARE + GAP + WIDE
    bottom = BAND + rows * (SQUARE + GAP) - GAP
    sheet = Image.new("RGB", (width, bottom + BAND * bool(legend)), SHEET)
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(24), ImageFont.load_default(16)
    pen.text((14, BAND / 2), title, BRIGHT, large, anchor="lm")
    pen.text((width - 14, BAND / 2), note, PALE, small, anchor="rm")
    for row, (coord, colour, name) in enumerate(zip(coords, colours, names)):
        top = BAND + row * (SQUARE + GAP)
        above, beside = cameras(coord)
        if span:
            above = replace(above, span=span, point_size=span / 250)
        for left, size, camera, what in (
            (0, SQUARE, above, f"{name}, from above"),
            (SQUARE + GAP, WIDE, beside, "from behind"),
        ):
            picture = render(coord, colour, camera, size, SQUARE)
            if over is not None:
                picture = over(row, picture, camera)
            sheet.paste(Image.fromarray(picture), (left, top))
            # A rim in the background's colour, since points may lie behind the letters.
            corner = (left + 14, top + SQUARE - 14)
            pen.text(corner, what, PALE, small, "lb", stroke_width=3, stroke_fill=BACKGROUND)
    start, middle = 14.0, bottom + BAND / 2
    for word, shade in legend:
        pen.ellipse((start, middle - 6, start + 12, middle + 6), shade)
        pen.text((start + 18, middle), word, PALE, small, anchor="lm")
        start += 18 + pen.textlength(word, small) + 24
    return np.asarray(sheet)


def save_gif(frames: Sequence[Path], path: Path, width: int = 1040) -> None:
    """An animation of PNGs of the same size, which stays longer on the last one.

    Args:
        frames: files in their order.
        path: file to write.
        width: of the animation, pixels.
    """
    from PIL import Image

    images = []
    for frame in frames:
        with Image.open(frame) as file:
            size = (width, round(file.height * width / file.width))
            image = file.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        # A hundred times quicker than the default, and as good on few colours.
        images.append(image.quantize(method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))
    durations = [FRAME_MS] * (len(images) - 1) + [LAST_FRAME_MS]
    options = dict(save_all=True, append_images=images[1:], duration=durations, loop=0)
    write_whole(path, lambda file: images[0].save(file, "GIF", **options))
