"""What is said to people in one line: errors, lists of names, counted warnings."""

import logging
from collections import Counter
from collections.abc import Sequence

# Their text says what is wrong; of others the type belongs to it.
SPEAKING = (ValueError, KeyError, FileNotFoundError, NotImplementedError)

_counts: Counter[str] = Counter()


def one_line(error: BaseException) -> str:
    """What an error says, in one line.

    Errors of data-loader workers carry a whole traceback as text, of which the last line counts.
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if "DataLoader worker" in lines[0]:
        return lines[-1]
    bare_key = isinstance(error, KeyError) and " " not in lines[0]
    speaks = isinstance(error, SPEAKING) and not bare_key
    return lines[0] if speaks else f"{type(error).__name__}: {lines[0]}"


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first names, and how many more there are."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def warn_counted(topic: str, message: str, logger: logging.Logger | None = None) -> None:
    """Log ``message`` as the n-th warning of its topic; after the third only at powers of ten.

    A training's own logger takes it to ``train.log``; the workers that load data know none.
    """
    _counts[topic] += 1
    count = _counts[topic]
    if count <= 3 or str(count).strip("0") == "1":
        logger = logger or logging.getLogger("dos_plugin")
        logger.warning("%s [%s, no. %d]", message, topic, count)
