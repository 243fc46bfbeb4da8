"""Comparisons of outputs as people write them: `y[0] - 2 * y[1] >= 0.5`, `0 <= y[cat] <= y[label]`.

comparison   sum (sign sum)+          signs all upwards (<, <=) or all downwards (>, >=)
sum          [+|-] product ((+|-) product)*
product      factor ((*|/) factor)*   linear: one factor with outputs at most, and none to divide by
factor       a number, y[NUMBER], y[NAME of a class], y[label], or a sum in brackets
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING

from qverify.errors import UsageError
from qverify.properties.formula import Linear, Variable
from qverify.properties.sums import Sum, compared, multiplied, number
from qverify.text.shortened import listed, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

LABEL = -1
"""The place of `y[label]`, which is known once a sample is."""
_TOKEN = re.compile(r"\s*(?:y\s*\[([^\[\]]*)\]|((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(<=|>=|==|!=|[-+*/()<>=]))")
_UP, _DOWN = ("<", "<="), (">", ">=")
_DEEPEST = 50
"""Brackets within brackets."""
_LONGEST = 60


def comparisons(text: str, where: str, classes: Sequence[str] = ()) -> list[Linear]:
    """The linear comparisons that a text states, all of which are to hold; a chain of signs states several.

    `classes`: the names of outputs, in their order. Raises UsageError, which begins with `where`.
    """
    return _Reader(text, f"{where}: {quoted(text[:_LONGEST])}", classes).read()


class _Reader:
    """Reads one text from left to right."""

    def __init__(self, text: str, where: str, classes: Sequence[str]):
        self.where, self.classes = where, classes
        self.tokens, self.place, self.depth = self._tokens(text), 0, 0

    def read(self) -> list[Linear]:
        sums, signs = [self._sum()], list[str]()
        while self._next() in (*_UP, *_DOWN, "=", "==", "!="):
            signs.append(self._take())
            sums.append(self._sum())
        if self._next():
            raise self._error(f"has {quoted(self._next())} where it should go on with a sign or end")
        if not signs:
            raise self._error("compares nothing; write for instance y[0] >= 0.5")
        if any(sign not in (*_UP, *_DOWN) for sign in signs):
            raise self._error("states an equation, which no family meets; write two comparisons, by <= and >=")
        if not (set(signs) <= set(_UP) or set(signs) <= set(_DOWN)):
            raise self._error("mixes signs of both directions; write two comparisons")
        found = [compared(sign, a, b) for sign, a, b in zip(signs, sums, sums[1:], strict=False)]
        linear = [one for one in found if isinstance(one, Linear)]
        if not all(one.terms for one in linear):
            raise self._error("compares nothing that depends on an output; name outputs as y[0], y[1]")
        return linear

    def _tokens(self, text: str) -> list[tuple[str, str]]:
        """Pairs of kind (output, number, sign) and text."""
        found, place = list[tuple[str, str]](), 0
        while text[place:].strip():
            match = _TOKEN.match(text, place)
            if match is None:
                rest = text[place:].strip()
                if re.match(r"x\s*\[", rest):
                    raise self._error("names inputs; comparisons are of outputs, and inputs are those of the samples")
                raise self._error(f"has {quoted(rest[:12])}, which is no number, no output as y[0], and no sign")
            kind = "output" if match[1] is not None else "number" if match[2] else "sign"
            found.append((kind, next(group for group in match.groups() if group is not None)))
            place = match.end()
        return found

    # -- sums -----------------------------------------------------------------------------------

    def _sum(self) -> Sum:
        found = Sum.number(Fraction(0))
        sign = self._take() if self._next() in ("+", "-") else "+"
        while True:
            found = found.plus(self._product().times(Fraction(1 if sign == "+" else -1)))
            if self._next() not in ("+", "-"):
                return found
            sign = self._take()

    def _product(self) -> Sum:
        found = self._factor()
        while self._next() in ("*", "/"):
            sign, other = self._take(), self._factor()
            if sign == "*":
                found = multiplied([found, other], self.where)
            elif other.terms or not other.constant:
                raise self._error("divides by an output or by 0; comparisons are linear")
            else:
                found = found.times(1 / other.constant)
        return found

    def _factor(self) -> Sum:
        if self.place >= len(self.tokens):
            raise self._error("ends where a number or an output is wanted")
        kind, text = self.tokens[self.place]
        self.place += 1
        if kind == "number":
            return Sum.number(number(text, self.where))
        if kind == "output":
            return Sum.variable(Variable(True, self._output(text.strip())))
        if text != "(":
            raise self._error(f"has {quoted(text)} where a number or an output is wanted")
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self._error(f"has more than {_DEEPEST} brackets within each other")
        found = self._sum()
        if self._next() != ")":
            raise self._error("does not close a bracket")
        self.place, self.depth = self.place + 1, self.depth - 1
        return found

    def _output(self, name: str) -> int:
        if re.fullmatch(r"\d{1,9}", name, re.ASCII):
            return int(name)
        if name == "label":
            return LABEL
        bare = name[1:-1] if len(name) > 1 and name[0] == name[-1] and name[0] in "'\"" else name
        if bare in self.classes:
            return self.classes.index(bare)
        known = f"classes are {listed(list(map(quoted, self.classes)), 8)}" if self.classes else "no classes are named"
        raise self._error(f"names the output {quoted(bare)}, but {known}; outputs also have numbers, from 0 on")

    def _next(self) -> str:
        kind, text = self.tokens[self.place] if self.place < len(self.tokens) else ("sign", "")
        return text if kind == "sign" else f"y[{text}]" if kind == "output" else text

    def _take(self) -> str:
        self.place += 1
        return self.tokens[self.place - 1][1]

    def _error(self, reason: str) -> UsageError:
        return UsageError(f"{self.where} {reason}.")
