"""Figures over time: rows that are added without waiting, and merged in the background.

Whoever changes something adds a row of its own with what that changes in a minute (`period` 0), in
the same transaction; nobody waits for another. `merge` turns such rows into sums for each length of
period that a dashboard shows. Who reads takes the sums and what is not merged yet, as one.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from django.db import connection, models, transaction
from django.db.models import Q

MERGED_TOGETHER = 10_000
"""No statement merges more rows: a worker's ends after 1.2 seconds, and then merges nothing."""

_MERGING = 0x4649  # "FI": a class of advisory locks that nobody else uses


@dataclass(frozen=True)
class Range:
    """How far back a dashboard looks: to a round time, and in bars of a round length."""

    key: str
    label: str
    length: timedelta
    bar: timedelta
    bar_label: str
    step: timedelta
    """It begins at a multiple of this, so that sums of such periods are enough."""

    def since(self, now: datetime) -> datetime:
        """Return where it begins: the step that we are in is the last of it."""
        return floor(now, self.step) - self.length + self.step


_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
RANGES = {
    each.key: each
    for each in (
        Range("hour", "Last hour", _HOUR, _MINUTE, "minute", 5 * _MINUTE),
        Range("day", "Last 24 hours", _DAY, 15 * _MINUTE, "15 minutes", _HOUR),
        Range("week", "Last 7 days", 7 * _DAY, _HOUR, "hour", _DAY),
        Range("month", "Last 30 days", 30 * _DAY, _DAY, "day", _DAY),
    )
}


def floor(moment: datetime, step: timedelta) -> datetime:
    """Return the last multiple of a step up to a moment, in UTC."""
    return datetime.fromtimestamp(moment.timestamp() // seconds(step) * seconds(step), UTC)


def seconds(length: timedelta) -> int:
    """Return a length as `period` has it."""
    return length // timedelta(seconds=1)


class Figures(models.Model):
    """Sums of what happened in a period of time, by `keys` where there are some."""

    keys: ClassVar[Sequence[str]] = ()
    lengths: ClassVar[Mapping[timedelta, timedelta]]
    """By length of a period: how long its sums are kept, twice as long as they are shown."""

    id = models.BigAutoField(primary_key=True)
    period = models.IntegerField(db_default=0)
    """Its length in seconds. 0: not merged yet, `start` is a minute or longer."""
    start = models.DateTimeField()

    class Meta:
        abstract = True

    @classmethod
    def sums(cls) -> list[str]:
        """Return the names of the columns that are added up."""
        names = [field.attname for field in cls._meta.concrete_fields]
        return [name for name in names if name not in {"id", "period", "start", *cls.keys}]

    @classmethod
    def within(cls, period: timedelta, since: datetime) -> Any:
        """Return the rows that make up what has happened since the beginning of a period."""
        # Two conditions, because each of them is that of an index.
        is_wanted = Q(period=0) | Q(period=seconds(period))
        return cls._default_manager.filter(is_wanted, start__gte=since)


BY_BAR = {each.bar: 2 * each.length for each in RANGES.values()}
BY_STEP = {each.step: 2 * each.length for each in RANGES.values()}


def constraint(name: str, *keys: str) -> models.UniqueConstraint:
    """Return what lets `merge` find a sum."""
    return models.UniqueConstraint(
        fields=["period", "start", *keys], condition=Q(period__gt=0), name=name
    )


def new_index(name: str) -> models.Index:
    """Return what finds the rows that are not merged yet, where there are many that are."""
    return models.Index(fields=["start"], condition=Q(period=0), name=name)


def merge(figures: type[Figures]) -> bool:
    """Add what is new to the sums, and forget those that no range shows any more.

    Return whether there may be more that is new.
    One at a time: who comes while another does it leaves it to that one.
    """
    table, sums = figures._meta.db_table, figures.sums()  # noqa: SLF001 - Django's word for it
    keys = ["start", *figures.keys]
    listed = ", ".join([*keys, *sums])
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        if not lock(cursor, table):
            return False
        cursor.execute(
            f"""
            WITH new AS (
                    DELETE FROM {table} WHERE id = ANY(ARRAY(
                        SELECT id FROM {table} WHERE period = 0 LIMIT %(limit)s
                    )) RETURNING {listed}
                ),
                lengths AS (
                    SELECT unnest(%(lengths)s::int[]) AS period,
                        now() - make_interval(secs => unnest(%(kept)s::int[])) AS kept_since
                ),
                added AS (
                    INSERT INTO {table} AS known (period, {listed})
                    SELECT period, date_bin(make_interval(secs => period), start, 'epoch'),
                        {", ".join([*figures.keys, *(f"sum({each})" for each in sums)])}
                    FROM new JOIN lengths ON start >= kept_since
                    GROUP BY {", ".join(map(str, range(1, len(keys) + 2)))}
                    ON CONFLICT (period, {", ".join(keys)}) WHERE period > 0 DO UPDATE SET
                        {", ".join(f"{each} = known.{each} + excluded.{each}" for each in sums)}
                )
            SELECT count(*) FROM new
            """,  # noqa: S608 - names of our own
            {
                "limit": MERGED_TOGETHER,
                "lengths": [seconds(length) for length in figures.lengths],
                "kept": [seconds(kept) for kept in figures.lengths.values()],
            },
        )
        is_full = bool(cursor.fetchone()[0] == MERGED_TOGETHER)
        for length, kept in figures.lengths.items():
            cursor.execute(
                f"DELETE FROM {table} WHERE period = %s"  # noqa: S608 - as above
                " AND start < now() - make_interval(secs => %s)",
                [seconds(length), seconds(kept)],
            )
    return is_full


@contextmanager
def one_state() -> Iterator[None]:
    """Let all that is read within see the same state: what is counted moves between tables."""
    if connection.in_atomic_block:
        yield
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


def lock(cursor: Any, name: str) -> bool:
    """Return whether this transaction is the one that merges some figures, until it ends."""
    cursor.execute("SELECT pg_try_advisory_xact_lock(%s, hashtext(%s))", [_MERGING, name])
    return bool(cursor.fetchone()[0])
