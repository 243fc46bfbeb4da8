"""A query answered: read, decided, and confirmed on the model itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qverify.errors import ModelError
from qverify.family.radii import Radii
from qverify.family.radius_arrays import radius_array
from qverify.layers import Conv, Dense
from qverify.properties.cases import cases
from qverify.properties.decide import Answer, Candidate, Question, decide
from qverify.properties.members import satisfies
from qverify.text.brief import Brief
from qverify.vnnlib.models import Model, model_of
from qverify.vnnlib.reading import read_query
from qverify.vnnlib.replay import CLOSE, Assignment, Replay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.budget import Deadline
    from qverify.network import Network
    from qverify.verification.verdict import Options
    from qverify.vnnlib.query import Query


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Answered(Brief):
    """The answer to a query, what satisfies it if that is `sat`, and remarks for people."""

    query: Query
    answer: Answer
    assignment: Assignment | None
    remarks: tuple[str, ...]


def answer(
    path: str, networks: Sequence[str], *, radii: Radii | None, deadline: Deadline, options: Options
) -> Answered:
    """The answer to the query at `path` about the models given as `NAME=FILE`, or about their quantised families.

    Raises UsageError, ModelError, RadiiError, SolverError, PackageMissing.
    """
    query = read_query(path)
    model = model_of(query, networks)
    query = model.query
    own = cases(query.formula, query.input_size, query.input_name)
    replay = Replay(model.proto, query, model.network)
    if replay.distance(own[0], model.network.evaluate) > CLOSE:
        raise ModelError(
            f"{model.network.source}: its outputs in the box of the query are not those of the network that was read;"
            " please report this with the model."
        )
    network = model.network if radii is not None else _fixed(model.network)
    judge = _Judge(model, query, replay, radii)
    question = Question(network=network, radii=radii or Radii(), options=options, confirmed=judge.confirmed)
    found = decide(question, own, deadline)
    remarks = [found.detail] if found.detail else []
    return Answered(
        query=query,
        answer=found.answer,
        assignment=judge.found,
        remarks=(*remarks, *judge.remarks(found.answer)),
    )


def _fixed(network: Network) -> Network:
    """The same network, of which nothing is quantised: radii of 0 cost nothing then."""
    layers = (replace(la, quantised=False) if isinstance(la, (Dense, Conv)) else la for la in network.layers)
    return replace(network, layers=tuple(layers))


class _Judge:
    """Confirms candidates: on the model itself, or for a family as a member of it. Keeps the first that is."""

    def __init__(self, model: Model, query: Query, replay: Replay, radii: Radii | None):
        self.model, self.query, self.replay, self.radii = model, query, replay, radii
        self.found: Assignment | None = None

    def confirmed(self, candidate: Candidate) -> bool:
        """Whether a candidate satisfies the query."""
        if self.radii is None:
            self.found = self.replay.confirmed(candidate.case, candidate.input)
        else:
            self.found = self._member(candidate)
        return self.found is not None

    def _member(self, candidate: Candidate) -> Assignment | None:
        """The assignment of a member of the family, which is judged by a plain forward pass in float64."""
        assert self.radii is not None
        reach = radius_array(self.radii.input, self.model.network.input_shape, "input").ravel()
        if not satisfies(candidate, self.query.formula, reach):
            return None
        return Assignment(input=candidate.input, output=candidate.outputs)

    def remarks(self, answer: Answer) -> list[str]:
        """What the answer is about, for people."""
        about = "the model" if self.radii is None else f"every member of the family ({self.radii.convention})"
        if answer is Answer.UNSAT:
            return [f"proved in real arithmetic for {about}; floating point of a runtime may differ by its rounding"]
        if answer is not Answer.SAT or self.found is None:
            return []
        if self.radii is not None:
            return ["the outputs are those of a member of the family, by a forward pass in float64"]
        said = ["confirmed on the model by onnxruntime, without a tolerance"]
        if self.found.stand_ins:
            said.append(
                f"{self.found.stand_ins} inputs are fixed to numbers that {self.replay.kind} lacks, and have"
                " the nearest one"
            )
        return said
