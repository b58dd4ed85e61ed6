"""Proves, across both databases, the broker and the caches, that no order and no unit went astray.

`python -m tools.ledger` waits until the system is at rest and then compares what its parts say.
Nothing is changed. The large comparisons are made by the databases, or stream two sorted results
side by side, so a million orders need no more memory than ten.
"""

from collections.abc import Callable, Mapping

import amqp
import psycopg
import redis

from deploy.failure import DeployFailure
from tools.ledger import caches, orders, prices, stock, transit
from tools.ledger.report import Report
from tools.ledger.servers import Servers, one_line


def check_ledger(
    addresses: Mapping[str, str],
    *,
    wait_seconds: float = 60,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Wait for the system to come to rest, at most `wait_seconds`, then compare its parts.

    `addresses` has `PRODUCTS_DATABASE_URL`, `ORDERS_DATABASE_URL`, `BROKER_URL`, `CACHE_URL`, and
    what is set of `PRICE_MAX_AGE_SECONDS` and `PRICE_MAX_AGE_WITHOUT_SOURCE_SECONDS`; perhaps
    `RABBITMQ_MANAGEMENT_URL`, without which nobody knows what consumers have in hand. `progress`
    hears what is being waited for.

    :raises DeployFailure: if an address is missing, or a server does not answer
    """
    report = Report()
    ages = prices.Ages.of(addresses)
    with Servers.connected(addresses) as servers:
        try:
            transit.check_rest(report, servers, wait_seconds, progress)
            progress("comparing")
            orders.check_statuses(report, servers)
            orders.check_figures(report, servers)
            stock.check_stock(report, servers)
            stock.check_running_stock(report, servers)
            stock.check_units(report, servers)
            orders.check_rows(report, servers)
            stock.check_movements(report, servers)
            orders.check_refusals(report, servers)
            prices.check_totals(report, servers)
            prices.check_history(report, servers, ages)
            transit.check_outboxes(report, servers)
            transit.check_queues(report, servers)
            transit.check_dead_letters(report, servers)
            caches.check_cached_products(report, servers)
            caches.check_catalog(report, servers, ages)
            caches.check_cached_lists(report, servers)
            transit.check_accepted_copies(report, servers)
        except (psycopg.OperationalError, redis.RedisError, amqp.AMQPError, OSError) as error:
            raise DeployFailure(
                f"A server went away while the ledger was being checked: {one_line(error)}"
            ) from error
    return report
