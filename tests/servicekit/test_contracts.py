"""What the services say to each other, held to what was once agreed.

`contracts.jsonl` keeps the contracts of every version. Readers of each, which may still be out
there, read what is written today, and are read: a field that is added and optional is fine,
anything else needs a new routing key.
"""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from orders_project.orders.commands import PersistOrders
from servicekit import __version__
from servicekit.contracts.events import (
    MalformedMessage,
    OrderCreated,
    StockDecided,
    StockDecision,
    StockOutcome,
    StockReleased,
)
from servicekit.contracts.fields import MAX_INT32, MAX_INT64, as_uuid
from tools import asyncapi

PRODUCT_ID = "0198c0de-0000-7000-8000-00000000000a"
ORDER_ID = "0198c0de-0000-7000-8000-00000000000b"

EVENTS = sorted(asyncapi.events(), key=lambda event: event.routing_key)
CONTRACTS = {each.routing_key: each for each in EVENTS} | {PersistOrders.task_name: PersistOrders}
KEPT_IN = Path(__file__).with_name("contracts.jsonl")
KEPT = [json.loads(line) for line in KEPT_IN.read_text().splitlines()]


def samples(schema: Any, parts: Any) -> list[Any]:
    """Return what a schema allows: each alternative, each bound, with and without each field."""
    match schema:
        case {"$ref": name}:
            return samples(parts[name.removeprefix("#/$defs/")], parts)
        case {"anyOf": kinds}:
            return [each for kind in kinds for each in samples(kind, parts)]
        case {"enum": values}:
            return values
        case {"properties": fields, "required": required}:
            values = {name: samples(field, parts) for name, field in fields.items()}
            least = {name: values[name][0] for name in required}
            return [least, *(least | {name: each} for name in values for each in values[name])]
        case {"items": item}:
            return [[], *([each] for each in samples(item, parts))]
    kinds = {
        "string": [ORDER_ID if schema.get("format") == "uuid" else "2026-11-23T10:00:00Z"],
        "integer": [schema.get("minimum", -1), schema.get("maximum", 2**53)],
        "boolean": [False, True], "null": [None],
    }  # fmt: skip
    return kinds[schema["type"]]


def breaks(old: Any, new: Any) -> list[Any]:
    """Return what one version writes and the other does not read, and the fields that are gone."""
    written = [samples(each, each["$defs"]) for each in (old, new)]
    unread = []
    for messages, reader in zip(written, (new, old), strict=True):
        judge = Draft202012Validator(reader, format_checker=Draft202012Validator.FORMAT_CHECKER)
        unread += [each for each in messages if not judge.is_valid(each)]
    before, after = (set(re.findall(r'"(\w+)":', json.dumps(each))) for each in written)
    return [*unread, *(before - after)]


class TestAContract:
    def test_is_kept_in_this_version(self):
        kept = {each["name"] for each in KEPT if each["version"] == __version__}
        missing = [
            {"version": __version__, "name": name, "schema": msgspec.json.schema(CONTRACTS[name])}
            for name in sorted(CONTRACTS.keys() - kept)
        ]
        lines = msgspec.json.Encoder().encode_lines(missing).decode()
        assert not missing, f"append to {KEPT_IN}:\n{lines}"

    @pytest.mark.parametrize("kept", KEPT, ids=lambda kept: f"{kept['name']} {kept['version']}")
    def test_reads_older_messages_and_is_read_by_older_readers(self, kept):
        contract, schema = CONTRACTS[kept["name"]], kept["schema"]

        assert breaks(schema, msgspec.json.schema(contract)) == []
        for message in samples(schema, schema["$defs"]):
            assert msgspec.json.decode(msgspec.json.encode(message), type=contract)

    # The negative control: what others could not read, or would miss, is found.
    @pytest.mark.parametrize(
        ("field", "becomes", "is_required", "is_harmless"),
        [
            ("note", {"type": "string"}, False, True),
            ("note", {"type": "string"}, True, False),
            ("quantity", None, False, False),
            ("totalPrice", None, False, False),
            ("totalPrice", {"type": "integer"}, True, False),
            ("quantity", {"type": "string"}, True, False),
            ("createdAt", {"type": "string", "format": "uuid"}, False, False),
            ("quantity", {"type": "integer", "minimum": 0, "maximum": MAX_INT32}, True, False),
            ("quantity", {"type": "integer", "minimum": 1, "maximum": 100}, True, False),
        ],
    )
    def test_breaks_with_every_change_but_an_optional_field(
        self, field, becomes, is_required, is_harmless
    ):
        old = msgspec.json.schema(OrderCreated)
        new = deepcopy(old)
        order = new["$defs"]["OrderCreated"]
        order["properties"].pop(field, None)
        order["properties"] |= {field: becomes} if becomes else {}
        order["required"] = [*{*order["required"]} - {field}, *([field] if is_required else [])]

        assert (breaks(old, new) == []) is is_harmless


