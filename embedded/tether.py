"""Run a command that dies with its parent: set the death signal, drop to an ordinary user, then become the command.

Run by path, not imported: `python tether.py PARENT_PID SIGNAL USER COMMAND…` (USER is a name, or `-` to stay;
PARENT_PID 0 is the tethered process that this one descends from; SIGNAL 0 is for what shall outlive its parent).
Linux only knows how; elsewhere the command simply runs, and an orderly stop is what ends it.
"""

import ctypes
import os
import pwd
import sys

PR_SET_PDEATHSIG = 1
# Exec keeps the pid, so a tethered supervisor's children find their parent's here.
OWN_PID = "FAREBOX_TETHERED_PID"


def main(arguments: list[str]) -> None:
    parent_pid, death_signal, user = int(arguments[0]), int(arguments[1]), arguments[2]
    command = arguments[3:]
    expected_parent = parent_pid or int(os.environ[OWN_PID])
    os.environ[OWN_PID] = str(os.getpid())
    if user != "-":
        become(user)
    if sys.platform == "linux" and death_signal:
        # After the change of user, which would clear it; exec keeps it.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != expected_parent:
            sys.exit("the parent is gone already")
    os.execv(command[0], command)


def become(user: str) -> None:
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.environ["HOME"] = "/"


if __name__ == "__main__":
    main(sys.argv[1:])
