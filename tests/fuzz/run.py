"""Round after round: a random case, a question, its answers judged; then the same case pushed to where it breaks."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

import qverify
from qverify.errors import ModelError, RadiiError

from . import families, files
from .exact import rational
from .families import Family
from .judge import Question, Tally, against_file, against_members, check_witness, labels_of
from .members import Search, margin, outputs
from .models import KINDS, Case, case
from .plans import plan

Array = np.ndarray
Rng = np.random.Generator
WHOLE = ("tensor", "channel")
"""The schemes that speak of integer files."""
SCHEMES = ("paper", "radii", *WHOLE)
FILES = (7, 8, 16)
"""The bits of weights that real files have."""


def fuzz(
    seed: int, verdicts: int = 10**9, seconds: float = np.inf, tell: Callable[[Tally, float], None] | None = None
) -> Tally:
    """Rounds until there are so many verdicts or the time is over; `tell` hears of every 30 s.

    Every round has a seed of its own, (seed, number), which stands before what it found broken.
    """
    tally, began, told, number = Tally(), time.monotonic(), 0.0, 0
    while tally.total() < verdicts and time.monotonic() - began < seconds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the product notes of models and kernels
            one_round((seed, number), tally)
        number += 1
        spent = time.monotonic() - began
        if tell is not None and spent - told > 30:
            told = spent
            tell(tally, spent)
    return tally


def one_round(seed: tuple[int, int], tally: Tally) -> None:
    """The round of this seed."""
    tally.seed = seed
    rng = np.random.default_rng(seed)
    kind = KINDS[seed[1] % len(KINDS)]
    scheme = str(rng.choice(SCHEMES))
    brim = scheme in WHOLE and rng.random() < 0.3
    kind = "dense" if brim and rng.random() < 0.6 else kind
    made = case(rng, kind, np.float64 if rng.random() < 0.3 and not brim else np.float32, brim=brim)
    setting = Setting.draw(rng, made, scheme)
    asked = _question(rng, setting, tally)
    if asked is None:
        return
    question, bits = asked
    made = question.case
    labels = labels_of(made)
    answers = question.ask(made.x, labels, tally)
    if not answers:
        return
    worst = against_members(question, answers, made.x, rng, tally)
    wrong = [v for v in answers if v.status is qverify.Status.FALSIFIED]
    for verdict in wrong[:2]:
        check_witness(question, verdict, made.x[verdict.index], tally)
    if setting.whole and bits in FILES and made.dtype is np.float32 and _every_file(setting):
        chain = all(node.op_type not in ("Add", "Sub") for node in made.nodes)
        for _ in range(5 if brim else 2):
            form = files.form(rng, bits, scheme == "channel", chain, 0.2 if brim else 0.5)
            against_file(question, form, answers, setting.calibration, tally, setting.kernel == "any")
    good = [k for k, v in enumerate(answers) if v.status is not qverify.Status.MISCLASSIFIED]
    for k in rng.permutation(good)[:2]:
        _edge(question, setting, int(k), answers[k].label, worst[k], rng, tally)


def _every_file(setting: Setting) -> bool:
    """Whether all files are claimed: toolchains may fold or not, and round inputs as they do."""
    return setting.clip is None and (not setting.normed or setting.norm == "either")


def activation_bits(bits: int, normed: bool) -> int:
    """8 where weights have a reduced range of 7; a BatchNormalization kept apart has weights and activations in its
    numbers, and is asked for with as many bits for both."""
    return 8 if bits == 7 and not normed else bits


@dataclass(eq=False)
class Setting:
    """How a case is asked about: what a scheme needs besides bits. `clip`: for the inputs, or None."""

    case: Case
    scheme: str
    nearest: bool
    kernel: str
    norm: str
    clip: tuple[float, float] | None
    calibration: Array

    @staticmethod
    def draw(rng: Rng, made: Case, scheme: str) -> Setting:
        clip = None
        if rng.random() < (0.15 if scheme in WHOLE else 0.35):
            low, high = sorted(float(v) for v in np.round(rng.uniform(-0.5, 1.5, 2), 2))
            made = replace(made, x=np.clip(made.x, low, high + 0.25).astype(made.dtype))
            clip = (min(low, float(made.x.min())), max(high + 0.25, float(made.x.max())))
        calibration = made.x
        if rng.random() < 0.4:  # what goes beyond the range of its first half is clipped
            half = len(made.x) // 2 + 1
            factor = 1.0 if clip is not None else rng.choice([1.0, 1.5, 3.0])
            made = replace(made, x=np.concatenate([made.x[:half], (made.x[half:] * factor).astype(made.dtype)]))
            calibration = made.x[:half]
        kernel = "any" if rng.random() < 0.4 else "exact-accumulation"
        norm = str(rng.choice(["either", "either", "folded", "separate"]))
        return Setting(made, scheme, bool(rng.random() < 0.5), kernel, norm, clip, calibration)

    @property
    def whole(self) -> bool:
        return self.scheme in WHOLE

    @property
    def normed(self) -> bool:
        return any(node.op_type == "BatchNormalization" for node in self.case.nodes)

    @property
    def ends(self) -> tuple[Fraction, Fraction] | None:
        return None if self.clip is None else (Fraction(self.clip[0]), Fraction(self.clip[1]))

    @property
    def form(self) -> str:
        """In words, for the tally."""
        words = [f"{self.case.kind} {self.scheme}"]
        words += [f"norm {self.norm}"] * (self.whole and self.normed)
        words += ["clipped"] * (self.clip is not None)
        words += ["any kernel"] * (self.whole and self.kernel == "any")
        return ", ".join(words)

    def family(self, bits: int, fold: str = "behind") -> Family:
        """Of schemes with bits; `fold`: one of `plans.FOLDS`."""
        if not self.whole:
            return families.paper(plan(self.case.model), bits, self.nearest, self.ends)
        x = self.calibration.reshape(len(self.calibration), -1).astype(float)
        wide = activation_bits(bits, self.normed)
        return families.ranged(plan(self.case.model, fold), wide, self.scheme, self.nearest, x, self.ends, bits)

    def families(self, bits: int) -> list[Family]:
        """What the scheme stands for: BatchNormalization folded, not folded, or both."""
        if not (self.whole and self.normed):
            return [self.family(bits)]
        folds = {"either": ["behind", "none"], "folded": ["behind"], "separate": ["none"]}[self.norm]
        return [self.family(bits, fold) for fold in folds]

    def radii(self, network: Any, bits: int) -> Any:
        """The product's."""
        data = self.calibration.astype(np.float64) if self.whole else None
        rounding = "nearest" if self.nearest else "any"
        scheme: Any = (self.scheme, rounding, network, data, self.kernel, self.norm)
        radii = qverify.Radii.from_bits(bits, *scheme)
        if self.whole and (wide := activation_bits(bits, self.normed)) != bits:
            radii = replace(radii, points=qverify.Radii.from_bits(wide, *scheme).points)
        return radii


