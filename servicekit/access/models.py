"""API keys: which programs may call what. Of a key itself, only its hash is kept."""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from servicekit.access.known import KnownKey


class ApiKeyManager(models.Manager["ApiKey"]):
    """Reads the keys that are good, and ends them."""

    def known(self) -> dict[str, KnownKey]:
        """Return the keys that are not revoked, by prefix: one statement."""
        rows = self.filter(revoked_at=None).values_list("prefix", "digest", "scopes", "name")
        return {
            prefix: KnownKey(prefix, bytes(digest), frozenset(scopes), name)
            for prefix, digest, scopes, name in rows
        }

    def revoke(self, id_: int | str) -> list["ApiKey"]:
        """End a key for good; return it, unless it was revoked before."""
        is_revoked = self.filter(id=id_, revoked_at=None).update(revoked_at=Now())
        return [self.get(id=id_)] if is_revoked else []


class ApiKey(models.Model):
    """What a program shows to be let in. None is ever changed, but for being revoked."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=100, help_text="Whose key it is, and for what.")
    prefix = models.CharField("begins with", max_length=32, unique=True)
    # SHA-256. Slow hashes are for secrets that somebody has thought up: 256 random bits cannot be
    # guessed, and a slow hash would cost every request more than its work.
    digest = models.BinaryField(max_length=32)
    scopes = models.JSONField(help_text="What it may be used for.")
    created_at = models.DateTimeField(db_default=Now())
    revoked_at = models.DateTimeField(null=True)

    objects: ClassVar[ApiKeyManager] = ApiKeyManager()

    class Meta:
        db_table = "api_key"
        verbose_name = "API key"
        constraints = [
            models.CheckConstraint(condition=~Q(scopes=[]), name="api_key_is_for_something"),
        ]

    def __str__(self) -> str:
        return self.name
