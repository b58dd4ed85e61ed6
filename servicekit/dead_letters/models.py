"""Dead letters, and what was done about each."""

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

from django.db import connection, models
from django.db.models import F, Func, IntegerField, Q, QuerySet, Value
from django.db.models.functions import Coalesce, Left, Now

# Ids and figures: what differs between messages that were refused for the same reason.
PARTICULARS = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9]+"


class Group(NamedTuple):
    """What messages have in common that were refused for the same reason."""

    queue: str
    routing_key: str
    kind: str


class DeadLetterManager(models.Manager["DeadLetter"]):
    """Locks messages, so that two people, or two workers, cannot act on one at once."""

    def lock(self, ids: Iterable[int]) -> list["DeadLetter"]:
        """Return the messages that exist, locked until the end of the transaction."""
        # Sorted, so that two people with the same selection wait for each other, not in a circle.
        wanted = self.filter(id__in=sorted(set(ids))).order_by("id")
        # Without the bodies: somebody may decide about hundreds of ten megabytes each.
        return list(wanted.defer("body", "edited_body").select_for_update())

    def lock_alike(self, marks: Iterable[bytes]) -> dict[bytes, "DeadLetter"]:
        """Lock the messages with these fingerprints, as they came or as they were corrected."""
        wanted = list(set(marks))
        alike = self.filter(Q(fingerprint__in=wanted) | Q(edited_fingerprint__in=wanted))
        found: dict[bytes, DeadLetter] = {}
        for message in alike.defer("body", "edited_body").order_by("id").select_for_update():
            if message.edited_fingerprint is not None:
                found.setdefault(bytes(message.edited_fingerprint), message)
            found[bytes(message.fingerprint)] = message
        return found

    def claim_requested(self, limit: int, *, limit_bytes: int) -> list["DeadLetter"]:
        """Lock messages whose replay was asked for and that no other worker has in hand.

        Their bodies have so many bytes together at most, or it is one message.
        """
        asked = self.filter(status=DeadLetter.Status.REPLAY_REQUESTED).order_by("id")
        free = asked.select_for_update(skip_locked=True, of=("self",))
        claimed = self.pick(free, limit, limit_bytes=limit_bytes)
        return list(self.filter(pk__in=claimed).order_by("id"))

    def pick(self, rows: "QuerySet[DeadLetter]", limit: int, *, limit_bytes: int) -> list[int]:
        """Return the ids of the first messages, no more than `limit`.

        Their bodies have so many bytes together at most, or it is one message.
        """
        size = Func(
            Coalesce("edited_body", "body"), function="octet_length", output_field=IntegerField()
        )
        picked: list[int] = []
        for pk, each in rows.annotate(size=size).values_list("pk", "size")[:limit]:
            limit_bytes -= each
            if picked and limit_bytes < 0:
                break
            picked.append(pk)
        return picked

    def change_some(self, group: Group, up_to: int, limit: int, status: str, **event: str) -> int:
        """Change the first messages of a group that wait, no more than `limit`; return how many.

        Their history is written by the same statement: objects of 100,000 would take a web process
        minutes.
        """
        with connection.cursor() as cursor:
            cursor.execute(
                """
                WITH chosen AS (
                    SELECT id FROM dead_letter
                    WHERE status = 'WAITING' AND queue = %s AND routing_key = %s AND kind = %s
                          AND id <= %s
                    ORDER BY id LIMIT %s FOR UPDATE
                ), changed AS (
                    UPDATE dead_letter SET status = %s FROM chosen
                    WHERE dead_letter.id = chosen.id RETURNING dead_letter.id
                )
                INSERT INTO dead_letter_event (message_id, what, who, note)
                SELECT id, %s, %s, %s FROM changed
                """,
                [*group, up_to, limit, status, event["what"], event["who"], event.get("note", "")],
            )
            return int(cursor.rowcount)

    def waiting_in(self, group: Group, up_to: int) -> "QuerySet[DeadLetter]":
        """Return the messages of a group that wait, with ids up to `up_to`."""
        facts: dict[str, Any] = group._asdict()
        return self.filter(**facts, status=DeadLetter.Status.WAITING, id__lte=up_to)


