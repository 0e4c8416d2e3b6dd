"""Parsing of definitions: moto's grammar and its components, in half of its parser's time, and once for each text.

CreateStateMachine, PublishStateMachineVersion, ValidateStateMachineDefinition and the start of every execution parse a
definition. ANTLR reads it character by character, and decides with all the context where the grammar does not need it;
here each word of it is looked up, and the decisions are the simple ones (SLL). So are the intrinsic functions in it,
which have a grammar of their own. What is found that way is what the slow way finds; where it finds nothing, the slow
way is asked, and says what is wrong and in which line.

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
from antlr4.RuleContext import RuleContext  # type: ignore[import-untyped]
from antlr4.Token import CommonToken, Token  # type: ignore[import-untyped]
from moto.stepfunctions.parser.asl.antlr.runtime.ASLIntrinsicLexer import ASLIntrinsicLexer
from moto.stepfunctions.parser.asl.antlr.runtime.ASLIntrinsicParser import ASLIntrinsicParser
from moto.stepfunctions.parser.asl.antlr.runtime.ASLLexer import ASLLexer
from moto.stepfunctions.parser.asl.antlr.runtime.ASLParser import ASLParser
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.asl.parse.intrinsic.intrinsic_parser import IntrinsicParser
from moto.stepfunctions.parser.asl.parse.intrinsic.preprocessor import Preprocessor as IntrinsicPreprocessor
from moto.stepfunctions.parser.asl.parse.preprocessor import Preprocessor

from workflow.local.authorization import replace

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
# The lexemes that the functions of a definition mostly have, where nothing follows that could belong to them.
_INTRINSIC_KINDS = ("STRING", "CONTEXT_PATH_STRING", "JSON_PATH_STRING", "INT")
_INTRINSIC = re.compile(
    r"""\ *(?:
    (?P<STRING>'[^'\\\x00-\x1f]*')
    | (?P<CONTEXT_PATH_STRING>\$\$(?:\.\w+)+)(?=[ ,)])
    | (?P<JSON_PATH_STRING>\$(?:\.\w+)+)(?=[ ,)])
    | (?P<INT>-?(?:0|[1-9][0-9]*))(?=[ ,)])
    | (?P<literal>[A-Za-z]\w*|[(),.])
    )""",
    re.ASCII | re.VERBOSE,
)
HOOKS: tuple[str, ...] = (
    *(f"{_ASL}.antlr.runtime.ASLIntrinsicLexer.ASLIntrinsicLexer.{name}" for name in (*_INTRINSIC_KINDS, "DOLLAR")),
    f"{_ASL}.antlr.runtime.ASLIntrinsicLexer.ASLIntrinsicLexer.literalNames",
    f"{_ASL}.antlr.runtime.ASLIntrinsicLexer.ASLIntrinsicLexer.modeNames",
    f"{_ASL}.antlr.runtime.ASLIntrinsicParser.ASLIntrinsicParser.func_decl",
    f"{_ASL}.antlr.runtime.ASLLexer.ASLLexer.INT",
    f"{_ASL}.antlr.runtime.ASLLexer.ASLLexer.literalNames",
    f"{_ASL}.antlr.runtime.ASLLexer.ASLLexer.modeNames",
    *(f"{_ASL}.antlr.runtime.ASLLexer.ASLLexer.{name}" for name, _ in _STRINGS),
    f"{_ASL}.antlr.runtime.ASLParser.ASLParser.state_machine",
    f"{_ASL}.parse.asl_parser.AmazonStateLanguageParser.parse",
    f"{_ASL}.parse.intrinsic.intrinsic_parser.IntrinsicParser.parse",
    f"{_ASL}.parse.intrinsic.preprocessor.Preprocessor",
    f"{_ASL}.parse.preprocessor.Preprocessor",
)

_LEXEME = re.compile(r'"(?:[^"\\]|\\.)*"|[][{},:]|[^][{},:"\s]+')
_original_parse = AmazonStateLanguageParser.parse
_original_parse_intrinsic = IntrinsicParser.parse
_original_text = RuleContext.getText


def install() -> None:
    """Let moto parse the short way."""
    replace(AmazonStateLanguageParser, "parse", staticmethod(parse))
    replace(IntrinsicParser, "parse", staticmethod(parse_intrinsic))
    replace(RuleContext, "getText", _text)


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


@lru_cache(maxsize=1024)
def parse_intrinsic(text: str) -> Any:
    """The same of an intrinsic function such as `States.Format('{}', $.name)`."""
    try:
        tree = tree_of_intrinsic(text)
    except (ParseCancellationException, ValueError):
        return _original_parse_intrinsic(text)
    return IntrinsicPreprocessor().visit(tree), tree


def tree_of(definition: str) -> Any:
    """The parse tree of a definition, by the short way.

    Raises:
        ParseCancellationException, ValueError: it cannot be had that way.
    """
    json.loads(definition)  # what is between the lexemes is blank then
    found = [(token_type(one[0]), one[0], one.start()) for one in _LEXEME.finditer(definition)]
    return _parser(ASLParser, found).state_machine()


def tree_of_intrinsic(text: str) -> Any:
    """The parse tree of an intrinsic function, by the short way.

    Raises:
        ParseCancellationException, ValueError: it cannot be had that way.
    """
    return _parser(ASLIntrinsicParser, _intrinsic_lexemes(text)).func_decl()


def _parser(kind: Any, found: list[tuple[int, str, int]]) -> Any:
    """A parser of tokens, of which this is type, text and place, that takes simple decisions and mends nothing."""
    end = found[-1][2] + len(found[-1][1]) if found else 0
    tokens = [_token(*one) for one in (*found, (Token.EOF, "<EOF>", end))]
    parser = kind(CommonTokenStream(ListTokenSource(tokens)))
    parser.removeErrorListeners()
    parser._interp.predictionMode = PredictionMode.SLL
    parser._errHandler = BailErrorStrategy()
    return parser


def _token(kind: int, text: str, start: int) -> CommonToken:
    token = CommonToken((None, None), kind, start=start, stop=start + len(text) - 1)
    token.text, token.line, token.column = text, 1, start  # lines are for errors, which are said elsewhere
    return token


def _text(self: Any) -> str:
    """The text of a part of a tree: that of its tokens, without `<EOF>`; ANTLR puts it together part by part.

    moto asks for that of the whole definition, for the messages of errors that there are none of.
    """
    stream = self.parser.getTokenStream()
    if not isinstance(stream.tokenSource, ListTokenSource):
        return str(_original_text(self))
    tokens = stream.tokens[self.start.tokenIndex : self.stop.tokenIndex + 1] if self.getChildCount() else ()
    return "".join([token.text for token in tokens])


def _intrinsic_lexemes(text: str) -> list[tuple[int, str, int]]:
    """Types, texts and places of the tokens of an intrinsic function. Raises: ValueError, when one is not common."""
    found, place = [], 0
    while place < len(text):
        lexeme = _INTRINSIC.match(text, place)
        if lexeme is None:
            raise ValueError(f"no common token at {place} of {text}")
        kind, place = str(lexeme.lastgroup), lexeme.end()
        literal = kind == "literal"
        type_ = _intrinsic_literals().get(lexeme[kind]) if literal else getattr(ASLIntrinsicLexer, kind)
        if type_ is None:
            raise ValueError(f"{lexeme[kind]} is none of the grammar's words")
        found.append((int(type_), lexeme[kind], lexeme.start(kind)))
    return found


@cache
def _literals() -> dict[str, int]:
    """The token types of the words and signs of the grammar, which come before the types with any text."""
    return {name[1:-1]: number for number, name in enumerate(ASLLexer.literalNames) if name.startswith("'")}


@cache
def _intrinsic_literals() -> dict[str, int]:
    """The same of the grammar of intrinsic functions, which come after three types of paths."""
    names = ASLIntrinsicLexer.literalNames[1:]
    return {name[1:-1]: number for number, name in enumerate(names, ASLIntrinsicLexer.DOLLAR)}


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
