"""Every setting: how a value is read, the small policies, and the one frozen ``Config`` made of them."""

from __future__ import annotations

from fetcher.config.config import (
    OPTIONS,
    POLICIES,
    Accept,
    AddressPolicy,
    ClientCertificate,
    Config,
    Content,
    Follow,
    Header,
    HostPolicy,
    Identity,
    Limits,
    Parsing,
    ProxyPolicy,
    RetryPolicy,
    Timeouts,
    TLSPolicy,
    changed_limits,
    config_from,
    read_toml,
)
from fetcher.config.keywords import ConfigOptions, LimitOptions

__all__ = [
    "OPTIONS",
    "POLICIES",
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
    "changed_limits",
    "config_from",
    "read_toml",
]
