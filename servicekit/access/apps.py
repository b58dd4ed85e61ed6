"""Django's registration of the API keys."""

from django.apps import AppConfig
from django.conf import settings

from servicekit.access.limits import RateLimit


class AccessConfig(AppConfig):
    """API keys, once in each service's database: a key is for one service."""

    name = "servicekit.access"

    def ready(self) -> None:
        """Refuse to start with a limit that cannot be read."""
        for name in ("RATE_LIMIT_PER_KEY", "RATE_LIMIT_PER_ADDRESS"):
            RateLimit.of(getattr(settings, name))
