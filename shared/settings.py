"""Everything the environment decides, read once in a composition root and passed down."""

from ipaddress import ip_address
from typing import Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url

from shared.db import SERVICES

Service = Literal["pricing", "payments", "loyalty", "analytics"]

PORTS: dict[str, int] = {"pricing": 8001, "payments": 8002, "loyalty": 8003, "analytics": 8004}


class Settings(BaseSettings):
    """Names are the environment variables themselves, in upper case (see README, "Your own servers")."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    database_url: str = "postgresql://postgres@127.0.0.1:5432/farebox"
    pricing_database_url: str | None = None
    payments_database_url: str | None = None
    loyalty_database_url: str | None = None
    analytics_database_url: str | None = None

    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    farebox_topic_prefix: str = Field("farebox", pattern=r"^[A-Za-z0-9._-]{1,100}$")
    farebox_topic_partitions: int = Field(12, ge=1, le=1_000)
    farebox_topic_replication: int = Field(1, ge=1, le=7)

    stripe_api_key: str = ""
    stripe_api_base: str | None = None
    stripe_webhook_secrets: str = ""

    farebox_time_zone: str = "UTC"
    farebox_host: str = "127.0.0.1"
    pricing_port: int = PORTS["pricing"]
    payments_port: int = PORTS["payments"]
    loyalty_port: int = PORTS["loyalty"]
    analytics_port: int = PORTS["analytics"]
    # The reading routes of payments, loyalty and analytics ask for a key only where this is set:
    # on loopback they are a developer's; docker-compose and Helm set it.
    farebox_require_keys: bool = False
    farebox_log_json: bool = True

    # How what is left of a billing period is counted when its price changes within it.
    farebox_proration: Literal["day", "second"] = "day"
    # Off until asked for: a shop that charges by itself must not find its customers charged twice.
    farebox_renewals: bool = False
    # Days after the first refusal on which a renewal is tried again.
    farebox_dunning_days: str = Field("1,3,5,7", pattern=r"^\d{1,3}(\s*,\s*\d{1,3})*$")
    farebox_pause_when_given_up: bool = False
    farebox_reconcile_minutes: int = Field(60, ge=0)  # 0: only by command
    # Stripe allows 100 calls a second in live mode, 25 in test mode, which the shop's own calls share.
    farebox_reconcile_calls_per_second: int = Field(10, ge=1, le=100)
    # Webhooks name only the balance transaction: one question per payment tells what Stripe kept of it.
    farebox_ask_fees: bool = True
    # Raw Stripe bodies older than this keep nothing but what the fold reads; 0: they stay whole.
    farebox_raw_body_days: int = Field(90, ge=0)

    @field_validator("farebox_time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{name!r} is no time zone; use one such as Europe/Berlin") from error
        return name

    @model_validator(mode="after")
    def _keys_where_others_listen(self) -> Self:
        if not self.farebox_require_keys and not _is_loopback(self.farebox_host):
            raise ValueError(
                f"FAREBOX_HOST={self.farebox_host} opens payments and accounts to the network:"
                " set FAREBOX_REQUIRE_KEYS=true as well"
            )
        return self

    @property
    def time_zone(self) -> ZoneInfo:
        return ZoneInfo(self.farebox_time_zone)

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        return tuple(s.strip() for s in self.stripe_webhook_secrets.split(",") if s.strip())

    @property
    def dunning_days(self) -> tuple[int, ...]:
        return tuple(int(day) for day in self.farebox_dunning_days.split(","))

    def url_of(self, service: str) -> str:
        """The service's own URL, or DATABASE_URL with the service's role as user."""
        own: str | None = getattr(self, f"{service}_database_url") if service in SERVICES else None
        if own:
            return own
        url = make_url(self.database_url).set(username=f"{service}_app")
        return url.render_as_string(hide_password=False)

    def port_of(self, service: Service) -> int:
        port: int = getattr(self, f"{service}_port")
        return port


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
