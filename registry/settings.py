"""Settings: every knob with its type, unit and default; read once, from the environment.

Names are `REGISTRY_<FIELD>`, nested ones `REGISTRY_<GROUP>__<FIELD>`; `REGISTRY_<FIELD>_FILE` names
a file that holds the value, for secrets. `OLLAMA_HOST`, `OLLAMA_MODELS` and others of the real
server are read where ours are not set, because they mean the same. `app`, `cli` and
`migrations/env.py` get a `Settings`; nobody else reads the environment.
"""

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, SettingsConfigDict

from registry.core.duration import parse_duration
from registry.core.errors import RequestInvalid
from registry.core.fleet import check_labels
from registry.core.storage_url import S3Url

DEFAULT_PORT = 11434
CLIENT_NAMES = {"REGISTRY_SERVER"}
"""Variables that the command line reads and the server does not."""
GIB = 1 << 30


class SettingsInvalid(Exception):
    """Settings that cannot be used; the message names each key and what is wrong with it."""


class Limits(BaseModel):
    """How much of anything one caller may ask for."""

    json_body_bytes: int = Field(16 << 20, description="largest JSON request body")
    manifest_bytes: int = Field(4 << 20, description="largest manifest")
    blob_bytes: int = Field(1 << 40, description="largest blob")
    body_idle_s: float = Field(60.0, description="a sender silent for so long is cut off")
    upload_idle_s: int = Field(86_400, description="life of an upload session after its last data")
    shutdown_s: float = Field(20.0, description="running transfers get so long at SIGTERM")


class Credentials(BaseModel):
    """Life and limits of what callers prove themselves with."""

    token_s: int = Field(3_600, description="life of a registry token")
    session_s: int = Field(43_200, description="life of a sign-in on the page")
    code_s: int = Field(900, description="life of a one-time code or link")
    skew_s: int = Field(300, description="clocks of clients may be off by so much")
    tries_per_minute: int = Field(10, description="failed sign-ins per address and per account")
    tokens_per_minute: int = Field(600, description="token requests per address")
    requests_per_minute: int = Field(
        30_000, ge=0, description="requests of the API per account, or address; 0: any number"
    )


class Retention(BaseModel):
    """How long is kept what nothing needs: bytes of no model, old entries of the audit."""

    grace_s: int = Field(86_400, description="blobs uploaded and not used by a model")
    lease_s: int = Field(900, description="blobs that a client was told are here")
    leftover_s: int = Field(3_600, description="bytes that a crash left behind, of no session")
    sweep_every_s: int = Field(600, description="pause between two sweeps")
    prune: bool = Field(True, description="free blobs as soon as their last model is gone")
    undelete_s: int = Field(
        0, ge=0, description="deleted models can be brought back so long; 0: not at all"
    )
    audit_s: int = Field(31_536_000, ge=1, description="life of an entry of the audit")
    audit_entries: int = Field(1_000_000, ge=1, description="the newest so many of them are kept")


class Upstream(BaseModel):
    """How other registries are reached by pull and push."""

    streams: int = Field(8, ge=1, le=64, description="parallel ranges of one blob")
    part_bytes: int = Field(64 << 20, ge=1 << 20, description="size of such a range")
    stall_s: float = Field(30.0, description="a transfer without a byte for so long is retried")
    retries: int = Field(6, ge=0, description="tries of one request or part beyond the first")
    connect_s: float = Field(15.0, description="limit for a connection")


