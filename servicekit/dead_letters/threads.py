"""What a worker does about dead letters."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.conf import settings

from servicekit.database.loop import Loop
from servicekit.dead_letters import recognising, services
from servicekit.dead_letters.recognising import Letter
from servicekit.messaging import topology
from servicekit.messaging.consumer import Handled
from servicekit.messaging.envelope import Received, body_of
from servicekit.messaging.publisher import ConfirmingPublisher

_REPLAYED_TOGETHER = 10


@dataclass(frozen=True)
class DeadLetterSource:
    """The dead-letter queue of a queue; what is in it moves into the database."""

    dead_letters_of: str

    @property
    def queue(self) -> str:
        """The name of the dead-letter queue."""
        return topology.dead_letter_queue_name(self.dead_letters_of)

    def declare(self, channel: Any) -> None:
        """Declare it together with the queue that it belongs to."""
        topology.declare_queue(channel, self.dead_letters_of, keys=[])

    def read(self, delivery: Any) -> Received[Letter]:
        """Return the dead letter; nothing is unreadable here."""
        properties = dict(delivery.properties)
        headers = properties.pop("application_headers", None) or {}
        return Received(
            recognising.read(self.dead_letters_of, body_of(delivery), headers, properties)
        )

    @staticmethod
    def handle(batch: Sequence[Received[Letter]]) -> Handled:
        """Store them."""
        services.collect([each.event for each in batch])
        return Handled()


def replayer(broker_url: str) -> Loop:
    """Return the thread that publishes the messages whose replay was asked for, at a rate.

    Several may run side by side, each at this rate.
    """
    publisher = ConfirmingPublisher(broker_url)
    return Loop("replay of dead letters", partial(replay_requested, publisher))


def replay_requested(publisher: ConfirmingPublisher) -> None:
    """Send what was asked for, as much as a second may have."""
    left = settings.REPLAYS_PER_SECOND
    while left > 0:
        taken = services.publish_requested(publisher, limit=min(left, _REPLAYED_TOGETHER))
        left -= taken
        if not taken:
            return
