"""Running averages of the scalars of an epoch."""


class AverageMeter:
    """Latest value and average since the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.val = 0.0
        self.avg = 0.0
        self.total = 0.0
        self.count = 0

    def update(self, value: float, n: int = 1) -> None:
        """Add ``value``, which stands for ``n`` observations."""
        self.val = value
        self.total += value * n
        self.count += n
        self.avg = self.total / self.count


class EventStorage:
    """Scalars by name; hooks put them, other hooks read them."""

    def __init__(self) -> None:
        self._histories: dict[str, AverageMeter] = {}

    def put_scalar(self, name: str, value: float, n: int = 1) -> None:
        """Add a scalar to its history."""
        self._histories.setdefault(name, AverageMeter()).update(value, n)

    def history(self, name: str) -> AverageMeter:
        """The history of ``name``.

        Raises:
            KeyError: If nothing was ever put under that name.
        """
        if name not in self._histories:
            raise KeyError(
                f"no scalar named {name!r} was recorded; there are {list(self._histories)}"
            )
        return self._histories[name]

    def histories(self) -> dict[str, AverageMeter]:
        """All histories by name."""
        return self._histories

    def reset_histories(self) -> None:
        """Start all averages anew (the trainer does so after each epoch)."""
        for history in self._histories.values():
            history.reset()
