"""A coroutine that ends in the middle, as when its process does: its statement is cut off, nothing after it is run."""

import asyncio
import types
from collections.abc import Awaitable, Generator
from dataclasses import dataclass
from typing import Any


class Died(Exception):
    """It did, at the await it was meant to."""


@dataclass
class Lives:
    """How many more awaits are survived; what runs under it shares them."""

    awaits: int

    async def run(self, work: Awaitable[int]) -> int:
        """The work's result.  Raises Died."""
        return await self._drive(work)

    @types.coroutine
    def _drive(self, work: Awaitable[int]) -> Generator[Any, Any, int]:
        steps = work.__await__()
        died = False
        try:
            waits_for = next(steps)
            while True:
                self.awaits -= 1
                if self.awaits < 0 and not died and isinstance(waits_for, asyncio.Future):
                    # Cleaning up needs awaits of its own: a cut connection is not given back by itself.
                    died = waits_for.cancel()
                try:
                    value = yield waits_for
                except BaseException as error:  # noqa: BLE001 - handed on to where it belongs
                    waits_for = steps.throw(error)
                else:
                    waits_for = steps.send(value)
        except StopIteration as done:
            result: int = done.value
            return result
        except BaseException as error:
            if died:
                raise Died from error
            raise
