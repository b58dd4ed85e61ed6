"""The admin of dead letters: the list and its pages, their bodies, decisions by reason."""

from servicekit.dead_letters.admin.letters import DeadLetterAdmin

__all__ = ["DeadLetterAdmin"]
