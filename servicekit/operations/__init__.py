"""What an operator runs: commands that both services have."""
