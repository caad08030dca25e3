"""Every setting, as one frozen ``Config`` made of small policies.

The same flat names serve three callers: a command line flag ``--per-host``, a line ``per-host = 6`` of a TOML
file, and ``Config.of(per_host=6)``. ``OPTIONS`` says which policy each name lands in, ``ConfigOptions`` what each may
be, for editors and type checkers; a test holds the two against each other. The environment is read in ``cli/`` alone: a
library does not change behind its caller's back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, TypedDict, Unpack, get_args

import msgspec

from fetcher.buckets import Shard
from fetcher.config.options import (
    ClientCertificate,
    Header,
    flag,
    named,
    number_from,
    one_of,
    optional_seconds,
    optional_text,
    parse_bypass,
    parse_certificates,
    parse_columns,
    parse_content,
    parse_cookies,
    parse_headers,
    parse_max_failed,
    parse_names,
    parse_patterns,
    parse_proxy,
    parse_rate,
    parse_seconds,
    parse_select,
    parse_shard,
    parse_size,
    parse_statuses,
    parse_user_agent,
    parse_users,
    positive_seconds,
    texts,
    url_pattern,
)
from fetcher.config.policies import (
    Accept,
    AddressPolicy,
    Content,
    ContentPart,
    Follow,
    HostPolicy,
    Identity,
    Limits,
    Parsing,
    PrivateNetwork,
    ProxyPolicy,
    RetryPolicy,
    TextFormat,
    TextMethod,
    Timeouts,
    TLSPolicy,
    TLSProfile,
    Within,
)
from fetcher.errors import ConfigError, InvalidURL
from fetcher.urls import host_key

__all__ = [
    "OPTIONS",
    "Accept",
    "AddressPolicy",
    "ClientCertificate",
    "Config",
    "ConfigOptions",
    "Content",
    "Follow",
    "Header",
    "HostPolicy",
    "Identity",
    "LimitOptions",
    "Limits",
    "Parsing",
    "ProxyPolicy",
    "RetryPolicy",
    "TLSPolicy",
    "Timeouts",
    "config_from",
]

MAX_FILE_BYTES = 16 * 1024 * 1024  # a hundred thousand hosts with limits of their own have room

Amount: TypeAlias = float | str
"""A number, or the text a user would type: seconds (``"500ms"``, ``"2m"``), or requests per second (``"30/m"``)."""

Size: TypeAlias = int | str
"""Bytes, or a text such as ``"10M"``."""

Statuses: TypeAlias = int | str | Sequence[int | str]
"""Status codes: ``404``, ``"2xx,404"``, ``["200-299", 404]``."""

Texts: TypeAlias = str | Sequence[str]
"""One text, or a list of them."""

FileName: TypeAlias = str | os.PathLike[str]


class Config(msgspec.Struct, frozen=True):
    """Everything that changes what a run does. ``Config()`` is the polite default.

    >>> Config.of(per_host=2, timeout=5).timeouts.total
    5.0
    """

    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    retry: RetryPolicy = RetryPolicy()
    accept: Accept = Accept()
    address: AddressPolicy = AddressPolicy()
    identity: Identity = Identity()
    tls: TLSPolicy = TLSPolicy()
    proxy: ProxyPolicy = ProxyPolicy()
    parsing: Parsing = Parsing()
    content: Content = Content()
    follow: Follow = Follow()
    hosts: tuple[tuple[str, HostPolicy], ...] = ()
    robots: bool = True
    default_scheme: Literal["auto", "https", "http"] = "auto"
    select: tuple[str, ...] = ()
    select_from: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()
    table: str | None = None
    skip_when: tuple[str, ...] = ()
    explode: str | None = None
    preview: int = 0
    columns: tuple[str, ...] = ()
    keep_headers: tuple[str, ...] = ()
    keep_body: bool = False
    keep_messages: bool = False
    parse: bool = True
    dedupe: bool = False
    shard: Shard | None = None
    follow_refresh: bool = False
    head: bool = False
    max_failed: str | None = None

    @classmethod
    def of(cls, **options: Unpack[ConfigOptions]) -> Self:
        """Build a config from flat option names, the same as the command line's with ``_`` for ``-``, and ``with_``.

        Values are Python's own or the text a user would type (``max_size="10M"``). Raises ``ConfigError``
        with the name of the wrong option and the nearest valid one.
        """
        return cls._read(options, spelled="_")

    @classmethod
    def from_mapping(
        cls, options: Mapping[str, Any], *, extra: Iterable[str] = (), origin: str = "", whole: bool = True
    ) -> Self:
        """Build a config from a flat mapping, as a file has it; names of ``extra`` are the caller's, and passed over.

        Where it is not the ``whole`` of what is set, settings are not held against each other.
        """
        return cls._read(options, extra=extra, origin=origin, whole=whole)

    @classmethod
    def _read(
        cls,
        options: Mapping[str, Any],
        *,
        extra: Iterable[str] = (),
        origin: str = "",
        spelled: Literal["-", "_"] = "-",
        whole: bool = True,
    ) -> Self:
        passed = set(extra)
        policies: dict[str, dict[str, Any]] = {}
        top: dict[str, Any] = {}
        for name, value in options.items():
            key = name.replace("-", "_")
            if spelled == "_" and key == "with_":  # PEP 8, for what is a keyword
                key = "with"
            if key in passed:
                continue
            if isinstance(value, Mapping) and key not in ("hosts", "select"):
                raise ConfigError(f"{origin}[{name}] is a table, and options stand flat: 'per-host = 6'")
            if key not in OPTIONS:
                raise ConfigError(f"{origin}unknown option {name!r}{_nearest(name, [*OPTIONS, *passed], spelled)}")
            policy, field, convert = OPTIONS[key]
            try:
                converted = convert(value)
            except (ConfigError, ValueError, TypeError) as error:
                raise named(f"{origin}{key.replace('_', '-')}", error) from None
            target = policies.setdefault(policy, {}) if policy else top
            if field in target and not isinstance(converted, tuple):
                raise ConfigError(f"{origin}{key.replace('_', '-')} is given twice")
            target[field] = target[field] + converted if field in target else converted
        parts = {policy: POLICIES[policy](**fields) for policy, fields in policies.items()}
        config = cls(**parts, **top)
        if whole:
            config._check(origin)
        return config

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a TOML file of flat option names. Raises ``ConfigError`` naming the file and the key."""
        return cls.from_mapping(read_toml(path), origin=f"{path}: ")

    @classmethod
    def for_untrusted(cls, **options: Unpack[ConfigOptions]) -> Self:
        """Build a config for lists written by strangers: no private address is ever reached."""
        options.setdefault("private_network", "deny")
        return cls.of(**options)

    def _check(self, origin: str = "") -> None:
        if self.proxy and self.address.private_network == "deny":
            raise ConfigError(
                f"{origin}private-network=deny cannot be kept through a proxy, which resolves the names itself: "
                "drop the proxy, or use private-network=listed"
            )
        if self.limits.memory < self.limits.max_size:
            raise ConfigError(f"{origin}memory must be at least max-size ({self.limits.max_size} bytes)")


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file into a mapping. Raises ``ConfigError`` naming the file."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot read the configuration: {reason}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: over {MAX_FILE_BYTES // 1024 // 1024} MiB: this is no configuration")
    import tomllib  # most runs have no such file

    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # malformed, no UTF-8, a number of 5,000 digits, nested too deep
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def read_rule_groups(value: Any) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """Read a TOML file of ``[[pages]]``, each with ``url``, a pattern or several, and ``select``, its rules.

    A pattern is a glob for the whole URL, or a regular expression behind ``re:``. Returns pairs of regular expressions
    and rules.
    """
    if isinstance(value, tuple) and value:  # read before
        return tuple((tuple(texts(patterns)), tuple(texts(rules))) for patterns, rules in value)
    if not isinstance(value, str | os.PathLike) or not value:
        raise ConfigError(f"{value!r} is not the path of a TOML file")
    groups: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    listed = read_toml(os.fspath(value))
    pages = listed.pop("pages", None)
    if listed or not isinstance(pages, list) or not pages:
        raise ConfigError(f"{value}: is made of [[pages]] alone, each with url = '…' and select = ['NAME=RULE', …]")
    for number, page in enumerate(pages, 1):
        where = f"{value}: the {number}. [[pages]]"
        if not isinstance(page, dict) or set(page) != {"url", "select"}:
            raise ConfigError(f"{where}: has url and select, and nothing else")
        try:
            groups.append((tuple(map(url_pattern, texts(page["url"]))), tuple(texts(page["select"]))))
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    return tuple(groups)


