"""What the admins of both services show alike of outbox, queues and dead letters."""