class DeadLetter(models.Model):
    """A message that could not be applied, as it came, and what became of it."""

    class Status(models.TextChoices):
        """WAITING for a decision; a replay is asked for first and done by the worker."""

        WAITING = "WAITING", "waiting"
        REPLAY_REQUESTED = "REPLAY_REQUESTED", "replay requested"
        REPLAYED = "REPLAYED", "replayed"
        DISCARDED = "DISCARDED", "discarded"

    id = models.BigAutoField(primary_key=True)
    queue = models.TextField(help_text="The queue that it came from, and goes back to.")
    routing_key = models.TextField(blank=True)
    reason = models.TextField(blank=True)
    kind = models.GeneratedField(
        expression=Left(
            Func(
                F("reason"), Value(PARTICULARS), Value("…"), Value("g"), function="regexp_replace"
            ),
            200,
        ),
        output_field=models.TextField(),
        db_persist=True,
        help_text="The reason without ids and figures: the same for messages refused alike.",
    )
    body = models.BinaryField(help_text="As it came. Never changed.")
    edited_body = models.BinaryField(null=True, help_text="What is replayed in its place.")
    headers = models.JSONField(default=dict)
    properties = models.JSONField(default=dict)
    message_id = models.TextField()
    correlation_id = models.TextField(blank=True)
    # Of queue, message id and body: what makes a message the same message when it comes again.
    fingerprint = models.BinaryField(max_length=32)
    edited_fingerprint = models.BinaryField(max_length=32, null=True)
    first_seen = models.DateTimeField(db_default=Now())
    last_seen = models.DateTimeField(db_default=Now())
    times_seen = models.PositiveIntegerField(default=1)
    status = models.CharField(max_length=16, choices=Status, default=Status.WAITING)

    objects: ClassVar[DeadLetterManager] = DeadLetterManager()

    class Meta:
        db_table = "dead_letter"
        verbose_name = "dead letter"
        indexes = [
            models.Index(fields=["-last_seen", "-id"], name="dead_letter_latest"),
            models.Index(fields=["status", "-last_seen", "-id"], name="dead_letter_by_status"),
            models.Index(fields=["queue", "-last_seen", "-id"], name="dead_letter_by_queue"),
            # Without the routing key: a stranger's may be longer than an index takes.
            models.Index(
                fields=["queue", "kind", "id"],
                condition=Q(status="WAITING"),
                name="dead_letter_by_kind",
            ),
            models.Index(fields=["message_id"], name="dead_letter_by_message_id"),
            models.Index(fields=["correlation_id"], name="dead_letter_by_correlation"),
            models.Index(
                fields=["id"],
                condition=Q(status="REPLAY_REQUESTED"),
                name="dead_letter_to_replay",
            ),
            models.Index(
                fields=["edited_fingerprint"],
                condition=Q(edited_fingerprint__isnull=False),
                name="dead_letter_edited",
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["fingerprint"], name="dead_letter_once"),
            models.CheckConstraint(condition=Q(times_seen__gt=0), name="dead_letter_was_seen"),
        ]

    def __str__(self) -> str:
        return f"{self.routing_key or self.queue} {self.correlation_id or self.message_id}"

    @property
    def current_body(self) -> bytes:
        """What a replay sends: the corrected body where there is one."""
        return bytes(self.body if self.edited_body is None else self.edited_body)


class DeadLetterEvent(models.Model):
    """One thing that happened to a dead letter. None is ever changed or deleted."""

    class What(models.TextChoices):
        """The thing."""

        RECEIVED = "RECEIVED", "received"
        CAME_BACK = "CAME_BACK", "came back"
        EDITED = "EDITED", "edited"
        REPLAY_REQUESTED = "REPLAY_REQUESTED", "replay requested"
        REPLAYED = "REPLAYED", "replayed"
        REPLAY_FAILED = "REPLAY_FAILED", "replay failed"
        DISCARDED = "DISCARDED", "discarded"

    id = models.BigAutoField(primary_key=True)
    message = models.ForeignKey(DeadLetter, on_delete=models.PROTECT, related_name="events")
    at = models.DateTimeField(db_default=Now())
    who = models.TextField(help_text="The name of the account; empty: the worker.", blank=True)
    what = models.CharField(max_length=16, choices=What)
    note = models.TextField(blank=True)
    body_before = models.BinaryField(null=True)
    body_after = models.BinaryField(null=True)

    class Meta:
        db_table = "dead_letter_event"
        verbose_name = "event of a dead letter"
        indexes = [models.Index(fields=["message", "-id"], name="dead_letter_history")]

    def __str__(self) -> str:
        return f"{self.get_what_display()} {self.at:%F %T}"
