"""Every scheduler and every config option against diffusers' own, step by step."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.utils._python_dispatch
from torch import Tensor

original = pytest.importorskip("diffusers", minversion="0.35")

import fastdiff.compat.diffusers as ours  # noqa: E402
from fastdiff.doctor import inspect as inspect_machine  # noqa: E402

NAMES = [cls.__name__ for cls in ours.SCHEDULERS]
SHAPE = (2, 3, 4, 4)

#: Other values of every option: what is compared. A scheduler's option that is not here fails test_every_option_is_compared.
VALUES: dict[str, list[Any]] = {
    "algorithm_type": ["sde-dpmsolver++", "dpmsolver++"],
    "base_image_seq_len": [128],
    "base_shift": [0.7],
    "beta_end": [0.015],
    "beta_schedule": ["scaled_linear", "squaredcos_cap_v2"],
    "beta_start": [0.001],
    "clip_sample": [True, False],
    "clip_sample_range": [0.5],
    "correct_steps": [2],
    "disable_corrector": [[0, 2]],
    "dynamic_thresholding_ratio": [0.9],
    "euler_at_final": [True],
    "final_sigmas_type": ["sigma_min"],
    "flow_shift": [3.0],
    "interpolation_type": ["log_linear"],
    "invert_sigmas": [True],
    "lambda_min_clipped": [-5.1],
    "lower_order_final": [True, False],
    "max_image_seq_len": [2048],
    "max_shift": [1.3],
    "num_train_timesteps": [500],
    "predict_x0": [False],
    "prediction_type": ["sample", "v_prediction", "flow_prediction"],
    "rescale_betas_zero_snr": [True],
    "rho": [5.0],
    "sample_max_value": [2.0],
    "sampling_eps": [1e-4],
    "set_alpha_to_one": [False],
    "shift": [3.0],
    "shift_terminal": [0.1],
    "sigma_data": [1.0],
    "sigma_max": [14.0],
    "sigma_min": [0.05],
    "sigma_schedule": ["exponential"],
    "snr": [0.3],
    "solver_order": [1, 2, 3],
    "solver_p": [None],
    "solver_type": ["heun", "bh1"],
    "steps_offset": [1],
    "stochastic_sampling": [True],
    "thresholding": [True],
    "time_shift_type": ["linear"],
    "timestep_spacing": ["leading", "trailing", "linspace"],
    "timestep_type": ["continuous"],
    "trained_betas": [[0.001 * (i + 1) for i in range(20)]],
    "use_beta_sigmas": [True],
    "use_dynamic_shifting": [False],
    "use_exponential_sigmas": [True],
    "use_flow_sigmas": [True],
    "use_karras_sigmas": [True],
    "use_lu_lambdas": [True],
    "variance_type": ["fixed_small_log", "fixed_large", "fixed_large_log", "learned_range", "learned"],
}
#: Options that mean something only beside others.
BESIDE: dict[str, dict[str, Any]] = {
    "dynamic_thresholding_ratio": {"thresholding": True},
    "flow_prediction": {"use_flow_sigmas": True},
    "flow_shift": {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    "use_flow_sigmas": {"prediction_type": "flow_prediction"},
    "rescale_betas_zero_snr": {"prediction_type": "v_prediction"},
    "sample_max_value": {"thresholding": True},
    "shift_terminal": {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    "timestep_type": {"prediction_type": "v_prediction"},
    "trained_betas": {"num_train_timesteps": 20},
    "clip_sample_range": {"clip_sample": True},
}
#: What is handed over to the original's own code, and nothing else: (scheduler, option) to the values that are.
HANDED_OVER: dict[tuple[str, str], list[Any]] = {
    ("DDPMScheduler", "thresholding"): [True],
    ("DDPMScheduler", "dynamic_thresholding_ratio"): [0.9],
    ("DDPMScheduler", "sample_max_value"): [2.0],
    ("DDPMScheduler", "variance_type"): ["fixed_large_log", "learned"],
    ("DDIMScheduler", "thresholding"): [True],
    ("DDIMScheduler", "dynamic_thresholding_ratio"): [0.9],
    ("DDIMScheduler", "sample_max_value"): [2.0],
    ("DPMSolverMultistepScheduler", "thresholding"): [True],
    ("DPMSolverMultistepScheduler", "dynamic_thresholding_ratio"): [0.9],
    ("DPMSolverMultistepScheduler", "sample_max_value"): [2.0],
    ("DPMSolverSinglestepScheduler", "thresholding"): [True],
    ("DPMSolverSinglestepScheduler", "dynamic_thresholding_ratio"): [0.9],
    ("DPMSolverSinglestepScheduler", "sample_max_value"): [2.0],
    ("EDMDPMSolverMultistepScheduler", "thresholding"): [True],
    ("EDMDPMSolverMultistepScheduler", "dynamic_thresholding_ratio"): [0.9],
    ("EDMDPMSolverMultistepScheduler", "sample_max_value"): [2.0],
    ("UniPCMultistepScheduler", "thresholding"): [True],
    ("UniPCMultistepScheduler", "dynamic_thresholding_ratio"): [0.9],
    ("UniPCMultistepScheduler", "sample_max_value"): [2.0],
    ("UniPCMultistepScheduler", "predict_x0"): [False],
}  # fmt: skip


def network(x: Tensor, t: Tensor, channels: int) -> Tensor:
    """Something that depends on every element of x and on t."""
    out = torch.tanh(x.roll(1, -1) + 0.3 * x) * 0.7 - 0.001 * float(t)
    return torch.cat([out, torch.tanh(x)], 1) if channels == 2 * x.shape[1] else out


def walk(
    scheduler: Any, seed: int = 0, steps: int = 7, start: int = 0, dtype: torch.dtype = torch.float32, tamper: bool = False, **step: Any
):
    """Run a scheduler's own loop; every output of every step."""
    generator = torch.Generator().manual_seed(seed)
    scheduler.set_timesteps(steps)
    sigma = scheduler.init_noise_sigma if hasattr(scheduler, "init_noise_sigma") else 1.0
    x = torch.randn(SHAPE, generator=generator) * sigma
    outputs = [x]
    learned = str(scheduler.config.get("variance_type", "")).startswith("learned")
    given = {"generator": generator} if "generator" in inspect.signature(_step(scheduler)).parameters else {}
    times = scheduler.timesteps[start * scheduler.order :] if hasattr(scheduler, "order") else scheduler.timesteps
    for t in times:
        if hasattr(scheduler, "step_correct"):
            x = scheduler.step_correct(network(x, t, 3), x, **given).prev_sample
            outputs.append(x)
        x_in = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        out = _step(scheduler)(network(x_in, t, 6 if learned else 3), t, x, return_dict=False, **given, **step)
        outputs += out
        x = out[0]
        if tamper:  # as inpainting pipelines do
            x = torch.where(torch.arange(4) < 2, x, x.mean())
    return outputs


