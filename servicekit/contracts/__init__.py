"""What the services say to each other: events (past tense) and commands (imperative).

The wire format is plain JSON with the field names below in camelCase. Readers are tolerant:
an unknown field is skipped, and what a reader does not need may be missing. Values are strict:
`"5"`, `5.0` and `true` are not the number 5.
"""
