"""How a run's settings come together: flag > environment > configuration file > default.

``RUN_KEYS`` are the settings that belong to the command alone; all others are the ``Config``'s. What was given and
changes nothing is told before a run, for it was meant to change something. That is a warning and no error: the
environment is shared with other programs (Kubernetes sets ``FETCHER_PORT`` for a service called fetcher), and a
configuration file with other lists.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.request import getproxies_environment

import click
from click.core import ParameterSource

from fetcher.cli.redaction import keep
from fetcher.config import OPTIONS, Config, read_toml
from fetcher.config.options import (
    SECRET_HEADERS,
    flag,
    named,
    number_from,
    one_of,
    optional_seconds,
    parse_proxy,
    refused,
    texts,
)
from fetcher.errors import ConfigError, InvalidURL
from fetcher.sources import is_url_argument
from fetcher.sources.inputs import ListOptions, format_of, parse_carry, parse_delimiter, parse_encoding
from fetcher.sources.lines import list_name
from fetcher.terminal import Notices
from fetcher.transport.descriptors import descriptors_for_connections, most_concurrency, raise_descriptors
from fetcher.urls import parse, without_userinfo

__all__ = [
    "RUN_KEYS",
    "Lines",
    "at_most_failed",
    "concurrency_within_limits",
    "gather",
    "list_options",
    "make_config",
    "read_latency",
    "unknown_variables",
    "unused_list_options",
    "warn_of_unused",
]

RUN_KEYS: dict[str, Any] = {
    "from": None,
    "url_column": None,
    "delimiter": None,
    "encoding": None,
    "carry": None,
    "output": [],
    "format": None,
    "fresh": False,
    "job": None,
    "no_job": False,
    "retry_failed": False,
    "retry_codes": [],
    "verify": False,
    "since": None,
    "max_age": None,
    "body": "none",
    "ordered": False,
    "workers": "auto",
    "ray_address": None,
    "csv_bom": False,
    "part_rows": None,
    "extract": None,
    "middleware": [],
    "progress": None,
    "quiet": False,
    "verbose": 0,
    "log_format": "text",
    "summary": None,
    "metrics": None,
    "live": False,
    "live_at": None,
    "live_host": [],
    "live_control": False,
    "open": False,
}
"""The settings of ``fetcher crawl`` that are no ``Config``'s, with their defaults."""

_PREFIX = "FETCHER_"
_NO_OPTIONS = {"FETCHER_TRACEBACK", "FETCHER_SUITES", "FETCHER_SAMPLE", "FETCHER_PARSEL_STEP"}
"""Variables of ours that no option reads: of the command's errors, of the tests."""


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise refused(value, "must be a text")
    return value or None


def _place(value: Any) -> str:
    return _text(value) or "none"


def _format(value: Any) -> Any:
    if value == "json":
        raise refused(value, "did you mean jsonl, one JSON record a line?")
    return one_of("text", "jsonl", "csv", "parquet", "sqlite", "warc")(value)


def _metrics(value: Any) -> str | None:
    text = str(value) if type(value) is int else _text(value)
    if text is not None:
        from fetcher.report.metrics import MetricsPlace  # most runs tell none

        MetricsPlace.of(text)
    return text


def _live_at(value: Any) -> str | None:
    text = str(value) if type(value) is int else _text(value)
    if text is not None:
        from fetcher.live.place import LivePlace  # most runs have no page

        LivePlace.of(text)
    return text


