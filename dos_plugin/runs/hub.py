"""An exported backbone as a folder for the Hugging Face Hub, and its download from there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dos_plugin.whole_file import write_whole

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


def is_hub_folder(path: str | Path) -> bool:
    """Whether a folder holds config and weights as :func:`write_folder` writes them."""
    return all((Path(path) / name).is_file() for name in (CONFIG, WEIGHTS))


def write_folder(
    folder: Path, content: Mapping[str, Any], card: str, overwrite: bool = False
) -> None:
    """Write config, weights and model card; the weights come last.

    Args:
        folder: made where it is missing.
        content: of an exported file: ``state_dict``, and what JSON can hold.
        card: text of the model card.
        overwrite: replace files that are there.

    Raises:
        FileExistsError: one of the files is there.
        ModuleNotFoundError: safetensors is not installed.
    """
    from safetensors.torch import save

    there = [name for name in (CONFIG, WEIGHTS, CARD) if (folder / name).exists()]
    if there and not overwrite:
        raise FileExistsError(
            f"{folder}: holds {', '.join(there)} already; give another folder, or --overwrite"
        )
    values = {key: value for key, value in content.items() if key != "state_dict"}
    tensors = {key: value.contiguous() for key, value in content["state_dict"].items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / CARD, lambda file: file.write_text(card))
    write_whole(folder / CONFIG, lambda file: file.write_text(json.dumps(values, indent=1) + "\n"))
    weights = save(tensors, metadata={"format": "pt"})
    write_whole(folder / WEIGHTS, lambda file: file.write_bytes(weights))


def read_folder(folder: str | Path) -> dict[str, Any]:
    """The content of an exported file, from a folder.

    Raises:
        ValueError: if a file is truncated or of something else.
        ModuleNotFoundError: safetensors is not installed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config, weights = Path(folder) / CONFIG, Path(folder) / WEIGHTS
    try:
        content = json.loads(config.read_text())
    except ValueError as error:
        raise ValueError(f"{config}: truncated or no JSON file ({error})") from error
    try:
        state = load_file(weights)
    except SafetensorError as error:
        raise ValueError(f"{weights}: truncated or no safetensors file ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        raise ValueError(f"{config}: is of something else than dos-plugin export --to hub")
    return {**content, "state_dict": state}


def find(source: str | Path, revision: str | None = None) -> Path:
    """A local path as it is, or the folder of a repository's download.

    Args:
        source: a path, or where there is none of that name, ``owner/name`` on the Hub; the
            variables of ``huggingface_hub`` count, such as ``HF_ENDPOINT`` and ``HF_TOKEN``.
        revision: branch, tag or commit of the repository.

    Raises:
        FileNotFoundError: there is no such repository, or it cannot be reached, for lack of
            huggingface_hub, say.
        ValueError: it holds no backbone of ``dos-plugin export --to hub``.
    """
    path = Path(source)
    named = isinstance(source, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source)
    if path.exists() or not named or path.suffix in (".pth", ".py"):
        return path
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise FileNotFoundError(
            f"{source}: no such path here; if it is a repository of the Hugging Face Hub, "
            "pip install 'dos-plugin[hub]'"
        ) from error
    try:
        found = Path(
            snapshot_download(str(source), revision=revision, allow_patterns=[CONFIG, WEIGHTS])
        )
    except Exception as error:  # of the library, of its HTTP client, of the system
        why = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise FileNotFoundError(
            f"{source}: no such path here, and no repository of that name could be read from the "
            f"Hugging Face Hub ({type(error).__name__}: {why})"
        ) from error
    if not is_hub_folder(found):
        raise ValueError(
            f"{source}: the repository holds no {CONFIG} and {WEIGHTS}, expected one made by "
            "dos-plugin export --to hub"
        )
    return found