def _nearest(name: str, known: Iterable[str], spelled: str = "-") -> str:
    import difflib  # for a misspelt name alone

    close = difflib.get_close_matches(name.replace("-", "_"), list(known), n=1)
    return f" (did you mean {close[0].replace('_', spelled)!r}?)" if close else ""


def config_from(config: Config | None, options: ConfigOptions, *, extra: Iterable[str] = ()) -> Config:
    """Return the config of a call that takes a ``Config`` or its options as keywords; ``extra`` are its other keywords.

    Raises ``ConfigError`` for what is neither, and for both.
    """
    if config is None:
        return Config._read(options, extra=extra, spelled="_")  # noqa: SLF001 - our own
    if not isinstance(config, Config):
        advice = (
            "Config.of(**options)" if isinstance(config, Mapping) else "Config.of(concurrency=3) or Config.load(path)"
        )
        raise ConfigError(
            f"config: a {type(config).__name__} is no Config: write {advice}, or give the options as keywords"
        )
    if options:
        names = ", ".join(options)
        raise ConfigError(
            f"a config is given, and {names} beside it: leave one of them out, or write Config.of({names}=…)"
        )
    return config


def changed_limits(config: Config, options: LimitOptions) -> tuple[Config, tuple[tuple[str, HostPolicy], ...]]:
    """Return a config with other limits, and what is new for single hosts. Raises ``ConfigError``.

    >>> changed_limits(Config.of(rate=5), {"concurrency": 7})[0].limits.rate
    5.0
    """
    for name in options:
        if name not in LimitOptions.__annotations__:
            allowed = ", ".join(LimitOptions.__annotations__)
            raise ConfigError(f"{name} cannot be changed while a stream runs: {allowed} can")
    said = Config.of(**options)
    fields = {name: getattr(said.limits, name) for name in ("concurrency", "rate") if name in options}
    hosts = dict(config.hosts)
    for name, policy in said.hosts:
        terms = {field: value for field, value in msgspec.structs.asdict(policy).items() if value is not None}
        hosts[name] = msgspec.structs.replace(hosts.get(name, HostPolicy()), **terms)
    limits = msgspec.structs.replace(config.limits, **fields)
    return msgspec.structs.replace(config, limits=limits, hosts=tuple(hosts.items())), said.hosts


