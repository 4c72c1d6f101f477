"""A process that dies by SIGKILL at the n-th await, whatever it awaits there: no code under test is changed.

`kill_at(n)` counts how often any task of the running loop is suspended or goes on again.  An even n kills as a task is
about to wait (what it asked for is on its way), an odd one as it is about to go on (the answer is there, nobody saw it).
"""

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Count:
    """How many awaits are left before the end; `armed` is when it begins to count."""

    def __init__(self, left: int, *, armed: bool = True) -> None:
        self.left = left
        self.armed = armed

    def down(self) -> None:
        if not self.armed:
            return
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Counted:
    """A coroutine whose every suspension is counted."""

    def __init__(self, inner: Coroutine[Any, Any, Any], count: Count) -> None:
        self._inner = inner
        self._count = count

    def __await__(self) -> Generator[Any, Any, Any]:
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                awaited = self._inner.send(value) if error is None else self._inner.throw(error)
            except StopIteration as done:
                return done.value
            value, error = None, None
            self._count.down()
            try:
                value = yield awaited
            except BaseException as thrown:  # noqa: BLE001 - handed on, whatever it is
                error = thrown
            self._count.down()


async def counted(inner: Coroutine[Any, Any, Any], count: Count) -> Any:
    return await Counted(inner, count)


def kill_at(count: Count) -> None:
    """From now on every new task of the running loop is counted."""

    def make(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **more: Any
    ) -> asyncio.Task[Any]:
        return asyncio.Task(counted(coroutine, count), loop=loop, **more)

    asyncio.get_running_loop().set_task_factory(make)  # type: ignore[arg-type]


def one_each(live: Callable[[str], None]) -> None:
    """A forked child for each line of stdin, one after the other; says how each ended: -9, or 0 where it lived."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            # What is logged is nobody's business here; what is wrong goes to stderr.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            try:
                live(line)
                code = 0
            except BaseException:  # noqa: BLE001 - the code it leaves with says it
                traceback.print_exc()
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
