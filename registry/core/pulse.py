"""Signs of life: counts that others move on, and for how long each was not seen to.

Nothing is compared with anybody's clock but one's own: those of two machines need not agree.
"""

from collections.abc import Hashable


class Pulses:
    """What was seen of others' counts."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[Hashable, float]] = {}

    def age_s(self, key: Hashable, beat: Hashable, now_s: float) -> float:
        """How long `beat` has been the same, as far as was seen; 0 at the first look."""
        known, since = self._seen.get(key, (None, now_s))
        if known != beat or key not in self._seen:
            self._seen[key] = beat, now_s
            return 0.0
        return now_s - since

    def forget(self) -> None:
        """Begin anew: for a while nobody could have been seen."""
        self._seen.clear()