def _step(scheduler: Any) -> Callable:
    return scheduler.step if hasattr(scheduler, "step") else scheduler.step_pred


def same(a: list[Tensor], b: list[Tensor], rtol: float = 2e-4) -> None:
    """Equal up to float32 rounding, whose errors the steps near sigma = 0 enlarge, relative to the largest value."""
    assert len(a) == len(b)
    for expected, got in zip(a, b, strict=True):
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        if not expected.isfinite().all():  # the original divides by 0 and is lost from here
            return
        torch.testing.assert_close(got, expected, rtol=0, atol=rtol * max(1.0, float(expected.abs().max())))


def pair(name: str, **config: Any) -> tuple[Any, Any]:
    return getattr(original, name)(**config), getattr(ours, name)(**config)


def _options() -> list[Any]:
    cases = []
    for name in NAMES:
        for option in inspect.signature(getattr(original, name).__init__).parameters:
            if option in ("self", "kwargs"):
                continue
            for value in VALUES.get(option, []):
                cases.append(pytest.param(name, option, value, id=f"{name}-{option}-{str(value)[:20]}"))
    return cases


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
        ("DPMSolverMultistepScheduler", {"prediction_type": "v_prediction", "use_flow_sigmas": True}),
        ("DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3, "solver_type": "heun"}),
        ("DPMSolverSinglestepScheduler", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction"}),
        ("UniPCMultistepScheduler", {"solver_order": 4}),
    ],
    ids=str,
)
def test_combinations_that_are_handed_over(name, config):
    theirs, mine = pair(name, **config)
    same(walk(theirs, steps=6), walk(mine, steps=6))
    assert mine.handed_over


