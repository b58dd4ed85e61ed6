"""How Django's own parts of the admin show times: as ours do, with their zone."""

DATETIME_FORMAT = r"Y-m-d H:i:s \U\T\C"
