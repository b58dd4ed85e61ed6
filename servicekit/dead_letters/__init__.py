"""Parked messages: what no consumer could apply, kept where people can see it and act on it.

A consumer parks poison in the dead-letter queue of its queue. The worker moves it from there into
the database, where it is looked at, corrected, replayed or discarded, each step on record.
"""
