"""Where everything is, seen from this machine, natively and in containers."""

from collections.abc import Mapping

from deploy.native.ports import Ports

#: What `make env` prints, and what the tools that look at a running system are given.
ADDRESSES = (
    "PRODUCTS_DATABASE_URL",
    "ORDERS_DATABASE_URL",
    "BROKER_URL",
    "CACHE_URL",
    "PRODUCT_API_URL",
    "ORDER_API_URL",
)

#: Database of each service, the role that owns it, and its user of the broker, all of this name.
OWNERS = ("products", "orders")


def addresses_of(ports: Ports, passwords: Mapping[str, str]) -> dict[str, str]:
    """Return the addresses of servers of our own; passwords and result by names of `.env`."""
    postgres, rabbitmq = f"127.0.0.1:{ports.postgres}", f"127.0.0.1:{ports.rabbitmq}"
    shop = f"shop:{passwords['BROKER_PASSWORD']}"
    found = {
        "BROKER_URL": f"amqp://{shop}@{rabbitmq}//",
        "RABBITMQ_MANAGEMENT_URL": f"http://{shop}@127.0.0.1:{ports.rabbitmq_management}",
        "CACHE_URL": f"redis://127.0.0.1:{ports.redis}/0",
        "PRODUCT_API_URL": f"http://127.0.0.1:{ports.product}/products",
        "ORDER_API_URL": f"http://127.0.0.1:{ports.order}/orders",
    }
    for owner in OWNERS:
        user = f"{owner}:{passwords[f'{owner.upper()}_BROKER_PASSWORD']}"
        found[f"{owner.upper()}_BROKER_URL"] = f"amqp://{user}@{rabbitmq}//"
        for role in (owner, f"{owner}_runtime"):
            user = f"{role}:{passwords[f'{role.upper()}_DATABASE_PASSWORD']}"
            found[f"{role.upper()}_DATABASE_URL"] = f"postgresql://{user}@{postgres}/{owner}"
    return found
