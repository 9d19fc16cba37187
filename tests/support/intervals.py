"""What holds for the interval of every figure."""

from server.learning.estimates import Ends


def require_wider(quiet: Ends, *others: Ends) -> None:
    """Require that the interval of `quiet` is narrower than those of noisier or fewer sums."""
    for other in others:
        assert quiet.high - quiet.low < other.high - other.low
