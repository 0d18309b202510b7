"""What becomes of score_sde_pytorch's public names."""

from __future__ import annotations

from tests.compat.table import Entry

GOLDEN, MORE = "tests/compat/test_score_sde.py::test_", "tests/compat/test_score_sde_more.py::test_"
X_T = "(self, x, t)"
PREDICTOR, CORRECTOR = "(sde, score_fn, probability_flow=False)", "(sde, score_fn, snr, n_steps)"
NOISE = "noise="
CONTROLLED = (
    "(sde, predictor, corrector, inverse_scaler, snr, n_steps=1, probability_flow=False, continuous=False, denoise=True, eps=1e-05)"
)
NETWORKS = "networks are fastdiff.models (SongUNet is DDPM++ and NCSN++); published checkpoints load with `fastdiff convert`"
DATA = "data sets are fastdiff.data"
PROGRAM = "the training and evaluation programs are `fastdiff train` and `fastdiff eval`"


def _sde(name: str, parameters: str, *, discretize: bool) -> list[Entry]:
    """A class of sde_lib and what it defines."""
    views = f"{MORE}views_of_the_sdes"
    rows = [
        Entry(f"sde_lib.{name}", "same", "", parameters, f"{MORE}tables_of_the_sdes"),
        Entry(f"sde_lib.{name}.T", "same", "", None, views),
        Entry(f"sde_lib.{name}.sde", "same", "", X_T, views),
        Entry(f"sde_lib.{name}.marginal_prob", "same", "", X_T, views),
        Entry(f"sde_lib.{name}.prior_sampling", "superset", NOISE, "(self, shape)", views),
        Entry(f"sde_lib.{name}.prior_logp", "same", "", "(self, z)", views),
        Entry(f"sde_lib.{name}.reverse", "same", "", "(self, score_fn, probability_flow=False)", views),
    ]
    return [*rows, Entry(f"sde_lib.{name}.discretize", "same", "", X_T, f"{MORE}tables_of_the_sdes")] if discretize else rows


def _steps(classes: dict[str, str], parameters: str) -> list[Entry]:
    """Predictors or correctors and their update_fn, each with the test that shows it."""
    rows = []
    for name, proof in classes.items():
        rows += [
            Entry(f"sampling.{name}", "same", "", parameters, proof),
            Entry(f"sampling.{name}.update_fn", "same", "", X_T, proof),
        ]
    return rows


_PC, _OWN = f"{GOLDEN}pc_sampler", f"{MORE}own_classes_keep_working"
_LOSS, _STEP, _EMA, _MODELS = (
    f"{GOLDEN}sde_loss", f"{MORE}a_step_of_training_and_of_evaluation", f"{MORE}moving_average", f"{MORE}configurations_of_models",
)  # fmt: skip

