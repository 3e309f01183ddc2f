"""Run by the doctor in a process of its own, where the host may fail to import.

``python -m dos_plugin.commands.doctor.inside NUM_GPUS DEVICES [CONFIG [KEY=VALUE …]]`` prints its
rows as JSON, after a marker. DEVICES is the number of CUDA devices.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from dos_plugin.commands.doctor.rows import Row

MARKER = "dos-plugin doctor rows: "


def inside_rows(
    num_gpus: int, devices: int, config: str | None, options: Sequence[str] = ()
) -> Iterator[Row]:
    """Import the host, register DOS in it, and look at a config if one is given."""
    try:
        from dos_plugin.host import EMBEDDED, HOST
    except Exception as error:
        yield Row("missing", "host import", chain(error), _mend_import(error))
        return
    try:
        from dos_plugin.register import COMPONENTS
    except KeyError as error:
        yield Row(
            "missing",
            "registered names",
            chain(error),
            "rename that class, or remove the package that registers it",
        )
        return
    except Exception as error:
        yield Row("missing", "registered names", chain(error), _mend_import(error))
        return
    names = [name for classes in COMPONENTS.values() for name in classes]
    yield Row("ok", "registered names", f"{', '.join(names)} in host {HOST.name!r}")
    if config is None:
        return

    from dos_plugin.commands.doctor.config_checks import config_rows

    eager: dict[str, Any] = {"lazy_import": False} if HOST.name == EMBEDDED else {}
    config_class: Any = HOST.Config
    try:
        cfg = config_class.fromfile(config, **eager)
        cfg.merge_from_dict(_parse(options, HOST.DictAction))
    except (Exception, SystemExit) as error:
        yield Row("missing", "config", f"{config}: {chain(error)}", "mend the config or --options")
        return
    yield Row("ok", "config", config)
    yield from config_rows(cfg, num_gpus, devices)


def _parse(options: Sequence[str], action: Any) -> dict[str, Any]:
    """Options as the host's train script takes them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--options", nargs="*", action=action, default={})
    return parser.parse_args(["--options", *options]).options if options else {}


def chain(error: BaseException) -> str:
    """An exception and its causes in one line; the host sometimes hides the reason behind one."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None and len(parts) < 4:
        text = f"{type(current).__name__}: {' '.join(str(current).split())}".rstrip(": ")
        if text not in parts:
            parts.append(text)
        current = current.__cause__ or current.__context__
    return " <- ".join(parts)


def _mend_import(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"pip install the package that brings {error.name.partition('.')[0]!r}"
    return "see the message; docs/troubleshooting.md"


def main(argv: list[str]) -> None:
    """Print the rows."""
    num_gpus, devices, *rest = argv
    config, options = (rest[0], rest[1:]) if rest else (None, [])
    rows = list(inside_rows(int(num_gpus), int(devices), config, options))
    print(MARKER + json.dumps(rows), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
