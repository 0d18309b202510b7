"""What becomes of the public names of k-diffusion 0.1.1."""

from __future__ import annotations

from tests.compat.table import Entry

TESTS = "tests/compat/test_k_diffusion.py::"
COMMON = "model, x, sigmas, extra_args=None, callback=None, disable=None"
CHURN = f"({COMMON}, s_churn=0.0, s_tmin=0.0, s_tmax=inf, s_noise=1.0)"
NOISY = f"{COMMON}, eta=1.0, s_noise=1.0, noise_sampler=None"
RANGE = "model, x, sigma_min, sigma_max"
PID = "pcoeff=0.0, icoeff=1.0, dcoeff=0.0, accept_safety=0.81, eta=0.0, s_noise=1.0, noise_sampler=None"
BROWNIAN = 'the default noise is a counter-based Brownian path in the clock 1/sigma^2, of extra_args["seed"] if there is one'


def _sampling(name: str, proof: str, parameters: str, reason: str = "") -> Entry:
    return Entry(f"sampling.{name}", "superset" if reason else "same", reason, parameters, TESTS + proof)


#: Other modules: (why they are not here, their public names).
OTHERS = {
    "augmentation": (
        "training of networks: use fastdiff.training.augment",
        "translate2d scale2d rotate2d KarrasAugmentationPipeline KarrasAugmentWrapper",
    ),
    "config": (
        "k-diffusion's own training programs",
        "round_to_power_of_two load_config make_model make_denoiser_wrapper make_sample_density",
    ),
    "evaluation": (
        "its features are downloaded networks; FID and its kin from local weights: fastdiff.evaluation",
        "InceptionV3FeatureExtractor CLIPFeatureExtractor DINOv2FeatureExtractor compute_features polynomial_kernel squared_mmd "
        "kid sqrtm_eig fid",
    ),
    "external": (
        "wrappers that make a network a denoiser: use upstream's, the samplers take any callable; or fastdiff.Epsilon and "
        "fastdiff.Velocity with a Discrete schedule, which fold the wrapper into the step",
        "VDenoiser DiscreteSchedule DiscreteEpsDDPMDenoiser OpenAIDenoiser CompVisDenoiser DiscreteVDDPMDenoiser CompVisVDenoiser",
    ),
    "gns": (
        "training of networks: use fastdiff.training",
        "DDPGradientStatsHook GradientNoiseScale",
    ),
    "layers": (
        "networks and losses: upstream's Denoiser is sampled as it is; fastdiff.EDM is its preconditioning in the step",
        "dct freq_weight_1d freq_weight_nd Denoiser DenoiserWithVariance SimpleLossDenoiser ResidualBlock ConditionedModule "
        "UnconditionedModule ConditionedSequential ConditionedResidualBlock AdaGN SelfAttention2d CrossAttention2d Downsample2d "
        "Upsample2d FourierFeatures UNet",
    ),
    "models.axial_rope": (
        "a network: upstream's is sampled as it is",
        "rotate_half apply_rotary_emb centers make_grid bounding_box make_axial_pos freqs_pixel freqs_pixel_log AxialRoPE",
    ),
    "models.flags": (
        "switches of upstream's networks",
        "get_use_compile get_use_flash_attention_2 checkpointing get_checkpointing compile_wrap",
    ),
    "models.image_transformer_v1": (
        "a network: upstream's is sampled as it is",
        "zero_init checkpoint_helper tag_param tag_module apply_wd filter_params scaled_dot_product_attention geglu rms_norm "
        "GEGLU RMSNorm QKNorm AdaRMSNorm SelfAttentionBlock FeedForwardBlock TransformerBlock Patching Unpatching "
        "MappingFeedForwardBlock MappingNetwork ImageTransformerDenoiserModelV1",
    ),
    "models.image_v1": (
        "a network: upstream's is sampled as it is",
        "orthogonal_ ResConvBlock DBlock UBlock MappingNet ImageDenoiserModelV1",
    ),
    "utils": (
        "helpers of training programs and of images: fastdiff.training, fastdiff.losses, fastdiff.data",
        "from_pil_image to_pil_image hf_datasets_augs_helper append_dims n_params download_file train_mode eval_mode ema_update "
        "EMAWarmup InverseLR ExponentialLR ConstantLRWithWarmup stratified_uniform enable_stratified enable_stratified_accelerate "
        "stratified_with_settings rand_log_normal rand_log_logistic rand_log_uniform rand_v_diffusion rand_cosine_interpolated "
        "rand_split_log_normal FolderOfImages CSVLogger tf32_mode get_safetensors_metadata ema_update_dict",
    ),
}

