"""What a database error says about the transaction that it ended."""

from psycopg_pool import PoolTimeout


def may_have_committed(error: Exception) -> bool:
    """Return whether an error leaves open if the transaction was committed."""
    cause = error.__cause__
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate is not None:
        # The server itself said so and rolled back, unless it was ending the connection (57P0x,
        # 08xxx): then the commit may just have happened.
        return str(sqlstate).startswith(("57P", "08"))
    # Without a word from the server, only a transaction that never had a connection is certain.
    never_connected = isinstance(cause, PoolTimeout) or "connection failed" in str(cause)
    return not never_connected
