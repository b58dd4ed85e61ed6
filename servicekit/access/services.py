"""Making API keys."""

from collections.abc import Iterable

from servicekit.access.known import digest_of, new_key, prefix_of
from servicekit.access.models import ApiKey


def make_key(*, name: str, scopes: Iterable[str]) -> tuple[ApiKey, str]:
    """Make a key; return what is stored of it, and the key itself, which nobody can tell again."""
    key = new_key()
    stored = ApiKey.objects.create(
        name=name, prefix=prefix_of(key) or "", digest=digest_of(key), scopes=sorted(scopes)
    )
    return stored, key
