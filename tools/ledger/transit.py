"""What is on its way: nothing, when the system is at rest."""

import re
import time
from collections.abc import Callable

from deploy.broker import QUEUES
from orders_project.orders.commands import PersistOrders
from servicekit.messaging.topology import dead_letter_queue_name
from tools.ledger.report import Report
from tools.ledger.servers import LOOK_AGAIN_SECONDS, UUID, Servers, values

# Searched for, not parsed: a dead letter often is one because it cannot be.
_ID_OF_ORDER = re.compile(rf'"id"\s*:\s*"({UUID})"'.encode())

_ORDERS_MARK = 'SELECT count(*), max(settled_at), max(cancelled_at), max(released_at) FROM "order"'


def check_rest(
    report: Report, servers: Servers, wait_seconds: float, progress: Callable[[str], None]
) -> None:
    """Wait until nothing moves, and take the two snapshots that everything is compared on."""
    check = report.add("the system is at rest")
    started = time.monotonic()
    while True:
        unrest = _unrest(servers)
        if not unrest:
            # Once is not enough: what is between two of these places is counted in none.
            time.sleep(LOOK_AGAIN_SECONDS)
            unrest = _unrest(servers)
        servers.orders.take_snapshot()
        before = servers.orders.one(_ORDERS_MARK)
        servers.products.take_snapshot()
        servers.products.one("SELECT 1")
        # Nothing connects the two snapshots but this: no order came or was settled in between.
        if not unrest and servers.orders.now(_ORDERS_MARK) != [before]:
            unrest = ["orders are still being placed"]
        waited = time.monotonic() - started
        if not unrest or waited >= wait_seconds:
            break
        progress(f"waiting for {', '.join(unrest)} ({waited:.0f} s)")
        time.sleep(LOOK_AGAIN_SECONDS)
    check.compared = f"waited {waited:.1f} s"
    for what in unrest:
        check.differs(what)


def _unrest(servers: Servers) -> list[str]:
    """Return what keeps the system from being at rest, in words."""
    # A cancelled order waits, too, until its stock is given back.
    [(pending, waiting)] = servers.orders.now(
        """
        SELECT count(*) FILTER (WHERE status = 'PENDING'),
               count(*) FILTER (WHERE status <> 'PENDING')
        FROM "order" WHERE status = 'PENDING' OR recheck_at IS NOT NULL
        """
    )
    events = sum(
        database.now("SELECT count(*) FROM outbox_event")[0][0]
        for database in (servers.orders, servers.products)
    )
    messages = sum(servers.messages_in(queue) or 0 for queue in QUEUES)
    unrest = [
        f"{count:,} {what}"
        for count, what in (
            (pending, "pending orders"),
            (waiting, "cancelled orders whose stock was not given back"),
            (events, "events in the outboxes"),
            (messages, "messages in the queues"),
            (servers.unacknowledged() or 0, "messages in consumers' hands"),
        )
        if count
    ]
    if not unrest:
        # An accepted order that a worker has in hand is in no table and in no queue's count.
        unstored = sum(
            len(set(ids) - servers.stored_orders(ids)) for ids in servers.cached_ids("order")
        )
        if unstored:
            unrest.append(f"{unstored:,} accepted orders to be stored")
    return unrest


def check_outboxes(report: Report, servers: Servers) -> None:
    """See that no event waits to be published."""
    for name, database in (("products", servers.products), ("orders", servers.orders)):
        check = report.add(f"outbox of {name} is empty")
        query = "SELECT routing_key, correlation_id, last_outcome FROM outbox_event ORDER BY id"
        for routing_key, correlation_id, outcome in database.stream(query):
            check.differs(f"{routing_key} of {correlation_id} waits ({outcome or 'not sent yet'})")
        check.compared = f"{check.count:,} events"


def check_queues(report: Report, servers: Servers) -> None:
    """See that no message waits to be handled, and count those that people have to look at."""
    check = report.add("queues are empty")
    check.compared = f"{len(QUEUES)} queues"
    letters = report.add("dead letters", is_note=True)
    total = 0
    for queue in QUEUES:
        messages = servers.messages_in(queue)
        if messages is None:
            check.differs(f"there is no queue {queue}")
        elif messages:
            check.differs(f"{queue} holds {messages:,} messages")
        dead = dead_letter_queue_name(queue)
        if buried := servers.messages_in(dead):
            total += buried
            letters.differs(f"{dead} holds {buried:,} messages")
    for database in (servers.products, servers.orders):
        query = "SELECT queue, count(*) FROM dead_letter WHERE status = 'WAITING' GROUP BY queue"
        for queue, count in database.stream(query):
            total += count
            letters.differs(f"{count:,} messages from {queue} wait for a decision in the admin")
    letters.compared = f"{total:,} messages"


def check_dead_letters(report: Report, servers: Servers) -> None:
    """See that no accepted order lies in a dead letter instead of the database."""
    check = report.add("no order is a dead letter and not stored")
    dead = dead_letter_queue_name(PersistOrders.queue)
    rows = servers.orders.stream(
        f"""
        SELECT coalesce(edited_body, body) FROM dead_letter
        WHERE queue = '{PersistOrders.queue}' AND status IN ('WAITING', 'REPLAY_REQUESTED')
        ORDER BY id
        """
    )
    total = 0
    for place, bodies in (
        (f"in {dead}", servers.bodies_in(dead)),
        (f"in dead letters from {PersistOrders.queue}", (bytes(row[0]) for row in rows)),
    ):
        ids: set[str] = set()
        for body in bodies:
            total += 1
            ids |= {found.decode() for found in _ID_OF_ORDER.findall(body)}
        if missing := sorted(ids - servers.stored_orders(list(ids))):
            check.differs(
                f"{len(missing):,} orders lie {place} and are not stored: {missing[0]}, …",
                times=len(missing),
            )
    check.compared = f"{total:,} messages"


def check_accepted_copies(report: Report, servers: Servers) -> None:
    """See that every accepted order is stored, and its copy dropped."""
    check = report.add("no copies of accepted orders are left")
    copies = 0
    for ids in servers.cached_ids("order"):
        copies += len(ids)
        # Two looks: the copy is dropped after the commit that stores the order.
        time.sleep(LOOK_AGAIN_SECONDS)
        left = values(servers, [f"order:{one}" for one in ids])
        stored = servers.stored_orders(ids)
        for order_id, copy in zip(ids, left, strict=True):
            if copy is None:
                continue
            what = f"order:{order_id}"
            if order_id in stored:
                seconds = f"(expires in {servers.cache.ttl(what):,} s)"
                check.differs(f"{what} is still there, and the order is stored {seconds}")
            else:
                check.differs(f"{what} was accepted, and the order is not stored")
    check.compared = f"{copies:,} copies"