def _workers(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("ray"):
        from fetcher.parallel.cluster import workers_of_ray

        if workers_of_ray(value) is None:
            raise refused(value, "must be a number of processes, at least 1, or auto, ray or ray:N")
        return value
    return value if value == "auto" else number_from(1, whole=True)(value)


_texts = texts


RUN_READERS: dict[str, Callable[[Any], Any]] = {
    "from": one_of("txt", "csv", "tsv", "jsonl", "parquet", "sqlite", "sitemap"),
    "url_column": _text,
    "delimiter": parse_delimiter,
    "encoding": parse_encoding,
    "carry": parse_carry,
    "output": _texts,
    "format": _format,
    "fresh": flag,
    "job": _text,
    "no_job": flag,
    "retry_failed": flag,
    "retry_codes": _texts,
    "verify": flag,
    "since": _text,
    "max_age": optional_seconds,
    "body": _place,
    "ordered": flag,
    "workers": _workers,
    "ray_address": _text,
    "csv_bom": flag,
    "part_rows": number_from(1, whole=True, optional=True),
    "extract": _text,
    "middleware": _texts,
    "progress": flag,
    "quiet": flag,
    "verbose": number_from(0, whole=True),
    "log_format": one_of("text", "json"),
    "summary": _text,
    "metrics": _metrics,
    "live": flag,
    "live_at": _live_at,
    "live_host": _texts,
    "live_control": flag,
    "open": flag,
}
"""How each of them is read, wherever it comes from."""

BOUND_LATER = frozenset({"user", "header", "cookie", "cert"})
"""Settings that may find their host only when the INPUTs are known."""


class Lines(click.ParamType):  # type: ignore[type-arg]  # generic in new click, plain in old
    """A text that may hold spaces: several of them in one environment variable stand on lines of their own."""

    name = "text"
    envvar_list_splitter = "\n"


def gather(context: click.Context, config_path: str | None) -> dict[str, Any]:
    """Return all settings given anywhere, the strongest first, those of the run in their own types.

    Raises ``ConfigError`` that names the file or the variable, for an unknown key and for a value of no use.
    """
    inputs = context.params.get("inputs") or context.params.get("urls") or ()
    keep(context.params, inputs)
    path = _config_file(config_path)
    given: dict[str, Any] = {}
    if path is not None:
        listed = read_toml(path)
        given = {key.replace("-", "_"): value for key, value in listed.items()}
        keep(given)
        _check(listed, f"{path}: ")
    variables = {param.name: param.envvar for param in context.command.params}
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        if source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
            given[name] = list(value) if isinstance(value, tuple) else value
        if source is ParameterSource.ENVIRONMENT and name not in BOUND_LATER and name in {*OPTIONS, *RUN_KEYS}:
            _check({name: given[name]}, f"{variables[name]}: ")
    return {key: _read_run_key(key, value) if key in RUN_KEYS else value for key, value in given.items()}


def _check(settings: Mapping[str, Any], origin: str) -> None:
    """Raise what a later check would of each setting by itself, with the place where it was found."""
    Config.from_mapping(_with_cookie_files(settings, origin), extra=RUN_KEYS, origin=origin, whole=False)
    for name, value in settings.items():
        key = name.replace("-", "_")
        if key in RUN_KEYS:
            _read_run_key(key, value, origin)


def _read_run_key(key: str, value: Any, origin: str = "") -> Any:
    try:
        return RUN_READERS[key](value)
    except ConfigError as error:
        raise named(f"{origin}{key.replace('_', '-')}", error) from None


def _config_file(given: str | None) -> Path | None:
    if given:
        return Path(given)
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    for path in (Path("fetcher.toml"), Path(home, "fetcher", "config.toml")):
        if path.is_file():
            return path
    return None


def make_config(settings: Mapping[str, Any], urls: Sequence[str]) -> Config:
    """Build the config: secrets find their host, proxies come from the environment where none is given.

    ``urls`` are the URL arguments when INPUT is nothing else: secrets without a host are for their one origin.
    """
    options = _with_cookie_files({key: value for key, value in settings.items() if key in OPTIONS})
    origin = _only_origin(urls, options.get("default_scheme", "auto"))
    if origin is not None:
        _bind_secrets(options, origin)
    proxies = getproxies_environment()
    if "proxy" not in options:
        for scheme in ("http", "https"):
            said = scheme if scheme in proxies else "all"  # as curl has it: ALL_PROXY behind the others
            if said in proxies and f"{scheme}_proxy" not in options:
                options[f"{scheme}_proxy"] = _environment_proxy(said, proxies[said])
    if "no_proxy" not in options and (bypass := proxies.get("no")):
        options["no_proxy"] = bypass
    return Config.from_mapping(options)


def list_options(settings: Mapping[str, Any]) -> ListOptions:
    """Return how the lists are read, of settings of the run in their own types."""
    carry = settings.get("carry")
    return ListOptions(
        settings.get("from"),
        settings.get("url_column"),
        settings.get("delimiter"),
        settings.get("encoding"),
        None if carry is None else tuple(carry),
    )


def _with_cookie_files(settings: Mapping[str, Any], origin: str = "") -> dict[str, Any]:
    """Tell cookies from files of them: without '=' it is a file, as curl has it."""
    options = dict(settings)
    cookies = options.pop("cookie", None)
    if cookies is not None:
        listed = _texts_of(f"{origin}cookie", cookies)
        files = [text for text in listed if "=" not in text and not text.startswith("@")]
        options["cookie"] = [text for text in listed if text not in files]
        if files:
            options["cookie_file"] = [*_texts_of(f"{origin}cookie-file", options.get("cookie_file", [])), *files]
    return options


def _texts_of(name: str, value: Any) -> list[str]:
    try:
        return _texts(value)
    except ConfigError as error:
        raise named(name, error) from None


def _environment_proxy(scheme: str, value: str) -> str | None:
    try:
        return parse_proxy(value)
    except ConfigError as error:
        raise ConfigError(f"{scheme.upper()}_PROXY in the environment: {error} (-x '' does without)") from None


def _only_origin(urls: Sequence[str], default_scheme: str) -> str | None:
    """Return ``@host:port`` when all INPUTs are URLs of one origin."""
    try:
        origins = {parse(url, default_scheme).origin for url in urls}
    except InvalidURL:
        return None
    if len(origins) != 1:
        return None
    _, host, port = origins.pop()
    return f"@{host}:{port}"


def _bind_secrets(options: dict[str, Any], origin: str) -> None:
    for key in ("user", "cookie", "header", "cert"):
        values = options.get(key)
        if not values:
            continue
        texts = [values] if isinstance(values, str) else values
        options[key] = [
            f"{origin} {text}"
            if not text.startswith("@")
            and (key != "header" or text.partition(":")[0].strip().lower() in SECRET_HEADERS)
            else text
            for text in texts
        ]


def read_latency(value: str) -> tuple[float, float]:
    """Read ``LOW-HIGH`` or one number, in milliseconds. Returns seconds."""
    low, dash, high = value.partition("-")
    try:
        bounds = [number_from(0)(text.strip()) / 1000 for text in (low, high if dash else low)]
    except ConfigError:
        raise named("latency", refused(value, "must be a range of milliseconds, such as 20-60")) from None
    if bounds[0] > bounds[1]:
        raise named("latency", refused(value, "must have the lower number first"))
    return bounds[0], bounds[1]


def at_most_failed(rule: str | None, failed: int, total: int) -> bool:
    """Whether ``failed`` of ``total`` rows is within ``--max-failed`` (a count or a percentage)."""
    if rule is None:
        return True
    if rule.endswith("%"):
        return failed * 100 <= float(rule[:-1]) * total
    return failed <= int(rule)


def concurrency_within_limits(concurrency: int) -> int:
    """Raise the soft limit of file descriptors, and return what it then allows of a concurrency."""
    raise_descriptors(concurrency)
    return most_concurrency(descriptors_for_connections(), concurrency)


def warn_of_unused(notices: Notices, inputs: Sequence[str] = (), settings: Mapping[str, Any] | None = None) -> None:
    """Tell of all of it."""
    for text in (*unknown_variables(os.environ), *unused_list_options(inputs, settings or {})):
        notices.say(f"warning: {text}", level="warning")


def unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield one sentence about the variables that begin with our prefix and that no command reads."""
    given = [name for name in environment if name.upper().startswith(_PREFIX) and name not in _NO_OPTIONS]
    known = _known_variables() if given else frozenset()
    shown = []
    for name in sorted(set(given) - known):
        import difflib  # for a misspelt name alone

        endings = [each.removeprefix(_PREFIX) for each in known]
        close = difflib.get_close_matches(name.upper().removeprefix(_PREFIX), endings, n=1)
        shown.append(f"{name} (did you mean {_PREFIX}{close[0]}?)" if close else name)
    if shown:
        yield f"no setting is called {', '.join(shown)}"


def unused_list_options(inputs: Sequence[str], settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence where columns are named and no input has columns, or a delimiter and none is a CSV."""
    named = [each for each in inputs if settings.get("from") or not is_url_argument(each)]
    lists = {each: format_of(each, settings.get("from")) for each in named}
    kinds = set(lists.values())
    name, kind = next(((without_userinfo(list_name(each)), kind) for each, kind in lists.items()), ("", ""))
    what = f"{name} is read as {kind}{_READ_AS.get(kind, '')}" if name else "no INPUT is a list"
    if not inputs:
        return
    for key, default, without in (("url_column", "url", {"txt", "sitemap"}), ("carry", None, {"txt"})):
        if settings.get(key) not in (None, default) and not kinds - without:
            yield f"{key.replace('_', '-')} is of no use here: {what}"
    if settings.get("delimiter") is not None and "csv" not in kinds:
        yield f"delimiter is of no use here: {what}"
    if settings.get("encoding") is not None and kinds == {"sitemap"}:
        yield f"encoding is of no use here: {what}, which says its own"


_READ_AS = {"txt": ", one URL a line (--from csv reads columns)"}


def _known_variables() -> frozenset[str]:
    import click

    from fetcher.cli.commands import COMMANDS, cli

    context = click.Context(cli)
    found: set[str] = set()
    for name in COMMANDS:
        command = cli.get_command(context, name)
        for param in command.params if command is not None else ():
            found.update([param.envvar] if isinstance(param.envvar, str) else param.envvar or ())
    return frozenset(found)
