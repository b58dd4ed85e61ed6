"""The properties of a message, read so that no stranger's can stop a queue.

py-amqp reads them while it takes the message from the connection. One that it cannot read (text
that is not UTF-8, a time after the year 9999) would end that connection, the message would be
delivered again to the next, and nothing behind it would ever be reached.
"""

import logging
from typing import Any

from amqp import serialization

logger = logging.getLogger(__name__)

# Every message is of this one class; py-amqp looks here for what reads its properties.
_decoders: dict[int, Any] = serialization.PROPERTY_CLASSES
_MESSAGE = serialization.Basic.CLASS_ID
_decode = _decoders[_MESSAGE]


def _decode_or_do_without(buffer: bytes, offset: int) -> tuple[dict[str, Any], int]:
    """Return the properties and where they end; none at all when one of them cannot be read."""
    try:
        properties, end = _decode(buffer, offset)
    except Exception as error:  # noqa: BLE001 - whatever a stranger's bytes do to the parser
        logger.warning("a message whose properties cannot be read is taken without: %s", error)
        return {}, len(buffer)
    return properties, end


def take_any() -> None:
    """Have every connection of this process, Celery's too, take messages with any properties."""
    _decoders[_MESSAGE] = _decode_or_do_without
