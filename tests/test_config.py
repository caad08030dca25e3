"""The ``Config``: flat names in, small frozen policies out, and errors that name the key and the nearest one."""

from __future__ import annotations

import copy
import pickle
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.buckets import Shard
from fetcher.config import (
    OPTIONS,
    POLICIES,
    Accept,
    ClientCertificate,
    Config,
    ConfigOptions,
    Content,
    Follow,
    Header,
    HostPolicy,
    Identity,
    Limits,
    Parsing,
    ProxyPolicy,
    RetryPolicy,
    TLSPolicy,
    config_from,
    read_toml,
)
from fetcher.errors import ConfigError
from tests.test_options import VALUES


def refusal(**options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        Config.of(**options)
    return str(caught.value)


FULL: dict[str, Any] = {
    "concurrency": "7", "per_host": 2, "delay": "500ms", "rate": "30/m", "max_redirects": 0, "max_size": "1M",
    "truncate": True, "memory": "64M", "lookahead": 50, "limit": 9, "time_limit": "2m", "timeout": 5, "connect_timeout": 2,
    "read_timeout": 3, "retries": 0, "backoff": 0, "max_backoff": 9, "max_retry_after": "1h", "host_patience": 4,
    "accept": "2xx,404", "private_network": "allow", "user_agent": "me/1", "header": ["X: 1"],
    "user": "@a.example u:p", "cookie": ["@b.example s=1"], "cookie_file": "c.txt", "insecure": True,
    "ca_bundle": Path("ca.pem"), "cert": ["@a.example a.pem", "@[::1]:8443 b c.pem"], "key": Path("a.key"), "tls": "compatible",
    "retry_on": "429,9xx", "proxy": "p.example:1", "http_proxy": "h.example:2", "https_proxy": "https://s.example:3",
    "no_proxy": "a.example,b.example", "default_scheme": "http", "select": ["h=h1"], "select_from": ((("a",), ("x=h2",)),), "table": "t", "skip_when": "noai", "columns": "id,url",
    "keep_headers": "Server", "keep_body": True, "keep_messages": True, "parse": False, "with_": "meta, links", "text": "best", "text_format": "markdown", "preview": 3,
    "follow": True, "follow_css": "a.n", "depth": 3, "within": "site", "include": "*.html", "exclude": ["re:x"],
    "max_pages": 50, "max_pages_per_host": "9", "explode": "h", "dedupe": True, "follow_refresh": True, "head": True,
    "max_failed": "5%", "robots": False, "isolate": True, "parsers": 2, "parse_timeout": "500ms", "per_site": 9, "per_address": "8", "max_crawl_delay": "1m",
    "shard": "3/4", "hosts": {"a.example": {"per-host": 1, "delay": "2s"}, "*.B.example": {"host-patience": 5}},
}  # fmt: skip
"""Every option, with a value that is not its default."""


def test_every_option_lands_where_it_belongs() -> None:
    config = Config.of(**FULL)
    assert config.limits == Limits(
        concurrency=7,
        per_host=2,
        delay=0.5,
        rate=0.5,
        per_site=9,
        per_address=8,
        max_crawl_delay=60.0,
        max_redirects=0,
        max_size=2**20,
        truncate=True,
        memory=2**26,
        lookahead=50,
        rows=9,
        time=120.0,
    )
    assert (config.timeouts.total, config.timeouts.connect, config.timeouts.read) == (5.0, 2.0, 3.0)
    assert config.retry == RetryPolicy(0, 0.0, 9.0, 3600.0, 4.0, Accept(((429, 429), (900, 999))))
    assert config.accept.ranges == ((200, 299), (404, 404))
    assert config.address.private_network == "allow"
    assert config.identity.user_agent == "me/1"
    assert [(h.name, h.host) for h in config.identity.headers] == [
        ("X", None),
        ("Authorization", "a.example"),
        ("Cookie", "b.example"),
    ]
    assert config.identity.cookie_files == ("c.txt",)
    assert config.tls == TLSPolicy(
        False,
        "ca.pem",
        "compatible",
        (ClientCertificate("a.pem", "a.example"), ClientCertificate("b c.pem", "[::1]", 8443)),
        "a.key",
    )
    proxies = ProxyPolicy("http://p.example:1", "http://h.example:2", "https://s.example:3", ("a.example", "b.example"))
    assert config.proxy == proxies
    assert (config.default_scheme, config.select, config.preview) == ("http", ("h=h1",), 3)
    assert (config.skip_when, config.select_from) == (("noai",), ((("a",), ("x=h2",)),))
    assert (config.select_from, config.table, config.columns) == (((("a",), ("x=h2",)),), "t", ("id", "url"))
    assert config.content == Content(("meta", "links"), "best", "markdown")
    assert (config.keep_headers, config.keep_body, config.keep_messages) == (("server",), True, True)
    assert (config.parse, config.explode, config.shard) == (False, "h", Shard(3, 4))
    assert config.follow == Follow(True, "a.n", 3, "site", ("*.html",), ("re:x",), 50, 9)
    assert (config.dedupe, config.follow_refresh, config.head) == (True, True, True)
    assert (config.max_failed, config.robots) == ("5%", False)
    assert config.parsing == Parsing(isolate=True, parsers=2, timeout=0.5)
    assert config.hosts == (
        ("a.example", HostPolicy(per_host=1, delay=2.0)),
        ("*.b.example", HostPolicy(host_patience=5.0)),
    )
    assert {name.removesuffix("_") for name in FULL} == set(OPTIONS)


@pytest.mark.parametrize("name", FULL)
def test_every_option_changes_something_alone_and_in_kebab_case(name: str) -> None:
    key = name.removesuffix("_").replace("_", "-")
    assert Config.from_mapping({key: FULL[name]}) == Config.of(**{name: FULL[name]}) != Config()


def test_nothing_given_is_the_default() -> None:
    assert Config.of() == Config() == Config.from_mapping({})
    assert Config().limits.window == 1_000
    assert Config.of(concurrency=500).limits.window == 5_000


# What is wrong is named


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("per_hots", "unknown option 'per_hots' (did you mean 'per_host'?)"),
        ("per-hosts", "unknown option 'per-hosts' (did you mean 'per_host'?)"),
        ("body", "unknown option 'body' (did you mean 'keep_body'?)"),
        ("concurency", "unknown option 'concurency' (did you mean 'concurrency'?)"),
        ("useragent", "unknown option 'useragent' (did you mean 'user_agent'?)"),
        ("max_retryafter", "unknown option 'max_retryafter' (did you mean 'max_retry_after'?)"),
        ("zzz", "unknown option 'zzz'"),
        ("", "unknown option ''"),
    ],
)
def test_an_unknown_option_is_named_with_the_nearest(name: str, message: str) -> None:
    assert refusal(**{name: 1}) == message


