"""Collecting, correcting, replaying and discarding dead letters; each step is on record."""

import logging
from collections.abc import Iterable, Sequence

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from servicekit.dead_letters import replays
from servicekit.dead_letters.models import DeadLetter, DeadLetterEvent, Group
from servicekit.dead_letters.recognising import Letter, fingerprint
from servicekit.failpoints import failpoint
from servicekit.messaging.publisher import ConfirmingPublisher, Outcome

logger = logging.getLogger(__name__)

Status = DeadLetter.Status
What = DeadLetterEvent.What

DECIDED_TOGETHER = 500
"""How many messages of a group one statement decides about."""


class AlreadyDecided(Exception):
    """Somebody has decided about this message already."""

    def __init__(self, message: DeadLetter) -> None:
        super().__init__(f"Message {message.pk} is {message.get_status_display()} already.")


class BodyRefused(Exception):
    """The consumer of the queue would not take the body."""


class NoteMissing(Exception):
    """A message is not discarded without saying why."""

    def __init__(self) -> None:
        super().__init__("Say why this message is discarded.")


def collect(letters: Sequence[Letter]) -> int:
    """Keep what was found in a dead-letter queue; return how many messages were new.

    The same message again (id and body, as it came or as it was corrected) is counted, not kept
    twice, and waits for a decision again if there was one. All commits together; a crash before
    the messages are acknowledged may count one of them twice.
    """
    marks = [letter.fingerprint for letter in letters]
    with transaction.atomic(durable=True):
        known = DeadLetter.objects.lock_alike(marks)
        new = 0
        # Sorted, so that two workers that find the same messages wait for each other, not in a
        # circle.
        for mark, letter in sorted(zip(marks, letters, strict=True), key=lambda pair: pair[0]):
            if mark not in known:
                known[mark], is_new = _keep(mark, letter)
                new += is_new
                if is_new:
                    continue
            _count(known[mark], letter)
        failpoint("dead_letters.collect.before_commit")
    failpoint("dead_letters.collect.after_commit")
    return new


def _keep(mark: bytes, letter: Letter) -> tuple[DeadLetter, bool]:
    message, is_new = DeadLetter.objects.select_for_update().get_or_create(
        fingerprint=mark,
        defaults=vars(letter),
    )
    if is_new:
        _record([message], What.RECEIVED, note=letter.reason)
    return message, is_new


def _count(message: DeadLetter, letter: Letter) -> None:
    if message.status in {Status.REPLAYED, Status.DISCARDED}:
        _record([message], What.CAME_BACK, note=letter.reason)
        message.status = Status.WAITING
    DeadLetter.objects.filter(pk=message.pk).update(
        times_seen=F("times_seen") + 1,
        last_seen=Now(),
        reason=letter.reason,
        status=message.status,
    )


def edit_body(message_id: int, body: bytes, *, by: str, and_replay: bool = False) -> DeadLetter:
    """Correct what a replay of a message will send. The body that came is kept.

    With `and_replay`, its replay is asked for in the same transaction.

    :raises AlreadyDecided: if it was decided about meanwhile
    :raises BodyRefused: if the consumer of the queue would not take it; nothing is saved
    """
    with transaction.atomic(durable=True):
        [message] = _lock_waiting([message_id])
        before = message.current_body
        if (body != before or and_replay) and (reason := replays.refusal(message, body)):
            raise BodyRefused(reason)
        if body != before:
            _save_body(message, before, body, by)
        if and_replay:
            _change([message], Status.REPLAY_REQUESTED, What.REPLAY_REQUESTED, who=by)
    return message


def _save_body(message: DeadLetter, before: bytes, body: bytes, by: str) -> None:
    is_original = body == bytes(message.body)
    message.edited_body = None if is_original else body
    message.edited_fingerprint = (
        None if is_original else fingerprint(message.queue, message.message_id, body)
    )
    message.save(update_fields=["edited_body", "edited_fingerprint"])
    _record([message], What.EDITED, who=by, body_before=before, body_after=body)


