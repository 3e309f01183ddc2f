"""Labels of scans: where their files are, how they are read, and the map to training ids."""

import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from .sources import stem_of

IGNORE = -1
SUFFIXES = (".label", ".npy", ".bin", ".npz")
OF_NUSCENES = ("_lidarseg", "_panoptic")  # ends of names, which begin with the token of the scan
TABLE = "sample_data.json"  # of nuScenes, has the token of each scan file
LEARNING_MAP = "learning_map"  # in semantic-kitti.yaml, and in files of other data sets like it
PLACES = "{dir} (folder of the scan), {parent} (its name) and {stem} (name of the scan)"


class LabelFiles:
    """Finds the label file of a scan.

    Args:
        place: a folder, searched with all below it for a file with the stem of the scan (or that
            and ``_lidarseg``), or with its token in the tables of nuScenes; or a pattern with
            ``{stem}``, and if need be ``{dir}``, the folder of the scan, or ``{parent}``, its name.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a bad pattern.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.by_stem: dict[str, list[Path]] = defaultdict(list)
        self.folder = None if "{" in place else Path(place)
        if self.folder is None:
            try:
                one, other = (self._fill(Path(name)) for name in ("a.bin", "b.bin"))
            except (KeyError, IndexError, ValueError, AttributeError) as error:
                raise ValueError(f"--labels: {place!r}: only {PLACES} are known") from error
            if one == other:
                raise ValueError(f"--labels: {place!r} gives all scans one file, use {{stem}}")
            return
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"--labels: {place!r} is no folder, and no pattern with {PLACES}"
            )
        for path in sorted(self.folder.rglob("*")):
            if path.suffix in SUFFIXES:
                self.by_stem[_plain_stem(path)].append(path)
        self.tokens = self._read_tokens(self.folder)

    def _read_tokens(self, folder: Path) -> dict[str, str]:
        """Stem of a scan -> its token, if the labels are named by tokens."""
        if not any(re.fullmatch("[0-9a-f]{32}", stem) for stem in self.by_stem):
            return {}
        # <root>/lidarseg/v1.0-mini/<token>_lidarseg.bin and <root>/v1.0-mini/sample_data.json
        near = [folder, *folder.resolve().parents[:3]]
        tables = [t for place in near for t in (place / TABLE, *sorted(place.glob(f"v*/{TABLE}")))]
        tokens: dict[str, str] = {}
        for table in dict.fromkeys(table for table in tables if table.is_file()):
            # a list of millions of rows, of which few are wanted
            rows = json.loads(table.read_text(), object_hook=self._wanted)
            tokens |= dict(row for row in rows if row is not None)
        if not tokens:
            raise ValueError(
                f"--labels: the files in {folder} are named by the tokens of nuScenes, but no "
                f"{TABLE} that has them lies in {near[-1]}/v*: put the tables of the data set there"
            )
        return tokens

    def _wanted(self, row: dict) -> tuple[str, str] | None:
        if row.get("token") not in self.by_stem:
            return None
        return stem_of(Path(row["filename"])), row["token"]

    def _fill(self, scan: Path) -> Path:
        parent = scan.resolve().parent
        return Path(self.place.format(dir=scan.parent, parent=parent.name, stem=stem_of(scan)))

    def holds(self, file: Path) -> bool:
        """Whether a file lies in the folder of labels, and so is no scan."""
        return self.folder is not None and self.folder.resolve() in file.resolve().parents

    def find(self, scan: Path) -> Path:
        """Label file of a scan.

        Raises:
            ValueError: there is none, or more than one.
        """
        if self.folder is None:
            path = self._fill(scan)
            if not path.is_file():
                raise ValueError(f"no label file {path}")
            return path
        stem = stem_of(scan)
        paths = self.by_stem.get(self.tokens.get(stem, stem), [])
        if len(paths) != 1:
            found = f"{len(paths)} label files" if paths else "no label file"
            remedy = "; use a pattern such as '{dir}/../labels/{stem}.label'" if paths else ""
            raise ValueError(f"{found} of this name in {self.folder}{remedy}")
        return paths[0]


def _plain_stem(file: Path) -> str:
    for end in OF_NUSCENES:
        if file.stem.endswith(end):
            return file.stem.removesuffix(end)
    return file.stem


def read_labels(file: Path) -> np.ndarray:
    """Labels of a file as stored, (N,) or (N, 1).

    The suffix tells the format: ``.label`` uint32 with the label in the low 16 bits, ``.npy``,
    ``.bin`` uint8, ``_panoptic.npz`` 1,000 times the label and the instance.

    Raises:
        OSError: it cannot be read.
        ValueError: its content is of another kind.
    """
    if file.suffix == ".label":
        data = file.read_bytes()
        if len(data) % 4:
            raise ValueError(f"label file {file}: {len(data):,} bytes is not a multiple of 4")
        return np.frombuffer(data, "<u4") & 0xFFFF  # the high bits are instances
    if file.suffix == ".npy":
        try:
            return np.load(file)
        except (ValueError, EOFError) as error:
            raise ValueError(f"label file {file}: {error}") from error
    if file.suffix == ".npz":
        try:
            with np.load(file) as content:
                return content["data"] // 1000
        except (ValueError, TypeError, EOFError, KeyError, BadZipFile) as error:
            raise ValueError(f"label file {file}: no panoptic labels of nuScenes") from error
    if file.suffix == ".bin":
        return np.fromfile(file, np.uint8)
    raise ValueError(f"label file {file}: expected one of {', '.join(SUFFIXES)}")


def as_labels(values: np.ndarray) -> np.ndarray:
    """Values as (N,) integers.

    Raises:
        ValueError: they are no whole numbers, or not one for a point.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        raise ValueError(f"labels of shape {values.shape} and type {values.dtype}, expected (N,)")
    if values.dtype.kind == "f":
        if not (np.isfinite(values).all() and (values == np.round(values)).all()):
            raise ValueError("labels that are no whole numbers")
        values = values.astype(np.int64)
    return values


