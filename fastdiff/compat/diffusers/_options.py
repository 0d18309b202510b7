"""Names of config options that several schedulers share."""

from __future__ import annotations

from ._fused import Refusal

BETAS = frozenset({"num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr"})
SPACING = frozenset({"timestep_spacing", "steps_offset"})
CLIP = frozenset({"clip_sample", "clip_sample_range"})
THRESHOLD = frozenset({"thresholding", "dynamic_thresholding_ratio", "sample_max_value"})
SIGMAS = frozenset({"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"})
FLOW = frozenset({"use_flow_sigmas", "flow_shift", "use_dynamic_shifting", "time_shift_type"})

THRESHOLDING = Refusal("thresholding", lambda c: c["thresholding"], "the estimate needs a quantile of each sample before the step")
