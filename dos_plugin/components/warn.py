"""Counted warnings: said the first times, then at every tenfold, so that logs stay readable."""

import logging
from collections import Counter

_counts: Counter[str] = Counter()


def warn_counted(topic: str, message: str) -> None:
    """Log ``message`` as the n-th warning of its topic; after the third only at powers of ten."""
    _counts[topic] += 1
    count = _counts[topic]
    if count <= 3 or str(count).strip("0") == "1":
        logging.getLogger("dos_plugin").warning("%s [%s, no. %d]", message, topic, count)
