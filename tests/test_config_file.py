"""``config.toml``: every setting with its default, equal to the code, and harmless to copy."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fetcher import __version__
from fetcher.cli.settings import RUN_KEYS, RUN_READERS, make_config
from fetcher.config import OPTIONS, Config
from fetcher.errors import ConfigError

PATH = Path(__file__).resolve().parents[1] / "config.toml"
TEXT = PATH.read_text(encoding="utf-8")
LIVE = tomllib.loads(TEXT)
SETTING = re.compile(r"(?P<off># )?(?P<key>[a-z][a-z-]*) = (?P<value>.*?) +# (?P<comment>\S.*)")
PROSE = re.compile(r"#( [^=]*)?|")
ALL_KEYS = {key.replace("_", "-") for key in (*OPTIONS, *RUN_KEYS)}


def settings() -> list[re.Match[str]]:
    return [match for line in TEXT.splitlines() if (match := SETTING.fullmatch(line))]


def off_settings() -> dict[str, Any]:
    lines = (f"{match['key']} = {match['value']}" for match in settings() if match["off"])
    return tomllib.loads("\n".join(lines))


def shipped(**more: Any) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in (LIVE | more).items()}


def test_the_first_line_says_how_it_is_used() -> None:
    first = TEXT.splitlines()[0]
    assert first.startswith("# ")
    assert "--config config.toml" in first
    assert "./fetcher.toml" in first


def test_every_line_is_a_setting_with_a_comment_or_prose() -> None:
    strange = [line for line in TEXT.splitlines() if not SETTING.fullmatch(line) and not PROSE.fullmatch(line)]
    assert strange == []
    assert [line for line in TEXT.splitlines() if len(line) > 120] == []


def test_every_key_of_the_code_stands_once_and_no_other() -> None:
    keys = [match["key"] for match in settings()]
    assert sorted(keys) == sorted(ALL_KEYS)
    assert {match["key"] for match in settings() if not match["off"]} == set(LIVE)


def test_the_file_is_the_default() -> None:
    assert Config.from_mapping(LIVE, extra=RUN_KEYS) == Config()


@pytest.mark.parametrize("key", RUN_KEYS)
def test_the_run_keys_have_their_defaults(key: str) -> None:
    name = key.replace("_", "-")
    if RUN_KEYS[key] is None:
        assert name not in LIVE, "TOML has no null: a line that is none by default is commented out"
    else:
        assert LIVE[name] == RUN_KEYS[key]
        assert type(LIVE[name]) is type(RUN_KEYS[key])


def test_a_setting_is_off_only_where_a_line_would_change_something() -> None:
    """None, what the environment gives otherwise, tables, and the User-Agent, whose default carries the version.

    The default of ``parsers`` is None too, but has a name, ``auto``.
    """
    default = Config()
    off = {match["key"] for match in settings() if match["off"]}
    none = {key for key, value in RUN_KEYS.items() if value is None}
    for key, (policy, field, _) in OPTIONS.items():
        value = getattr(getattr(default, policy) if policy else default, field)
        if (value is None and key != "parsers") or key in ("user_agent", "no_proxy", "hosts", "select_from"):
            none.add(key)
    assert off == {key.replace("_", "-") for key in none}


def test_the_comment_of_the_user_agent_tells_its_default() -> None:
    comment = next(match["comment"] for match in settings() if match["key"] == "user-agent")
    assert comment.endswith(Config().identity.user_agent.replace(__version__, "VERSION"))


def test_each_example_is_taken_when_its_line_is_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PATH.parent)
    for key, value in off_settings().items():
        name = key.replace("-", "_")
        if name in OPTIONS:
            assert Config.from_mapping({**LIVE, key: value}, extra=RUN_KEYS) != Config(), key
        else:
            assert RUN_READERS[name](value) == value != RUN_KEYS[name]


@pytest.mark.parametrize(
    ("key", "example"),
    [
        (match["key"], found[1])
        for match in settings()
        if not match["off"] and (found := re.search(r"such as (\[.*?\"\])", match["comment"]))
    ],
)
def test_each_example_in_a_comment_is_taken_too(key: str, example: str) -> None:
    value = tomllib.loads(f"x = {example}")["x"]
    assert isinstance(value, list)
    name = key.replace("-", "_")
    if name in RUN_KEYS:
        assert RUN_READERS[name](value) == value
    else:
        assert Config.from_mapping({**LIVE, key: value}, extra=RUN_KEYS) != Config()


def test_a_copy_changes_nothing_of_what_the_environment_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "a.example")
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    assert make_config(shipped(), []) == make_config({}, [])
    assert make_config(shipped(), []).proxy.http == "http://127.0.0.1:9"


def test_a_key_the_code_does_not_know_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'per-host'"):
        Config.from_mapping({**LIVE, "per-hots": 3}, extra=RUN_KEYS)
