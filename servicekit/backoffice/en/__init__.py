"""English, as the admins write it."""
