"""Breaking the system on purpose, and looking at what becomes of the orders."""