def a_body(**changes: Any) -> bytes:
    facts = {"orderId": ORDER_ID, "productId": PRODUCT_ID, "quantity": 2, **changes}
    return msgspec.json.encode({name: value for name, value in facts.items() if value is not ...})


def a_decision(order_id: str | int, outcome: str = "RESERVED") -> StockDecision:
    return StockDecision(
        order_id=order_id, product_id=UUID(PRODUCT_ID), quantity=2, outcome=StockOutcome(outcome),
        remaining=8, version=3,
    )  # fmt: skip


class TestReadingAnEvent:
    def test_takes_the_bare_body_of_an_older_producer(self):
        event = OrderCreated.from_json(
            b'{"orderId": 4711, "productId": "%s", "quantity": 2}' % PRODUCT_ID.encode()
        )

        assert (event.order_id, event.product_id, event.quantity) == (4711, UUID(PRODUCT_ID), 2)

    def test_takes_the_whole_body_of_an_older_producer(self):
        event = OrderCreated.from_json(
            a_body(orderId=1, totalPrice=380_000, createdAt="2024-01-01 10:00", note={"a": [1]})
        )

        assert (event.total_price, event.created_at) == (380_000, "2024-01-01 10:00")

    @pytest.mark.parametrize("order_id", [0, -1, 2**63 - 1, "4711", "A.b:c_d-1", "x" * 64])
    def test_takes_what_other_systems_call_an_order(self, order_id):
        assert OrderCreated.from_json(a_body(orderId=order_id)).order_id == order_id

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"   ",
            b"hello",
            b"null",
            b"5",
            b'"text"',
            b"[]",
            b"{}",
            b"\xff\xfe{}",
            b"\x80\x04\x95\x00pickle",
            a_body()[:-5],
            a_body() + b"{}",
            a_body().replace(b'"quantity":2', b'"quantity":NaN'),
            a_body().replace(b'"quantity":2', b'"quantity":02'),
            a_body(orderId="\U0001f600"),
            b'{"orderId":' * 100_000,
            b"[" * 100_000 + b"]" * 100_000,
            b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"," + a_body()[1:],
            b"x" * 10_000_000,
        ],
        ids=[
            "empty", "blank", "words", "null", "a number", "a string", "a list", "an object",
            "bad UTF-8", "a pickle", "cut off", "two of them", "NaN", "a leading zero",
            "an emoji for an id", "nested deep", "lists nested deep", "an unknown field nested",
            "10 MB",
        ],
    )  # fmt: skip
    def test_refuses_what_is_no_such_message(self, body):
        with pytest.raises(MalformedMessage, match=r"order\.created"):
            OrderCreated.from_json(body)

    @pytest.mark.parametrize("field", ["orderId", "productId", "quantity"])
    def test_refuses_a_body_without_what_it_needs(self, field):
        with pytest.raises(MalformedMessage):
            OrderCreated.from_json(a_body(**{field: ...}))

    @pytest.mark.parametrize(
        "quantity", [0, -5, 2**31, 2**63, 10**400, "5", 5.0, 1.5, True, None, [], {}]
    )
    def test_refuses_a_quantity_that_is_none(self, quantity):
        body = a_body(quantity="?").replace(b'"?"', json.dumps(quantity).encode())

        with pytest.raises(MalformedMessage):
            OrderCreated.from_json(body)

    @pytest.mark.parametrize(
        "order_id", ["", "x" * 65, "a b", "a\n", "é", "a\x00", 2**63, 1.5, True, None, []]
    )
    def test_refuses_what_cannot_be_kept_as_an_order_id(self, order_id):
        with pytest.raises(MalformedMessage):
            OrderCreated.from_json(a_body(orderId=order_id))

    @pytest.mark.parametrize("product_id", ["", "1", 1, None, PRODUCT_ID[:-1], "lamp"])
    def test_refuses_what_is_no_product_id(self, product_id):
        with pytest.raises(MalformedMessage):
            OrderCreated.from_json(a_body(productId=product_id))

    @pytest.mark.parametrize(
        "facts",
        [
            {"totalPrice": 10.5, "createdAt": 1_764_000_000},
            {"totalPrice": "10,50"},
            {"note": "quantity"},
        ],
    )
    def test_takes_anything_for_what_it_does_not_need(self, facts):
        assert OrderCreated.from_json(a_body(**facts)).quantity == 2

    @pytest.mark.parametrize("again", [b'"quantity":3', b'"quantity":2', b'"orderId":1'])
    def test_refuses_a_name_that_is_there_twice(self, again):
        with pytest.raises(MalformedMessage, match="twice"):
            OrderCreated.from_json(a_body()[:-1] + b"," + again + b"}")

    def test_refuses_a_name_that_is_twice_in_a_part(self):
        body = StockDecided(decisions=[a_decision(ORDER_ID), a_decision(4711)]).to_json()
        assert StockDecided.from_json(body)

        with pytest.raises(MalformedMessage, match="twice"):
            StockDecided.from_json(body.replace(b'"quantity":2', b'"quantity":2,"quantity":7', 1))

    @given(st.binary(max_size=200))
    def test_never_raises_anything_else(self, body):
        try:
            OrderCreated.from_json(body)
        except MalformedMessage:
            return
        raise AssertionError(f"random bytes were read as an order: {body!r}")


