"""The usual training step, made of a model, a loss function and batches of inputs and targets."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from stepsize.errors import FieldError
from stepsize.torch.loading import batches, check_loader

Score = Callable[[Any, Any], Any]
_PAIR = 2


@dataclass(frozen=True)
class Ready:
    """What a training step is made of.

    Args:
        model: what is trained.
        optimizer: its optimizer.
        loss_fn: gives the mean loss from outputs and targets; None where it is not used.
        accumulate: batches per step, of which the mean is taken.
        autocast: the dtype of the forward pass.
        scaler: scales the loss against underflow in float16.
        score: gives an accuracy from outputs and targets.
    """

    model: Module
    optimizer: Optimizer
    loss_fn: Any
    accumulate: int = 1
    autocast: torch.dtype | None = None
    scaler: Any = None
    score: Score | None = None

    def stepping(self, batches: Iterator[Any]) -> Callable[[], Any]:
        """Give a function that takes one step and gives the loss before it."""
        if not self.model.training:  # else parts that are not to train stay as they are
            self.model.train()
        optimizer, backward, many = self.optimizer, self._backward, self.accumulate
        update = optimizer.step if self.scaler is None else self._scaled_update
        device = next(self.model.parameters()).device

        def step() -> Any:
            optimizer.zero_grad()
            if many == 1:
                found = backward(*_pair(next(batches), device))
            else:
                found = _mean([backward(*_pair(next(batches), device)) for _ in range(many)])
            update()
            return found

        return step

    def _scaled_update(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _backward(self, inputs: Any, targets: Any) -> Any:
        if self.autocast is None:
            outputs = self.model(inputs)
            loss = self.loss_fn(outputs, targets)
        else:
            with torch.autocast(next(self.model.parameters()).device.type, self.autocast):
                outputs = self.model(inputs)
                loss = self.loss_fn(outputs, targets)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            given = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            cure = "take the mean over the batch"
            raise FieldError.of("loss_fn", "what gives one number", given, cure)
        part = loss if self.accumulate == 1 else loss / self.accumulate
        (part if self.scaler is None else self.scaler.scale(part)).backward()
        if self.score is None:
            return loss
        with torch.no_grad():
            return {"loss": loss, "accuracy": self.score(outputs, targets)}


def _mean(found: list[Any]) -> dict[str, Any]:
    told = [each if isinstance(each, dict) else {"loss": each} for each in found]
    every = {name: [torch.as_tensor(x[name]).detach() for x in told] for name in told[0]}
    return {name: sum(values) / len(values) for name, values in every.items()}


def _pair(batch: Any, device: torch.device) -> tuple[Any, Any]:
    if not isinstance(batch, (tuple, list)) or len(batch) != _PAIR:
        given = type(batch).__name__
        given += f" of {len(batch)}" if isinstance(batch, tuple | list | dict) else ""
        cure = "give step= instead of loss_fn: a function of a batch that does the training step"
        raise FieldError.of("loader: a batch", "a pair of inputs and targets", given, cure)
    if device.type == "cpu":
        return batch[0], batch[1]
    return _moved(batch[0], device), _moved(batch[1], device)


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def calls_of(
    ready: Ready, loader: Any, step: Callable[..., Any] | None, seed: int
) -> Callable[[int], Callable[[], Any]]:
    """Give what makes the training step of a repeat, from the ready form or from `step`.

    Raises:
        FieldError: where both are given or neither, and for a loader that is none.
    """
    if (ready.loss_fn is None) == (step is None):
        given = "neither" if step is None else "both"
        raise FieldError.of("loss_fn", "given, or step= in its place", given)
    if loader is None and step is None:
        raise FieldError.of("loader", "given with loss_fn", None)
    if loader is not None:
        check_loader(loader)

    def made(repeat: int) -> Callable[[], Any]:
        if loader is None:
            return step  # type: ignore[return-value]  # which is given then
        source = batches(loader, seed, repeat)
        return ready.stepping(source) if step is None else lambda: step(next(source))

    return made


def accuracy(outputs: Any, targets: Any) -> Tensor:
    """Give the share of samples whose greatest output is the target's class.

    Classes are the last dimension where the others are those of the targets, else the second, as
    `cross_entropy` takes them.

    >>> import torch
    >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1])).item()
    0.5
    """
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor) and outputs.ndim > 1):
        cure = "give accuracy= a function of outputs and targets"
        rule = "False for outputs that are no scores of classes"
        raise FieldError.of("accuracy", rule, True, cure)
    last = outputs.shape[:-1] == targets.shape
    classes = outputs.argmax(-1 if last else 1)
    wanted = targets.argmax(1) if targets.shape == outputs.shape else targets
    return (classes == wanted).float().mean()
