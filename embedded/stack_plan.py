"""What the stack is made of here: servers for what the environment does not name, and the four services."""

import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from embedded import processes
from embedded.errors import NotADatabaseUrl, SettingNotANumber
from embedded.kafka import EmbeddedKafka
from embedded.ports import LOOPBACK, free_port, require_free
from embedded.postgres import SUPERUSER, EmbeddedPostgres, client_programs
from embedded.processes import SUPERVISOR
from embedded.supervisor import Program
from shared.db import SERVICES
from shared.settings import PORTS

ROOT = Path(__file__).resolve().parent.parent
DATABASE = "farebox"
POSTGRES, KAFKA, SANDBOX = "postgres", "kafka", "stripe-sandbox"
KILL, INTERRUPT = 9, 2
# Servers first and last, services between.
SERVER_RANK, SERVICE_RANK = 10, 100


@dataclass(frozen=True)
class Plan:
    """`env` is what every process of ours gets; `urls` is what a person may open or connect to."""

    folder: Path
    env: dict[str, str]
    urls: dict[str, str]
    ports: dict[str, int]
    postgres: EmbeddedPostgres | None
    kafka: EmbeddedKafka | None
    programs: list[Program] = field(default_factory=list)

    @property
    def has_sandbox(self) -> bool:
        return SANDBOX in self.ports

    @property
    def services(self) -> list[str]:
        return [program.name for program in self.programs if program.rank == SERVICE_RANK]

    @property
    def servers(self) -> list[str]:
        return [program.name for program in self.programs if program.rank == SERVER_RANK]


def make_plan(folder: Path, environ: Mapping[str, str]) -> Plan:
    """Choose ports and settings; raises PortInUse before anything was started."""
    env = dict(environ)
    urls: dict[str, str] = {}
    ports = {name: service_port(name, env) for name in PORTS}
    postgres = plan_postgres(folder, env, ports)
    kafka = plan_kafka(folder, env)
    plan_stripe(env, ports)
    for name in PORTS:
        env[f"{name.upper()}_PORT"] = str(ports[name])
        urls[name] = f"http://{LOOPBACK}:{ports[name]}"
    urls |= {"database": env["DATABASE_URL"]}
    if SANDBOX in ports:
        urls[SANDBOX] = env["STRIPE_API_BASE"]
    return Plan(folder, env, urls, ports, postgres, kafka)


def service_port(service: str, env: Mapping[str, str]) -> int:
    setting = f"{service.upper()}_PORT"
    port = chosen_port(setting, env) or PORTS[service]
    require_free(port, setting)
    return port


def chosen_port(setting: str, env: Mapping[str, str]) -> int | None:
    """None when the variable is not set."""
    text = env.get(setting)
    if not text:
        return None
    if not text.isdigit() or not 0 < int(text) < 2**16:
        raise SettingNotANumber(setting, text)
    return int(text)


def plan_postgres(
    folder: Path, env: dict[str, str], ports: dict[str, int]
) -> EmbeddedPostgres | None:
    if env.get("DATABASE_URL"):
        name_service_urls(env)
        return None
    wanted = chosen_port("FAREBOX_POSTGRES_PORT", env)
    if wanted is not None:
        require_free(wanted, "FAREBOX_POSTGRES_PORT")
    ports[POSTGRES] = wanted or free_port()
    env["DATABASE_URL"] = f"postgresql://{SUPERUSER}@{LOOPBACK}:{ports[POSTGRES]}/{DATABASE}"
    # The migration job backs up with pg_dump, whose version must be the server's.
    env["PATH"] = f"{client_programs()}:{env.get('PATH', '')}"
    return EmbeddedPostgres(folder / POSTGRES, log=folder / "logs" / f"{POSTGRES}.log")


def name_service_urls(env: dict[str, str]) -> None:
    """Write out each service's URL: the migration job gives a role the password its URL carries."""
    try:
        owner = make_url(env["DATABASE_URL"])
    except (ArgumentError, ValueError):
        raise NotADatabaseUrl from None
    for service in SERVICES:
        own = owner.set(username=f"{service}_app").render_as_string(hide_password=False)
        env[f"{service.upper()}_DATABASE_URL"] = env.get(f"{service.upper()}_DATABASE_URL") or own


def plan_kafka(folder: Path, env: dict[str, str]) -> EmbeddedKafka | None:
    if env.get("KAFKA_BOOTSTRAP_SERVERS"):
        return None
    port = chosen_port("FAREBOX_KAFKA_PORT", env)
    return EmbeddedKafka(folder / KAFKA, port=port, log=folder / "logs" / f"{KAFKA}.log")


def plan_stripe(env: dict[str, str], ports: dict[str, int]) -> None:
    """The sandbox plays Stripe's part unless a key or an address of Stripe's is given."""
    if env.get("STRIPE_API_KEY") or env.get("STRIPE_API_BASE"):
        return
    wanted = chosen_port("FAREBOX_SANDBOX_PORT", env)
    if wanted is not None:
        require_free(wanted, "FAREBOX_SANDBOX_PORT")
    ports[SANDBOX] = wanted or free_port()
    env["STRIPE_API_BASE"] = f"http://{LOOPBACK}:{ports[SANDBOX]}"
    env["STRIPE_API_KEY"] = f"sk_test_{secrets.token_hex(12)}"
    if not env.get("STRIPE_WEBHOOK_SECRETS"):
        env["STRIPE_WEBHOOK_SECRETS"] = f"whsec_{secrets.token_hex(16)}"


def prepare_servers(plan: Plan) -> None:
    """Make the clusters where there are none and note how the supervisor is to run them."""
    if plan.postgres is not None:
        plan.postgres.initialise()
        command = plan.postgres.command(plan.ports[POSTGRES], INTERRUPT, SUPERVISOR)
        plan.programs.append(Program(POSTGRES, command, ROOT, SERVER_RANK, stop_signal="INT"))
    if plan.kafka is not None:
        command = plan.kafka.prepare(KILL, SUPERVISOR)
        plan.programs.append(Program(KAFKA, command, ROOT, SERVER_RANK))
        plan.env["KAFKA_BOOTSTRAP_SERVERS"] = plan.kafka.bootstrap_servers
    plan.urls["kafka"] = plan.env["KAFKA_BOOTSTRAP_SERVERS"]
    if plan.has_sandbox:
        port, state = str(plan.ports[SANDBOX]), str(plan.folder / SANDBOX)
        arguments = ["embedded.stripe_sandbox", "--port", port, "--state-dir", state]
        plan.programs.append(Program(SANDBOX, python_module(*arguments), ROOT, SERVER_RANK))


def empty(folder: Path) -> None:
    """Take away our own servers' data, wherever it lies; logs stay, they tell what went wrong."""
    EmbeddedPostgres(folder / POSTGRES).remove()
    EmbeddedKafka(folder / KAFKA).remove()
    shutil.rmtree(folder / SANDBOX, ignore_errors=True)


def plan_services(plan: Plan) -> None:
    for service in PORTS:
        for role in ("web", "worker"):
            command = python_module(f"services.{service}.app", role)
            plan.programs.append(Program(f"{service}-{role}", command, ROOT, SERVICE_RANK))


def python_module(*arguments: str) -> list[str]:
    return processes.tethered([sys.executable, "-m", *arguments], KILL, SUPERVISOR)
