"""One question to the product, and its answers held against members and files."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import qverify
from qverify.errors import InternalError, QVerifyError
from tests.support.toolchain import outputs as run_in_onnxruntime

from . import files, integers
from .exact import evaluate, rational
from .families import Family
from .members import Search, margin, outputs
from .models import Case
from .plans import Plan

Array = np.ndarray
Worst = tuple[Fraction, Any, Family]
"""The margin of a member, the member, and its family."""


@dataclass
class Tally:
    """What was asked and found, by form; `broken` in words, with what it takes to see it again."""

    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    members: Counter[str] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    seed: Any = None

    def report(self, where: str, what: str) -> None:
        """Keep it, once a round and place."""
        if not any(line.startswith(f"seed {self.seed}: {where}: ") for line in self.broken):
            self.broken.append(f"seed {self.seed}: {where}: {what}")

    def total(self, status: str = "") -> int:
        return sum(n for (_, found), n in self.verdicts.items() if status in ("", found))

    def lines(self) -> list[str]:
        """One a form: verdicts, and how many of each kind."""
        found = []
        for form in sorted({form for form, _ in self.verdicts}):
            counts = {s.value: self.verdicts[form, s.value] for s in qverify.Status}
            asked = sum(counts.values())
            rest = ", ".join(f"{n} {name}" for name, n in counts.items())
            found.append(f"{form}: {asked} verdicts, {rest}, {self.members[form]} members")
        found += [f"file {form}: {count} samples" for form, count in sorted(self.files.items())]
        return found


@dataclass
class Question:
    """A case, how it is asked, and the families (one, or two where BatchNormalization may be folded or not)."""

    case: Case
    radii: Any
    options: Any
    families: list[Family]
    form: str
    exact: bool  # the product's numbers are those of the families, to the last digit
    network: Any = None

    def ask(self, rows: Array, labels: Array, tally: Tally) -> list[Any]:
        """The product's verdicts; none where it refuses the question, or contradicts itself, which is reported."""
        try:
            return qverify.verify(self.network, rows.astype(np.float64), labels, self.radii, self.options)
        except InternalError as error:
            tally.report(self.form, f"InternalError: {error}")
        except QVerifyError as error:
            tally.refused[f"{self.form}: {type(error).__name__} {str(error)[:60]}"] += 1
        return []


def labels_of(case: Case) -> Array:
    """(N,): classes by exact outputs."""
    return np.array([max(enumerate(evaluate(case.model, row)), key=lambda pair: pair[1])[0] for row in case.x])


def mass(plan: Plan, x: Array) -> float:
    """How large the numbers are that a forward pass adds up: what float32 rounds is a share of it."""
    values: list[Array] = []
    for layer in plan.layers:
        read = [values[j] for j in layer.inputs]
        if layer.kind == "sum":
            weight, bias, shift = (abs(a) for a in layer.floats)
            entries = np.append(read[0], 0.0)[layer.entry] + shift[:, None, None]
            values.append(((weight[:, None] * entries).sum(2) + bias[:, None]).ravel())
        elif layer.kind == "max":
            values.append(np.append(read[0], 0.0)[layer.entry].max(1))
        else:
            values.append(sum(read) if read else abs(x))  # type: ignore[arg-type]
    return float(values[-1].max())


def against_members(
    question: Question, verdicts: list[Any], samples: Array, rng: Any, tally: Tally, starts: int = 6
) -> list[Worst]:
    """Search for the worst member of every sample; what contradicts a verdict is reported. The worst of each."""
    found = []
    for verdict, row in zip(verdicts, samples, strict=True):
        tally.verdicts[question.form, verdict.status.value] += 1
        worst: Any = None
        for family in question.families:
            search = Search(family, rng)
            _, member = search.worst(row.ravel().astype(float), verdict.label, starts)
            tally.members[question.form] += starts * 6
            value = margin(outputs(family, rational(row).ravel(), member), verdict.label)
            if worst is None or value < worst[0]:
                worst = (value, member, family)
        found.append(worst)
        check_member(question, verdict, worst[0], mass(worst[2].plan, row.ravel().astype(float)), tally)
    return found


