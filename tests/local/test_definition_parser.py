"""The short way of parsing a definition finds what moto's own parser finds, once for each text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from antlr4 import InputStream  # type: ignore[import-untyped]
from antlr4.RuleContext import RuleContext  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from moto.stepfunctions.parser.asl.antlr.runtime.ASLIntrinsicLexer import ASLIntrinsicLexer
from moto.stepfunctions.parser.asl.antlr.runtime.ASLLexer import ASLLexer
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser, ASLParserException
from moto.stepfunctions.parser.asl.parse.intrinsic.intrinsic_parser import IntrinsicParser

from workflow.local import definition_parser

GOLDEN = Path(__file__).parents[1] / "contracts/golden/definition.json"
DEFINITION = re.sub(r"\$\{(\w+)\}", lambda found: "aws" if found[1] == "Partition" else "x", GOLDEN.read_text())

TINY = '{"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}'


@pytest.fixture(autouse=True)
def parsed_by_moto(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that moto's own parser was asked about."""
    asked: list[str] = []

    def parse(definition: str) -> Any:
        asked.append(definition)
        return AmazonStateLanguageParser.parse(definition)

    definition_parser.parse.cache_clear()
    monkeypatch.setattr(definition_parser, "_original_parse", parse)
    return asked


def test_the_tree_of_kelpies_definition_is_the_one_that_moto_finds(parsed_by_moto: list[str]) -> None:
    _, tree = definition_parser.parse(DEFINITION)
    _, expected = AmazonStateLanguageParser.parse(DEFINITION)
    assert shape(tree) == shape(expected)
    assert parsed_by_moto == []


def test_the_text_of_a_part_of_a_tree_is_the_one_that_antlr_puts_together() -> None:
    trees = definition_parser.tree_of(DEFINITION), definition_parser.tree_of_intrinsic(INTRINSICS[0])
    parts = [tree.getChild(0) for tree in trees]  # beside it there is the end
    for part in parts:
        assert definition_parser._text(part) == definition_parser._original_text(part) != ""
        parts += [child for child in part.children or () if isinstance(child, RuleContext)]
    assert len(parts) > 1000


def test_the_text_of_a_tree_of_moto_s_own_is_left_to_antlr() -> None:
    _, tree = AmazonStateLanguageParser.parse(TINY)
    assert definition_parser._text(tree) == definition_parser._original_text(tree) != ""


INTRINSICS = [
    json.loads(found)
    for found in sorted(set(re.findall(r'"States\.(?:[^"\\]|\\.)*"', DEFINITION)))
    if found.endswith(')"')
]


def test_the_intrinsic_functions_of_kelpies_definition_are_those_that_moto_finds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(definition_parser, "_original_parse_intrinsic", None)
    definition_parser.parse_intrinsic.cache_clear()
    for text in INTRINSICS:
        function, tree = definition_parser.parse_intrinsic(text)
        expected_function, expected_tree = IntrinsicParser.parse(text)
        assert shape(tree) == shape(expected_tree)
        assert type(function) is type(expected_function)
    assert len(INTRINSICS) > 30


@pytest.mark.parametrize(
    "text", ["States.Format('it\\'s {}', $.a)", "States.ArrayGetItem($.a[0], 1)", "States.JsonToString($)"]
)
def test_an_uncommon_intrinsic_function_is_left_to_moto(text: str) -> None:
    with pytest.raises(ValueError, match=r"no common token|none of the grammar's words"):
        definition_parser.tree_of_intrinsic(text)
    definition_parser.parse_intrinsic.cache_clear()
    _, tree = definition_parser.parse_intrinsic(text)
    assert shape(tree) == shape(IntrinsicParser.parse(text)[1])


WORDS = r"""$ $$ $.a $.a.b_1 $$.Execution.Id $.é $.a[0] $a ' 'a' '\' 0 -1 1.5 01 1a ( ) , . - true
States States.Format( Format UUID Nothing"""
LEXEMES = st.sampled_from([*WORDS.split(), " ", "\t"])


@given(st.lists(LEXEMES, max_size=8).map("".join))
def test_the_tokens_of_an_intrinsic_function_are_those_of_the_lexer(text: str) -> None:
    try:
        found = definition_parser._intrinsic_lexemes(text)
    except ValueError:  # moto's own parser is asked then
        return
    lexer = ASLIntrinsicLexer(InputStream(text))
    lexer.removeErrorListeners()
    assert found == [(token.type, token.text, token.start) for token in lexer.getAllTokens()]