class TestAnEvent:
    def test_is_read_as_it_was_written(self):
        event = StockReleased(
            order_id=ORDER_ID, product_id=UUID(PRODUCT_ID), quantity=2, remaining=8, version=3
        )

        assert StockReleased.from_json(event.to_json()) == event

    def test_of_a_batch_is_read_as_it_was_written(self):
        event = StockDecided(decisions=[a_decision(ORDER_ID), a_decision(4711, "REJECTED")])

        assert StockDecided.from_json(event.to_json()) == event
        assert event.parts == event.decisions

    def test_of_a_batch_has_the_order_as_correlation_id_where_there_is_one(self):
        alone = StockDecided(decisions=[a_decision(ORDER_ID)])
        several = StockDecided(decisions=[a_decision(ORDER_ID), a_decision(4711)])

        assert alone.correlation_id == ORDER_ID
        assert several.correlation_id == str(several.event_id)

    @pytest.mark.parametrize(
        "decision",
        [
            {},
            {"outcome": "RELEASED"},
            {"outcome": "reserved"},
            {"outcome": None},
            {"quantity": 0},
            {"remaining": -1},
            {"remaining": 2**53},
            {"version": -1},
            {"orderId": ""},
        ],
    )
    def test_of_a_batch_is_refused_as_a_whole_when_one_part_is_none(self, decision):
        right = msgspec.to_builtins(a_decision(ORDER_ID))
        wrong = {**right, **decision} if decision else {}
        body = msgspec.json.encode({"decisions": [right, wrong]})

        with pytest.raises(MalformedMessage, match=r"stock\.decided"):
            StockDecided.from_json(body)

    def test_has_the_same_id_whenever_the_same_fact_is_announced(self):
        first, second = (OrderCreated.from_json(a_body(quantity=n)) for n in (2, 2))

        assert first.event_id == second.event_id

    def test_has_another_id_than_another_fact(self):
        events = [
            OrderCreated.from_json(a_body()),
            OrderCreated.from_json(a_body(orderId=4711)),
            StockReleased.from_json(a_body(remaining=1, version=1)),
            StockDecided(decisions=[a_decision(ORDER_ID)]),
            StockDecided(decisions=[a_decision(ORDER_ID, "REJECTED")]),
            StockDecided(decisions=[a_decision(ORDER_ID), a_decision(4711)]),
        ]

        assert len({event.event_id for event in events}) == 6

    def test_has_a_name_based_uuid_for_an_id(self):
        event = OrderCreated.from_json(a_body())
        namespace = uuid5(NAMESPACE_URL, "urn:products-and-orders:events")

        assert event.event_id == uuid5(namespace, f"order.created:{ORDER_ID}")
        assert event.message_id == str(event.event_id)

    @pytest.mark.parametrize("event", [*EVENTS, StockDecision], ids=lambda event: event.__name__)
    def test_writes_its_fields_in_camel_case(self, event):
        for field in msgspec.structs.fields(event):
            assert re.fullmatch("[a-z]+([A-Z][a-z]*)*", field.encode_name)

    @pytest.mark.parametrize("event", [*EVENTS, StockDecision], ids=lambda event: event.__name__)
    def test_has_bounds_wherever_it_has_a_number(self, event):
        # Without them it would be read, and then refused by the database, in a batch.
        assert int not in {field.type for field in msgspec.structs.fields(event)}


