"""How long a framework's run is, read off a Lightning trainer or transformers' arguments.

No framework is imported: their objects are read by attribute, so a duck does as well.
"""

import math
from typing import Any

from stepsize.errors import FieldError, UnitError
from stepsize.horizon import Horizon
from stepsize.units import Time

_TRAINER = (
    "max_epochs",
    "max_steps",
    "num_training_batches",
    "accumulate_grad_batches",
    "world_size",
    "lightning_module",
)
_ARGS = (
    "max_steps",
    "num_train_epochs",
    "train_batch_size",
    "gradient_accumulation_steps",
    "world_size",
)


def horizon_from_lightning(trainer: Any, **fields: Any) -> Horizon:
    """Read the length of a run off a Lightning trainer that is fitting.

    ```python
    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-4)
        horizon = Horizon.from_lightning(self.trainer)
        scheduler = Scheduler(optimizer, lr=Warmup("5%") >> Cosine(), horizon=horizon)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]
    ```

    The total is what ends the run first, `max_steps` or `max_epochs`; `max_time`, where neither is
    set; None where nothing ends it, or where `max_epochs` does and the data have no length.
    Batches, batch size, accumulation and replicas are the trainer's own, `limit_train_batches` and
    its distributed sampler included.

    In manual optimization the trainer cannot know how many batches make an optimizer step: one, as
    long as `accumulate=` does not say otherwise; and its `max_steps` counts the steps of all
    optimizers together, so give `total=` there.

    Args:
        trainer: `self.trainer`, in `configure_optimizers` or later.
        **fields: fields of `Horizon`, in place of what is read.
    """
    _check(trainer, "Horizon.from_lightning: trainer", "a Lightning Trainer", _TRAINER)
    if trainer.lightning_module is None:
        raise FieldError.of(
            "Horizon.from_lightning: trainer",
            "one that is fitting (a trainer knows its data only then)",
            type(trainer).__name__,
            "call it in configure_optimizers, or give horizon=lambda: "
            "Horizon.from_lightning(trainer), which is called at the first step",
        )
    if trainer.train_dataloader is None:
        trainer.fit_loop.setup_data()  # as its own estimated_stepping_batches does
    read: dict[str, Any] = {"replicas": _replicas(trainer), "batch_size": _batch_size(trainer)}
    if math.isfinite(trainer.num_training_batches):
        read["batches_per_epoch"] = int(trainer.num_training_batches)
    if "accumulate" not in fields:
        read["accumulate"] = _accumulation(trainer)
    if getattr(trainer.strategy, "handles_gradient_accumulation", False):
        read["last"] = "carry"  # DeepSpeed counts batches through the end of an epoch
    known = Horizon(**{"total": None, **read, **fields})
    if "total" in fields:
        return known
    return Horizon(**{**read, **fields, "total": _total(trainer, known)})


def _total(trainer: Any, known: Horizon) -> float | Time | None:
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    if trainer.max_epochs not in (None, -1) and known.batches_per_epoch is not None:
        epochs = Time(float(max(trainer.max_epochs, 1)), "ep")
        if not limits or math.ceil(known.step_at(epochs.amount, "ep")) <= limits[0]:
            return epochs
    if limits:
        return float(limits[0])
    for callback in trainer.callbacks:  # max_time is kept in one of them, a Timer
        left = callback.time_remaining() if hasattr(callback, "time_remaining") else None
        if left is not None:
            return Time(round(left + callback.time_elapsed(), 3), "s")
    return None


def _accumulation(trainer: Any) -> int:
    """Give batches per step; of a `GradientAccumulationScheduler`, which sets it by the epoch."""
    for callback in trainer.callbacks:
        if hasattr(callback, "get_accumulate_grad_batches"):
            factors = dict(callback.scheduling)
            if len(set(factors.values())) > 1:
                raise UnitError(
                    f"accumulation changes from epoch to epoch ({factors}), so an epoch has no "
                    "fixed number of steps: give total= in steps, and accumulate="
                )
            return int(factors[0])
    return int(trainer.accumulate_grad_batches)


def _replicas(trainer: Any) -> int:
    """Give the processes that see data of their own: fewer than all under tensor parallelism."""
    sampler = getattr(trainer.strategy, "distributed_sampler_kwargs", None) or {}
    return int(sampler.get("num_replicas") or trainer.world_size)


def _batch_size(trainer: Any) -> int | None:
    loader = trainer.train_dataloader
    size = getattr(loader, "batch_size", None)
    if size is None:
        size = getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    return size if isinstance(size, int) else None