@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "EDMDPMSolverMultistepScheduler"])
def test_dpm_solvers(name, order, algorithm, solver_type):
    config = {"solver_order": order, "algorithm_type": algorithm, "solver_type": solver_type}
    theirs, mine = pair(name, **config)
    if name.startswith("EDM") and order == 3 and algorithm.startswith("sde"):
        return  # the original fails
    same(walk(theirs, steps=18), walk(mine, steps=18))


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_unipc(order, lower, final):
    config = {"solver_order": order, "lower_order_final": lower, "final_sigmas_type": final, "use_karras_sigmas": final == "zero"}
    theirs, mine = pair("UniPCMultistepScheduler", **config)
    got = walk(mine, steps=12)
    if (order, lower, final) == (3, False, "zero"):  # the original's last matrix is singular
        assert all(x.isfinite().all() for x in got)
        return
    same(walk(theirs, steps=12), got)


def test_every_option_is_compared():
    for name in NAMES:
        options = set(inspect.signature(getattr(original, name).__init__).parameters) - {"self", "kwargs"}
        assert options <= set(VALUES), f"{name}: {options - set(VALUES)}"
        assert options <= set(getattr(ours, name).options), f"{name}: {options - set(getattr(ours, name).options)}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 7, 25])
def test_defaults(name, steps):
    theirs, mine = pair(name)
    same(walk(theirs, steps=steps), walk(mine, steps=steps))
    assert mine.handed_over == ""
    assert len(mine.plan) >= (1 if steps == 1 else 2)


@pytest.mark.parametrize(("name", "option", "value"), _options())
def test_options(name, option, value):
    config = {option: value} | BESIDE.get(option, {}) | BESIDE.get(str(value), {})
    known = inspect.signature(getattr(original, name).__init__).parameters
    config = {key: v for key, v in config.items() if key in known}
    steps = {"steps": 15} if option in ("solver_order", "lower_order_final") else {}
    try:
        theirs = getattr(original, name)(**config)
        expected = walk(theirs, **steps)
    except (NotImplementedError, ValueError, TypeError, IndexError, AssertionError, RuntimeError) as error:
        with pytest.raises(type(error)):
            walk(getattr(ours, name)(**config), **steps)
        return
    mine = getattr(ours, name)(**config)
    same(expected, walk(mine, **steps))
    assert bool(mine.handed_over) == (value in HANDED_OVER.get((name, option), [])), mine.handed_over


@pytest.mark.parametrize("name", [n for n in NAMES if n != "ScoreSdeVeScheduler"])
def test_from_the_middle(name):
    """Image-to-image begins at a later timestep, told by the timestep alone or by set_begin_index."""
    theirs, mine = pair(name)
    same(walk(theirs, start=3), walk(mine, start=3))
    if hasattr(mine, "set_begin_index"):
        for scheduler in (theirs, mine):
            scheduler.set_timesteps(7)
        x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
        results = []
        for scheduler in (theirs, mine):
            scheduler.set_begin_index(2)
            if hasattr(scheduler, "scale_model_input"):
                scheduler.scale_model_input(x, scheduler.timesteps[2])
            given = {"generator": torch.Generator().manual_seed(2)} if "generator" in inspect.signature(scheduler.step).parameters else {}
            results.append([scheduler.step(x, scheduler.timesteps[2], x, **given).prev_sample])
            assert scheduler.step_index == 3
        same(*results)


