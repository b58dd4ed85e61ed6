"""What an order, and a read, costs: in milliseconds, in CPU by process, in bare Django views."""
