"""JSON-LD as people write it: what is repaired, what is kept as its text, and that neither takes long."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.page.jsonld import MAX_CHARACTERS, MAX_DEPTH, read_jsonld

ONE = [{"a": 1}]


@pytest.mark.parametrize(
    ("block", "values"),
    [
        ('{"a":1}', ONE),
        (' \ufeff{"a": 1};\n', ONE),
        ('[{"a":1},{"b":2}]', [{"a": 1}, {"b": 2}]),
        ('{"@graph":[{"a":1}]}', [{"@graph": [{"a": 1}]}]),
        ('{"a":1,}', ONE),
        ('{"a":[1, 2, ],\n}', [{"a": [1, 2]}]),
        ('// said\n{"a":1 /* so */}', ONE),
        ('{"a":"http://x/*y*/ // z, }"}', [{"a": "http://x/*y*/ // z, }"}]),
        ('{"a":"http://x/*y*/ // z, }",}', [{"a": "http://x/*y*/ // z, }"}]),
        ('{"a":"x\\",}",}', [{"a": 'x",}'}]),
        ('<!-- {"a":1} -->', ONE),
        ('<!--\n{"a":1,}\n//-->', ONE),
        ('<!-- said, and done -->\n{"a":1}', ONE),
        ('{"a":1}<!-- so -->', ONE),
        ('{"a":"<!-- a -->", <!-- "b":2 -->}', [{"a": "<!-- a -->"}]),
        ('{"a":1, // said\n}', ONE),
        ('//<![CDATA[\n{"a":1}\n//]]>', ONE),
        ('/*<![CDATA[*/{"a":1}/*]]>*/', ONE),
        ('<![CDATA[{"a":1}]]>', ONE),
        ('{"a":"one\ntwo\tthree\x01"}', [{"a": "one\ntwo\tthree\x01"}]),
        ('{"a":1}{"b":2}', [{"a": 1}, {"b": 2}]),
        ('{"a":1},\n{"b":2};', [{"a": 1}, {"b": 2}]),
        ('{"a":"\\ud800x"}', [{"a": "\ufffdx"}]),
        ('{"a":NaN,"b":-Infinity,"c":1e999}', [{"a": None, "b": None, "c": None}]),
        ('{"a":123456789012345678901234567890}', [{"a": 123456789012345678901234567890.0}]),
        ("{&quot;a&quot;:1}", ONE),
    ],
)
def test_what_is_meant_is_read(block: str, values: list[Any]) -> None:
    assert read_jsonld([block]) == (values, False)


@pytest.mark.parametrize("block", ["{a:1}", '{"a":1', "window.x = {}", "null", '"text"', "<!-- -->", '{"a":1} and'])
def test_what_nobody_can_read_is_kept_as_it_is(block: str) -> None:
    assert read_jsonld([block, '{"a":1}']) == ([block, *ONE], True)


def test_empty_blocks_say_nothing() -> None:
    assert read_jsonld(["", " \n", ";"]) == ([], False)


def test_what_is_nested_too_deep_is_text() -> None:
    for depth in (MAX_DEPTH + 1, 500, 5_000):
        block = '{"a":' * depth + "1" + "}" * depth
        assert read_jsonld([block]) == ([block], True)
    block = '{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH
    assert read_jsonld([block]) == ([json.loads(block)], False)


def test_ten_megabytes_are_read_and_more_are_not() -> None:
    block = json.dumps([{"name": "x" * 1_000}] * (MAX_CHARACTERS // 1_100))
    assert read_jsonld([block])[1] is False
    assert read_jsonld([block, block]) == (json.loads(block), True)


@pytest.mark.parametrize(
    "piece", ['"\\"', "/*", "//", ", ", "<!--", "{", '{"a":', "[1,]", "{}", "\\", '"', "<![CDATA[", "&quot;", "]", "\n"]
)
def test_a_block_made_to_be_slow_is_not(piece: str) -> None:
    began = time.process_time()
    read_jsonld([piece * (1_000_000 // len(piece))])
    assert time.process_time() - began < 10


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_what_is_json_comes_back_as_it_was(value: dict[str, Any]) -> None:
    assert read_jsonld([json.dumps(value, ensure_ascii=False)]) == ([value], False)
    with_comma = json.dumps(value)[:-1] + ",}"
    if value:
        assert read_jsonld([with_comma]) == ([value], False)


@given(st.text(st.sampled_from('{}[]:,"\\/*<!->0eE+-.&;nul \n\ud800'), max_size=40))
def test_whatever_is_written_can_be_sent_on(block: str) -> None:
    values, _ = read_jsonld([block.replace("\ud800", "\\ud800")])
    msgspec.msgpack.encode(values)
    msgspec.json.encode(values)
