"""What all questions about a family share: chunks, intervals, memory and the family of a single sample."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from qverify.errors import RadiiError, UsageError
from qverify.family.radii import Radii
from qverify.verification import setup as module
from qverify.verification.setup import Setup, program_memory, solver_process
from qverify.verification.verdict import Options
from tests.support.bounds import with_saturations
from tests.support.networks import NETWORKS, inputs, mlp, random_radii, sample_members, unit_inputs


@pytest.mark.parametrize("name", ["dense", "conv_conv", "residual"])
def test_intervals_hold_every_member_that_is_drawn(name: str, rng: np.random.Generator) -> None:
    network = NETWORKS[name](rng)
    setup = Setup(network, random_radii(network, rng, 0.1), Options())
    x = inputs(network, rng)[:4]
    bounds = setup.intervals(x)
    for sample, one in enumerate(x):
        drawn = sample_members(setup.family, one, rng, 40, corner=True)
        for value, lower, upper in zip(drawn, bounds.lower, bounds.upper, strict=True):
            assert (value >= lower[sample].numpy() - 1e-9).all() and (value <= upper[sample].numpy() + 1e-9).all()


def test_a_chunk_is_at_least_one_sample_and_grows_with_the_memory(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, sizes = mlp(rng, 5, 8, 6, 3), []
    for memory in (1, 10**5, 10**6, 10**12):
        monkeypatch.setattr(module, "working_memory", lambda size, needed, memory=memory: memory)
        setup = Setup(network, Radii(), Options())
        sizes.append(setup.chunk)
        floats = 16 * sum(layer.size for layer in network.layers)
        assert setup.chunk == 1 or setup.chunk * floats * 8 <= 0.35 * memory
    assert sizes == sorted(sizes) and sizes[0] == 1 and sizes[-1] == 4096


def test_a_sample_has_the_activation_radii_that_clipping_gives_it(rng: np.random.Generator) -> None:
    network = mlp(rng, 4, 7, 5, 3)
    x = unit_inputs(network, rng)
    plain = Setup(network, Radii(activation=0.1), Options())
    assert plain.own_family(plain.intervals(x), 1) is plain.family
    calibrated = Setup(network, Radii.from_bits(5, "channel", "nearest", network, 0.5 * x), Options(clip=(0.0, 1.0)))
    assert calibrated.own_family(calibrated.intervals(x), 1) is calibrated.family, "a range is no radius"
    clipped = Setup(network, with_saturations(network, Radii(activation=0.1)), Options(clip=(0.0, 1.0)))
    bounds = clipped.intervals(x)
    for sample in range(len(x)):
        own = clipped.own_family(bounds, sample)
        for i in network.relus:
            (cut,), source = clipped.family.saturations[i], network.layers[i].inputs[0]
            low, high = (end[source][sample].numpy() for end in (bounds.lower, bounds.upper))
            excess = np.maximum(np.maximum(high - cut.high, cut.low - low), 0.0)
            np.testing.assert_allclose(own.activation[i], 0.1 + cut.gain * excess, rtol=1e-12)
        assert own.inner_weights is clipped.family.inner_weights


def test_the_deadline_passes_with_the_time_or_with_a_stop() -> None:
    rng, stop = np.random.default_rng(1), threading.Event()
    setup = Setup(mlp(rng, 3, 2), Radii(), Options(), stop)
    never, soon = setup.deadline(None), setup.deadline(0.0)
    assert soon.passed() and not never.passed()
    stop.set()
    assert never.passed()


def test_programs_have_their_share_of_the_memory() -> None:
    for jobs in (1, 3):
        here, apart = (program_memory(Options(jobs=jobs, isolated=isolated), 8 << 30) for isolated in (False, True))
        assert jobs * here <= 0.6 * (8 << 30) and here - apart == 64 << 20
    assert program_memory(Options(jobs=64), 1 << 20) == 16 << 20
    with solver_process(Options(isolated=False), 1 << 30) as lent:
        assert lent is None


@pytest.mark.parametrize(
    ("radii", "options", "error"),
    [
        (Radii(weight=-1.0), Options(), RadiiError),
        (Radii(layers={"none": {"weight": 1.0}}), Options(), RadiiError),
        (Radii(), Options(device="nowhere"), UsageError),
        (Radii(), "bp", UsageError),
        ("bits", Options(), RadiiError),
    ],
)
def test_what_does_not_fit_is_refused(
    radii: Radii | str, options: Options | str, error: type[Exception], rng: np.random.Generator
) -> None:
    with pytest.raises(error, match=r"\.$"):
        Setup(mlp(rng, 3, 2), radii, options)  # type: ignore[arg-type]