def parse_hosts(value: Any) -> tuple[tuple[str, HostPolicy], ...]:
    """Read tables by host (``example.com``) or by domain (``*.example.com``: all hosts below it).

    >>> parse_hosts({"example.com": {"per-host": 2}})[0][1].per_host
    2
    """
    if isinstance(value, tuple) and all(isinstance(policy, HostPolicy) for _, policy in value):
        value = {name: msgspec.structs.asdict(policy) for name, policy in value}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{value!r} is no table of hosts: '[hosts.\"example.com\"]', then 'per-host = 2'")
    found: dict[str, HostPolicy] = {}
    for name, terms in value.items():
        domain = str(name).removeprefix("*.")
        try:
            key = str(name).removesuffix(domain) + host_key(domain)
        except InvalidURL:
            raise ConfigError(f"{name!r} is no host and no domain (such as example.com or *.example.com)") from None
        if not isinstance(terms, Mapping):
            raise ConfigError(f"{name!r} is followed by no table (such as {{per-host = 2}})")
        if key in found:
            raise ConfigError(f"{name!r} is given twice")
        found[key] = HostPolicy(**_terms(str(name), terms))
    return tuple(found.items())


def _terms(name: str, terms: Mapping[str, Any]) -> dict[str, Any]:
    known = HostPolicy.__struct_fields__
    read: dict[str, Any] = {}
    for option, value in terms.items():
        field = str(option).replace("-", "_")
        if field not in known:
            raise ConfigError(f"{name!r}: unknown option {option!r}{_nearest(str(option), known)}")
        if field in read:
            raise ConfigError(f"{name!r}: {option} is given twice")
        try:
            read[field] = None if value is None else OPTIONS[field][2](value)
        except (ConfigError, ValueError, TypeError) as error:
            raise named(f"{name!r}: {field.replace('_', '-')}", error) from None
    return read


