"""How long to wait before something is tried again."""

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


def pause_s(failures: int, wished_s: float, chance: float) -> float:
    """Seconds to wait after so many failures in a row.

    Doubles each time up to a limit, and is spread by `chance` (0 to 1) over half to the whole of
    it, so that many clients do not come back at once. `wished_s`, what the other side asked for, is
    the least.
    """
    longest = min(FIRST_PAUSE_S * (1 << min(failures - 1, 10)), LONGEST_PAUSE_S)
    return max(longest * (0.5 + chance / 2), wished_s)
