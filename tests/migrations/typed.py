"""Commands as they are typed, within the tests' own process: Python takes a second to start, most of them far less."""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from unittest import mock

import pytest


def typed(
    main: Callable[[Sequence[str]], int],
    arguments: Sequence[str],
    environment: Mapping[str, str],
    capsys: pytest.CaptureFixture[str],
) -> "subprocess.CompletedProcess[str]":
    """What `main` says and leaves with, in an environment of `environment` and the PATH."""
    capsys.readouterr()
    alone = {"PATH": os.environ["PATH"], **environment}
    with mock.patch.dict(os.environ, alone, clear=True):
        code = main(arguments)
    said = capsys.readouterr()
    return subprocess.CompletedProcess(arguments, code, said.out, said.err)
