"""Parsing of definitions: moto's grammar and its components, in half of its parser's time, and once for each text.

CreateStateMachine, PublishStateMachineVersion, ValidateStateMachineDefinition and the start of every execution parse a
definition. ANTLR reads it character by character, and decides with all the context where the grammar does not need it;
here each word of it is looked up, and the decisions are the simple ones (SLL). What is found that way is what the slow
way finds; where it finds nothing, the slow way is asked, and says what is wrong and in which line.

Source: ANTLR 4 API documentation, PredictionMode.SLL: it gives the parse tree of LL, or a syntax error (read 2026-11).
"""

from __future__ import annotations

import json
import re
from functools import cache, lru_cache
from typing import Any

from antlr4 import CommonTokenStream, InputStream  # type: ignore[import-untyped]
from antlr4.atn.PredictionMode import PredictionMode  # type: ignore[import-untyped]
from antlr4.error.Errors import ParseCancellationException  # type: ignore[import-untyped]
from antlr4.error.ErrorStrategy import BailErrorStrategy  # type: ignore[import-untyped]
from antlr4.ListTokenSource import ListTokenSource  # type: ignore[import-untyped]
from antlr4.Token import CommonToken, Token  # type: ignore[import-untyped]
from moto.stepfunctions.parser.asl.antlr.runtime.ASLLexer import ASLLexer
from moto.stepfunctions.parser.asl.antlr.runtime.ASLParser import ASLParser
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.asl.parse.preprocessor import Preprocessor

_ASL = "moto.stepfunctions.parser.asl"
# The lexer's rules for a string, in its order, of which the first that fits is taken; one with escapes is left to it.
_STRINGS = (
    ("STRINGDOLLAR", r".*\.\$"),
    ("STRINGPATHCONTEXTOBJ", r"\$\$.*"),
    ("STRINGPATH", r"\$|\$[.[].*"),
    ("STRINGVAR", r"\$[a-zA-Z_].*"),
    ("STRINGINTRINSICFUNC", r"States\..+\(.*\)"),
    ("STRINGJSONATA", r"\{%.*%\}"),
    ("STRING", r".*"),
)
_STRING = re.compile('"(?:' + "|".join(f"(?P<{name}>{rule})" for name, rule in _STRINGS) + ')"')
_UNESCAPED = re.compile(r'"[^"\\\x00-\x1f]*"')
_INTEGER = re.compile(r"0|[1-9][0-9]*")
HOOKS: tuple[str, ...] = (
    f"{_ASL}.antlr.runtime.ASLLexer.ASLLexer.INT",
    f"{_ASL}.antlr.runtime.ASLLexer.ASLLexer.literalNames",
    f"{_ASL}.antlr.runtime.ASLLexer.ASLLexer.modeNames",
    *(f"{_ASL}.antlr.runtime.ASLLexer.ASLLexer.{name}" for name, _ in _STRINGS),
    f"{_ASL}.antlr.runtime.ASLParser.ASLParser.state_machine",
    f"{_ASL}.parse.asl_parser.AmazonStateLanguageParser.parse",
    f"{_ASL}.parse.preprocessor.Preprocessor",
)

_LEXEME = re.compile(r'"(?:[^"\\]|\\.)*"|[][{},:]|[^][{},:"\s]+')
_original_parse = AmazonStateLanguageParser.parse


@lru_cache(maxsize=16)
def parse(definition: str) -> Any:
    """moto's program and parse tree of a definition. They hold nothing of an execution, so all may share them.

    Raises:
        ASLParserException: what is wrong with it.
    """
    try:
        tree = tree_of(definition)
    except (ParseCancellationException, ValueError):
        return _original_parse(definition)
    return Preprocessor().visit(tree), tree


def tree_of(definition: str) -> Any:
    """The parse tree of a definition, by the short way.

    Raises:
        ParseCancellationException, ValueError: it cannot be had that way.
    """
    json.loads(definition)  # what is between the lexemes is blank then
    parser: Any = ASLParser(CommonTokenStream(ListTokenSource(_tokens(definition))))
    parser.removeErrorListeners()
    parser._interp.predictionMode = PredictionMode.SLL
    parser._errHandler = BailErrorStrategy()
    return parser.state_machine()


def _tokens(definition: str) -> list[CommonToken]:
    found = [(token_type(one[0]), one[0], one.start()) for one in _LEXEME.finditer(definition)]
    return [_token(*one) for one in (*found, (Token.EOF, "<EOF>", len(definition)))]


def _token(kind: int, text: str, start: int) -> CommonToken:
    token = CommonToken((None, None), kind, start=start, stop=start + len(text) - 1)
    token.text, token.line, token.column = text, 1, start  # lines are for errors, which are said elsewhere
    return token


@cache
def _literals() -> dict[str, int]:
    """The token types of the words and signs of the grammar, which come before the types with any text."""
    return {name[1:-1]: number for number, name in enumerate(ASLLexer.literalNames) if name.startswith("'")}


@lru_cache(maxsize=8192)
def token_type(lexeme: str) -> int:
    """The type that moto's lexer gives a string, a number or a sign: it has one mode, so nothing around it matters.

    Raises:
        ValueError: to the lexer it is not one token.
    """
    known = _literals().get(lexeme)
    if known is not None:
        return known
    if _INTEGER.fullmatch(lexeme):
        return int(ASLLexer.INT)
    found = _STRING.fullmatch(lexeme) if _UNESCAPED.fullmatch(lexeme) else None
    return int(getattr(ASLLexer, str(found.lastgroup))) if found else lexed_type(lexeme)


def lexed_type(lexeme: str) -> int:
    """The same, as the lexer says it, which learns its grammar letter by letter meanwhile. Raises: ValueError."""
    lexer = ASLLexer(InputStream(lexeme))
    lexer.removeErrorListeners()
    token = lexer.nextToken()
    if token.text != lexeme:
        raise ValueError(f"{lexeme} is not one token")
    return int(token.type)
