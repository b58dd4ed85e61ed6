"""The configuration of the order service."""

from servicekit.environment import read_files

read_files("orders")
