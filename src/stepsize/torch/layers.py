"""Param groups for layer-wise learning-rate decay, the layers read from the module tree."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from stepsize.errors import FieldError
from stepsize.schedules.fields import Bounds
from stepsize.schedules.names import nearest
from stepsize.torch.groups import Group

NoDecay = Iterable[str] | Callable[[str, nn.Parameter], bool]
_LIST = (nn.ModuleList, nn.Sequential)


def layer_decay(
    model: nn.Module,
    rate: float,
    *,
    lr: float,
    weight_decay: float = 0.0,
    no_decay: NoDecay | None = None,
    depth: Callable[[str], int] | None = None,
) -> list[Group]:
    """Give param groups whose learning rate falls by a constant factor per layer below the head.

    `lr * rate ** (D - d)` for a parameter of depth d, where D is the greatest depth there is.
    In the order of registration, depth 0 is what comes before the first block and what the model
    owns itself (embeddings, class token); block i of n has depth i; what comes after the last has
    n + 1 (norm, head). What stands between two (downsampling) goes with the one that follows.

    **Blocks** are the modules in the outermost `nn.ModuleList` or `nn.Sequential` of two or more,
    all of one class and with parameters; several such lists (a ResNet's, encoder and decoder) are
    counted through. Modules that differ in shape and hold such lists directly are stages: what is
    in these counts. Lists of plain layers (`nn.Linear`) count where there are no others. Towers
    side by side and heads in a list look like blocks too: give `depth` for them.

    Groups ascend in depth; their names are "layer_3" and, without weight decay,
    "layer_3_no_decay". Every parameter that requires a gradient is in one, a tied one where it
    comes first; frozen ones are left out, but their layers count.

    Args:
        model: the model, before anything flattens its parameters.
        rate: the factor per layer, in (0, 1]; 1 gives all layers the same rate.
        lr: the rate at the greatest depth.
        weight_decay: of all parameters but those with at most one dimension (biases, norms), those
            that a module's own `no_weight_decay()` names, and those of `no_decay`.
        no_decay: names, ends of names ("head.weight") or glob patterns ("*_table") in addition to
            these; or a predicate (name, parameter) that decides alone, in their place.
        depth: the depth of a parameter by its name, in place of the blocks.

    Raises:
        FieldError: for a value of the wrong kind, a model without blocks or without trainable
            parameters, and a pattern that no parameter matches.

    Source: Clark et al. 2020, ELECTRA, arXiv 2003.10555 (in its code the head is two powers above
    the last block, here one); Bao et al. 2021, BEiT, arXiv 2106.08254 (its code has a shared
    position bias with the head); timm `param_groups_layer_decay` (final norm in the last block).

    >>> from torch import nn
    >>> blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(2))
    >>> model = nn.ModuleDict({"embed": nn.Embedding(9, 4), "blocks": blocks})
    >>> groups = layer_decay(model, 0.5, lr=0.1, weight_decay=0.01)
    >>> [(g["name"], g["lr"], g["weight_decay"]) for g in groups[:3]]
    [('layer_0', 0.025, 0.01), ('layer_1', 0.05, 0.01), ('layer_1_no_decay', 0.05, 0.0)]
    """
    factor = float(Bounds(gt=0, le=1).admit("layer_decay.rate", rate))
    peak = float(Bounds(gt=0).admit("layer_decay.lr", lr))
    decay = float(Bounds(ge=0).admit("layer_decay.weight_decay", weight_decay))
    _check(model)
    depths, spared = _depths(model, depth), _spared(model, no_decay)
    found: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found.setdefault((depths[name], id(parameter) in spared), []).append(parameter)
    last = max(depths.values())
    return [
        {
            "params": found[d, bare],
            "name": f"layer_{d}_no_decay" if bare else f"layer_{d}",
            "lr": peak * factor ** (last - d),
            "weight_decay": 0.0 if bare else decay,
        }
        for d, bare in sorted(found)
    ]


def _check(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise FieldError.of("layer_decay.model", "a torch.nn.Module", model)
    parameters, name = list(model.parameters()), type(model).__name__
    if any(map(nn.parameter.is_lazy, parameters)):
        cure = "run one batch through it first"
        raise FieldError.of("layer_decay.model", "without uninitialized parameters", name, cure)
    if not any(p.requires_grad for p in parameters):
        cure = "all are frozen" if parameters else "it has no parameters"
        raise FieldError.of("layer_decay.model", "one with trainable parameters", name, cure)


def _depths(model: nn.Module, depth: Any) -> dict[str, int]:
    """Give the depth of every parameter by name."""
    names = [name for name, _ in model.named_parameters()]
    if depth is None:
        return _by_blocks(names, _blocks(model))
    if not callable(depth):
        raise FieldError.of("layer_decay.depth", "a function of a parameter's name", depth)
    rule = Bounds(ge=0, whole=True)
    return {n: int(rule.admit(f"layer_decay.depth({n!r})", depth(n))) for n in names}


def _by_blocks(names: list[str], blocks: list[str]) -> dict[str, int]:
    number = {f"{block}.": i for i, block in enumerate(blocks, 1)}
    found, ahead = {}, len(blocks) + 1
    for name in reversed(names):
        above = (name[: i + 1] for i, letter in enumerate(name) if letter == ".")
        own = next((number[each] for each in above if each in number), 0)
        ahead = own or ahead
        found[name] = own or (0 if ahead == 1 else ahead)
    return found


def _blocks(model: nn.Module) -> list[str]:
    """Give the names of the blocks, in order."""
    lists = _lists(model)
    lists = [each for each in lists if _is_deep(each)] or lists
    if not lists:
        rule = "one that holds an nn.ModuleList or nn.Sequential of blocks of one class"
        cure = "give depth=, a function from a parameter's name to its layer"
        raise FieldError.of("layer_decay.model", rule, type(model).__name__, cure)
    names = {module: name for name, module in model.named_modules()}
    return list(dict.fromkeys(names[block] for each in lists for block in _members(each)))


def _lists(module: nn.Module) -> list[nn.Module]:
    """Find the outermost lists of alike modules."""
    if _is_alike(module):
        return [module]
    inside = list(module.children())
    # a list of one module, or of several classes, holds layers too: the lists in one of them
    # (experts, attention heads) are not the model's
    if isinstance(module, nn.ModuleList) or (isinstance(module, _LIST) and len(inside) == 1):
        inside = [child for child in inside if isinstance(child, _LIST)]
    return [each for child in inside for each in _lists(child)]


def _members(module: nn.Module) -> list[nn.Module]:
    """Give the blocks in a list; those in its stages, where it is one of stages."""
    inside = list(module.children())
    near = [[each] if isinstance(each, _LIST) else list(each.children()) for each in inside]
    lists = [[m for m in own if _is_alike(m) and _is_deep(m)] for own in near]
    shapes = {tuple((n, p.shape) for n, p in each.named_parameters()) for each in inside}
    staged = len(shapes) > 1 or all(isinstance(each, _LIST) for each in inside)
    if not staged:
        return inside
    found = [[block for m in own for block in _members(m)] for own in lists]
    return [b for stage, blocks in zip(inside, found, strict=True) for b in blocks or [stage]]


def _is_alike(module: nn.Module) -> bool:
    """Tell whether it is a list of two or more modules of one class, all with parameters."""
    inside = list(module.children())
    one = len({type(each) for each in inside}) == 1 < len(inside)
    return isinstance(module, _LIST) and one and all(list(each.parameters()) for each in inside)


def _is_deep(module: nn.Module) -> bool:
    """Tell whether the modules in a list hold modules."""
    return any(list(each.children()) for each in module.children())


def _spared(model: nn.Module, no_decay: Any) -> set[int]:
    """Give the ids of the parameters without weight decay; a tied one has several names."""
    if callable(no_decay):
        return {id(p) for name, p in model.named_parameters() if no_decay(name, p)}
    named = list(model.named_parameters(remove_duplicate=False))
    told = _patterns(no_decay, [name for name, _ in named])
    for prefix, module in model.named_modules():
        own = getattr(module, "no_weight_decay", tuple)
        told += [f"{prefix}.{name}".removeprefix(".") for name in own()]
    return {id(p) for n, p in named if p.ndim <= 1 or any(_matches(n, each) for each in told)}


def _patterns(given: Any, names: list[str]) -> list[str]:
    if given is not None and (isinstance(given, str) or not isinstance(given, Iterable)):
        rule = "an iterable of names or patterns, or a predicate (name, parameter)"
        raise FieldError.of("layer_decay.no_decay", rule, given)
    told = list(given or ())
    for i, each in enumerate(told):
        if not isinstance(each, str) or not any(_matches(name, each) for name in names):
            ends = [".".join(n.split(".")[k:]) for n in names for k in range(n.count(".") + 1)]
            cure = nearest(each, ends)[2:] or "see model.named_parameters()"
            rule = "the name of a parameter, its end or a pattern"
            raise FieldError.of(f"layer_decay.no_decay[{i}]", rule, each, cure)
    return told


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
