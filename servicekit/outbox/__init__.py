"""The transactional outbox.

An event is recorded in the transaction that makes it true, and published afterwards, at least
once, by the relay. Nothing else publishes events.
"""
