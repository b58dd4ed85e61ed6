"""Pauses between attempts."""

import random


class Backoff:
    """Growing pauses with full jitter, so that those who wait together do not return together."""

    def __init__(self, *, first_seconds: float = 0.1, limit_seconds: float = 5.0) -> None:
        self._first = first_seconds
        self._limit = limit_seconds
        self._attempts = 0

    def next_seconds(self) -> float:
        """Return how long to wait before the next attempt."""
        ceiling = min(self._limit, self._first * 2 ** min(self._attempts, 16))
        self._attempts += 1
        return float(ceiling) * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret

    def reset(self) -> None:
        """Start from the first pause again, after a success."""
        self._attempts = 0
