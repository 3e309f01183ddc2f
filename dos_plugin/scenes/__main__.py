"""``python -m dos_plugin.scenes ROOT``: write synthetic streets."""

import argparse

from .cli import HELP, add_arguments, run


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        prog="python -m dos_plugin.scenes",
        description=f"{HELP[0].upper()}{HELP[1:]}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(main())
