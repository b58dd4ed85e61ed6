"""`make schema` also writes `docs/asyncapi/events.yaml`: the events of both services (AsyncAPI 3).

It is made of the contracts in `servicekit.contracts.events`, and `make check` compares it: a change
of an event is seen in it before it is merged, and clients can be generated from it.
"""

import sys
from collections.abc import Iterator, Sequence
from inspect import getdoc
from typing import Any

import msgspec
import yaml

from deploy.settings import ROOT
from servicekit import __version__
from servicekit.contracts.events import ORDER_EXCHANGE, Event
from tools.openapi import write_or_compare

DOCUMENT = ROOT / "docs" / "asyncapi" / "events.yaml"

Json = dict[str, Any]

_TITLE = "Products and orders"
_DESCRIPTION = (
    "Bodies are plain JSON. A consumer has to take a message that has none of the headers and"
    " properties below, and fields that it does not know. An event may come more than once, with"
    " the same `message_id`, and later than what happened after it. Events are only added to: a"
    " breaking change is a new routing key beside the old one."
)
_HEADERS = {
    "request_id": "Of the HTTP request behind it.",
    "traceparent": "The same, for tracing (W3C).",
    "timestamp_in_ms": "When it was published.",
}


def events(kind: type[Event] = Event) -> Iterator[type[Event]]:
    """Yield every kind of event that there is."""
    for each in kind.__subclasses__():
        if "routing_key" in vars(each):
            yield each
        yield from events(each)


def _channel(event: type[Event]) -> Json:
    exchange = {"name": event.exchange, "type": "topic", "durable": True, "autoDelete": False}
    return {
        "address": event.routing_key,
        "description": getdoc(event),
        "messages": {event.__name__: {"$ref": f"#/components/messages/{event.__name__}"}},
        "bindings": {"amqp": {"is": "routingKey", "exchange": exchange}},
    }


def _operation(event: type[Event]) -> Json:
    service = "order service" if event.exchange == ORDER_EXCHANGE else "product service"
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{event.__name__}"},
        "summary": f"The {service} publishes it.",
        "bindings": {"amqp": {"deliveryMode": 2, "mandatory": True}},
    }


def _message(event: type[Event]) -> Json:
    return {
        "name": event.routing_key,
        "contentType": "application/json",
        "bindings": {"amqp": {"messageType": event.routing_key}},
        "headers": {"$ref": "#/components/schemas/Headers"},
        "correlationId": {
            "description": "The property of AMQP: the order that it is about, or else the product.",
            "location": "$message.header#/correlation_id",
        },
        "payload": {"$ref": f"#/components/schemas/{event.__name__}"},
    }


def document() -> Json:
    """Return the document, whose payloads are JSON Schemas."""
    known = sorted(events(), key=lambda event: event.routing_key)
    _, schemas = msgspec.json.schema_components(known, ref_template="#/components/schemas/{name}")
    return {
        "asyncapi": "3.0.0",
        "info": {"title": _TITLE, "version": __version__, "description": _DESCRIPTION},
        "defaultContentType": "application/json",
        "servers": {"rabbitmq": {"host": "localhost:5672", "protocol": "amqp"}},
        "channels": {event.__name__: _channel(event) for event in known},
        "operations": {f"publish{event.__name__}": _operation(event) for event in known},
        "components": {
            "messages": {event.__name__: _message(event) for event in known},
            "schemas": {
                "Headers": {
                    "type": "object",
                    "description": "All are text.",
                    "properties": {
                        name: {"type": "string", "description": what}
                        for name, what in _HEADERS.items()
                    },
                },
                **schemas,
            },
        },
    }


def main(arguments: Sequence[str]) -> int:
    """Write the document, or with `--check` compare it; return 0 if all is well."""
    text = yaml.safe_dump(document(), sort_keys=False, allow_unicode=True, width=100)
    compare = "--check" in arguments
    return int(not write_or_compare(DOCUMENT, text, compare=compare, command="make schema"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
