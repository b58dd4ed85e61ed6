"""Programs that measure the system from outside."""
