"""How much is tried: the same few examples in each run of the tests, or many new ones.

``DOS_FUZZ_EXAMPLES=2000 python -m pytest tests/contract/test_fuzz_options.py`` tries that many of
each kind, others every time; what fails is printed as an ``@example`` to keep.
"""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("DOS_FUZZ_EXAMPLES", "0"))


def tries(few: int) -> settings:
    """Settings of a test: so many examples, or what DOS_FUZZ_EXAMPLES says."""
    return settings(
        max_examples=EXAMPLES or few,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
