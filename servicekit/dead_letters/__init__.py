"""Dead letters: what no consumer could apply, kept where people can see it and act on it.

A consumer puts it into the dead-letter queue of its queue. The worker moves it from there into
the database, where it is looked at, corrected, replayed or discarded, each step on record.
"""