@pytest.mark.parametrize("name", NAMES)
def test_a_pipeline_may_change_the_sample_between_steps(name):
    theirs, mine = pair(name)
    same(walk(theirs, tamper=True), walk(mine, tamper=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_the_originals_dtypes(name, dtype):
    theirs, mine = pair(name)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    outputs = []
    for scheduler in (theirs, mine):
        scheduler.set_timesteps(5)
        t = scheduler.timesteps[0]
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x.to(dtype), t)
        given = {"generator": torch.Generator().manual_seed(2)} if "generator" in inspect.signature(_step(scheduler)).parameters else {}
        outputs.append(_step(scheduler)(x.flip(0).to(dtype), t, x.to(dtype), return_dict=False, **given))
    for expected, got in zip(*outputs, strict=True):
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got.float(), expected.float(), rtol=0, atol=0.05 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "EDMEulerScheduler"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_churn(name, prediction):
    theirs, mine = pair(name, prediction_type=prediction)
    churn = {"s_churn": 5.0, "s_tmin": 0.1, "s_tmax": 10.0, "s_noise": 1.01}
    same(walk(theirs, **churn), walk(mine, **churn))


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("clipped", [True, False])
@pytest.mark.parametrize("clip_sample", [True, False])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_ddim_with_noise(eta, clipped, clip_sample, prediction):
    theirs, mine = pair("DDIMScheduler", clip_sample=clip_sample, prediction_type=prediction)
    arguments = {"eta": eta, "use_clipped_model_output": clipped}
    same(walk(theirs, **arguments), walk(mine, **arguments))


@pytest.mark.parametrize("name", ["DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_given_noise(name):
    theirs, mine = pair(name, **({"algorithm_type": "sde-dpmsolver++"} if name.startswith("DPM") else {}))
    x, z = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    results = []
    for scheduler in (theirs, mine):
        scheduler.set_timesteps(5)
        extra = {"eta": 1.0} if name.startswith("DDIM") else {}
        results.append([scheduler.step(x, scheduler.timesteps[1], x, variance_noise=z, **extra).prev_sample])
    same(*results)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_lms_orders(order):
    theirs, mine = pair("LMSDiscreteScheduler")
    same(walk(theirs, order=order), walk(mine, order=order))


@pytest.mark.parametrize("name", NAMES)
def test_noise_of_no_generator_repeats_with_torchs_seed(name):
    if "generator" not in inspect.signature(_step(getattr(ours, name))).parameters:
        pytest.skip("draws no noise")
    config = (
        {"algorithm_type": "sde-dpmsolver++"} if "DPMSolver" in name else {"stochastic_sampling": True} if name.startswith("Flow") else {}
    )
    step = {"eta": 1.0} if name == "DDIMScheduler" else {"s_churn": 30.0} if name in ("EulerDiscreteScheduler", "EDMEulerScheduler") else {}
    scheduler = getattr(ours, name)(**config)

    def run(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        scheduler.set_timesteps(5)
        x, outputs = torch.ones(400, 3, 4, 4), []
        for t in scheduler.timesteps[:3]:
            if hasattr(scheduler, "scale_model_input"):
                scheduler.scale_model_input(x, t)
            x = _step(scheduler)(torch.zeros_like(x), t, x, return_dict=False, **step)[0]
            outputs.append(x)
        return outputs

    first, second = run(0), run(1)
    for a, b, c in zip(first, run(0), second, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    # The noise has the variance of the original's.
    torch.manual_seed(0)
    theirs = getattr(original, name)(**config)
    theirs.set_timesteps(5)
    x = torch.ones(400, 3, 4, 4)
    if hasattr(theirs, "scale_model_input"):
        theirs.scale_model_input(x, theirs.timesteps[0])
    expected = _step(theirs)(torch.zeros_like(x), theirs.timesteps[0], x, return_dict=False, **step)[0]
    torch.testing.assert_close(first[0].std(), expected.std(), rtol=0.03, atol=0)


class NoSync(torch.utils._python_dispatch.TorchDispatchMode):
    """Fails where the host would wait for a device: a value is read, or tensors are compared to decide something."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "eq", "lt", "gt", "le", "ge", "ne", "is_nonzero", "item")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().split("::")[1].split(".")[0]
        assert name not in self.FORBIDDEN, f"{name} in a step"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_waits_for_nothing(name, monkeypatch):
    scheduler = getattr(ours, name)()
    scheduler.set_timesteps(6)
    x = torch.randn(SHAPE)

    def refuse(self, *args, **kwargs):
        raise AssertionError("a value is read in a step")

    for method in ("item", "tolist", "nonzero", "__bool__", "__int__", "__float__", "__index__"):
        monkeypatch.setattr(torch.Tensor, method, refuse)
    for i, t in enumerate(scheduler.timesteps[:4]):
        if i == 1:
            monkeypatch.setattr(torch.Tensor, "cpu", refuse)
        with NoSync() if i else torch.no_grad():  # the rows of a schedule are made in its first step, out of numbers on the host
            if hasattr(scheduler, "step_correct"):
                x = scheduler.step_correct(x, x).prev_sample
            x_in = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            x = _step(scheduler)(x_in, t, x, return_dict=False)[0]


def test_the_original_would_fail_that_test(monkeypatch):
    """The probe can fail."""
    scheduler = original.DDPMScheduler()
    scheduler.set_timesteps(6)
    x = torch.randn(SHAPE)
    with pytest.raises(AssertionError, match="in a step"), NoSync():
        scheduler.step(x, scheduler.timesteps[0], x)


def options(scheduler: Any) -> dict[str, Any]:
    return {name: value for name, value in scheduler.config.items() if not name.startswith("_")}


@pytest.mark.parametrize("name", NAMES)
def test_config_round_trip(name, tmp_path):
    theirs, mine = pair(name)
    mine.save_pretrained(tmp_path / "mine")
    theirs.save_pretrained(tmp_path / "theirs")
    for cls, folder in ((ours, "theirs"), (original, "mine"), (ours, "mine")):
        loaded = getattr(cls, name).from_pretrained(tmp_path / folder)
        assert type(loaded) is getattr(cls, name)
        assert options(loaded) == options(theirs)
    same(walk(theirs), walk(getattr(ours, name).from_config(theirs.config)))
    assert (tmp_path / "mine" / "scheduler_config.json").read_text() == (tmp_path / "theirs" / "scheduler_config.json").read_text()


@pytest.mark.parametrize("name", [n for n in NAMES if hasattr(getattr(original, n), "add_noise") and not n.startswith("ScoreSde")])
def test_add_noise(name):
    theirs, mine = pair(name)
    x, z = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    for scheduler in (theirs, mine):
        scheduler.set_timesteps(10)
    t = theirs.timesteps[[2, 5]]
    assert torch.equal(theirs.add_noise(x, z, t), mine.add_noise(x, z, t))


@pytest.mark.parametrize("name", NAMES)
def test_accelerate_swaps_in_place(name):
    theirs, scheduler = getattr(original, name)(), getattr(original, name)()
    scheduler.set_timesteps(7)
    assert ours.accelerate(scheduler) is scheduler
    assert type(scheduler) is getattr(ours, name)
    same(walk(theirs), walk(scheduler))


def test_accelerate_refuses_what_it_cannot_swap():
    with pytest.raises(TypeError, match="expected a DiffusionPipeline or a scheduler, got Linear"):
        ours.accelerate(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"expected one of DDPMScheduler, .*, got PNDMScheduler"):
        ours.accelerate(original.PNDMScheduler())

    class Changed(original.DDPMScheduler):
        pass

    with pytest.raises(ValueError, match="got Changed"):
        ours.accelerate(Changed())


def test_gradients_flow_through_a_step():
    theirs, mine = pair("DDPMScheduler", clip_sample=False)
    gradients = []
    for scheduler in (theirs, mine):
        scheduler.set_timesteps(5)
        x, F = (torch.randn(SHAPE, generator=torch.Generator().manual_seed(i), requires_grad=True) for i in (1, 2))
        y = scheduler.step(F, scheduler.timesteps[2], x, generator=torch.Generator().manual_seed(3)).prev_sample
        gradients.append(list(torch.autograd.grad(y.square().sum(), (x, F))))
    same(*gradients)


def test_what_was_handed_over_is_seen_in_doctor():
    scheduler = ours.DDIMScheduler(thresholding=True)
    assert scheduler.handed_over == "thresholding=True: the estimate needs a quantile of each sample before the step"
    with pytest.raises(ValueError, match="plan: expected a scheduler with fused steps"):
        _ = scheduler.plan
    assert "diffusers.DDIMScheduler: thresholding=True: the estimate" in str(inspect_machine())


def test_calls_that_are_handed_over():
    """Arguments of one call that the fused step does not serve: the original's numbers, before and after."""
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    tokens = {"per_token_timesteps": torch.full((2, 4), 500.0)}
    for name, arguments in (
        ("EDMEulerScheduler", {"pred_original_sample": x / 2}), ("FlowMatchEulerDiscreteScheduler", tokens),
        ("LMSDiscreteScheduler", {"order": 5}), ("DDIMScheduler", {"eta": 1.1, "generator": torch.Generator()}),
    ):  # fmt: skip
        results = []
        for scheduler in pair(name):
            scheduler.set_timesteps(5)
            given = dict(arguments)
            if "generator" in given:
                given["generator"] = torch.Generator().manual_seed(0)
            state = x[:, 0] if name.startswith("Flow") else x  # [B, tokens, channels]
            outputs = []
            for i, t in enumerate(scheduler.timesteps[:3]):
                state = scheduler.step(state.flip(0), t, state, **(given if i == 1 else {})).prev_sample
                outputs.append(state)
            results.append(outputs)
        same(*results)


def test_an_option_that_fastdiff_does_not_know_is_handed_over(monkeypatch):
    known = ours.DDPMScheduler.options - {"beta_end"}
    monkeypatch.setattr(ours.DDPMScheduler, "options", known)
    assert ours.DDPMScheduler().handed_over == ""
    assert ours.DDPMScheduler(beta_end=0.03).handed_over == "beta_end=0.03: an option that fastdiff does not know"


def test_a_timestep_of_no_schedule():
    scheduler = ours.DDPMScheduler()
    scheduler.set_timesteps(5)
    with pytest.raises(ValueError, match=r"timestep: expected one of scheduler.timesteps, got 7"):
        scheduler.step(torch.zeros(SHAPE), 7, torch.zeros(SHAPE))
    euler = ours.EulerDiscreteScheduler()
    euler.set_timesteps(5)
    with pytest.raises(ValueError, match=r"timestep: expected one of scheduler.timesteps, got int, which looks like an index"):
        euler.step(torch.zeros(SHAPE), 0, torch.zeros(SHAPE))


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_pickles(name):
    scheduler = getattr(ours, name)()
    expected = walk(scheduler)
    same(expected, walk(copy.deepcopy(scheduler)), rtol=0)
    same(expected, walk(pickle.loads(pickle.dumps(scheduler))), rtol=0)


def test_without_diffusers_the_error_names_the_extra():
    program = "import sys; sys.modules['diffusers'] = None; import fastdiff.compat.diffusers"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode != 0
    assert "ImportError: fastdiff.compat.diffusers needs diffusers >= 0.35: pip install 'fastdiff-torch[diffusers]'" in result.stderr
