"""The one error of this package."""


class DeployFailure(Exception):
    """Something an operator can act on, said in one sentence; shown without a stack trace."""
