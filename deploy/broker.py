"""What the broker is told about the queues of the system: `python -m deploy.broker`.

Queues and exchanges are declared without arguments, so that every client's plain declaration fits.
What arguments would say is said here, before the first declaration: the type of the queues, as the
default of the virtual host; and by policy, that what the broker itself would drop becomes a dead
letter (a task that was rejected, a message that reached the delivery limit of its quorum queue).

Each service has a user of its own, who can do what the service does, and nothing to the queues of
the other one (docs/decisions/0021).
"""

import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote, urlsplit

import requests

#: The queues that each worker takes messages from; what it cannot use goes to `<queue>.dead`.
QUEUES_OF = {
    "products": ("product_cancellation_queue", "product_order_queue"),
    "orders": ("order_product_queue", "order_stock_queue", "orders.persist"),
}
QUEUES = tuple(queue for queues in QUEUES_OF.values() for queue in queues)

_EXCHANGE_OF = {"products": "product.exchange", "orders": "order.exchange"}

_WAIT_SECONDS = 60

# The first RabbitMQ whose classic queues are all of version 2.
_NO_CLASSIC_SYNC = 4


def rights_of(service: str) -> dict[str, str]:
    """Return what a service may configure, write and read, as RabbitMQ's expressions."""
    own = [f"{re.escape(queue)}(\\.dead)?" for queue in QUEUES_OF[service]]
    # Celery's remote control and events: exchanges, mailboxes of workers, and of who asks them.
    own += [rf"(.+\.)?{service}\.pidbox", rf"{service}\.celeryev(\..+)?"]
    exchanges = {name: re.escape(exchange) for name, exchange in _EXCHANGE_OF.items()}
    published = exchanges.pop(service)
    # Both exchanges are declared by whoever comes first. Through the default one, orders go to
    # their worker and dead letters to their queue; it leads to every queue, and that it leads to
    # these alone, RabbitMQ cannot say.
    allowed = {
        "configure": [*own, published, *exchanges.values()],
        "write": [*own, published, r"amq\.default"],
        "read": [*own, *exchanges.values()],
    }
    return {what: f"^({'|'.join(names)})$" for what, names in allowed.items()}


def prepare(
    management_url: str,
    *,
    queue_type: str,
    virtual_host: str = "/",
    queues: Iterable[str] = QUEUES,
    users: Mapping[str, str] | None = None,
) -> None:
    """Set the default queue type and the policies of a virtual host, and make it if need be.

    `users` has for each service the URL by which it connects: its user is made, or given the
    password and the rights of today. Again is harmless. Where there are queues, the type stays what
    it is. Without a `queue_type` it is one whose messages are on disk when they are confirmed.

    :raises requests.RequestException: if the broker does not answer, or refuses
    """
    api, host = f"{management_url}/api", quote(virtual_host, safe="")
    with requests.Session() as http:
        # A broker of ours: whatever proxy the caller uses has no part in it.
        http.trust_env = False
        _ensure_virtual_host(http, api, host, queue_type or _type_on_disk(http, api))
        for queue in queues:
            policy = {
                "pattern": f"^{re.escape(queue)}$",
                "apply-to": "queues",
                # Without `queue-version`: classic queues of version 2 confirm without fsync.
                "definition": {
                    "dead-letter-exchange": "",
                    "dead-letter-routing-key": f"{queue}.dead",
                },
            }
            address = f"{api}/policies/{host}/{quote(queue, safe='')}"
            http.put(address, json=policy, timeout=_WAIT_SECONDS).raise_for_status()
        for service, url in (users or {}).items():
            user = urlsplit(url)
            account = {"password": unquote(user.password or ""), "tags": ""}
            for address, body in (
                (f"{api}/users/{user.username}", account),
                (f"{api}/permissions/{host}/{user.username}", rights_of(service)),
            ):
                http.put(address, json=body, timeout=_WAIT_SECONDS).raise_for_status()


def _type_on_disk(http: requests.Session, api: str) -> str:
    overview = http.get(f"{api}/overview", timeout=_WAIT_SECONDS)
    overview.raise_for_status()
    return type_on_disk(overview.json()["rabbitmq_version"])


def type_on_disk(version: str) -> str:
    """Return which queues of a RabbitMQ sync a message to disk before they confirm it.

    Classic queues did so up to version 3.13, and there cost no more than quorum queues.
    """
    return "classic" if int(version.partition(".")[0]) < _NO_CLASSIC_SYNC else "quorum"


def _ensure_virtual_host(http: requests.Session, api: str, host: str, queue_type: str) -> None:
    address = f"{api}/vhosts/{host}"

    def is_as_wanted() -> bool:
        found = http.get(address, timeout=_WAIT_SECONDS)
        known = found.json().get("default_queue_type", "undefined") if found.ok else None
        return known == queue_type or (known, queue_type) == ("undefined", "classic")

    def put() -> None:
        # Up to RabbitMQ 3.11.11, the second name is the one that counts.
        body = {"default_queue_type": queue_type, "defaultqueuetype": queue_type}
        http.put(address, json=body, timeout=_WAIT_SECONDS).raise_for_status()

    if is_as_wanted():
        return
    queues = http.get(f"{api}/queues/{host}", timeout=_WAIT_SECONDS)
    if queues.ok and queues.json():
        # With another default, their plain declaration would be refused from RabbitMQ 4 on.
        return
    put()
    if not is_as_wanted():
        # Before RabbitMQ 3.11.14, a virtual host gets its default when it is made, and never again.
        http.delete(address, timeout=_WAIT_SECONDS).raise_for_status()
        put()


def main() -> int:
    """Prepare the broker that the environment names, as soon as it answers."""
    deadline = time.monotonic() + _WAIT_SECONDS
    users = {service: os.environ[f"{service.upper()}_BROKER_URL"] for service in QUEUES_OF}
    while True:
        try:
            prepare(
                os.environ["RABBITMQ_MANAGEMENT_URL"],
                queue_type=os.environ["QUEUE_TYPE"],
                users=users,
            )
        except requests.RequestException as error:
            if time.monotonic() > deadline:
                print(f"RabbitMQ could not be prepared: {error}", file=sys.stderr)
                return 1
            time.sleep(0.5)
        else:
            print("RabbitMQ is ready")
            return 0


if __name__ == "__main__":
    sys.exit(main())