def test_the_keywords_that_type_checkers_know_are_the_options() -> None:
    """By PEP 8: ``with`` is a word of Python's own, and no keyword of a call."""
    assert {name.removesuffix("_") for name in ConfigOptions.__annotations__} == set(OPTIONS)


def test_a_selection_is_a_mapping_or_rules() -> None:
    rules = Config.of(select={"price": ".price", "images[]": "img@src", "odd": "a[href='x=y']"}).select
    assert rules == ("price=.price", "images[]=img@src", "odd=a[href='x=y']")
    assert Config.from_mapping({"select": {"h": "h1"}}) == Config.of(select="h=h1") == Config.of(select=["h=h1"])
    assert Config.of(select={}).select == ()


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ({"a=b": "x"}, "select: 'a=b' is no name of a field"),
        ({1: "x"}, "select: 1 is no name of a field"),
        ({"a": ["x"]}, "select: a: ['x'] is no selector (such as '.price' or 'img@src')"),
    ],
)
def test_a_selection_that_is_none_is_named(select: Any, message: str) -> None:
    assert refusal(select=select) == message


@pytest.mark.parametrize("config", [{"per_host": 2}, "fetcher.toml", Path("fetcher.toml"), ["https://a.example/"], 3])
def test_what_is_no_config_is_named(config: Any) -> None:
    with pytest.raises(ConfigError, match=f"^config: a {type(config).__name__} is no Config: write Config") as caught:
        config_from(config, {})
    assert ("**options" in str(caught.value)) == isinstance(config, dict)


def test_a_config_and_options_beside_it_are_one_too_many() -> None:
    assert config_from(None, {}) == Config()
    assert config_from(None, {"per_host": 2}) == Config.of(per_host=2)
    assert config_from(Config.of(per_host=2), {}) == Config.of(per_host=2)
    with pytest.raises(ConfigError, match=r"^a config is given, and per_host, delay beside it"):
        config_from(Config(), {"per_host": 2, "delay": 1})


