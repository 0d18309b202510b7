"""What becomes of the public names of NVlabs/edm, EDM-ES and DG. Their `randn_like=torch.randn_like` is None here, which says more."""

from __future__ import annotations

from tests.compat.table import Entry

TESTS = "tests/compat/test_edm.py::"
DG = "tests/compat/test_edm_dg.py::"
COMMANDS = "tests/compat/test_edm_commands.py::"
RANDN = "randn_like=None stands for fastdiff's own noise; torch.randn_like given explicitly is upstream's"
STEPS = "num_steps=18, sigma_min=0.002, sigma_max=80, rho=7, S_churn=0, S_min=0, S_max=inf, S_noise=1"
TRAINING = "training of networks: `fastdiff train`, fastdiff.training"

ENTRIES: list[Entry] = [
    Entry(
        "generate.edm_sampler",
        "superset",
        f"EDM-ES's eps_scaler, DG's arguments, seeds=, state_dtype=; {RANDN}",
        f"(net, latents, class_labels=None, randn_like=None, {STEPS}, eps_scaler=1.0)",
        f"{TESTS}test_golden",
    ),
    Entry(
        "generate.ablation_sampler",
        "superset",
        f"EDM-ES's eps_scaler, DG's arguments but boosting, seeds=, state_dtype=; {RANDN}",
        "(net, latents, class_labels=None, randn_like=None, num_steps=18, sigma_min=None, sigma_max=None, rho=7, solver='heun', "
        "discretization='edm', schedule='linear', scaling='none', epsilon_s=0.001, C_1=0.001, C_2=0.008, M=1000, alpha=1, S_churn=0, "
        "S_min=0, S_max=inf, S_noise=1, eps_scaler=1.0)",
        f"{TESTS}test_golden",
    ),
    Entry(
        "dg.edm_sampler",
        "superset",
        f"DG's generate.edm_sampler, whose first seven arguments have no defaults; state_dtype=; {RANDN}. The time window is each sample's "
        "own, where DG looks at the least of the batch: with boosting they may differ at the window's ends",
        "(boosting, time_min, time_max, vpsde, dg_weight_1st_order, dg_weight_2nd_order, discriminator, net, latents, class_labels=None, "
        f"randn_like=None, {STEPS})",
        f"{DG}test_boosting",
    ),
    Entry(
        "generate.StackedRandomGenerator",
        "same",
        "",
        "(device, seeds)",
        f"{TESTS}test_stacked_generator_is_torchs_own_stream_of_each_seed",
    ),
    Entry(
        "generate.StackedRandomGenerator.randn",
        "same",
        "",
        "(self, size, **kwargs)",
        f"{TESTS}test_stacked_generator_is_torchs_own_stream_of_each_seed",
    ),
    Entry(
        "generate.StackedRandomGenerator.randn_like",
        "same",
        "",
        "(self, input)",
        f"{TESTS}test_stacked_generator_is_torchs_own_stream_of_each_seed",
    ),
    Entry(
        "generate.StackedRandomGenerator.randint",
        "same",
        "",
        "(self, *args, size, **kwargs)",
        f"{TESTS}test_stacked_generator_is_torchs_own_stream_of_each_seed",
    ),
    Entry("generate.parse_int_list", "same", "", "(s)", f"{COMMANDS}test_parse_int_list"),
    Entry(
        "generate.main",
        "superset",
        "the command `python -m fastdiff.compat.edm.generate`: upstream's options, EDM-ES's and DG's, --noise, --state, --device; "
        "--network is a local file or a shipped name (nothing is downloaded) of which no code is executed. Not DG's --do_seed, --seed, "
        "--num_samples, --save_type and --cond: images are named by --seeds, and the discriminator's file says whether it sees classes",
        None,
        f"{COMMANDS}test_generate_draws_what_upstream_draws_for_a_seed",
    ),
    Entry("example.generate_image_grid", "missing", "`fastdiff sample` draws the grid, edm_sampler the images"),
    Entry(
        "fid.calculate_inception_stats",
        "superset",
        "features=: the Inception of a local file, or the digits' extractor; device=None is a GPU if there is one; num_workers and "
        "prefetch_factor are taken and not used",
        "(image_path, num_expected=None, seed=0, max_batch_size=64, num_workers=3, prefetch_factor=2, device=None)",
        f"{COMMANDS}test_fid_of_a_folder",
    ),
    Entry("fid.calculate_fid_from_inception_stats", "same", "", "(mu, sigma, mu_ref, sigma_ref)", f"{COMMANDS}test_fid_of_a_folder"),
    Entry(
        "fid.main",
        "superset",
        "the command `python -m fastdiff.compat.edm.fid`: --features and --device more",
        None,
        f"{COMMANDS}test_fid_of_a_folder",
    ),
    Entry(
        "fid.calc",
        "superset",
        "--features and --device; --ref is a local file; --num is also --num_expected, since torchrun takes --num",
        None,
        f"{COMMANDS}test_fid_of_a_folder",
    ),
    Entry("fid.ref", "superset", "--features and --device", None, f"{COMMANDS}test_fid_of_a_folder"),
    Entry("fid_npzs.calculate_inception_stats_npz", "missing", "fid.calculate_inception_stats opens .npz files too"),
    Entry("fid_npzs.main", "missing", "`fid calc --images=samples.npz`"),
    Entry(
        "classifier_lib.get_discriminator",
        "same",
        "paths are taken as they are, not behind the working directory",
        "(latent_extractor_ckpt, discriminator_ckpt, condition, img_resolution=32, device='cuda', enable_grad=True)",
        f"{DG}test_get_discriminator_reads_the_two_files",
    ),
    Entry(
        "classifier_lib.get_grad_log_ratio",
        "same",
        "",
        "(discriminator, vpsde, unnormalized_input, std_wve_t, img_resolution, time_min, time_max, class_labels, log=False)",
        f"{DG}test_gradient_of_the_log_ratio",
    ),
    Entry("classifier_lib.get_log_ratio", "same", "", "(discriminator, input, time, class_labels)", f"{DG}test_gradient_of_the_log_ratio"),
    Entry("classifier_lib.vpsde", "same", "", "()", f"{DG}test_vpsde_is_the_schedule"),
    Entry("classifier_lib.vpsde.T", "same", "", None, f"{DG}test_vpsde_is_the_schedule"),
    Entry("classifier_lib.vpsde.compute_tau", "same", "", "(self, std_wve_t)", f"{DG}test_vpsde_is_the_schedule"),
    Entry("classifier_lib.vpsde.marginal_prob", "same", "", "(self, t)", f"{DG}test_vpsde_is_the_schedule"),
    Entry(
        "classifier_lib.vpsde.transform_unnormalized_wve_to_normalized_vp",
        "same",
        "",
        "(self, t, std_out=False)",
        f"{DG}test_vpsde_is_the_schedule",
    ),
    Entry("classifier_lib.vpsde.compute_t_cos_from_t_lin", "same", "", "(self, t_lin)", f"{DG}test_vpsde_is_the_schedule"),
    *(
        Entry(f"classifier_lib.vpsde.{name}", "missing", "times for training a discriminator: `fastdiff train` with its task")
        for name in ("get_diffusion_time", "antiderivative", "normalizing_constant", "integral_beta")
    ),
    Entry("classifier_lib.load_classifier", "missing", "fastdiff.models.ADMEncoder; `fastdiff convert` reads the file"),
    Entry("classifier_lib.load_discriminator", "missing", "fastdiff.models.Discriminator; `fastdiff convert --extractor` reads both files"),
    *(
        Entry(f"training.networks.{name}", "missing", f"fastdiff.models.{name}")
        for name in ("EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond", "SongUNet", "DhariwalUNet")
    ),
    *(
        Entry(f"training.networks.{name}", "missing", "a part of the networks of fastdiff.models, which have its tensors' names")
        for name in ("Linear", "Conv2d", "GroupNorm", "AttentionOp", "UNetBlock", "PositionalEmbedding", "FourierEmbedding", "weight_init")
    ),
    *(Entry(f"training.loss.{name}", "missing", f"{TRAINING}; fastdiff.losses") for name in ("VPLoss", "VELoss", "EDMLoss")),
    Entry("training.dataset.Dataset", "missing", "fastdiff.data"),
    Entry("training.dataset.ImageFolderDataset", "missing", "fastdiff.data.open_data opens its folders and zips"),
    Entry("training.augment.AugmentPipe", "missing", TRAINING),
    Entry("training.training_loop.training_loop", "missing", TRAINING),
    Entry("train.main", "missing", TRAINING),
    Entry("dataset_tool.main", "missing", "`fastdiff data ... --to`"),
    Entry("dnnlib.util.open_url", "missing", "nothing is downloaded: give a local file"),
    Entry("torch_utils.distributed", "missing", "fastdiff.distributed"),
    Entry("torch_utils.misc", "missing", "a helper of upstream's training"),
    Entry(
        "torch_utils.persistence", "missing", "pickles of classes with their source: fastdiff.checkpoints reads them and executes nothing"
    ),
    Entry("torch_utils.training_stats", "missing", "a helper of upstream's training"),
]