def _question(rng: Rng, setting: Setting, tally: Tally) -> tuple[Question, int] | None:
    """A question and its bits, 0 for stated radii. None if the product refuses it."""
    made, options = setting.case, _options(rng, setting.clip)
    try:
        network = qverify.load(made.model)
        if setting.scheme == "radii":
            folded = plan(made.model)
            stated = _stated(rng, folded)
            asked, bits = [families.absolute(folded, stated, setting.ends)], 0
            radii = qverify.Radii(**stated)
        else:
            bits = _bits(rng, setting)
            radii, asked = setting.radii(network, bits), setting.families(bits)
    except (ModelError, RadiiError) as error:
        tally.refused[f"{setting.form}: {_sentence(error)}"] += 1
        return None
    exact = asked[0].plan.rational and not setting.whole
    return Question(made, radii, options, asked, setting.form, exact, network), bits


def _sentence(error: Exception) -> str:
    """Its words without names."""
    return " ".join(word for word in str(error).split() if not word.startswith("'"))[:70]


def _options(rng: Rng, clip: Any) -> Any:
    method = str(rng.choice(["auto", "exact", "bp", "ibp"], p=[0.45, 0.3, 0.15, 0.1]))
    bilinear = method in ("auto", "exact") and rng.random() < 0.02
    return qverify.Options(
        method=method,
        formulation="bilinear" if bilinear else "relational",
        solver="auto",
        clip=clip,
        seconds=3.0,
        jobs=1,
        isolated=False,
    )