class TestPersistOrders:
    ORDER = {
        "id": ORDER_ID, "productId": PRODUCT_ID, "quantity": 2, "totalPrice": MAX_INT64,
        "createdAt": "2026-11-23T10:00:00.123Z",
    }  # fmt: skip

    def test_is_read_from_the_arguments_of_a_task(self):
        [order] = PersistOrders.parse({"orders": [self.ORDER]}).orders

        assert (str(order.id), order.total_price) == (ORDER_ID, MAX_INT64)
        assert order.created_at.isoformat() == "2026-11-23T10:00:00.123000+00:00"

    @pytest.mark.parametrize(
        "payload",
        [
            {},
            {"orders": None},
            {"orders": {}},
            {"orders": [{}]},
            {"orders": [{**ORDER, "quantity": 0}]},
            {"orders": [{**ORDER, "quantity": "2"}]},
            {"orders": [{**ORDER, "totalPrice": -1}]},
            {"orders": [{**ORDER, "totalPrice": 2**63}]},
            {"orders": [{**ORDER, "id": 4711}]},
            {"orders": [{**ORDER, "createdAt": "yesterday"}]},
            {"orders": [{**ORDER, "createdAt": "2026-11-23T10:00:00"}]},
            {"orders": [{**ORDER, "createdAt": "0001-01-01T00:00:00+00:01"}]},
            {"orders": [{**ORDER, "createdAt": "9999-12-31T23:59:59-00:01"}]},
            {"orders": [ORDER, None]},
        ],
    )
    def test_refuses_anything_else(self, payload):
        with pytest.raises(MalformedMessage, match=r"orders\.persist_orders"):
            PersistOrders.parse(payload)


class TestAsUuid:
    @pytest.mark.parametrize("foreign", [4711, "4711", "order-1", "x" * 32, "x" * 36])
    def test_tells_the_orders_of_other_systems(self, foreign):
        assert as_uuid(foreign) is None

    def test_tells_ours(self):
        assert as_uuid(ORDER_ID) == UUID(ORDER_ID)
