"""Every metric of the system, as it is called at `/metrics`.

A web process writes them to files that the processes of a service share
(`PROMETHEUS_MULTIPROC_DIR`, set by gunicorn's configuration): whichever is scraped answers for
all. A worker is one process and answers for itself (`servicekit.worker_metrics`), so what is only
looked up when somebody asks, such as the depth of an outbox, is asked of workers.
"""

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# A second series beside each counter, which says when its process was started.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_WEB_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_MESSAGE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 600)

# HTTP

HTTP_REQUESTS = Histogram(
    "http_request_duration_seconds",
    "Requests and how long they took, by route and class of status (2xx).",
    ["method", "route", "status"],
    buckets=_WEB_SECONDS,
)
HTTP_PROBLEMS = Counter(
    "http_problems",
    "Requests that were answered with a problem document, by its code: refused orders, and why.",
    ["method", "route", "code"],
)

# Intake

INTAKE_BATCH = Histogram(
    "intake_batch_orders",
    "Orders that were made durable together; the sum counts the orders.",
    buckets=_SIZES,
)
INTAKE_WAITING = Gauge(
    "intake_waiting_orders",
    "Requests that wait for their order to be durable.",
    # Summed over the processes that live: a dead one has nobody waiting.
    multiprocess_mode="livesum",
)
INTAKE_FALLBACK = Counter(
    "intake_fallback_orders",
    "Orders that went straight to the database, because the broker did not take them.",
)

# Outbox

OUTBOX_PUBLISHED = Counter(
    "outbox_published_events",
    "Events that were handed to the broker, by what it did with them.",
    ["outcome"],
)
OUTBOX_EVENTS = "outbox_events"
OUTBOX_OLDEST_SECONDS = "outbox_oldest_event_age_seconds"

# Messages

CONSUMER_BATCH = Histogram(
    "consumer_batch_messages",
    "Messages that were handled together, by queue; the sum counts the messages.",
    ["queue"],
    buckets=_SIZES,
)
CONSUMER_MESSAGE_AGE = Histogram(
    "consumer_message_age_seconds",
    "From when a message was handed to the broker until its effect was committed.",
    ["queue"],
    buckets=_MESSAGE_SECONDS,
)
CONSUMER_DEAD_LETTERS = Counter(
    "consumer_dead_letters",
    "Messages that could not be read or applied, and were dead-lettered.",
    ["queue"],
)
DEAD_LETTERS = "dead_letters"

# Business

ORDERS_SETTLED = Counter(
    "orders_settled",
    "Orders that came to a status, by the status.",
    ["status"],
)
STOCK_REFUSALS = Counter(
    "stock_refusals",
    "Orders that got no stock, by reason.",
    ["reason"],
)

# Caches

CACHE_LOOKUPS = Counter(
    "cache_lookups",
    "Looks into a cache, by its name and outcome: hit, miss, or unavailable.",
    ["cache", "outcome"],
)


class Lookups:
    """The three counters of one cache, found once: a look must not cost more for being counted."""

    def __init__(self, cache: str) -> None:
        self.hit = CACHE_LOOKUPS.labels(cache, "hit")
        self.miss = CACHE_LOOKUPS.labels(cache, "miss")
        self.unavailable = CACHE_LOOKUPS.labels(cache, "unavailable")
