"""What `Task.from_arrays` makes of a table: kinds of targets, a split, scales."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stepsize.errors import FieldError
from stepsize.schedules.fields import Bounds
from stepsize.schedules.names import nearest, shown
from stepsize.torch.tasks.chance import SPLIT, blended

Array = np.ndarray[Any, Any]
_KINDS = ("classes", "regression")
_HOLDS = {"b": "bools", "i": "whole numbers", "u": "whole numbers", "f": "floats", "U": "texts"}
_TABLE = 2  # axes
_FEW = 16  # whole numbers that are classes however few samples there are


@dataclass(frozen=True, slots=True)
class Table:
    """Samples and targets, split and scaled.

    Attributes:
        train: inputs and targets of the training part.
        valid: of the validation part.
        classes: how many; 0 in a regression.
        about: all that was decided, in words.
    """

    train: tuple[Tensor, Tensor]
    valid: tuple[Tensor, Tensor]
    classes: int
    about: str

    @classmethod
    def of(
        cls, x: Any, y: Any, kind: str | None, validation: Any, *, standardize: bool, seed: int
    ) -> "Table":
        """Read the arrays, hold a part out, and scale by the rest."""
        inputs, targets = _inputs("X", x), _targets("y", y, len(x))
        _same_length("X and y", inputs, targets)
        held = _kind(targets, kind)
        labels = np.unique(targets) if held == "classes" else None
        (a, b), (c, d) = _parts(inputs, targets, validation, labels, seed)
        shift, scale = _scale(a, standardize=standardize)
        outputs = _encoded(b, d, labels, standardize=standardize)
        names = [_words(a, inputs, c, targets, labels), *_scaled(labels, standardize=standardize)]
        return cls(
            (_tensor((a - shift) / scale), outputs[0]),
            (_tensor((c - shift) / scale), outputs[1]),
            0 if labels is None else len(labels),
            "; ".join(names),
        )

    @property
    def outputs(self) -> int:
        """How many numbers a model gives for a sample."""
        return self.classes or int(self.train[1].shape[1])

    @property
    def features(self) -> int:
        """How many numbers a sample has."""
        return int(self.train[0][0].numel())

    @property
    def loss_fn(self) -> Callable[[Any, Any], Tensor]:
        """Cross-entropy for classes, the mean squared error for a regression."""
        found: Any = nn.functional.cross_entropy if self.classes else _squared
        return found  # type: ignore[no-any-return]


def _squared(outputs: Tensor, targets: Tensor) -> Tensor:
    if outputs.numel() != targets.numel():  # torch would stretch one over the other
        shapes = f"{tuple(outputs.shape)} and {tuple(targets.shape)}"
        raise FieldError.of("Task: model", "one that gives an output for each target", shapes)
    return nn.functional.mse_loss(outputs.reshape(targets.shape), targets)


def _array(field: str, given: Any) -> Array:
    if isinstance(given, Tensor):
        given = given.detach().cpu()
    if hasattr(given, "toarray"):
        raise FieldError.of(field, "an array", type(given).__name__, f"give {field}.toarray()")
    try:
        return np.asarray(given)
    except ValueError as error:  # rows of different lengths
        raise FieldError.of(field, "an array of numbers", shown(given)) from error


def _inputs(field: str, given: Any) -> Array:
    found = _array(field, given)
    if found.dtype.kind not in "biuf":
        cure = "encode what is no number"
        raise FieldError.of(field, "numbers", f"an array of {found.dtype}", cure)
    if found.ndim < _TABLE or not found.size:
        cure = f"of one feature: {field}.reshape(-1, 1)" if found.ndim == 1 and found.size else ""
        raise FieldError.of(field, "of samples in rows, with features", found.shape, cure)
    return _finite(field, found.astype(np.float64))


def _finite(field: str, found: Array) -> Array:
    if not np.isfinite(found).all():
        row = int(np.argwhere(~np.isfinite(found))[0][0])
        cure = "leave such samples out, or fill them"
        raise FieldError.of(field, "finite", f"{found[row].flatten()} in row {row}", cure)
    return found


def _targets(field: str, given: Any, samples: int) -> Array:
    found = _array(field, given)
    if found.dtype.kind == "O" and all(isinstance(each, str) for each in found.ravel()):
        found = found.astype(str)
    if found.dtype.kind not in _HOLDS:
        raise FieldError.of(field, "numbers or texts", f"an array of {found.dtype}")
    if found.dtype.kind == "f":
        _finite(field, found)
    if found.ndim == _TABLE and found.shape[1] == 1:
        found = found[:, 0]
    if not found.ndim or found.ndim > _TABLE:
        raise FieldError.of(field, f"a target for each of {samples:,} samples", found.shape)
    return found


def _same_length(field: str, inputs: Array, targets: Array) -> None:
    if len(inputs) != len(targets):
        lengths = f"{len(inputs):,} and {len(targets):,}"
        raise FieldError.of(field, "of the same length", lengths)


def _kind(targets: Array, kind: str | None) -> str:
    if kind is not None and kind not in _KINDS:
        raise FieldError.of("kind", "'classes' or 'regression'", kind, nearest(kind, _KINDS)[2:])
    if kind == "regression" and targets.dtype.kind == "U":
        raise FieldError.of("kind", "'classes' for texts", kind)
    found = kind or ("regression" if targets.dtype.kind == "f" else "classes")
    if found == "classes":
        _check_classes(targets, kind)
    elif len(targets) > 1 and (targets == targets[0]).all():
        raise FieldError.of("y", "of different targets", f"{targets[0]} everywhere")
    return found


def _check_classes(targets: Array, kind: str | None) -> None:
    if targets.ndim > 1:
        cure = "give one column, or kind='regression'"
        raise FieldError.of("y", "one class for each sample", targets.shape, cure)
    count = len(np.unique(targets))
    if count == 1:
        raise FieldError.of("y", "of two classes or more", f"one, {shown(targets[0].item())}")
    if kind is None and targets.dtype.kind != "U" and 2 * count > len(targets) and count > _FEW:
        cure = "say kind='regression' or kind='classes'"
        given = f"{count:,} whole numbers for {len(targets):,} samples"
        raise FieldError.of("y", "classes that repeat", given, cure)


Part = tuple[Array, Array]


def _parts(
    x: Array, y: Array, validation: Any, labels: Array | None, seed: int
) -> tuple[Part, Part]:
    if isinstance(validation, tuple):
        return (x, y), _given_part(x, y, validation, labels)
    share = Bounds(gt=0, lt=1).admit("validation", validation)
    random = np.random.default_rng(
        blended(int(Bounds(ge=0, whole=True).admit("seed", seed)), SPLIT)
    )
    order = random.permutation(len(y))
    if labels is not None:  # of each class alike: every so many of the samples sorted by class
        order = order[np.argsort(y[order], kind="stable")]
    counts = np.floor(np.arange(1, len(y) + 1) * share + 1e-9)
    out = np.diff(counts, prepend=0.0) > 0
    if not out.any() or out.all():
        raise FieldError.of("validation", "a share that leaves samples in both parts", share)
    kept, held = np.sort(order[~out]), np.sort(order[out])
    return (x[kept], y[kept]), (x[held], y[held])


def _given_part(x: Array, y: Array, given: Any, labels: Array | None) -> Part:
    if len(given) != 2:  # noqa: PLR2004 (X and y)
        raise FieldError.of("validation", "a share, or a pair (X, y)", f"{len(given)} things")
    inputs = _inputs("validation X", given[0])
    targets = _targets("validation y", given[1], len(inputs))
    _same_length("validation X and y", inputs, targets)
    if inputs.shape[1:] != x.shape[1:] or targets.shape[1:] != y.shape[1:]:
        shapes = f"{inputs.shape} and {targets.shape}"
        raise FieldError.of("validation", "of the features and targets of X and y", shapes)
    if labels is not None and (new := np.setdiff1d(targets, labels)).size:
        raise FieldError.of("validation y", "classes that y has", new[0].item())
    return inputs, targets


def _scale(x: Array, *, standardize: bool) -> tuple[Any, Any]:
    if not standardize:
        return 0.0, 1.0
    axis = 0 if x.ndim == _TABLE else None
    scale = x.std(axis=axis)
    return x.mean(axis=axis), np.where(scale > 0, scale, 1.0)


def _encoded(
    train: Array, valid: Array, labels: Array | None, *, standardize: bool
) -> tuple[Tensor, Tensor]:
    if labels is not None:
        found = [torch.from_numpy(np.searchsorted(labels, each)).long() for each in (train, valid)]
        return found[0], found[1]
    columns = [each.astype(np.float64).reshape(len(each), -1) for each in (train, valid)]
    shift, scale = _scale(columns[0], standardize=standardize)
    return _tensor((columns[0] - shift) / scale), _tensor((columns[1] - shift) / scale)


def _tensor(values: Array) -> Tensor:
    return torch.tensor(values, dtype=torch.get_default_dtype())


def _words(train: Array, x: Array, valid: Array, y: Array, labels: Array | None) -> str:
    features = int(np.prod(x.shape[1:]))
    of = f"{features:,} feature{'s' if features > 1 else ''}"
    targets = "regression" if labels is None else f"{len(labels)} classes"
    samples = f"{len(train) + len(valid):,} samples of {of}"
    held = f"{targets} (y holds {_HOLDS[y.dtype.kind]})"
    return f"{samples}, {held}; {len(valid):,} held out"


def _scaled(labels: Array | None, *, standardize: bool) -> list[str]:
    if not standardize:
        return []
    return ["features standardized" if labels is not None else "features and targets standardized"]
