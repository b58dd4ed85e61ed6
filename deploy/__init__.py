"""What runs the system: process list, images, and the stack without containers."""
