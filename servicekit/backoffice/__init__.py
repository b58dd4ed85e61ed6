"""What the admins of both services have in common: looks, lists that never end, a dashboard."""