def check_member(question: Question, verdict: Any, value: Fraction, size: float, tally: Tally) -> None:
    """A member of margin `value` against the verdict."""
    slack = Fraction(0) if question.exact else Fraction(1e-9 * size)
    if verdict.status is qverify.Status.VERIFIED and value + slack <= 0:
        tally.report(question.form, f"verified sample {verdict.index} broken by a member of margin {float(value):.6g}")
    elif np.isfinite(verdict.margin_lower) and Fraction(verdict.margin_lower) > value + slack:
        text = f"sample {verdict.index}, {verdict.status.value} by {verdict.method}: margin_lower"
        tally.report(question.form, f"{text} {verdict.margin_lower!r} above a member's margin {float(value)!r}")


def check_witness(question: Question, verdict: Any, row: Array, tally: Tally) -> None:
    """A falsified sample's witness is wrong in rationals, and its input and dense weights are within the radii."""
    witness = verdict.witness()
    if witness is None:
        return tally.report(question.form, f"falsified sample {verdict.index} has no witness")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "w.onnx")
        qverify.save(witness.network, path, dtype="float64")
        model = onnx.load(path)
    entry = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    out = evaluate(model, np.asarray(witness.input).reshape(entry))
    value = margin(out, verdict.label)
    family = question.families[0]
    if value > Fraction(1e-12 * (1 + mass(family.plan, row.ravel().astype(float)))):
        tally.report(question.form, f"the witness of sample {verdict.index} is right, margin {float(value):.6g}")
    if not question.exact or family.kept:
        return None  # the product's radii are a little larger than those of a quantiser
    moved = abs(rational(witness.input) - rational(row).ravel())
    low, high = family.clip or (Fraction(-(10**40)), Fraction(10**40))
    inside = all(low <= v <= high for v in rational(witness.input))
    if (moved > family.rounding[0]).any() or not inside:
        tally.report(question.form, f"the input of the witness of sample {verdict.index} leaves its radius")
    return _check_weights(question, verdict, model, tally)


def _check_weights(question: Question, verdict: Any, model: onnx.ModelProto, tally: Tally) -> None:
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    family = question.families[0]
    for i, layer in enumerate(family.plan.layers):
        for node in model.graph.node:
            if node.op_type != "Gemm" or node.name != layer.name:
                continue
            a = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
            weight = constants[node.input[1]] if a.get("transB") else constants[node.input[1]].T
            if (abs(rational(weight) - layer.weight) > family.weight[i]).any():
                tally.report(question.form, f"a weight of {layer.name} of witness {verdict.index} leaves its radius")


def against_file(
    question: Question, form: files.Form, verdicts: list[Any], calibration: Array, tally: Tally, pairs: bool
) -> None:
    """A real file's answers on every verified sample: by onnxruntime twice, in rationals, and in saturating pairs."""
    case = question.case
    try:
        file = files.written(case, form, calibration)
    except Exception as error:  # what the toolchain cannot write is nothing to judge
        tally.refused[f"toolchain {form}: {type(error).__name__}"] += 1
        return
    tally.files[str(form)] += len(case.x)
    sure = [verdict for verdict in verdicts if verdict.status is qverify.Status.VERIFIED]
    size = [mass(question.families[0].plan, row.ravel().astype(float)) for row in case.x]
    for optimised in (True, False):
        try:
            answers = run_in_onnxruntime(file, case.x, optimised)
        except Exception as error:
            tally.refused[f"onnxruntime {form}: {type(error).__name__} {str(error)[:60]}"] += 1
            continue
        for verdict in sure:
            value = float(margin(answers[verdict.index], verdict.label))
            if value < verdict.margin_lower - 1e-5 * size[verdict.index]:
                how = "integer kernels" if optimised else "node by node"
                _report_file(question, form, verdict, f"{how}, margin {value!r}", tally)
    if form.format == "QDQ":
        for verdict in sure[:4]:
            row = case.x[verdict.index]
            _rational_file(question, form, verdict, evaluate(file, row), "in rationals", tally)
            for sort in (True, False) if pairs and form.pairs else ():
                _rational_file(question, form, verdict, integers.evaluate(file, row, sort), "saturating pairs", tally)


def _rational_file(question: Question, form: files.Form, verdict: Any, out: Array, how: str, tally: Tally) -> None:
    value = margin(out, verdict.label)
    if value < Fraction(verdict.margin_lower):
        _report_file(question, form, verdict, f"{how}, margin {float(value)!r}", tally)


def _report_file(question: Question, form: files.Form, verdict: Any, what: str, tally: Tally) -> None:
    text = f"verified sample {verdict.index}, margin_lower {verdict.margin_lower!r}; {what}"
    tally.report(f"{question.form}, file {form}", text)
