"""The whole system on one Linux machine without containers, below one directory."""
