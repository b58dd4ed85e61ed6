"""What both services stand on."""

__version__ = "1.0.0"
