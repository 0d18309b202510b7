"""Plans that are kept: nothing that a caller does afterwards changes them, and they keep nothing of the caller's alive."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch

from fastdiff import Denoiser, EDMSampler, Guidance, keys
from fastdiff.compat._plans import plan_for, plan_of_network
from fastdiff.known import Known
from fastdiff.loop import run


class Net:
    sigma_min, sigma_max = 0.002, 80.0

    def __call__(self, x, sigma):
        return x * 0.5


def label_changing(x, sigma):
    return x * sigma.clamp_(max=1.0).reshape(-1, 1)


def label_reading(x, sigma):
    return x * (sigma / 100).reshape(-1, 1)


@pytest.mark.parametrize("inference", [False, True])
def test_a_network_that_changes_its_labels_spoils_no_later_run(inference):
    x = torch.ones(2, 3)
    expected = run(EDMSampler(steps=4).plan(Denoiser()), label_reading, x)
    plan = EDMSampler(steps=4).plan(Denoiser())
    with torch.inference_mode(inference):
        run(plan, label_changing, x)
    assert torch.equal(run(plan, label_reading, x), expected)


def test_a_guidance_that_changes_its_levels_spoils_no_later_run():
    x, seen = torch.ones(2, 3), []

    def gradient(x, sigma):
        seen.append(sigma.tolist())
        return x * sigma.mul_(0.5).reshape(-1, 1) * 0

    plan, guidance = EDMSampler(steps=3).plan(Denoiser()), Guidance(gradient)
    for _ in range(2):
        run(plan, label_reading, x, guidance=guidance)
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]


def test_tables_stay_while_nobody_writes_into_them():
    plan = EDMSampler(steps=3).plan(Denoiser())
    given = torch.device("cpu"), torch.float32, torch.float32, 2
    assert plan.tables(*given) is plan.tables(*given)


def test_derived_plans_do_not_keep_what_they_were_derived_by():
    plan, x = plan_for(EDMSampler(steps=3), Denoiser()), torch.ones(2, 3)
    guidance, known = Guidance(lambda x, sigma: x * 0), Known(torch.ones(2, 3), torch.ones(2, 3))
    first = plan.derived(guidance)
    assert plan.derived(guidance) is first
    run(plan, Net(), x, guidance=guidance)
    run(plan, Net(), x, known=known, key=keys(0, 2))
    references = [weakref.ref(guidance), weakref.ref(known), weakref.ref(known.data)]
    del guidance, known
    gc.collect()
    assert [reference() for reference in references] == [None] * 3
    assert all(made is plan for _, made in plan._derived.values())  # by the epsilon scaling that changes nothing


def test_copies_and_pickles_of_used_plans():
    plan, guidance = EDMSampler(steps=3).plan(Denoiser()), Guidance(lambda x, sigma: x * 0)
    run(plan, Net(), torch.ones(2, 3), guidance=guidance)
    for made in (copy.deepcopy(plan), pickle.loads(pickle.dumps(plan))):
        assert made == plan
        assert torch.equal(run(made, Net(), torch.ones(2, 3)), run(plan, Net(), torch.ones(2, 3)))


def test_plans_of_networks_follow_their_bounds_and_die_with_them():
    net = Net()
    plan = plan_of_network(EDMSampler(steps=3), net)
    assert plan_of_network(EDMSampler(steps=3), net) is plan
    net.sigma_max = 40.0
    assert plan_of_network(EDMSampler(steps=3), net).rows[0].sigma == pytest.approx(40.0)
    reference, kept = weakref.ref(net), weakref.ref(plan)
    del net, plan
    gc.collect()
    assert reference() is None
    assert kept() is None
