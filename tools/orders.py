"""What to order, and when everything that was ordered is final."""

from datetime import datetime

import psycopg
import requests

from deploy.failure import DeployFailure
from deploy.native.supervision import wait_until

# More than any load orders, so that every order can be confirmed.
_STOCK = 1_000_000
_PATIENCE_SECONDS = 180


def create_product(url: str) -> str:
    """Create a product that will not be sold out; return its id.

    :raises DeployFailure: if the product service does not
    """
    try:
        body = {"name": "Load test", "price": 100, "qty": _STOCK}
        answer = requests.post(url, json=body, timeout=5)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise DeployFailure(f"No product could be created to order: {error}") from error
    return str(answer.json()["id"])


def wait_until_final(database: str, product_id: str, accepted: int, *, since: datetime) -> float:
    """Wait until so many orders, accepted since then, are stored and have a final status.

    Return the seconds from the last acceptance to the last final status.

    :raises DeployFailure: if that takes minutes
    """
    question = """
        SELECT count(*), count(*) FILTER (WHERE status = 'PENDING'),
               extract(epoch FROM max(settled_at) - max(created_at))::float
        FROM "order" WHERE product_id = %s AND created_at >= %s"""
    stored = pending = 0
    seconds: float | None = None

    def are_final() -> bool:
        nonlocal stored, pending, seconds
        [(stored, pending, seconds)] = connection.execute(question, [product_id, since])
        return stored >= accepted and not pending

    with psycopg.connect(database, autocommit=True) as connection:
        if not wait_until(are_final, timeout_seconds=_PATIENCE_SECONDS, pause_seconds=0.2):
            raise DeployFailure(
                f"{_PATIENCE_SECONDS} s after the load, {stored:,} of {accepted:,} accepted orders "
                f"are stored, and {pending:,} of them are PENDING."
            )
    return seconds or 0.0
