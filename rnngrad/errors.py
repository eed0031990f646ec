"""Exceptions and warnings of the package. Bad arguments raise plain ``ValueError``."""


class ConvergenceError(ArithmeticError):
    """An iteration did not reach its tolerance; the message gives the residual and what would work."""


class SingularError(ArithmeticError):
    """A matrix that had to be inverted is singular to working precision."""


class BackendError(RuntimeError):
    """The requested backend cannot run here; the message names what is missing and the extra to install."""


class DivergenceWarning(RuntimeWarning):
    """A rollout left the finite numbers; the message names the step at which it began."""


class PrecisionWarning(RuntimeWarning):
    """A number is beyond what the arithmetic resolves; the message says which and what it reads instead."""
