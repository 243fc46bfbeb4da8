"""Robust training: networks every quantisation of which is right, on the very bounds that verify.

Loss per batch (mathematics.md, formula (31); Gowal et al., arXiv 1810.12715, with weights that are intervals too):

    kappa CE(s f(x), y) + (1 - kappa) CE(s worst, y),      worst_j = -min over the family of (y_label - y_j)

where the minimum is bounded from below by `bounds.interval`, margins folded into the last layer. The radii grow from 0
to their full size over the first `ramp` of the training, while kappa falls from 1. Adam, step size by the one-cycle
rule (Smith, arXiv 1708.07120). The sharpness s > 0 is trained too and then dropped, for it changes no answer: where
some worst cases cannot be won, cross-entropy would keep all margins small, and with them the weights, while absolute
radii ask for weights as large as they may be.

`weight_limit` keeps all weights and biases in [-limit, limit]. Absolute radii (scheme paper) are a step of quantisers
for weights in [-1, 1]; without the limit a network escapes them by growing.

Heuristic: what comes out proves nothing until it is verified. Reproducible: on one machine, with the same versions and
number of threads, the same settings give the same bytes, also across an interruption.
"""

from __future__ import annotations

import copy
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import NoneType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qverify.bounds.interval import interval_margins
from qverify.datasets import Samples
from qverify.errors import DataError, ModelError, RadiiError, TrainingError, UsageError
from qverify.family.radii import Radii
from qverify.family.steps import Quantiser
from qverify.kinds import RADII, SAMPLES, expected
from qverify.text.brief import Brief
from qverify.text.escapes import shown
from qverify.training.augmentation import distorted
from qverify.training.live_family import LiveFamily, live_bounds, live_family
from qverify.training.live_network import LiveNetwork
from qverify.training.settings import Settings
from qverify.verification.arguments import callbacks, usable_device

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from qverify.network import Network

_VALIDATION_BATCH = 1000


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Mean losses of one epoch, and the validation accuracies at the full radii (None without any)."""

    number: int
    factor: float
    nominal_loss: float
    worst_loss: float | None
    clean: float | None
    guaranteed: float | None
    seconds: float

    @property
    def score(self) -> tuple[float, float]:
        """Rank of an epoch: by the guaranteed, then by the clean accuracy; without validation the last one is best."""
        if self.clean is None:
            return (0.0, float(self.number))
        return (self.clean if self.guaranteed is None else self.guaranteed, self.clean)


@dataclass(frozen=True, eq=False, repr=False)
class _Part(Brief):
    """Samples on the device of the training: x (N, *shape) in float32, labels y (N,)."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True, kw_only=True)
class _EpochLosses:
    """One pass over the training part: the `factor` on the radii that it reached, and mean losses."""

    factor: float
    nominal: float
    worst: float | None