ENTRIES: list[Entry] = [
    _sampling("append_zero", "test_small_functions", "(x)"),
    _sampling("get_sigmas_karras", "test_schedules_bit_for_bit", "(n, sigma_min, sigma_max, rho=7.0, device='cpu')"),
    _sampling("get_sigmas_exponential", "test_schedules_bit_for_bit", "(n, sigma_min, sigma_max, device='cpu')"),
    _sampling("get_sigmas_polyexponential", "test_schedules_bit_for_bit", "(n, sigma_min, sigma_max, rho=1.0, device='cpu')"),
    _sampling("get_sigmas_vp", "test_schedules_bit_for_bit", "(n, beta_d=19.9, beta_min=0.1, eps_s=0.001, device='cpu')"),
    _sampling("to_d", "test_small_functions", "(x, sigma, denoised)"),
    _sampling("get_ancestral_step", "test_small_functions", "(sigma_from, sigma_to, eta=1.0)"),
    _sampling("linear_multistep_coeff", "test_small_functions", "(order, t, i, j)", "integrated exactly, not to a tolerance"),
    _sampling("default_noise_sampler", "test_callbacks", "(x)"),
    _sampling(
        "BatchedBrownianTree", "test_batched_brownian_tree", "(x, t0, t1, seed=None, **kwargs)",
        "other numbers of the same law; nothing is stored, so torchsde's settings have no meaning",
    ),
    Entry(
        "sampling.BrownianTreeNoiseSampler", "superset",
        "other numbers; transform=None is the clock 1/sigma^2, which runs inside the steps, where upstream's default is sigma itself", None,
        f"{TESTS}test_noise_samplers_are_white_and_add_up",
    ),
    *[
        _sampling(f"sample_{name}", "test_samples", CHURN, "noise_sampler= for the churn, and levels that may end anywhere")
        for name in ("euler", "heun", "dpm_2")
    ],
    _sampling("sample_euler_ancestral", "test_samples", f"({NOISY})"),
    _sampling(
        "sample_dpm_2_ancestral", "test_samples", f"({NOISY})",
        "where eta > 1 leaves nothing but noise, that noise is added, which upstream forgets",
    ),
    _sampling("sample_lms", "test_samples", f"({COMMON}, order=4)", "exact weights; an order above 4 is refused"),
    _sampling("sample_dpmpp_2s_ancestral", "test_samples", f"({NOISY})"),
    _sampling("sample_dpmpp_2m", "test_samples", f"({COMMON})"),
    _sampling("sample_dpmpp_sde", "test_samples", f"({NOISY}, r=0.5)", BROWNIAN),
    _sampling(
        "sample_dpmpp_2m_sde", "test_samples", f"({NOISY}, solver_type='midpoint')",
        f"{BROWNIAN}; one step to 0, where upstream raises UnboundLocalError",
    ),
    _sampling("sample_dpmpp_3m_sde", "test_samples", f"({NOISY})", f"{BROWNIAN}; one step to 0, where upstream raises UnboundLocalError"),
    _sampling(
        "sample_dpm_fast", "test_dpm_fast",
        f"({RANGE}, n, extra_args=None, callback=None, disable=None, eta=0.0, s_noise=1.0, noise_sampler=None)",
    ),
    _sampling(
        "sample_dpm_adaptive", "test_dpm_adaptive",
        f"({RANGE}, extra_args=None, callback=None, disable=None, order=3, rtol=0.05, atol=0.0078, h_init=0.05, {PID}, return_info=False)",
        "values that are not finite raise, where upstream never ends",
    ),
    _sampling(
        "log_likelihood", "test_log_likelihood", f"({RANGE}, extra_args=None, atol=0.0001, rtol=0.0001)",
        "the same probe; scipy's step control instead of torchdiffeq's, so equal within the tolerances",
    ),
    _sampling("PIDStepSizeController", "test_pid_controller", "(h, pcoeff, icoeff, dcoeff, order=1, accept_safety=0.81, eps=1e-08)"),
    _sampling("PIDStepSizeController.limiter", "test_pid_controller", "(self, x)"),
    _sampling("PIDStepSizeController.propose_step", "test_pid_controller", "(self, error)"),
    _sampling("DPMSolver", "test_dpm_solver_steps", "(model, extra_args=None, eps_callback=None, info_callback=None)"),
    _sampling("DPMSolver.t", "test_dpm_solver_steps", "(self, sigma)"),
    _sampling("DPMSolver.sigma", "test_dpm_solver_steps", "(self, t)"),
    _sampling("DPMSolver.eps", "test_dpm_solver_steps", "(self, eps_cache, key, x, t, *args, **kwargs)"),
    _sampling("DPMSolver.dpm_solver_1_step", "test_dpm_solver_steps", "(self, x, t, t_next, eps_cache=None)"),
    _sampling("DPMSolver.dpm_solver_2_step", "test_dpm_solver_steps", "(self, x, t, t_next, r1=0.5, eps_cache=None)"),
    _sampling(
        "DPMSolver.dpm_solver_3_step", "test_dpm_solver_steps",
        "(self, x, t, t_next, r1=0.3333333333333333, r2=0.6666666666666666, eps_cache=None)",
    ),
    _sampling(
        "DPMSolver.dpm_solver_fast", "test_dpm_solver_steps", "(self, x, t_start, t_end, nfe, eta=0.0, s_noise=1.0, noise_sampler=None)"
    ),
    _sampling(
        "DPMSolver.dpm_solver_adaptive", "test_dpm_adaptive",
        f"(self, x, t_start, t_end, order=3, rtol=0.05, atol=0.0078, h_init=0.05, {PID})",
    ),
    *[Entry(f"{module}.{name}", "missing", why) for module, (why, names) in OTHERS.items() for name in names.split()],
]  # fmt: skip