def test_the_callers_own_names_are_passed_over_and_suggested() -> None:
    assert Config.from_mapping({"log-format": "json", "summary": 1}, extra=["log_format", "summary"]) == Config()
    with pytest.raises(ConfigError, match=r"^f: unknown option 'log_fromat' \(did you mean 'log-format'\?\)$"):
        Config.from_mapping({"log_fromat": "json"}, extra=["log_format"], origin="f: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency 0: must be at least 1"),
        ({"per_host": "many"}, "per-host many: must be a whole number"),
        ({"timeout": 0}, "timeout 0: must be more than 0 seconds"),
        ({"private_network": "never"}, "private-network never: must be one of allow, listed, deny"),
        ({"dedupe": "yes"}, "dedupe yes: must be true or false"),
        ({"insecure": 1}, "insecure 1: must be true or false"),
        ({"select": 5}, "select 5: must be a text or a list of texts"),
        ({"select": [1]}, "select [1]: must be a text or a list of texts"),
        ({"no_proxy": [1]}, "no-proxy [1]: must be a text or a list of texts"),
        ({"header": [1]}, "header 1: must be 'Name: value'"),
        ({"header": "Cookie: s=1"}, "header: Cookie is a secret and must name its host: '@HOST Cookie: …'"),
        ({"retry_on": "6x"}, "retry-on 6x: must be a status code, range or class, such as 200-299,304 or 2xx"),
        ({"cert": "a.pem"}, "cert: a certificate is an identity and must name its host: '@HOST FILE'"),
        ({"cert": "@a.example"}, "cert @a.example: must be followed by a value, such as '@example.com Name: value'"),
        ({"cert": 5}, "cert 5: must be a text or a list of texts"),
        ({"tls": "old"}, "tls old: must be one of default, compatible"),
        ({"memory": "1M"}, "memory must be at least max-size (10485760 bytes)"),
        (
            {"proxy": "p.example:1", "private_network": "deny"},
            (
                "private-network=deny cannot be kept through a proxy, which resolves the names itself: "
                "drop the proxy, or use private-network=listed"
            ),
        ),
        ({"per-host": 1, "per_host": 2}, "per-host is given twice"),
    ],
)
def test_a_wrong_value_is_named_by_its_key(options: dict[str, Any], message: str) -> None:
    assert refusal(**options) == message


def test_untrusted_lists_reach_no_private_address() -> None:
    assert Config.for_untrusted().address.private_network == "deny"
    assert Config.for_untrusted(per_host=1).limits.per_host == 1
    with pytest.raises(ConfigError, match="through a proxy"):
        Config.for_untrusted(https_proxy="p.example:1")


def test_secrets_of_all_kinds_add_up() -> None:
    config = Config.of(header=["X: 1", Header("Y", "2", "a.example")], user="@a.example u:p", cookie="@a.example s=1")
    assert [header.name for header in config.identity.headers] == ["X", "Y", "Authorization", "Cookie"]