class Worker(BaseModel):
    """How models are run: by this process's own worker, and what every worker is asked for."""

    local: Literal["auto", "off"] = Field(
        "auto", description="auto: run models in this server too, if the engine is installed"
    )
    engine: str = Field(
        "xllamacpp", description="xllamacpp, or a llama-server program: its name or path"
    )
    keep_alive: str = Field("5m", description="models stay loaded so long unused; -1: for ever")
    parallel: int = Field(1, ge=1, le=256, description="requests a loaded model serves at once")
    max_loaded: int = Field(0, ge=0, description="models loaded at once; 0: what memory allows")
    max_queue: int = Field(512, ge=1, description="requests that may wait for a worker")
    max_queue_per_model: int = Field(64, ge=1, description="of them, for one model")
    queue_s: float = Field(600.0, gt=0, description="so long a request waits at most")
    replicas_max: int = Field(2, ge=1, description="workers that may have one model loaded")
    context_length: int = Field(0, ge=0, description="default of num_ctx; 0: chosen by the server")
    memory_bytes: int = Field(0, ge=0, description="what models may take; 0: nine tenths of it all")
    labels: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="of the worker in this server: models can be placed by them"
    )
    threads: int = Field(0, ge=0, le=1024, description="of a runner; 0: one per core allowed")
    cache_type: Literal["f16", "bf16", "f32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"] = Field(
        "f16", description="type of the key and value cache"
    )
    flash_attention: Literal["auto", "on", "off"] = Field("auto", description="auto, on or off")
    load_timeout: str = Field("5m", description="a load without a sign of life for so long failed")
    go_template: Literal["auto", "on", "off"] = Field(
        "auto", description="render with a Go template: where it is the better one, always, never"
    )
    dedicated: bool = Field(
        False, description="nothing else runs here: runners' threads spin between two tokens"
    )

    @field_validator("labels", mode="before")
    @classmethod
    def _labels(cls, value: Any) -> Any:
        found = _comma_list(value)
        try:
            return tuple(sorted(check_labels(found)))
        except RequestInvalid as error:
            raise ValueError(str(error)) from error

    @field_validator("keep_alive", "load_timeout", mode="before")
    @classmethod
    def _duration(cls, value: Any) -> str:
        text = str(value).strip()
        try:
            parse_duration(_with_unit(text))
        except RequestInvalid as error:
            raise ValueError("must be a duration such as 90s, 5m or 1h, or seconds") from error
        return text

    @property
    def keep_alive_s(self) -> float | None:
        """Seconds; None for ever."""
        return _seconds(self.keep_alive)

    @property
    def load_timeout_s(self) -> float | None:
        """Seconds; None for no limit."""
        return _seconds(self.load_timeout) or None


def _seconds(duration: str) -> float | None:
    found = parse_duration(_with_unit(duration))
    return None if found < 0 else found / 1e9


def _with_unit(text: str) -> str:
    return f"{text}s" if text.removeprefix("-").isdecimal() else text


class S3Keys(BaseModel):
    """Credentials of the object store; without them the usual AWS places are searched."""

    access_key: str = Field("", description="access key; default: the AWS environment, files, role")
    secret_key: str = Field("", description="secret key that belongs to it")
    session_token: str = Field("", description="session token, of temporary credentials")


def _comma_list(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


def _checked_networks(items: tuple[str, ...]) -> tuple[str, ...]:
    for item in items:
        try:
            ipaddress.ip_network(item, strict=False)
        except ValueError as error:
            raise ValueError(f"{item!r} is no address and no network") from error
    return items


class Redirect(BaseModel):
    """Whether clients exchange bytes with the object store by themselves, by signed URLs."""

    pull: Literal["auto", "always", "never"] = Field(
        "auto",
        description="downloads; auto: where the store's address is public: its `public_endpoint`, "
        "or it has no `endpoint`",
    )
    push: Literal["auto", "always", "never"] = Field("auto", description="the same for uploads")
    proxied: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="addresses or networks of clients that cannot reach the store"
    )
    sign_headers: Literal["strict", "host"] = Field(
        "strict", description="strict: uploads are held to their length and type; host: not"
    )

    @field_validator("proxied", mode="before")
    @classmethod
    def _split_list(cls, value: Any) -> Any:
        return _comma_list(value)

    @field_validator("proxied")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _checked_networks(value)


class Database(BaseModel):
    """How Postgres is used; SQLite needs none of it."""

    readers: int = Field(
        8, ge=1, le=256, description="connections of a server for reads; five more do the rest"
    )
    lock_s: float = Field(
        10.0, gt=0, description="a write waits so long for its turn, or a server that restarts"
    )
    statement_s: float = Field(
        60.0, ge=0, description="a statement that takes longer is ended; 0: never"
    )