Option: TypeAlias = tuple[str, str, Callable[[Any], Any]]

TEXT_METHODS = one_of(*get_args(TextMethod))
PARSERS = number_from(1, whole=True, optional=True)

OPTIONS: dict[str, Option] = {
    "concurrency": ("limits", "concurrency", number_from(1, whole=True)),
    "per_host": ("limits", "per_host", number_from(1, whole=True)),
    "delay": ("limits", "delay", parse_seconds),
    "rate": ("limits", "rate", parse_rate),
    "per_site": ("limits", "per_site", number_from(1, whole=True, optional=True)),
    "per_address": ("limits", "per_address", number_from(1, whole=True, optional=True)),
    "max_crawl_delay": ("limits", "max_crawl_delay", parse_seconds),
    "max_redirects": ("limits", "max_redirects", number_from(0, whole=True)),
    "max_size": ("limits", "max_size", parse_size),
    "truncate": ("limits", "truncate", flag),
    "memory": ("limits", "memory", parse_size),
    "lookahead": ("limits", "lookahead", number_from(1, whole=True)),
    "limit": ("limits", "rows", number_from(0, whole=True, optional=True)),
    "time_limit": ("limits", "time", optional_seconds),
    "timeout": ("timeouts", "total", positive_seconds),
    "connect_timeout": ("timeouts", "connect", positive_seconds),
    "read_timeout": ("timeouts", "read", positive_seconds),
    "retries": ("retry", "retries", number_from(0, whole=True)),
    "backoff": ("retry", "backoff", parse_seconds),
    "max_backoff": ("retry", "max_backoff", parse_seconds),
    "max_retry_after": ("retry", "max_retry_after", parse_seconds),
    "host_patience": ("retry", "host_patience", parse_seconds),
    "accept": ("accept", "ranges", parse_statuses),
    "retry_on": ("retry", "retry_on", lambda value: None if value is None else Accept(parse_statuses(value))),
    "private_network": ("address", "private_network", one_of(*get_args(PrivateNetwork))),
    "user_agent": ("identity", "user_agent", parse_user_agent),
    "header": ("identity", "headers", parse_headers),
    "user": ("identity", "headers", parse_users),
    "cookie": ("identity", "headers", parse_cookies),
    "cookie_file": ("identity", "cookie_files", lambda value: tuple(texts(value))),
    "insecure": ("tls", "verify", lambda value: not flag(value)),
    "ca_bundle": ("tls", "ca_bundle", optional_text),
    "cert": ("tls", "certificates", parse_certificates),
    "key": ("tls", "key", optional_text),
    "tls": ("tls", "profile", one_of(*get_args(TLSProfile))),
    "proxy": ("proxy", "every", parse_proxy),
    "http_proxy": ("proxy", "http", parse_proxy),
    "https_proxy": ("proxy", "https", parse_proxy),
    "no_proxy": ("proxy", "bypass", parse_bypass),
    "isolate": ("parsing", "isolate", flag),
    "parsers": ("parsing", "parsers", lambda value: None if value == "auto" else PARSERS(value)),
    "parse_timeout": ("parsing", "timeout", positive_seconds),
    "hosts": ("", "hosts", parse_hosts),
    "robots": ("", "robots", flag),
    "default_scheme": ("", "default_scheme", one_of("auto", "https", "http")),
    "select": ("", "select", parse_select),
    "select_from": ("", "select_from", read_rule_groups),
    "table": ("", "table", optional_text),
    "skip_when": ("", "skip_when", lambda value: tuple(map(str.lower, parse_names(value)))),
    "explode": ("", "explode", optional_text),
    "with": ("content", "parts", parse_content),
    "text": ("content", "text", lambda value: None if value is None else TEXT_METHODS(value)),
    "text_format": ("content", "text_format", one_of(*get_args(TextFormat))),
    "preview": ("", "preview", number_from(0, whole=True)),
    "columns": ("", "columns", parse_columns),
    "keep_headers": ("", "keep_headers", lambda value: tuple(map(str.lower, parse_names(value)))),
    "keep_body": ("", "keep_body", flag),
    "keep_messages": ("", "keep_messages", flag),
    "parse": ("", "parse", flag),
    "dedupe": ("", "dedupe", flag),
    "shard": ("", "shard", parse_shard),
    "follow": ("follow", "links", flag),
    "follow_css": ("follow", "css", optional_text),
    "depth": ("follow", "depth", number_from(0, whole=True, optional=True)),
    "within": ("follow", "within", one_of(*get_args(Within))),
    "include": ("follow", "include", parse_patterns),
    "exclude": ("follow", "exclude", parse_patterns),
    "max_pages": ("follow", "max_pages", number_from(1, whole=True)),
    "max_pages_per_host": ("follow", "max_pages_per_host", number_from(1, whole=True, optional=True)),
    "follow_refresh": ("", "follow_refresh", flag),
    "head": ("", "head", flag),
    "max_failed": ("", "max_failed", parse_max_failed),
}
"""Flat option name -> (policy, field, how a typed value is read). The command line adds its own few."""

