"""The configuration of the product service."""

from servicekit.environment import read_files

read_files("products")