class Conversion(BaseModel):
    """What converting and quantizing models may take; each runs in a process of its own."""

    jobs: int = Field(1, ge=1, le=64, description="models converted at once; others wait")
    threads: int = Field(0, ge=0, le=1024, description="threads of one of them; 0: all cores")
    memory_bytes: int = Field(2 << 30, ge=64 << 20, description="memory of one of them")
    quantizer: str = Field(
        "", description="a llama-quantize program, its name or path, used instead of the engine"
    )


def _data_folder() -> Path:
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "registry"


class Settings(BaseSettings):
    """All settings of the service. Frozen: a change needs a restart."""

    model_config = SettingsConfigDict(
        env_prefix="REGISTRY_", env_nested_delimiter="__", frozen=True, extra="ignore"
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(
        DEFAULT_PORT, ge=0, le=65535, description="port to listen on; 0: any free one"
    )
    data: Path = Field(default_factory=_data_folder, description="folder of the store and SQLite")
    database_url: str = Field("", description="default: SQLite in the data folder")
    storage_url: str = Field(
        "", description="s3://bucket/prefix?endpoint=…&region=…; default: the data folder"
    )
    external_url: str = Field("", description="URL clients use, if not the one they connect to")
    replica_url: str = Field(
        "", description="URL at which other replicas reach this one; default: its own address"
    )
    origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="browser origins allowed besides local ones; * in each is a wildcard"
    )
    upstream_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="hosts, host:ports or networks that pull and push may reach though private"
    )
    auth: bool = Field(False, description="callers need an account, except for what is public")
    blob_base_url: str = Field("", description="second host name of this service for direct URLs")
    tls_cert: str = Field(
        "", description="certificate file (PEM chain); read again when it changes"
    )
    tls_key: str = Field("", description="private key file of the certificate")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="addresses or networks whose X-Forwarded-For, -Proto, -Host are believed"
    )
    accel_redirect: str = Field(
        "", description="nginx's internal location of blobs/: trusted proxies send them themselves"
    )
    no_auth: bool = Field(False, description="listen on other than loopback without authentication")
    log_level: str = Field("info", description="debug, info, warning or error")
    log_json: bool = Field(False, description="log lines as JSON")
    direct_url_s: int = Field(86_400, description="life of a signed URL of a blob")
    cloud_disabled: bool = Field(False, description="refuse names of the hosted service")
    credentials: Credentials = Credentials()
    limits: Limits = Limits()
    retention: Retention = Retention()
    upstream: Upstream = Upstream()
    database: Database = Database()
    conversion: Conversion = Conversion()
    s3: S3Keys = S3Keys()
    redirect: Redirect = Redirect()
    worker: Worker = Worker()

    @field_validator("origins", "upstream_allow", "trusted_proxies", mode="before")
    @classmethod
    def _split_list(cls, value: Any) -> Any:
        return _comma_list(value)

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            try:
                ipaddress.ip_network(item, strict=False)
            except ValueError as error:
                raise ValueError(f"{item!r} is no address and no network") from error
        return value

    @field_validator("accel_redirect")
    @classmethod
    def _location(cls, value: str) -> str:
        if value and not re.fullmatch(r"(/[A-Za-z0-9._-]+)+/?", value):
            raise ValueError("must be a path such as /.blobs")
        return value.rstrip("/")

    @field_validator("external_url", "blob_base_url", "replica_url")
    @classmethod
    def _no_slash(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/")

    @field_validator("storage_url")
    @classmethod
    def _supported(cls, value: str) -> str:
        if value:
            try:
                S3Url.parse(value)
            except RequestInvalid as error:
                raise ValueError(str(error)) from error
        return value

    @field_validator("log_level")
    @classmethod
    def _level(cls, value: str) -> str:
        if value.lower() not in {"debug", "info", "warning", "error"}:
            raise ValueError("must be debug, info, warning or error")
        return value.lower()

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **given: Any) -> Self:
        """Read the environment; `given` (command-line options that are not None) win over it.

        Raises:
            SettingsInvalid: with every bad value at once.
        """
        env = dict(os.environ if environ is None else environ)
        values = _from_environment(cls, env)
        values.update({key: value for key, value in given.items() if value is not None})
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = [
                f"REGISTRY_{'__'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
                for item in error.errors()
            ]
            raise SettingsInvalid("\n".join(lines)) from error

    @property
    def is_loopback(self) -> bool:
        """Whether the service can be reached from this machine only."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")

    @property
    def sqlite_path(self) -> Path:
        """The database file used without `database_url`."""
        return self.data / "registry.db"


def unknown_names(environ: Mapping[str, str]) -> list[str]:
    """Variables that look like ours and mean nothing: perhaps misspelt, so they are told of."""
    known = set(_names(Settings, "REGISTRY_"))
    known |= {f"{name}_FILE" for name in known} | CLIENT_NAMES
    return sorted(name for name in environ if name.startswith("REGISTRY_") and name not in known)


def _names(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _names(kind, f"{prefix}{name.upper()}__")
        else:
            yield f"{prefix}{name.upper()}"


def _from_environment(cls: type[Settings], env: dict[str, str]) -> dict[str, Any]:
    """The values that the environment gives, by field."""
    for key in [key for key in env if key.startswith("REGISTRY_") and key.endswith("_FILE")]:
        try:
            env.setdefault(key.removesuffix("_FILE"), Path(env[key]).read_text().strip())
        except OSError as error:
            raise SettingsInvalid(f"{key}: {error.strerror}") from error
    _ollama_aliases(env)

    class _Source(EnvSettingsSource):
        def _load_env_vars(self) -> Mapping[str, str | None]:
            return {key.lower(): value for key, value in env.items()}

    return dict(_Source(cls)())


def _ollama_aliases(env: dict[str, str]) -> None:
    """Take `OLLAMA_*` variables where they mean the same and ours are not set."""
    host = env.get("OLLAMA_HOST", "").strip().strip("\"'")
    if host and "REGISTRY_HOST" not in env and "REGISTRY_PORT" not in env:
        scheme, _, rest = host.rpartition("://")
        name, _, port = rest.partition("/")[0].rpartition(":")
        if not port.isdigit():
            name, port = f"{name}:{port}".strip(":"), {"http": "80", "https": "443"}.get(scheme, "")
        env["REGISTRY_HOST"] = name.strip("[]") or "127.0.0.1"
        env["REGISTRY_PORT"] = port or str(DEFAULT_PORT)
    for theirs, ours in (
        ("OLLAMA_MODELS", "REGISTRY_DATA"),
        ("OLLAMA_ORIGINS", "REGISTRY_ORIGINS"),
        ("OLLAMA_KEEP_ALIVE", "REGISTRY_WORKER__KEEP_ALIVE"),
        ("OLLAMA_NUM_PARALLEL", "REGISTRY_WORKER__PARALLEL"),
        ("OLLAMA_MAX_LOADED_MODELS", "REGISTRY_WORKER__MAX_LOADED"),
        ("OLLAMA_MAX_QUEUE", "REGISTRY_WORKER__MAX_QUEUE"),
        ("OLLAMA_CONTEXT_LENGTH", "REGISTRY_WORKER__CONTEXT_LENGTH"),
        ("OLLAMA_LOAD_TIMEOUT", "REGISTRY_WORKER__LOAD_TIMEOUT"),
        ("OLLAMA_KV_CACHE_TYPE", "REGISTRY_WORKER__CACHE_TYPE"),
    ):
        if env.get(theirs):
            env.setdefault(ours, env[theirs])
    for theirs, ours in (
        ("OLLAMA_FLASH_ATTENTION", "REGISTRY_WORKER__FLASH_ATTENTION"),
        ("OLLAMA_GO_TEMPLATE", "REGISTRY_WORKER__GO_TEMPLATE"),
    ):
        if env.get(theirs):
            env.setdefault(ours, "on" if env[theirs].lower() in {"1", "t", "true"} else "off")
    if env.get("OLLAMA_NOPRUNE", "").lower() in {"1", "true"}:
        env.setdefault("REGISTRY_RETENTION__PRUNE", "false")