ENTRIES: list[Entry] = [
    Entry("sde_lib.SDE", "same", "", "(N)", f"{GOLDEN}pc_sampler"),
    Entry("sde_lib.SDE.sde", "same", "", X_T, f"{GOLDEN}pc_sampler"),
    Entry("sde_lib.SDE.marginal_prob", "same", "", X_T, f"{GOLDEN}pc_sampler"),
    Entry("sde_lib.SDE.prior_sampling", "same", "", "(self, shape)", f"{GOLDEN}pc_sampler"),
    Entry("sde_lib.SDE.prior_logp", "same", "", "(self, z)", f"{GOLDEN}likelihood"),
    Entry("sde_lib.SDE.discretize", "same", "", X_T, f"{GOLDEN}pc_sampler"),
    Entry("sde_lib.SDE.reverse", "same", "", "(self, score_fn, probability_flow=False)", f"{MORE}views_of_the_sdes"),
    *_sde("VPSDE", "(beta_min=0.1, beta_max=20, N=1000)", discretize=True),
    *_sde("subVPSDE", "(beta_min=0.1, beta_max=20, N=1000)", discretize=False),
    *_sde("VESDE", "(sigma_min=0.01, sigma_max=50, N=1000)", discretize=True),
    Entry("sampling.register_predictor", "same", "", "(cls=None, *, name=None)", f"{MORE}registries"),
    Entry("sampling.register_corrector", "same", "", "(cls=None, *, name=None)", f"{MORE}registries"),
    Entry("sampling.get_predictor", "same", "", "(name)", f"{MORE}registries"),
    Entry("sampling.get_corrector", "same", "", "(name)", f"{MORE}registries"),
    Entry("sampling.get_sampling_fn", "superset", NOISE, "(config, sde, shape, inverse_scaler, eps)", f"{GOLDEN}sampling_fn_of_a_config"),
    Entry(
        "sampling.get_pc_sampler", "superset", "noise=, also of what it returns; a model is sampled where it is",
        "(sde, shape, predictor, corrector, inverse_scaler, snr, n_steps=1, probability_flow=False, continuous=False, denoise=True, "
        "eps=0.001, device='cuda')",
        _PC,
    ),
    Entry(
        "sampling.get_ode_sampler", "superset", "noise=, also of what it returns; methods other than RK45 are handed over to SciPy",
        "(sde, shape, inverse_scaler, denoise=False, rtol=1e-05, atol=1e-05, method='RK45', eps=0.001, device='cuda')",
        f"{GOLDEN}ode_sampler",
    ),
    Entry(
        "sampling.shared_predictor_update_fn", "superset", NOISE, "(x, t, sde, model, predictor, probability_flow, continuous)", _OWN
    ),
    Entry(
        "sampling.shared_corrector_update_fn", "superset", NOISE, "(x, t, sde, model, corrector, continuous, snr, n_steps)", _OWN
    ),
    *_steps(
        {"Predictor": _OWN, "EulerMaruyamaPredictor": _PC, "ReverseDiffusionPredictor": _PC, "AncestralSamplingPredictor": _PC,
         "NonePredictor": _PC},
        PREDICTOR,
    ),
    Entry("sampling.AncestralSamplingPredictor.vesde_update_fn", "same", "", X_T, _PC),
    Entry("sampling.AncestralSamplingPredictor.vpsde_update_fn", "same", "", X_T, _PC),
    *_steps({"Corrector": _OWN, "LangevinCorrector": _PC, "AnnealedLangevinDynamics": _PC, "NoneCorrector": _PC}, CORRECTOR),
    Entry("likelihood.get_div_fn", "same", "", "(fn)", f"{MORE}div_fn_estimates_the_divergence"),
    Entry(
        "likelihood.get_likelihood_fn", "superset", "noise=, also of what it returns; methods other than RK45 are handed over to SciPy",
        "(sde, inverse_scaler, hutchinson_type='Rademacher', rtol=1e-05, atol=1e-05, method='RK45', eps=1e-05)", f"{GOLDEN}likelihood",
    ),
    Entry("controllable_generation.get_pc_inpainter", "superset", NOISE, CONTROLLED, f"{GOLDEN}controllable_generation"),
    Entry("controllable_generation.get_pc_colorizer", "superset", NOISE, CONTROLLED, f"{GOLDEN}controllable_generation"),
    Entry("losses.get_optimizer", "same", "", "(config, params)", _STEP),
    Entry("losses.optimization_manager", "same", "", "(config)", _STEP),
    Entry(
        "losses.get_sde_loss_fn", "same", "",
        "(sde, train, reduce_mean=True, continuous=True, likelihood_weighting=True, eps=1e-05)", _LOSS,
    ),
    Entry("losses.get_smld_loss_fn", "same", "", "(vesde, train, reduce_mean=False)", f"{MORE}losses_of_discrete_time"),
    Entry("losses.get_ddpm_loss_fn", "same", "", "(vpsde, train, reduce_mean=True)", f"{MORE}losses_of_discrete_time"),
    Entry(
        "losses.get_step_fn", "same", "",
        "(sde, train, optimize_fn=None, reduce_mean=False, continuous=True, likelihood_weighting=False)", _STEP,
    ),
    Entry("models.utils.register_model", "same", "", "(cls=None, *, name=None)", _MODELS),
    Entry("models.utils.get_model", "same", "", "(name)", _MODELS),
    Entry("models.utils.get_sigmas", "same", "", "(config)", _MODELS),
    Entry("models.utils.get_ddpm_params", "same", "", "(config)", _MODELS),
    Entry("models.utils.create_model", "same", "", "(config)", _MODELS),
    Entry("models.utils.get_model_fn", "same", "", "(model, train=False)", f"{MORE}fused_losses_and_their_gradients"),
    Entry("models.utils.get_score_fn", "same", "", "(sde, model, train=False, continuous=False)", _PC),
    Entry("models.utils.to_flattened_numpy", "same", "", "(x)", _MODELS),
    Entry("models.utils.from_flattened_numpy", "same", "", "(x, shape)", _MODELS),
    Entry("models.ema.ExponentialMovingAverage", "same", "", "(parameters, decay, use_num_updates=True)", _EMA),
    *(
        Entry(f"models.ema.ExponentialMovingAverage.{name}", "same", "", parameters, _EMA)
        for name, parameters in {
            "update": "(self, parameters)", "copy_to": "(self, parameters)", "store": "(self, parameters)",
            "restore": "(self, parameters)", "state_dict": "(self)", "load_state_dict": "(self, state_dict)",
        }.items()
    ),
    Entry("datasets.get_data_scaler", "same", "", "(config)", _MODELS),
    Entry("datasets.get_data_inverse_scaler", "same", "", "(config)", _MODELS),
    *(Entry(f"datasets.{name}", "missing", DATA) for name in ("crop_resize", "resize_small", "central_crop", "get_dataset")),
    *(
        Entry(f"models.{name}", "missing", NETWORKS)
        for name in (
            "ddpm.DDPM", "ncsnpp.NCSNpp", "ncsnv2.NCSN", "ncsnv2.NCSNv2", "ncsnv2.NCSNv2_128", "ncsnv2.NCSNv2_256", "ncsnv2.get_network",
            "layers", "layerspp", "normalization", "up_or_down_sampling",
        )
    ),
    Entry("op", "missing", "CUDA extensions of its networks; fastdiff's SongUNet needs none"),
    *(
        Entry(f"evaluation.{name}", "missing", "FID and IS are fastdiff.evaluation, in PyTorch")
        for name in (
            "get_inception_model", "load_dataset_stats", "classifier_fn_from_tfhub", "run_inception_jit", "run_inception_distributed",
        )
    ),
    *(Entry(name, "missing", PROGRAM) for name in ("run_lib.train", "run_lib.evaluate", "main.main")),
    *(
        Entry(f"utils.{name}", "missing", "checkpoints are the training program's; `fastdiff convert` reads the published ones")
        for name in ("restore_checkpoint", "save_checkpoint")
    ),
    Entry("configs", "missing", "configurations are the user's; any object with their attributes is accepted"),
]  # fmt: skip