def horizon_from_training_args(args: Any, dataset: Any = None, **fields: Any) -> Horizon:
    """Read the length of a run off transformers' `TrainingArguments`, as its Trainer computes it.

    ```python
    horizon = Horizon.from_training_args(args, train_dataset)
    scheduler = Scheduler(optimizer, lr=Warmup("5%") >> Cosine(), horizon=horizon)
    Trainer(model, args, train_dataset=train_dataset, optimizers=(optimizer, scheduler)).train()
    ```

    `max_steps`, else `num_train_epochs` (a part of an epoch too), in optimizer steps of all
    processes: batches are shared out among them, and the batches left over at the end of an epoch
    make a smaller step. With `auto_find_batch_size` the batch size is known only later.

    Args:
        args: the arguments, in the process that trains: they know its world size.
        dataset: the training set; its length is all that is read. It may be left out where
            `args.max_steps` is set or `batches_per_epoch=` given (for a loader of your own).
        **fields: fields of `Horizon`, such as `tokens_per_sample=`, in place of what is read.
    """
    where = "Horizon.from_training_args"
    _check(args, f"{where}: args", "a transformers TrainingArguments", _ARGS)
    split = getattr(getattr(args, "accelerator_config", None), "split_batches", False)
    sequence, replicas = _parallel(args)
    read: dict[str, Any] = {
        "accumulate": args.gradient_accumulation_steps,
        "replicas": replicas,
        "batch_size": args.train_batch_size // (replicas if split else 1),
    }
    samples = _length(dataset)
    if samples is not None:
        read["batches_per_epoch"] = sequence * _batches(
            args, dataset, samples, 1 if split else replicas
        )
    read |= fields
    if "total" in fields:
        return Horizon(**read)
    if args.max_steps == 0:
        raise FieldError.of(f"{where}: args.max_steps", "a number of steps, or -1", 0)
    if args.max_steps > 0:
        return Horizon(**{**read, "total": args.max_steps})
    if read.get("batches_per_epoch") is None:
        given = "none" if dataset is None else f"a {type(dataset).__name__} without one"
        raise UnitError(
            f"{where}: args.num_train_epochs = {args.num_train_epochs:g} needs a dataset with a "
            f"length, got {given}: give the dataset, batches_per_epoch=, or args.max_steps"
        )
    return Horizon(**{**read, "total": Time(float(args.num_train_epochs), "ep")})


def _batches(args: Any, dataset: Any, samples: int, shares: int) -> int:
    """Batches that one process gets in an epoch, as transformers and accelerate share them out."""
    iterable = any(
        base.__name__ == "IterableDataset" and base.__module__.startswith("torch.utils.data")
        for base in type(dataset).__mro__
    )
    drop = bool(getattr(args, "dataloader_drop_last", False)) and not iterable
    if getattr(args, "train_sampling_strategy", "") == "batch_rebalance" and not iterable:
        # its sampler fills whole optimizer steps, or drops the samples that fill none
        each = args.train_batch_size * args.gradient_accumulation_steps * max(1, args.world_size)
        batches = _divided(samples, each, drop=drop) * int(args.gradient_accumulation_steps)
    else:
        batches = _divided(samples, args.train_batch_size, drop=drop)
        batches = _divided(batches, shares, drop=drop)
    if not batches:
        raise FieldError.of(
            "Horizon.from_training_args: the dataset",
            f"as long as a batch of {args.train_batch_size} on each of {shares} processes",
            f"{samples} samples",
            "train with dataloader_drop_last=False" if drop else "",
        )
    return batches


def _divided(number: int, by: int, *, drop: bool) -> int:
    return number // by if drop else -(-number // by)


def _parallel(args: Any) -> tuple[int, int]:
    """Give the processes that share a sequence, and those that see samples of their own."""
    config = getattr(args, "parallelism_config", None)
    tensor, context, sequence = (
        int(getattr(config, f"{name}_size", None) or 1) for name in ("tp", "cp", "sp")
    )
    return sequence, max(1, args.world_size // (tensor * context * sequence))


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except TypeError:
        return None


def _check(given: Any, field: str, rule: str, names: tuple[str, ...]) -> None:
    missing = [name for name in names if not hasattr(given, name)]
    if missing:
        cure = f"it has no {', '.join(missing)}"
        raise FieldError.of(field, rule, given if given is None else type(given).__name__, cure)
