"""What time it is at the stand-in: the wall's, or one that was set, so that a year is lived in seconds."""

import time


class Clock:
    """Epoch seconds.  A clock that was set stands still, unless it was told to tick on."""

    def __init__(self) -> None:
        self._frozen: int | None = None
        self._ahead = 0.0

    def now(self) -> int:
        if self._frozen is not None:
            return self._frozen
        return int(time.time() + self._ahead)

    def set(self, now: int | None, ticking: bool = False) -> None:
        """None is the wall's time again."""
        if now is None or ticking:
            self._frozen, self._ahead = None, 0.0 if now is None else now - time.time()
        else:
            self._frozen, self._ahead = now, 0.0