def _stated(rng: Rng, network: Any) -> dict[str, Any]:
    """Radii that someone might write: one kind alone, all, and some layers' own, one a channel."""
    sizes = 2.0 ** -rng.integers(2, 12, 4).astype(float) * rng.choice([0.0, 1.0, 1.3], 4)
    stated: dict[str, Any] = dict(zip(("input", "weight", "bias", "activation"), map(float, sizes), strict=True))
    layers: dict[str, dict[str, Any]] = {}
    for layer in network.layers:
        if layer.kind == "sum" and rng.random() < 0.3:
            layers[layer.name] = {"weight": 2.0 ** -rng.integers(2, 12, len(layer.weight)).astype(float)}
        if layer.kind == "relu" and rng.random() < 0.3:
            layers[layer.name] = {"activation": float(2.0 ** -rng.integers(2, 10))}
    return stated | {"layers": layers}


def _bits(rng: Rng, setting: Setting) -> int:
    """Those of files, or the fewest at which one sample seems to be right for every member, or a few more or less."""
    made = setting.case
    brim = "brim" in made.about
    if setting.whole and (rng.random() < 0.7 or brim) and made.dtype is np.float32:
        setting.nearest = setting.nearest or bool(rng.random() < 0.5)
        chosen = [7, 8, 16]
        if setting.normed:
            chosen[0] = 8
        return int(rng.choice(chosen, p=[0.55, 0.4, 0.05] if brim else [0.3, 0.55, 0.15]))
    row = made.x[int(rng.integers(len(made.x)))].ravel().astype(float)
    for bits in range(3, 16):
        search = Search(setting.family(bits), rng)
        zero = {key: np.zeros((1, *shape)) for key, shape in search.shapes().items()}
        out = search.outputs(row, zero)[0]
        if search.worst(row, int(out.argmax()), 4, 4)[0] > 0:
            break
    return max(3, bits + int(rng.choice([-1, 0, 0, 0, 1, 2])))


def _edge(
    question: Question,
    setting: Setting,
    k: int,
    label: int,
    worst: tuple[Fraction, Any, Family],
    rng: Rng,
    tally: Tally,
) -> None:
    """Move the last bias until the worst member of sample k just fails: it must not be verified any more."""
    value, member, family = worst
    pushed, row = question.case, rational(question.case.x[k]).ravel()
    for _ in range(8):
        if value <= 0:
            break
        size = np.spacing(abs(pushed.constants[pushed.last][label]))
        pushed = pushed.shifted(label, -max(float(value), float(size)))
        changed = replace(family, plan=plan(pushed.model, family.plan.fold))
        value = margin(outputs(changed, row, member), label)
    if pushed is question.case or value > 0:
        return
    asked = [replace(f, plan=plan(pushed.model, f.plan.fold)) for f in question.families]
    network, radii = qverify.load(pushed.model), question.radii
    if setting.whole:
        radii = setting.radii(network, radii.quantiser.bits)
    form = f"{question.form}, at the edge"
    again = replace(question, case=pushed, families=asked, radii=radii, network=network, form=form)
    answers = again.ask(pushed.x[k : k + 1], np.array([label]), tally)
    against_members(again, answers, pushed.x[k : k + len(answers)], rng, tally, starts=8)
