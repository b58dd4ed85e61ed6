"""RabbitMQ: topology, publishing with confirms, consuming in batches. Knows nothing of Django."""