POLICIES: dict[str, Callable[..., Any]] = {
    "limits": Limits, "timeouts": Timeouts, "retry": RetryPolicy, "accept": Accept, "address": AddressPolicy,
    "identity": Identity, "proxy": ProxyPolicy, "tls": TLSPolicy, "parsing": Parsing,
    "content": Content, "follow": Follow,
}  # fmt: skip


class LimitOptions(TypedDict, total=False):
    """What ``Fetcher.set_limits`` takes: options of a ``Config`` that can be changed while a stream runs."""

    concurrency: int
    rate: Amount | None
    hosts: Mapping[str, Mapping[str, Any]] | tuple[tuple[str, HostPolicy], ...]


class ConfigOptions(TypedDict, total=False):
    """What ``Config.of`` takes, and so do ``Fetcher``, ``fetch`` and ``fetch_all``: the command line's names with ``_``.

    ``keep_body`` keeps each page's body in ``Page.body``: in memory, as long as the page is. ``keep_messages`` keeps
    what was on the wire in ``messages``, for a web archive. ``columns`` and ``explode`` are for outputs.
    ``parse=False`` leaves ``title``, ``links`` and the robots ``meta`` out: without these a page is parsed only where
    something is taken out of it. ``with_`` is ``with`` elsewhere, which is a word of Python's own:
    ``with_="meta,links"``. ``select`` may also be a mapping, of names to selectors:
    ``{"price": ".price", "images[]": "img@src"}``.
    """

    concurrency: int
    per_host: int
    delay: Amount
    rate: Amount | None
    per_site: int | None
    per_address: int | None
    max_crawl_delay: Amount
    max_redirects: int
    max_size: Size
    truncate: bool
    memory: Size
    lookahead: int
    limit: int | None
    time_limit: Amount | None
    timeout: Amount
    connect_timeout: Amount
    read_timeout: Amount
    retries: int
    backoff: Amount
    max_backoff: Amount
    max_retry_after: Amount
    host_patience: Amount
    accept: Statuses
    retry_on: Statuses | None
    private_network: PrivateNetwork
    user_agent: str
    header: str | Header | Sequence[str | Header]
    user: Texts
    cookie: Texts
    cookie_file: Texts
    insecure: bool
    ca_bundle: FileName | None
    cert: str | ClientCertificate | Sequence[str | ClientCertificate]
    key: FileName | None
    tls: TLSProfile
    proxy: str | None
    http_proxy: str | None
    https_proxy: str | None
    no_proxy: Texts
    isolate: bool
    parsers: int | Literal["auto"] | None
    parse_timeout: Amount
    hosts: Mapping[str, Mapping[str, Any]] | tuple[tuple[str, HostPolicy], ...]
    robots: bool
    default_scheme: Literal["auto", "https", "http"]
    select: Texts | Mapping[str, str]
    select_from: FileName
    table: str | None
    skip_when: Texts
    explode: str | None
    with_: ContentPart | str | Sequence[ContentPart]
    text: TextMethod | None
    text_format: TextFormat
    preview: int
    columns: Texts
    keep_headers: Texts
    keep_body: bool
    keep_messages: bool
    parse: bool
    dedupe: bool
    shard: str | Shard | None
    follow: bool
    follow_css: str | None
    depth: int | None
    within: Within
    include: Texts
    exclude: Texts
    max_pages: int
    max_pages_per_host: int | None
    follow_refresh: bool
    head: bool
    max_failed: int | str | None
