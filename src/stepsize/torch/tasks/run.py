"""One training of a torch task: steps, evaluation, and a state that resumes to the bit."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from stepsize.errors import FieldError, MismatchError
from stepsize.schedules.fields import Bounds
from stepsize.torch.tasks.chance import EVALUATE, PROBE, STEP, Chance
from stepsize.torch.tasks.data import Batch, Feed, Micro
from stepsize.torch.tasks.score import Score

LossFn = Callable[[Any, Any], Tensor]
_KEYS = ("step", "seed", "model", "buffers", "optimizer")


class Source(Protocol):
    """What a run asks of the task's data."""

    def feed(self) -> Feed:
        """Start to give the batches of steps."""

    def valid(self) -> Iterator[Batch]:
        """Give the validation samples, batch by batch."""

    def probe(self, size: int) -> Batch:
        """Give a fixed batch of training samples."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all runs of a task share; the fields are arguments of `from_torch`."""

    model_fn: Callable[[], Module]
    loss_fn: LossFn
    optimizer_fn: Callable[[Any], Optimizer]
    groups: Callable[[Module], Any] | None
    data: Source
    device: torch.device
    autocast: torch.dtype | None
    chance: Chance
    score: Score | None


class TorchRun:
    """One training of a torch task, from one seed.

    The first weights are those after `torch.manual_seed(seed)`; dropout and the like draw from
    (seed, step); the user's own random numbers are left alone.

    Attributes:
        model: the module that is trained.
        optimizer: its optimizer.
        position: optimizer steps taken.
    """

    def __init__(self, setting: Setting, seed: int) -> None:
        self._setting, self._seed = setting, seed
        self._feed = setting.data.feed()
        with setting.chance.started(seed):
            self.model = _module(setting.model_fn()).to(setting.device).train()
            self.optimizer = _of(self.model, setting.optimizer_fn(self._params()))
        self.position = 0
        self._batches: list[Micro] = []
        self._seen: list[dict[str, Any]] = []
        self._probed: tuple[int, Batch] | None = None

    def _params(self) -> Any:
        groups = self._setting.groups
        return self.model.parameters() if groups is None else groups(self.model)

    def step(self) -> dict[str, Any]:
        """Take one optimizer step; give the loss of its batch, before it, as a 0-d tensor."""
        with self._setting.chance.drawn(self._seed, STEP, self.position):
            self._batches = self._feed.step(self._seed, self.position)
            self._seen = []
            self.optimizer.step(self._closure)  # type: ignore[arg-type] # torch's own is a float
        self.position += 1
        return self._seen[0]  # a line search evaluates more than once: the first is before the step

    def _closure(self) -> Tensor:
        self.optimizer.zero_grad()
        seen = [self._backward(x, y, share) for x, y, share in self._batches]
        self._seen.append(seen[0] if len(seen) == 1 else _summed(seen))
        loss: Tensor = self._seen[-1]["loss"]
        return loss

    def _backward(self, x: Any, y: Any, share: float) -> dict[str, Any]:
        with self._casting():
            outputs = self.model(x)
            loss = _scalar(self._setting.loss_fn(outputs, y))
        if share != 1.0:
            loss = loss * share
        loss.backward()  # type: ignore[no-untyped-call]
        seen = {"loss": loss.detach()}
        score = self._setting.score
        if score is not None and score.in_steps:
            with torch.no_grad():
                seen[score.name] = score.of(outputs, y) * share
        return seen

    def _casting(self) -> AbstractContextManager[Any]:
        setting = self._setting
        if setting.autocast is None:
            return nullcontext()
        return torch.autocast(setting.device.type, dtype=setting.autocast)

    def evaluate(self) -> dict[str, float]:
        """Give the mean validation loss, and the metric; in eval mode, without a trace."""
        setting, losses, counts = self._setting, [], []
        outputs, targets = [], []
        with self._quiet(self._seed, EVALUATE), torch.no_grad(), self._casting():
            for x, y in setting.data.valid():
                out = self.model(x)
                losses.append(_scalar(setting.loss_fn(out, y)).detach())
                counts.append(len(y))
                if setting.score is not None:
                    outputs.append(out)
                    targets.append(y)
            found = {"loss": _mean(losses, counts)}
            if setting.score is not None:
                score = setting.score.of(torch.cat(outputs), torch.cat(targets))
                found[setting.score.name] = float(score)
        return found

    def probe(self, size: int = 512) -> Tensor:
        """Give the loss, with its graph, on one fixed batch of training samples.

        Args:
            size: samples; all where there are fewer.

        The batch is the same at every call and for every seed. There is no dropout. BatchNorm uses
        the batch's statistics, as in training, and its running ones stay as they are: the curvature
        is that of the loss that is trained, in which a bias before BatchNorm has no part. Autocast
        is off, for second derivatives.
        """
        count = int(Bounds(ge=1, whole=True).admit("probe: size", size))
        with self._quiet(0, PROBE), _batch_statistics(self.model), torch.enable_grad():
            if self._probed is None or self._probed[0] != count:
                self._probed = count, self._setting.data.probe(count)
            x, y = self._probed[1]
            return _scalar(self._setting.loss_fn(self.model(x), y))

    @contextmanager
    def _quiet(self, seed: int, purpose: int) -> Iterator[None]:
        """Have the model in eval mode, drawing from a stream of its own, and put all back."""
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            with self._setting.chance.drawn(seed, purpose, 0):
                yield
        finally:
            for module, training in modes:
                module.training = training

    def state_dict(self) -> dict[str, Any]:
        """Give model, optimizer and position, as copies: they stay as the training goes on."""
        state = {
            "step": self.position,
            "seed": self._seed,
            "model": self.model.state_dict(),
            "buffers": self._unsaved(),
            "optimizer": self.optimizer.state_dict(),
        }
        return copy.deepcopy(state)

    def _unsaved(self) -> dict[str, Tensor]:
        """The buffers that a model keeps out of its own state; training may change them."""
        saved = self.model.state_dict().keys()
        named = self.model.named_buffers(remove_duplicate=False)
        return {name: buffer.detach() for name, buffer in named if name not in saved}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of this task, whatever seed this run was built from.

        Raises:
            MismatchError: for what is no state of such a run.
        """
        if missing := [key for key in _KEYS if key not in state]:
            raise MismatchError(f"this is no state of a torch run: it has no {missing[0]!r}")
        state = copy.deepcopy(dict(state))  # an optimizer takes the tensors themselves
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            for name, buffer in self._unsaved().items():
                buffer.copy_(state["buffers"][name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise MismatchError(f"the state belongs to another model: {error}") from error
        self.position, self._seed = state["step"], state["seed"]


@contextmanager
def _batch_statistics(model: Module) -> Iterator[None]:
    """Let BatchNorm use the statistics of its batch, and keep the running ones as they are."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    held = [(norm._buffers, dict(norm._buffers)) for norm in norms]  # noqa: SLF001 (as they are)
    for norm, (own, buffers) in zip(norms, held, strict=True):
        norm.training = True
        # copies, as the graph keeps what was written to
        own.update({name: None if b is None else b.clone() for name, b in buffers.items()})
    try:
        yield
    finally:
        for own, buffers in held:
            own.update(buffers)


def _module(made: Any) -> Module:
    if isinstance(made, Module):
        return made
    raise FieldError.of("Task: model_fn", "a function that makes a module", type(made).__name__)


def _of(model: Module, optimizer: Any) -> Optimizer:
    groups = getattr(optimizer, "param_groups", ())
    held = {id(p) for group in groups for p in group["params"]}
    if not any(id(p) in held for p in model.parameters()):
        rule = "a function that makes an optimizer of the parameters it is given"
        raise FieldError.of("Task: optimizer_fn", rule, type(optimizer).__name__)
    made: Optimizer = optimizer
    return made


def _scalar(loss: Any) -> Tensor:
    if isinstance(loss, Tensor) and not loss.dim():
        return loss
    given = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
    raise FieldError.of("Task: loss_fn", "a function giving a 0-d tensor, a mean", given)


def _summed(seen: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: torch.stack([each[key] for each in seen]).sum() for key in seen[0]}


def _mean(losses: list[Tensor], counts: list[int]) -> float:
    values = torch.stack(losses).tolist()
    pairs = zip(values, counts, strict=True)
    return math.fsum(value * count for value, count in pairs) / sum(counts)