def read_label_map(file: str, tell: Callable[[str], object] | None = None) -> dict[int, int]:
    """A map from labels to training ids out of a JSON or YAML file.

    The file has training ids from 0, or ``ignore``, under labels: ``{0: ignore, 10: 0, 11: 1}``.
    Of a file with the key ``learning_map``, as semantic-kitti.yaml, that table is taken; in it 0
    stands for ignored, and the others count from 1.

    Args:
        file: the file.
        tell: gets a sentence where the file is of the second kind.

    Returns:
        label -> id, -1 where ignored.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else.
    """
    try:
        text = Path(file).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"--label-map: {file} is no text in UTF-8") from error
    if Path(file).suffix == ".json":
        content = _parse(json.loads, ValueError, text, file)
    else:
        import yaml

        content = _parse(yaml.safe_load, yaml.YAMLError, text, file)
    if not isinstance(content, dict) or not content:
        raise ValueError(f"--label-map: {file} must hold labels with their training ids")
    table = {}
    if isinstance(learning_map := content.get(LEARNING_MAP), dict):
        values = learning_map.values()
        numbers = all(isinstance(v, int) and 0 <= v < 255 for v in values)
        content = {k: v - 1 for k, v in learning_map.items()} if numbers else learning_map
        if 255 in values:
            raise ValueError(
                f"--label-map: {file}: {LEARNING_MAP} has 255: write -1 or 'ignore' in its place, "
                "and its other ids count from 0"
            )
        if tell is not None and numbers:
            tell(f"label map: {LEARNING_MAP} of {file}, whose 0 is ignored and whose 1 becomes 0")
    for label, value in content.items():
        ignored = value in ("ignore", IGNORE)
        good = ignored or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)
        if not good or not str(label).removeprefix("-").isdigit():
            raise ValueError(
                f"--label-map: {file}: {label!r}: {value!r}, expected a whole number and "
                "its training id (0 or more) or 'ignore'"
            )
        table[int(label)] = IGNORE if ignored else int(value)
    return table


def _parse(parse, errors, text: str, file: str):
    try:
        return parse(text)
    except errors as error:
        why = " ".join(str(error).split())
        raise ValueError(f"--label-map: {file} cannot be parsed: {why}") from error


def map_labels(labels: np.ndarray, table: dict[int, int] | None) -> np.ndarray:
    """Training ids, (N,) int32, of labels.

    Args:
        labels: (N,) integers.
        table: from :func:`read_label_map`; None: they are training ids already, or -1.

    Raises:
        ValueError: values that are not in the table, or no training ids.
    """
    values, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if table is None:
        ids = {int(v): int(v) for v in values if IGNORE <= int(v) <= np.iinfo(np.int32).max}
    else:
        ids = table
    unknown = [(int(v), int(n)) for v, n in zip(values, counts) if int(v) not in ids]
    if unknown:
        listed = ", ".join(f"{v} ({n:,} points)" for v, n in unknown[:5])
        more = f" and {len(unknown) - 5} others" if len(unknown) > 5 else ""
        why = "not in --label-map" if table is not None else "no training id (-1, 0, 1, …)"
        raise ValueError(f"label {listed}{more}: {why}")
    return np.array([ids[int(v)] for v in values], np.int32)[places.reshape(-1)]
