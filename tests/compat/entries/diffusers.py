"""What becomes of the public names of diffusers.schedulers (0.42)."""

from __future__ import annotations

import fastdiff.compat.diffusers as ours
from tests.compat.table import Entry

TESTS = "tests/compat/test_diffusers.py::"
INDEX = "step_index begin_index set_begin_index index_for_timestep"
EDM = "init_noise_sigma precondition_inputs precondition_noise precondition_outputs add_noise"
SOLVER = (
    "convert_model_output dpm_solver_first_order_update multistep_dpm_solver_second_order_update multistep_dpm_solver_third_order_update"
)
GENERATOR = "generator=None, return_dict=True"
CHURN = f"s_churn=0.0, s_tmin=0.0, s_tmax=inf, s_noise=1.0, {GENERATOR}"
STEP = "(self, model_output, timestep, sample"
SCALED = "(self, sample, timestep)"

#: Scheduler: the methods that are written anew, with the original's parameters; then the names that are inherited.
METHODS: dict[str, tuple[dict[str, str], str]] = {
    "DDPMScheduler": ({"step": f"{STEP}, {GENERATOR})"}, "scale_model_input set_timesteps add_noise get_velocity previous_timestep"),
    "DDIMScheduler": (
        {"step": f"{STEP}, eta=0.0, use_clipped_model_output=False, generator=None, variance_noise=None, return_dict=True)"},
        "scale_model_input set_timesteps add_noise get_velocity",
    ),
    "DDIMInverseScheduler": ({"step": f"{STEP}, return_dict=True)"}, "scale_model_input set_timesteps"),
    "EulerDiscreteScheduler": (
        {"step": f"{STEP}, {CHURN})", "scale_model_input": SCALED}, f"init_noise_sigma set_timesteps add_noise get_velocity {INDEX}",
    ),
    "EulerAncestralDiscreteScheduler": (
        {"step": f"{STEP}, {GENERATOR})", "scale_model_input": SCALED}, f"init_noise_sigma set_timesteps add_noise {INDEX}",
    ),
    "HeunDiscreteScheduler": (
        {"step": f"{STEP}, return_dict=True)", "scale_model_input": SCALED},
        f"init_noise_sigma set_timesteps add_noise state_in_first_order {INDEX}",
    ),
    "DPMSolverMultistepScheduler": (
        {"step": f"{STEP}, generator=None, variance_noise=None, return_dict=True)"},
        f"set_timesteps scale_model_input add_noise {SOLVER} {INDEX}",
    ),
    "DPMSolverSinglestepScheduler": (
        {"step": f"{STEP}, {GENERATOR})"},
        "get_order_list set_timesteps convert_model_output dpm_solver_first_order_update singlestep_dpm_solver_second_order_update "
        f"singlestep_dpm_solver_third_order_update singlestep_dpm_solver_update scale_model_input add_noise {INDEX}",
    ),
    "EDMEulerScheduler": (
        {"step": f"{STEP}, {CHURN}, pred_original_sample=None)", "scale_model_input": SCALED}, f"set_timesteps {EDM} {INDEX}",
    ),
    "EDMDPMSolverMultistepScheduler": (
        {"step": f"{STEP}, {GENERATOR})", "scale_model_input": SCALED}, f"set_timesteps {EDM} {SOLVER} {INDEX}",
    ),
    "UniPCMultistepScheduler": (
        {"step": f"{STEP}, return_dict=True)"},
        "set_timesteps time_shift stretch_shift_to_terminal convert_model_output multistep_uni_p_bh_update multistep_uni_c_bh_update "
        f"scale_model_input add_noise {INDEX}",
    ),
    "LMSDiscreteScheduler": (
        {"step": f"{STEP}, order=4, return_dict=True)", "scale_model_input": SCALED},
        f"init_noise_sigma get_lms_coefficient set_timesteps add_noise {INDEX}",
    ),
    "ScoreSdeVeScheduler": (
        {"step_pred": f"{STEP}, {GENERATOR})", "step_correct": f"(self, model_output, sample, {GENERATOR})"},
        "scale_model_input set_timesteps set_sigmas get_adjacent_sigma add_noise",
    ),
    "FlowMatchEulerDiscreteScheduler": (
        {"step": f"{STEP}, s_churn=0.0, s_tmin=0.0, s_tmax=inf, s_noise=1.0, generator=None, per_token_timesteps=None, return_dict=True)"},
        f"shift set_shift scale_noise time_shift stretch_shift_to_terminal set_timesteps {INDEX}",
    ),
}  # fmt: skip
#: Arguments of a step that send this one call to the original.
CALLS = {
    "EDMEulerScheduler.step": ("pred_original_sample given", "the estimate is made outside"),
    "FlowMatchEulerDiscreteScheduler.step": ("per_token_timesteps given", "every token has a step of its own"),
    "LMSDiscreteScheduler.step": ("order above 4", "more history than a step holds"),
    "DDIMScheduler.step": ("eta above 1", "more noise than DDPM's"),
}
PROOFS = {"add_noise": "test_add_noise", "set_begin_index": "test_from_the_middle", "step_index": "test_from_the_middle"}
NOT_HERE = (
    "CMStochasticIterativeScheduler",
    "CogVideoXDDIMScheduler",
    "CogVideoXDPMScheduler",
    "CosineDPMSolverMultistepScheduler",
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
    "DDPMWuerstchenScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverSDEScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "IPNDMScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KarrasVeScheduler",
    "LCMScheduler",
    "LTXEulerAncestralRFScheduler",
    "PNDMScheduler",
    "RePaintScheduler",
    "SASolverScheduler",
    "SCMScheduler",
    "ScoreSdeVpScheduler",
    "TCDScheduler",
    "UnCLIPScheduler",
    "AmusedScheduler",
    "BlockRefinementScheduler",
    "ConsistencyDecoderScheduler",
    "DiscreteDDIMScheduler",
    "EntropyBoundScheduler",
    "FlowMapEulerDiscreteScheduler",
    "HeliosDMDScheduler",
    "HeliosScheduler",
    "MiniMaxH3Scheduler",
    "PiflowScheduler",
    "RFD4ProteinaScheduler",
    "VQDiffusionScheduler",
)


def _rows(name: str) -> list[Entry]:
    written, inherited = METHODS[name]
    rows = [Entry(name, "superset", "`plan` shows the table, `handed_over` why there is none", proof=f"{TESTS}test_config_round_trip")]
    rows += [Entry(f"{name}.{method}", "same", parameters=given, proof=f"{TESTS}test_defaults") for method, given in written.items()]
    for method in inherited.split():
        proof = PROOFS.get(method, "test_options")
        rows.append(Entry(f"{name}.{method}", "same", "inherited", proof=f"{TESTS}{proof}"))
    for refusal in getattr(ours, name).refusals:
        rows.append(Entry(f"{name}.step ({refusal.option})", "handed over", refusal.why, proof=f"{TESTS}test_options"))
    for method, (when, why) in CALLS.items():
        if method.startswith(name + "."):
            rows.append(Entry(f"{method} ({when})", "handed over", why, proof=f"{TESTS}test_calls_that_are_handed_over"))
    return rows


ENTRIES: list[Entry] = [row for name in METHODS for row in _rows(name)] + [
    Entry(name, "missing", "use diffusers' own; `accelerate` leaves it as it is") for name in NOT_HERE
]