def request_replay(message_ids: Iterable[int], *, by: str) -> int:
    """Have messages sent to their queues again, by the worker; return how many.

    Asked for twice, also by two people at once, each is sent for the first of them.

    :raises AlreadyDecided: if one was decided about meanwhile; then none is sent
    """
    with transaction.atomic(durable=True):
        messages = _lock_waiting(message_ids)
        _change(messages, Status.REPLAY_REQUESTED, What.REPLAY_REQUESTED, who=by)
    return len(messages)


def request_replay_of_group(group: Group, *, up_to: int, by: str) -> int:
    """Have all messages of a group that wait sent again; return how many.

    Those with an id above `up_to`, which have come meanwhile, are left. It is done in portions that
    commit one by one: whoever is interrupted asks again, for what is left.
    """
    return _decide_about(group, up_to, Status.REPLAY_REQUESTED, what=What.REPLAY_REQUESTED, who=by)


def discard(message_ids: Iterable[int], *, by: str, note: str) -> int:
    """Decide that messages are not to be applied, and why; return how many. They are kept.

    :raises AlreadyDecided: if one was decided about meanwhile; then none is discarded
    :raises NoteMissing: if the note says nothing
    """
    if not note.strip():
        raise NoteMissing
    with transaction.atomic(durable=True):
        messages = _lock_waiting(message_ids)
        _change(messages, Status.DISCARDED, What.DISCARDED, who=by, note=note)
    return len(messages)


def discard_group(group: Group, *, up_to: int, by: str, note: str) -> int:
    """Decide that all messages of a group that wait are not to be applied, as they are replayed.

    :raises NoteMissing: if the note says nothing
    """
    if not note.strip():
        raise NoteMissing
    return _decide_about(group, up_to, Status.DISCARDED, what=What.DISCARDED, who=by, note=note)


def _decide_about(group: Group, up_to: int, status: Status, **event: str) -> int:
    done = 0
    while count := DeadLetter.objects.change_some(group, up_to, DECIDED_TOGETHER, status, **event):
        done += count
    return done


def publish_requested(
    publisher: ConfirmingPublisher, *, limit: int, limit_bytes: int = 1024 * 1024
) -> int:
    """Send messages whose replay was asked for, at most `limit`; return how many were taken.

    A crash between the broker's confirm and our commit sends them again, under the same ids: what
    consumes them has seen them before. What the broker will not route waits for a decision again.

    :raises PublishingFailed: if the broker is away; the messages wait for it
    """
    with transaction.atomic(durable=True):
        messages = DeadLetter.objects.claim_requested(limit, limit_bytes=limit_bytes)
        if not messages:
            return 0
        outcomes = publisher.publish([replays.outgoing(message) for message in messages])
        failpoint("dead_letters.replay.after_confirm")
        sent: list[DeadLetter] = []
        failed: list[DeadLetter] = []
        for message, outcome in zip(messages, outcomes, strict=True):
            (sent if outcome is Outcome.CONFIRMED else failed).append(message)
        _change(sent, Status.REPLAYED, What.REPLAYED)
        _change(
            failed, Status.WAITING, What.REPLAY_FAILED, note="the broker did not take it: no queue?"
        )
    if failed:
        logger.warning("%d messages could not be replayed: %s", len(failed), failed[0].queue)
    return len(messages)


def _lock_waiting(message_ids: Iterable[int]) -> list[DeadLetter]:
    messages = DeadLetter.objects.lock(message_ids)
    for message in messages:
        if message.status != Status.WAITING:
            raise AlreadyDecided(message)
    return messages


def _change(
    messages: Sequence[DeadLetter], status: Status, what: What, *, who: str = "", note: str = ""
) -> None:
    ids = [message.pk for message in messages]
    DeadLetter.objects.filter(pk__in=ids).update(status=status)
    _record(messages, what, who=who, note=note)


def _record(
    messages: Iterable[DeadLetter],
    what: What,
    *,
    who: str = "",
    note: str = "",
    body_before: bytes | None = None,
    body_after: bytes | None = None,
) -> None:
    DeadLetterEvent.objects.bulk_create(
        DeadLetterEvent(
            message=message,
            who=who,
            what=what,
            note=note,
            body_before=body_before,
            body_after=body_after,
        )
        for message in messages
    )
