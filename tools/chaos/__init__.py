"""Fault injection under load, with the books of a client that believes nothing."""
