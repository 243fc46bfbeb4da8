"""VNN-LIB 1.0 as the VNN-COMP benchmarks have it: `declare-const X_i Real`, `Y_i` for outputs, and assertions.

    (declare-const X_0 Real)
    (assert (<= X_0 0.5))
    (assert (or (and (<= Y_0 Y_1)) (and (<= Y_0 Y_2))))

Of SMT-LIB these are understood: `declare-const`, `declare-fun` without arguments, `assert`; in assertions `and or not
<= >= < > = + - *` and numbers. Everything else is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from qverify.errors import UsageError
from qverify.properties.formula import All, Formula, Linear, Some, Variable
from qverify.properties.sums import Sum, added, compared, multiplied, number, subtracted
from qverify.text.shortened import quoted
from qverify.vnnlib.query import Query, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from fractions import Fraction

_TOKEN = re.compile(r";[^\n]*|\s+|([()])|([^\s();]+)")
_NAME = re.compile(r"([XY])_(\d+)")
_SIGNS = {"<=": "<=", ">=": ">=", "<": "<", ">": ">", "=": "==", "==": "=="}
_IGNORED = {"set-logic", "set-info", "set-option", "check-sat", "get-model", "exit"}
_DEEPEST = 200
"""Brackets within brackets."""


class Atom(str):
    """A word, and the line it stands in."""

    line: int = 0

    @staticmethod
    def at(text: str, line: int) -> Atom:
        atom = Atom(text)
        atom.line = line
        return atom


class List(list[Any]):
    """What stands between brackets, and the line of the opening one."""

    line: int = 0


def parse(text: str, source: str) -> Query:
    """The query in a text. Raises UsageError, which names the line."""
    reader = _Reader(source)
    for part in _expressions(text, source):
        reader.read(part)
    return reader.query()


def _expressions(text: str, source: str) -> Iterator[List]:
    """The expressions in brackets that follow each other at the top."""
    open_: list[List] = []
    line = 1
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        assert match is not None  # the three kinds leave nothing out
        position = match.end()
        if match[1] == "(":
            if len(open_) > _DEEPEST:
                raise UsageError(f"{source}, line {line}: more than {_DEEPEST} brackets within each other.")
            inner = List()
            inner.line = line
            open_.append(inner)
        elif match[1] == ")":
            if not open_:
                raise UsageError(f"{source}, line {line}: a closing bracket without an opening one; remove it.")
            closed = open_.pop()
            if open_:
                open_[-1].append(closed)
            else:
                yield closed
        elif match[2] is not None:
            if not open_:
                raise UsageError(f"{source}, line {line}: {quoted(match[2][:40])} stands outside of brackets.")
            open_[-1].append(Atom.at(match[2], line))
        line += match[0].count("\n")
    if open_:
        raise UsageError(
            f"{source}, line {open_[0].line}: a bracket is never closed; the file may have been cut short."
        )


class _Reader:
    """Takes in one command after the other."""

    def __init__(self, source: str):
        self.source = source
        self.declared: dict[str, int] = {}
        self.parts: list[Formula] = []

    def query(self) -> Query:
        """The query of all that was read. Raises UsageError where variables are missing."""
        sizes = {}
        for letter, what in (("X", "input"), ("Y", "output")):
            numbers = {int(name[2:]) for name in self.declared if name[0] == letter}
            missing = next((i for i in range(len(numbers)) if i not in numbers), None)
            if not numbers or missing is not None:
                raise UsageError(
                    f"{self.source} declares no {what} {letter}_{missing or 0}; the {what}s are {letter}_0, {letter}_1"
                    " and so on, without a gap."
                )
            sizes[letter] = len(numbers)
        if not self.parts:
            raise UsageError(f"{self.source} asserts nothing; say what violates the property.")
        return Query(
            version="1.0",
            network="",
            inputs=(Tensor(name="X", type="real", shape=(sizes["X"],)),),
            output=Tensor(name="Y", type="real", shape=(sizes["Y"],)),
            formula=All(tuple(self.parts)),
        )

    def read(self, part: List) -> None:
        """One command at the top."""
        head = part[0] if part and isinstance(part[0], Atom) else ""
        if head in ("declare-const", "declare-fun"):
            self._declare(part)
        elif head == "assert" and len(part) == 2:
            self.parts.append(self._formula(part[1], False))
        elif head not in _IGNORED:
            raise self._error(
                part,
                f"{quoted(str(head)[:40])} is no command of VNN-LIB 1.0 that is supported: these"
                " are declare-const and assert",
            )

    def _declare(self, part: List) -> None:
        name, kind = part[1] if len(part) > 1 else "", part[-1]
        match = _NAME.fullmatch(name) if isinstance(name, Atom) else None
        if match is None or kind != "Real" or (part[0] == "declare-fun") != (len(part) == 4 and part[2] == []):
            raise self._error(
                part, "a declaration that is not of X_0, Y_0 and so on as Real; write (declare-const X_0 Real)"
            )
        if name in self.declared:
            raise self._error(part, f"{name} is declared again, first in line {self.declared[name]}; remove one")
        self.declared[str(name)] = part.line

    # -- formulas ---------------------------------------------------------------------------------

    def _formula(self, part: Any, negated: bool) -> Formula:
        if isinstance(part, Atom) and part in ("true", "false"):
            true = (part == "true") != negated
            return All(()) if true else Some(())
        head = part[0] if isinstance(part, List) and part and isinstance(part[0], Atom) else ""
        if head == "not" and len(part) == 2:
            return self._formula(part[1], not negated)
        if head in ("and", "or"):
            parts = tuple(self._formula(one, negated) for one in part[1:])
            return All(parts) if (head == "and") != negated else Some(parts)
        if head in _SIGNS and len(part) == 3:
            found = compared(_SIGNS[head], self._sum(part[1]), self._sum(part[2]))
            return _not(found) if negated else found
        raise self._error(
            part, "an assertion of and, or, not, <=, >=, <, >, = with the right number of arguments is wanted"
        )

    def _sum(self, part: Any) -> Sum:
        if isinstance(part, Atom):
            return self._word(part)
        head = part[0] if part and isinstance(part[0], Atom) else ""
        if head not in ("+", "-", "*") or len(part) < 2:
            raise self._error(part, "a sum of numbers and variables by +, - and * is wanted")
        parts = [self._sum(one) for one in part[1:]]
        if head == "*":
            return multiplied(parts, self._place(part))
        return added(parts) if head == "+" else subtracted(parts)

    def _word(self, word: Atom) -> Sum:
        if word in self.declared:
            return Sum.variable(Variable(word[0] == "Y", int(word[2:])))
        if word[:1].isalpha() or word[:1] == "_":
            raise self._error(
                word, f"{quoted(word[:40])} is not declared; declare it first, as (declare-const X_0 Real)"
            )
        value: Fraction = number(word, self._place(word))
        return Sum.number(value)

    def _place(self, part: Any) -> str:
        return f"{self.source}, line {part.line},"

    def _error(self, part: Any, reason: str) -> UsageError:
        return UsageError(f"{self.source}, line {part.line}: {reason}.")


def _not(formula: Formula) -> Formula:
    """The contrary of a comparison."""
    if isinstance(formula, Linear):
        terms = {variable: -factor for variable, factor in formula.terms.items()}
        return Linear(terms, -formula.limit, not formula.strict)
    parts = tuple(_not(part) for part in formula.parts)
    return Some(parts) if isinstance(formula, All) else All(parts)
