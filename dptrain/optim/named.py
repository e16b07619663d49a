"""Options of arrays by their names: which decay, at which rate each learns, what stays as it is."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from dptrain.arrays import Layout
from dptrain.config import TrainConfig
from dptrain.words import InputError, counted, listed, nearest


class Treatment(NamedTuple):
    """What is asked for an array of a model."""

    factor: float = 1.0
    """What the learning rate is multiplied by."""
    decays: bool = True
    frozen: bool = False


class Part(NamedTuple):
    """Entries of a slice that are updated alike."""

    place: slice
    """Where in the slice."""
    array: int
    """The number of the array that they are of, or of the first of several."""
    treatment: Treatment = Treatment()


def treatments(layout: Layout, config: TrainConfig) -> list[Treatment]:
    """Return what is asked for each array of a layout.

    A pattern means the arrays whose whole name it fits, or whose kind; of several learning rates
    for one array the last counts. Raises InputError where a pattern fits no array, or no array is
    left to be trained.
    """
    found = [Treatment(frozen=getattr(param, "fixed", False)) for param in layout]
    for pattern in config.no_decay:
        _treat(found, layout, "no-decay", pattern, decays=False)
    for pattern, rate in config.rates:
        _treat(found, layout, "learning-rate-of", pattern, factor=rate / config.learning_rate)
    for pattern in config.freeze:
        _treat(found, layout, "freeze", pattern, frozen=True)
    pairs = zip(layout, found, strict=True)
    left = [param for param, each in pairs if not each.frozen and param.kind != "statistic"]
    if config.freeze and not left:
        raise InputError(f"freeze is {', '.join(config.freeze)}, and so nothing is left to train")
    return found


def _treat(
    found: list[Treatment], layout: Layout, option: str, pattern: str, **changes: Any
) -> None:
    """Change the treatment of each array that a pattern fits; InputError where it fits none."""
    names = [param.name for param in layout]
    kinds = [param.name if param.kind == "statistic" else param.kind for param in layout]
    fit = [
        fnmatchcase(n, pattern) or fnmatchcase(k, pattern)
        for n, k in zip(names, kinds, strict=True)
    ]
    if not any(fit):
        valid = nearest(pattern, dict.fromkeys([*names, *kinds]))
        raise InputError(f"{option} is {pattern!r}, which fits no array; {valid}")
    found[:] = [t._replace(**changes) if fits else t for t, fits in zip(found, fit, strict=True)]


def parts(
    layout: Layout, treated: Sequence[Treatment], own: slice, *, apart: bool = False
) -> tuple[list[Part], list[slice]]:
    """Return what of a slice of the vector is updated alike, and where in it statistics lie.

    What is frozen is in neither. `apart` keeps entries of different arrays apart.
    """
    found: list[Part] = []
    statistics: list[slice] = []
    for number, place in _places(layout, own):
        treatment, last = treated[number], found[-1] if found else None
        if treatment.frozen:
            continue
        if layout[number].kind == "statistic":
            statistics.append(place)
        elif last and not apart and last.treatment == treatment and last.place.stop == place.start:
            found[-1] = last._replace(place=slice(last.place.start, place.stop))
        else:
            found.append(Part(place, number, treatment))
    return found, statistics


def _places(layout: Layout, own: slice) -> Iterator[tuple[int, slice]]:
    """Yield each array's number, and where it lies in a slice of the vector if it does."""
    stop = 0
    for number, param in enumerate(layout):
        start, stop = stop, stop + param.size
        first, last = max(start, own.start), min(stop, own.stop)
        if first < last:
            yield number, slice(first - own.start, last - own.start)


def told(layout: Layout, config: TrainConfig) -> list[str]:
    """Return what the options by name come to, a line each that is used."""
    names = [param.name for param in layout]
    treated = [*zip(names, treatments(layout, config), strict=True)]
    found = {}
    if config.no_decay:
        found["no weight decay"] = [name for name, each in treated if not each.decays]
    for factor in dict.fromkeys(each.factor for _, each in treated if each.factor != 1):
        title = f"learning rate {factor * config.learning_rate:g}"
        found[title] = [name for name, each in treated if each.factor == factor]
    if config.freeze:
        found["frozen"] = [name for name, each in treated if each.frozen]
    return [f"{title}: {counted(len(n), 'array')}, {listed(n)}" for title, n in found.items()]
