"""The log-in of the admin, which a guesser of passwords is kept from after some attempts.

They are counted in Redis, by address and user name together, until one succeeds; and by address.
Not by user name alone: anybody could lock the owner of an account out. Without Redis nobody is
refused.
"""

import math
from hashlib import sha256
from typing import Any

from django.core.exceptions import ValidationError
from django.http import HttpRequest
from unfold.forms import AuthenticationForm

from servicekit.caching.redis import UNAVAILABLE, Script, best_effort
from servicekit.networks import network_of

WINDOW_SECONDS = 300
ATTEMPTS_PER_NAME = 10
ATTEMPTS_PER_ADDRESS = 100

# The time runs from the first attempt: an attacker cannot make it longer for others.
_COUNT = Script(
    b"""
    local count, left = redis.call('INCR', KEYS[1]), redis.call('TTL', KEYS[1])
    if left < 0 then
        redis.call('EXPIRE', KEYS[1], ARGV[1])
        left = tonumber(ARGV[1])
    end
    return {count, left}
    """
)


class LoginForm(AuthenticationForm):
    """Name and password, looked at only while there were not too many attempts."""

    retry_after_seconds = 0
    """How long to wait, where there are more."""

    def clean(self) -> dict[str, Any]:
        """Check the password.

        :raises ValidationError: if it is wrong, or there were too many attempts
        """
        limits = _limits(self.request, self.cleaned_data.get("username", ""))
        # Before the password is looked at: a hundred requests at once are a hundred attempts.
        self.retry_after_seconds = _count(limits)
        if self.retry_after_seconds:
            minutes = math.ceil(self.retry_after_seconds / 60)
            raise ValidationError(
                f"There were too many attempts to log in. Try again in {minutes} min.",
                code="too_many_attempts",
            )
        cleaned: dict[str, Any] = super().clean()
        by_name, _ = limits
        best_effort(lambda client: client.unlink(by_name))
        return cleaned


def _limits(request: HttpRequest, username: str) -> dict[str, int]:
    """Return how many attempts there may be, by key."""
    address = network_of(request.META.get("REMOTE_ADDR", ""))
    name = sha256(username.encode()).hexdigest()[:16]
    return {
        f"login:{address}:{name}": ATTEMPTS_PER_NAME,
        f"login:{address}": ATTEMPTS_PER_ADDRESS,
    }


def _count(limits: dict[str, int]) -> int:
    """Count an attempt; return for how many seconds there are too many, 0 if there are not."""
    counts = best_effort(
        lambda client: [_COUNT(client, keys=[key], args=[WINDOW_SECONDS]) for key in limits]
    )
    if counts is UNAVAILABLE:
        return 0
    return max(
        max(1, left) if count > limit else 0
        for limit, (count, left) in zip(limits.values(), counts, strict=True)
    )
