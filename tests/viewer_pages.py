"""What is in a page of ``drawing.viewer``, and scans to put there."""

import base64
import gzip
import json
import re
from pathlib import Path

import numpy as np

from dos_plugin.drawing.viewer import View


def read_page(file: Path) -> tuple[dict, list[dict[str, np.ndarray]]]:
    """The header of a page, and the arrays of each of its scans."""
    text = file.read_text("utf-8")
    header = json.loads(re.search(r'id="header">(.*?)</script>', text, re.S)[1])
    scans = []
    for index, scan in enumerate(header["scans"]):
        coded = re.search(rf'id="scan-{index}">(.*?)</script>', text, re.S)[1]
        blob = gzip.decompress(base64.b64decode(coded))
        scans.append({})
        for key, place in scan["arrays"].items():
            kind, shape = np.dtype(place["dtype"]).newbyteorder("<"), place["shape"]
            flat = np.frombuffer(blob, kind, int(np.prod(shape)), place["offset"])
            scans[-1][key] = flat.reshape(shape)
    return header, scans


def street(seed: int = 0, count: int = 4000, name: str = "street") -> View:
    """A plane and two boxes, a class each; two points a voxel, whose features tell the class."""
    random = np.random.default_rng(seed)
    coord = random.uniform(-20, 20, (count, 3)) * [1, 1, 0.005] + [0, 0, -1.7]
    inverse = np.arange(count) // 2
    kinds = np.array([0, 1, 2, 0])[np.arange(count // 2) % 4]
    segment = kinds[inverse]
    for kind, middle in ((1, (6, 3)), (2, (-5, -6))):
        there = segment == kind
        coord[there] = random.uniform(-1.5, 1.5, (there.sum(), 3)) + [*middle, 0]
    segment[::97] = -1
    means = np.random.default_rng(99).normal(size=(3, 40))
    features = 2 + means[kinds] + 0.2 * random.normal(size=(len(kinds), 40))
    return View(
        name,
        coord.astype(np.float32),
        segment,
        random.gamma(2, 20, count).astype(np.float32),
        None,
        features.astype(np.float32),
        inverse,
        kinds * 100 + 7,
    )