# TOML


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[limits]\na = 1", "[limits] is a table, and options stand flat: 'per-host = 6'"),
        ("[limits]\nper-host = 3", "[limits] is a table, and options stand flat: 'per-host = 6'"),
        ("[retries]", "[retries] is a table, and options stand flat: 'per-host = 6'"),
        ("header = {X = 'v'}", "[header] is a table, and options stand flat: 'per-host = 6'"),
        ("[[hosts]]\na = 1", "hosts: [{"),
        ("concurrency = inf", "concurrency inf: must be a number that is finite"),
        ("concurrency = nan", "concurrency nan: must be a number that is finite"),
        ("delay = nan", "delay nan: must be a number that is finite"),
        ("concurrency = true", "concurrency true: must be a whole number"),
        ("timeout = 07:32:00", "timeout datetime.time(7, 32): must be a number"),
        ("timeout = [1]", "timeout [1]: must be a number"),
        ("truncate = 'yes'", "truncate yes: must be true or false"),
        ("ca-bundle = 5", "ca-bundle 5: must be a text"),
        ("user-agent = ['x']", "user-agent ['x']: must be a text"),
        ("user = 5", "user 5: must be a text or a list of texts"),
        ("cookie-file = [5]", "cookie-file [5]: must be a text or a list of texts"),
        ("accept = true", "accept True: must be a status code, range or class, such as 200-299,304 or 2xx"),
        ("per-host = 2\nper_host = 3", "per-host is given twice"),
        ("max-size = '1G'", "memory must be at least max-size (1073741824 bytes)"),
    ],
)
def test_a_wrong_line_of_a_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "fetcher.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Config.load(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "fetcher.toml"
    path.write_text('per-host = 2\nmax_size = "1M"\naccept = [200, "4xx"]\nheader = ["X: ö"]\n', "utf-8")
    expected = Config.of(per_host=2, max_size="1M", accept="200,4xx", header="X: ö")
    assert Config.load(path) == Config.load(str(path)) == expected


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("a = ")
    (tmp_path / "latin.toml").write_bytes(b"a = '\xff'")
    for name, reason in [
        ("none.toml", "cannot read the configuration: No such file or directory"),
        (".", "cannot read the configuration: Is a directory"),
        ("bad.toml", "not valid TOML: Invalid value"),
        ("latin.toml", "not valid TOML: 'utf-8' codec"),
    ]:
        with pytest.raises(ConfigError) as caught:
            read_toml(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: {reason}")


@given(st.dictionaries(st.sampled_from(sorted(OPTIONS)), VALUES, max_size=5))
def test_whatever_is_given_makes_a_config_or_a_config_error(options: dict[str, Any]) -> None:
    try:
        config = Config.from_mapping(options, origin="here: ")
    except ConfigError as error:
        assert str(error).startswith("here: ")
        return
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(config) == hash(copy.deepcopy(config))


# A value


@pytest.mark.parametrize("config", [Config(), Config.of(**FULL)], ids=["default", "full"])
def test_a_config_is_a_value(config: Config) -> None:
    again = pickle.loads(pickle.dumps(config))
    assert again == config
    assert hash(again) == hash(config)
    assert copy.copy(config) == copy.deepcopy(config) == config
    assert len({config, again}) == 1
    for field in Config.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(config, field, None)
    with pytest.raises(AttributeError):
        config.limits.per_host = 9  # type: ignore[misc]  # that it is frozen is the point


def test_the_table_of_options_fits_the_policies() -> None:
    for policy, field, _ in OPTIONS.values():
        fields = POLICIES[policy].__struct_fields__ if policy else Config.__struct_fields__  # type: ignore[attr-defined]  # they are structs
        assert field in fields


def test_accepted_statuses() -> None:
    accept = Accept(((200, 299), (404, 404)))
    assert [status for status in (199, 200, 299, 300, 404, 405) if status in accept] == [200, 299, 404]


def test_the_user_agent_says_who_we_are() -> None:
    assert Identity().user_agent.startswith("fetcher/")
    assert "(+Python package fetcher-crawl)" in Identity().user_agent


@pytest.mark.parametrize(
    ("policy", "scheme", "expected"),
    [
        (ProxyPolicy(), "http", None),
        (ProxyPolicy(every="http://p:1"), "https", "http://p:1"),
        (ProxyPolicy(http="http://h:1", https="http://s:1"), "http", "http://h:1"),
        (ProxyPolicy(http="http://h:1", https="http://s:1"), "https", "http://s:1"),
        (ProxyPolicy(http="http://h:1"), "https", None),
        (ProxyPolicy(every="http://p:1", https="http://s:1"), "https", "http://p:1"),
        (ProxyPolicy(every="http://p:1", bypass=("b.example", "a.example")), "http", None),
        (ProxyPolicy(every="http://p:1", bypass=("a.example:81",)), "http", "http://p:1"),
    ],
)
def test_which_proxy_stands_before_a_host(policy: ProxyPolicy, scheme: str, expected: str | None) -> None:
    assert policy.before(scheme, "a.example", 80) == expected
    assert bool(policy) is any((policy.every, policy.http, policy.https))


def test_toml_as_python_reads_it_is_what_the_options_take() -> None:
    values = tomllib.loads("delay = 1\nrate = 2.5\nlimit = 3\nmax-failed = 4\naccept = 404\nno-proxy = ['a', 'b c']")
    config = Config.from_mapping(values)
    assert (config.limits.delay, config.limits.rate, config.limits.rows, config.max_failed) == (1.0, 2.5, 3, "4")
    assert config.proxy.bypass == ("a", "b", "c")
