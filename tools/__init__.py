"""What looks at the system, measures it or breaks it, and writes its documents."""
