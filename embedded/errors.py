"""What can keep an embedded server from running: each error is one line that says what to do about it."""

from pathlib import Path


class EmbeddedFault(Exception):
    """A server of ours cannot run here; the text is meant for the person at the terminal."""


class PortInUse(EmbeddedFault):
    def __init__(self, port: int, setting: str) -> None:
        super().__init__(
            f"port {port} on 127.0.0.1 is already in use: stop what listens there, "
            f"or set {setting} to a free port"
        )
        self.port = port
        self.setting = setting


class FolderNotUsable(EmbeddedFault):
    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"cannot use the folder {folder}: {reason}")
        self.folder = folder


class DiskFull(EmbeddedFault):
    def __init__(self, folder: Path, free_bytes: int, needed_bytes: int) -> None:
        super().__init__(
            f"only {free_bytes // 2**20} MB are free where {folder} lies, "
            f"{needed_bytes // 2**20} MB are needed: free some space and try again"
        )
        self.folder = folder


class ServerDidNotStart(EmbeddedFault):
    """Carries the last lines the server wrote, because they name the cause."""

    def __init__(self, server: str, log: Path, last_lines: str) -> None:
        tail = f": {last_lines}" if last_lines else ""
        super().__init__(f"{server} did not start (log: {log}){tail}")
        self.server = server
        self.log = log
        self.last_lines = last_lines


class JarNotAsLocked(EmbeddedFault):
    def __init__(self, jar: str, expected_sha256: str, actual_sha256: str) -> None:
        super().__init__(
            f"{jar} has sha256 {actual_sha256}, the lock file says {expected_sha256}: "
            "it was refused; the Maven repository in use serves something else"
        )
        self.jar = jar
        self.expected_sha256 = expected_sha256


class JarsUnavailable(EmbeddedFault):
    def __init__(self, jar: str, reason: str) -> None:
        super().__init__(
            f"cannot fetch {jar} ({reason}): check the network, or name your Maven mirror "
            "under [repositories] in jgo's configuration file, or set KAFKA_BOOTSTRAP_SERVERS"
        )
        self.jar = jar


class SettingNotANumber(EmbeddedFault):
    def __init__(self, setting: str, text: str) -> None:
        super().__init__(f"{setting}={text} is no port: set it to a number from 1 to 65535")
        self.setting = setting


class NotADatabaseUrl(EmbeddedFault):
    """Says nothing of what was given: it may hold a password."""

    def __init__(self) -> None:
        super().__init__(
            "DATABASE_URL must look like postgresql://user:password@host:port/database"
        )


class MigrationFailed(EmbeddedFault):
    def __init__(self, exit_code: int, log: Path, last_lines: str) -> None:
        super().__init__(f"the migration job failed with {exit_code} (log: {log}): {last_lines}")
        self.exit_code = exit_code
        self.log = log


class StackAlreadyRunning(EmbeddedFault):
    def __init__(self, folder: Path) -> None:
        super().__init__(f"a stack already runs in {folder}: stop it with `make down`")
        self.folder = folder


class NoSuchProcess(EmbeddedFault):
    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"the stack has no process {name}; it has {', '.join(known)}")
        self.name = name