@dataclass(eq=False, repr=False)
class Training(Brief):
    """A training under way. `history` has a row an epoch; `best` the weights of the best of them."""

    live: LiveNetwork
    family: LiveFamily | None
    settings: Settings
    history: list[Epoch] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    best_epoch: Epoch | None = None
    seconds: float = 0.0

    @staticmethod
    def of(module: nn.Module, shape: tuple[int, ...], stated: Quantiser | Radii | None, settings: Settings) -> Training:
        """A training of `module` on samples of that shape; `stated` None trains normally.

        Raises UnsupportedModel, ModelError, RadiiError, UsageError.
        """
        expected(module, nn.Module, "The module", "a torch.nn.Module", ModelError)
        expected(stated, (Quantiser, Radii, NoneType), "stated", f"a Quantiser, or {RADII}", RadiiError)
        expected(settings, Settings, "settings", "qverify.training.loop.Settings(...)")
        usable_device(settings.device)
        module.to(settings.device, torch.float32)
        live = LiveNetwork.trace(module, shape, "the network in training")
        if not live.parameters:
            raise UsageError("The network has no weights to train.")
        return Training(live, None if stated is None else live_family(live, stated), settings)

    def __post_init__(self) -> None:
        self._parameters = [p for p in self.live.module.parameters() if p.requires_grad]
        self._sharpness = torch.zeros((), device=self.settings.device, requires_grad=True)
        self._optimiser = torch.optim.Adam([*self._parameters, self._sharpness], lr=self.settings.lr)
        self._schedule: Any = None
        self._came = _copied(self.live.module)

    def run(
        self,
        samples: Samples,
        on_epoch: Callable[[Training], None] | None = None,
        stop: threading.Event | None = None,
        state: dict[str, Any] | None = None,
    ) -> Network:
        """The network of the best epoch, after training to the end or until `stop` is set.

        `on_epoch` is called after every epoch, when `state()` may be kept; `state` goes on from there. Raises
        TrainingError if the loss is no longer finite, DataError if the samples do not fit.
        """
        expected(samples, Samples, "The data set", SAMPLES, DataError)
        expected(state, (dict, NoneType), "state", "what Training.state gave, or leave it out")
        callbacks(stop, on_epoch=on_epoch)
        with _reproducible(self.settings):
            train, held_out = self._split(samples)
            batches = -(-len(train.y) // self.settings.batch_size)
            self._schedule = torch.optim.lr_scheduler.OneCycleLR(
                self._optimiser, self.settings.lr, total_steps=self.settings.epochs * batches + 1
            )
            if state is not None:
                try:
                    self._restore(state)
                except KeyError as error:
                    raise UsageError(f"The state has no {shown(error.args[0])}; give what state() gave.") from None
            while len(self.history) < self.settings.epochs:
                began = time.perf_counter()
                found = self._epoch(train, batches, stop)
                if found is None:  # stopped: what this epoch did is not kept
                    break
                clean, guaranteed = self._validate(held_out)
                self.seconds += time.perf_counter() - began
                epoch = Epoch(
                    number=len(self.history) + 1,
                    factor=found.factor,
                    nominal_loss=found.nominal,
                    worst_loss=found.worst,
                    clean=clean,
                    guaranteed=guaranteed,
                    seconds=time.perf_counter() - began,
                )
                self._record(epoch)
                if on_epoch is not None:
                    on_epoch(self)
        return self.network()

    def network(self) -> Network:
        """The network of the best epoch; before the first, the network as it came."""
        self.live.module.load_state_dict(self.best or self._came)
        return self.live.frozen()

    # -- parts of an epoch ----------------------------------------------------------------------------

    def _split(self, samples: Samples) -> tuple[_Part, _Part]:
        """Training and validation part, on the device; which sample goes where depends on nothing but their number."""
        outputs, shape = self.live.network.output_size, self.live.network.input_shape
        if samples.shape != shape:
            raise DataError(f"The samples have shape {samples.shape}, but the network reads {shape}; reshape them.")
        if samples.y.max() >= outputs:
            raise DataError(f"The largest label is {samples.y.max()}, but the network has {outputs} outputs.")
        if (clip := self.settings.clip) and not clip[0] <= samples.x.min() <= samples.x.max() <= clip[1]:
            raise DataError(f"Some inputs lie outside the range to clip to, {clip[0]:g} to {clip[1]:g}; widen it.")
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
        kept = int(len(samples) * self.settings.validation)
        x = torch.as_tensor(samples.x, dtype=torch.float32).to(self.settings.device)
        y = torch.as_tensor(samples.y).to(self.settings.device)
        return _Part(x[order[kept:]], y[order[kept:]]), _Part(x[order[:kept]], y[order[:kept]])

    def _epoch(self, train: _Part, batches: int, stop: threading.Event | None) -> _EpochLosses | None:
        """One pass over the training part, in `batches` batches; None if it was stopped."""
        x, y = train.x, train.y
        self.live.module.train()
        total, factor = torch.zeros(2, dtype=torch.float64), 0.0
        first = len(self.history) * batches
        for number, chosen in enumerate(torch.split(torch.randperm(len(x)), self.settings.batch_size)):
            if stop is not None and stop.is_set():
                return None
            share = (first + number) / (self.settings.epochs * batches)
            factor = min(1.0, share / self.settings.ramp) if self.settings.ramp else 1.0
            image = distorted(x[chosen.to(x.device)], self.settings.distortion)
            with self._finite():
                losses = self.losses(image, y[chosen.to(y.device)], factor)
            self._step(losses, factor)
            total += torch.stack([loss.detach().double() for loss in losses]).cpu() * len(chosen)
            if not bool(torch.isfinite(total).all()):
                raise self._diverged()
        nominal, worst = (total / len(x)).tolist()
        return _EpochLosses(factor=factor, nominal=nominal, worst=None if self.family is None else worst)

    def _diverged(self) -> TrainingError:
        number = len(self.history) + 1
        return TrainingError(f"The loss became infinite or NaN in epoch {number}; lower --lr, or raise --ramp.")

    @contextmanager
    def _finite(self) -> Iterator[None]:
        """Bounds that overflow are a loss that does."""
        try:
            yield
        except RadiiError as error:
            raise self._diverged() from error

    def losses(self, x: Tensor, y: Tensor, factor: float) -> tuple[Tensor, Tensor]:
        """Mean nominal and worst-case cross-entropy of a batch at `factor` times the radii; the latter 0 if normal."""
        values = self.live.values(x)
        if self.family is None:
            return F.cross_entropy(values[-1], y), values[-1].new_zeros(())
        scale = self._sharpness.exp()
        nominal = F.cross_entropy(scale * values[-1], y)
        self.family.observe(values)
        if not factor:
            return nominal, nominal.detach()
        model, bounds = live_bounds(self.family, factor * self.settings.factor, x, self.settings.clip)
        worst = -interval_margins(model, bounds, y)
        own = F.one_hot(y, worst.shape[1]).bool()
        return nominal, F.cross_entropy(scale * worst.masked_fill(own, 0.0), y)

    def _step(self, losses: tuple[Tensor, Tensor], factor: float) -> None:
        weight = 1.0 - (1.0 - self.settings.kappa) * factor if self.family is not None else 1.0
        loss = weight * losses[0] + (1.0 - weight) * losses[1]
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._schedule.step()
        if limit := self.settings.weight_limit:
            with torch.no_grad():
                for parameter in self._parameters:
                    parameter.clamp_(-limit, limit)

    def _validate(self, held_out: _Part) -> tuple[float | None, float | None]:
        """Clean accuracy and that guaranteed by IBP in float32 at the full radii, for choosing and for show."""
        self.live.module.eval()
        right = proved = 0
        for x, y in zip(*(torch.split(part, _VALIDATION_BATCH) for part in (held_out.x, held_out.y)), strict=True):
            if not len(y):
                return None, None
            with torch.no_grad(), self._finite():
                right += int((self.live.values(x)[-1].argmax(1) == y).sum())
                if self.family is not None:
                    model, bounds = live_bounds(self.family, 1.0, x, self.settings.clip)
                    proved += int((interval_margins(model, bounds, y).amin(1) > 0).sum())
        count = len(held_out.y)
        return right / count, None if self.family is None else proved / count

    def _record(self, epoch: Epoch) -> None:
        self.history.append(epoch)
        if self.best_epoch is None or epoch.score >= self.best_epoch.score:
            self.best_epoch = epoch
            self.best = _copied(self.live.module)

    # -- going on later -------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The state that the next epoch depends on, in tensors and plain data, as torch.save writes them."""
        cuda = torch.cuda.get_rng_state_all() if self.settings.device.startswith("cuda") else []
        return {
            "module": self.live.module.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "sharpness": self._sharpness.detach().clone(),
            "random": [torch.get_rng_state(), *cuda],
            "family": {} if self.family is None else self.family.state(),
            "history": [asdict(epoch) for epoch in self.history],
            "best": self.best,
            "best_epoch": None if self.best_epoch is None else self.best_epoch.number,
            "seconds": self.seconds,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.live.module.load_state_dict(state["module"])
        self._optimiser.load_state_dict(copy.deepcopy(state["optimiser"]))  # it would go on in the tensors it is given
        self._schedule.load_state_dict(state["schedule"])
        with torch.no_grad():
            self._sharpness.copy_(state["sharpness"])
        cpu, *cuda = state["random"]
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        if self.family is not None:
            self.family.restore(state["family"])
        self.history = [Epoch(**row) for row in state["history"]]
        self.best, self.seconds = state["best"], state["seconds"]
        number = state["best_epoch"]
        self.best_epoch = None if number is None else self.history[number - 1]


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


@contextmanager
def _reproducible(settings: Settings) -> Iterator[None]:
    """Random numbers from the seed, deterministic algorithms, and `threads`; puts back what was."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    devices = list(range(torch.cuda.device_count())) if settings.device.startswith("cuda") else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(settings.seed)
        torch.use_deterministic_algorithms(True, warn_only=bool(devices))
        if settings.threads:
            torch.set_num_threads(settings.threads)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.set_num_threads(threads)
