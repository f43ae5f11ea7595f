"""Strangers' YAML becomes plain values, or one clear refusal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.spec.untrusted_yaml import MAX_DEPTH, load_documents, plain


def test_a_text_may_hold_several_documents():
    assert load_documents("a: 1\n---\n---\n- x\n") == [{"a": 1}, ["x"]]


def test_what_aliases_share_is_copied():
    (document,) = load_documents("a: &x {env: [1]}\nb: *x\n")
    document["a"]["env"].append(2)
    assert document["b"] == {"env": [1]}


def test_an_unquoted_date_is_the_text_that_it_is_to_kubernetes():
    assert load_documents("when: 2024-02-29") == [{"when": "2024-02-29"}]


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "a: &a [x]\nb: &b [" + "*a," * 99 + "]\nc: &c [" + "*b," * 99 + "]\nd: [" + "*c," * 99 + "]",
        "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2),
        "[" * 2_000,
        "1: a",
        "[a]: b",
        "a: .nan",
        "a: .inf",
        "a: 0x" + "f" * 20,
        "a: " + "9" * 5_000,
        "a: !!set {b}",
        "a: !!binary aGk=",
        "a: !!python/object/apply:os.system [id]",
        'a: "\\0"',
        'a: "\\ud800"',
        '"\\udfff": a',
        "a: 2001-99-99",
        "a: !!int ''",
        "a: !!bool maybe",
        "a: !!timestamp later",
        "a: b: c",
        "\x00",
        "a: *nowhere",
        "%YAML 9.9\n---\na: 1",
    ],
    ids=lambda text: text[:20],
)
def test_what_json_cannot_hold_is_refused(text):
    with pytest.raises(ValueError, match=r"^must (be YAML|hold|not hold|have text)"):
        load_documents(text)


PIECES = st.sampled_from(
    [
        *(
            "{",
            "}",
            "[",
            "]",
            ": ",
            ", ",
            "- ",
            "? ",
            "&a ",
            "*a",
            "|\n",
            "'",
            '"',
            "\\",
            "#",
            "\n",
            " ",
            "a",
            "1",
        ),
        *(
            "!!int ",
            "!!bool ",
            "!!float ",
            "!!timestamp ",
            "!!binary ",
            "!!set ",
            "!!omap ",
            "<<: ",
            ".nan",
            "=",
        ),
        *("~", "2001-99-99", "2001-01-01", "---\n", "\t", "\0", "\ud800", "\ufeff"),
    ]
)


@given(st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=30).map("".join)))
def test_whatever_the_text_it_is_plain_values_or_a_value_error(text):
    try:
        documents = load_documents(text)
    except ValueError:
        return
    assert json.loads(json.dumps(documents)) == documents


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_what_json_can_hold_passes_unchanged(value):
    assert plain(value) == value


@pytest.mark.parametrize(
    "text",
    [
        "a:\n  env: [1]\n  b: 2\n  env: [3]\n",
        "a: &a {c: 1}\nb:\n  <<: *a\n  d: 1\n\n  d:\n",
        '{"a": {\n"env": 1,\n"b": 2,\n"env": 3}}',
    ],
)
def test_a_key_that_is_in_a_mapping_twice_is_named_with_its_lines(text):
    with pytest.raises(
        ValueError, match=r"the key '(env|d)' is duplicated, in lines [24] and [46]: only one"
    ):
        load_documents(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        # A merged value that is overridden, and an empty one that is followed by a list.
        ("a: &a {c: 1}\nb: {<<: *a, c: 2}\n", {"a": {"c": 1}, "b": {"c": 2}}),
        ("a: &a {c: 1}\nd: &d {e: 1}\nb:\n  <<: *a\n  <<: *d\n",
         {"a": {"c": 1}, "d": {"e": 1}, "b": {"c": 1, "e": 1}}),
        ("command:\ncommand: [a]\n", {"command": ["a"]}),
    ],
)  # fmt: skip
def test_a_key_of_which_no_value_is_lost_may_be_there_twice(text, found):
    assert load_documents(text) == [found]


def test_json_may_be_indented_with_tabs():
    assert load_documents('\ufeff{\n\t"a": [\n\t\t1.5e3]}\n') == [{"a": [1500.0]}]
