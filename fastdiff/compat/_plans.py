"""Plans that adapters ask for again and again, kept: their callers make a new sampler at every call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from ..parametrizations import Denoiser, Parametrization
from ..plan import Plan
from ..samplers import Sampler

_KEPT = 64
_OF_NETWORKS: WeakKeyDictionary[Any, dict[tuple[Sampler, float, float], Plan]] = WeakKeyDictionary()


@lru_cache(maxsize=_KEPT)
def plan_for(sampler: Sampler, net: Parametrization) -> Plan:
    """The sampler's plan for a parametrization that rounds no noise level; made once while both stay equal."""
    return sampler.plan(net)


@lru_cache(maxsize=_KEPT)
def plan_from_state(sampler: Sampler, net: Parametrization, draws: int) -> Plan:
    """plan_for, where the first state itself is given and not its noise, and the original program draws noise `draws` times."""
    return replace(plan_for(sampler, net), prior_scale=1.0, draws=draws, _tables={}, _derived={})


def plan_of_network(sampler: Sampler, net: Callable[..., Any]) -> Plan:
    """The sampler's plan for a denoiser object, whose sigma_min, sigma_max and round_sigma it respects; made once while they stay."""
    denoiser = Denoiser.of(net)
    try:
        plans = _OF_NETWORKS.setdefault(net, {})
    except TypeError:  # an object that cannot be weakly referenced, or hashed
        return sampler.plan(denoiser)
    key = (sampler, denoiser.sigma_min, denoiser.sigma_max)  # not the denoiser: it would keep the network alive
    if key not in plans:
        while len(plans) >= _KEPT:
            plans.pop(next(iter(plans)))
        plans[key] = sampler.plan(denoiser)
    return plans[key]
