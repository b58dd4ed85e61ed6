"""What the ledger found: checks, each with its differences."""

from dataclasses import dataclass, field

from deploy.console import table

_EXAMPLES = 5


@dataclass
class Check:
    """One comparison: what was compared, and the differences that were found."""

    name: str
    compared: str = ""
    is_note: bool = False
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def differs(self, what: str, *, times: int = 1) -> None:
        """Record a difference; only the first few are kept, all are counted."""
        self.count += times
        if len(self.examples) < _EXAMPLES:
            self.examples.append(what)

    @property
    def verdict(self) -> str:
        """`ok`, `DIFFERS`, or `note` for what is worth knowing and not wrong."""
        if not self.count:
            return "ok"
        return "note" if self.is_note else "DIFFERS"


@dataclass
class Report:
    """What the ledger found."""

    checks: list[Check] = field(default_factory=list)

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """Name, numbers and verdict of each check."""
        return [(check.name, check.compared, check.verdict) for check in self.checks]

    @property
    def differences(self) -> list[str]:
        """What differs, in sentences: up to five for each check; empty when all is well."""
        return [
            f"{check.name}: {example}"
            for check in self.checks
            if not check.is_note
            for example in check.examples
        ]

    def add(self, name: str, *, is_note: bool = False) -> Check:
        """Begin a check."""
        self.checks.append(Check(name, is_note=is_note))
        return self.checks[-1]

    def __str__(self) -> str:
        heading, *lines = table([("check", "compared", "result"), *self.rows]).splitlines()
        text = [heading]
        for line, check in zip(lines, self.checks, strict=True):
            text.append(line)
            text += [f"    {example}" for example in check.examples]
            # Counted, but not kept as an example.
            if check.examples and check.count > len(check.examples):
                text.append(f"    … and {check.count - len(check.examples):,} more")
        return "\n".join(text)