def test_the_words_of_intrinsic_functions_have_the_types_that_the_lexer_gives_them() -> None:
    assert ASLIntrinsicLexer.modeNames == ["DEFAULT_MODE"]
    literals = definition_parser._intrinsic_literals()
    assert {"(", "States", "UUID"} <= set(literals)
    types = {text: ASLIntrinsicLexer(InputStream(text)).nextToken().type for text in literals if text != "$"}
    assert types == {text: number for text, number in literals.items() if text != "$"}  # "$" alone is a path


def shape(tree: Any) -> Any:
    """A parse tree as nested lists of rules and texts."""
    if not hasattr(tree, "children"):
        return tree.getText()
    return [type(tree).__name__, *(shape(child) for child in tree.children or ())]


def test_a_text_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    tree_of = definition_parser.tree_of
    monkeypatch.setattr(definition_parser, "tree_of", lambda text: parsed.append(text) or tree_of(text))
    assert definition_parser.parse(TINY) is definition_parser.parse(TINY)
    assert parsed == [TINY]


@pytest.mark.parametrize(
    "text",
    [
        '{"StartAt": "A",\n "States": {"A": {"Type": "Succeed", "Nonsense": 1}}}',
        '{"StartAt": "A",\n "States": {"A": {"Type": "Wait", "Seconds": 1 0, "End": true}}}',
        '{"StartAt": "A" ~,\n "States": {}}',
        "no JSON",
    ],
)
def test_what_is_wrong_is_said_as_moto_says_it(
    text: str, parsed_by_moto: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ASLParserException) as expected:
        AmazonStateLanguageParser.parse(text)
    with pytest.raises(ASLParserException) as raised:
        definition_parser.parse(text)
    # What could have come instead depends on what the parser has seen before.
    places = [[error.partition(" expecting ")[0] for error in found.value.errors] for found in (raised, expected)]
    assert places[0] == places[1] != []
    assert parsed_by_moto == [text]
    capsys.readouterr()  # the lexer of moto prints


def test_blanks_in_strings_stay() -> None:
    text = '{ "Comment": "a \\" b\\\\", "StartAt": "A  B", "States": { "A  B": { "Type": "Succeed" } } }'
    _, tree = definition_parser.parse(text)
    assert '"a \\" b\\\\","StartAt":"A  B"' in tree.getText()


TEXT = st.text(st.sampled_from("$.%{}[]()'\\\"/ aStates\u00e9\n") | st.characters(codec="utf-8"), max_size=12)
STARTS = st.sampled_from(["", "$", "$$", "$.", "$[", "$a", "{%", "States.", "States.Format(", "States"])
ENDS = st.sampled_from(["", "$", ".$", ".$ ", "%}", ")", "\\"])


@given(STARTS, TEXT, ENDS)
def test_a_string_has_the_type_that_the_lexer_gives_it(start: str, text: str, end: str) -> None:
    lexeme = json.dumps(start + text + end, ensure_ascii=False)
    try:
        expected = definition_parser.lexed_type(lexeme)
    except ValueError:  # moto's own parser is asked then
        with pytest.raises(ValueError, match="not one token"):
            definition_parser.token_type(lexeme)
        return
    assert definition_parser.token_type(lexeme) == expected


@pytest.mark.parametrize("number", ["0", "1", "12", "-1", "-0", "1.5", "-0.98", "1e5"])
def test_a_number_has_the_type_that_the_lexer_gives_it(number: str) -> None:
    assert definition_parser.token_type(number) == definition_parser.lexed_type(number)


@pytest.mark.parametrize("text", ["01", "1.", "-", "+1"])
def test_what_is_no_number_is_left_to_the_lexer(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(definition_parser, "lexed_type", lambda lexeme: asked.append(lexeme) or 0)
    definition_parser.token_type.cache_clear()
    definition_parser.token_type(text)
    definition_parser.token_type.cache_clear()
    assert asked == [text]


def test_the_lexer_is_asked_about_no_text_of_kelpies_definition_but_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    lexed = definition_parser.lexed_type
    monkeypatch.setattr(definition_parser, "lexed_type", lambda lexeme: asked.append(lexeme) or lexed(lexeme))
    definition_parser.token_type.cache_clear()
    definition_parser.tree_of(DEFINITION)
    assert len(asked) <= 20, asked


def test_the_words_and_signs_of_the_grammar_have_the_types_that_the_lexer_gives_them() -> None:
    assert ASLLexer.modeNames == ["DEFAULT_MODE"]
    literals = definition_parser._literals()
    assert len(literals) > 100
    assert {text: definition_parser.lexed_type(text) for text in literals} == literals
