"""generate and fid of fastdiff.compat.edm, as a person runs them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fastdiff.compat.edm import PhiloxGenerator, StackedRandomGenerator, _command, ablation_sampler, edm_sampler, fid, generate
from fastdiff.evaluation import Statistics, digits_features
from fastdiff.models import EDMPrecond, load_model
from tests.checkpoints.test_convert import SMALL, randomized
from tests.checkpoints.writers import edm_pickle


def run(capsys, command, *arguments) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command."""
    with pytest.raises(SystemExit) as done:
        _command.run(command, "program", [str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(done.value.code or 0), captured.out, captured.err


def images(folder) -> dict[str, np.ndarray]:
    return {path.relative_to(folder).as_posix(): np.asarray(Image.open(path)).astype(int) for path in sorted(folder.rglob("*.png"))}


def by_hand(seeds, generator=StackedRandomGenerator, class_idx=None, sampler=edm_sampler, **arguments) -> np.ndarray:
    """What upstream's program does with the same seeds: latents, then classes, then the steps' noise."""
    net = load_model("digits")
    rnd = generator("cpu", seeds)
    latents = rnd.randn([len(seeds), 1, 8, 8], device="cpu")
    labels = torch.eye(10)[rnd.randint(10, size=[len(seeds)], device="cpu")]
    if class_idx is not None:
        labels = torch.eye(10)[[class_idx] * len(seeds)]
    x = sampler(net, latents, labels, randn_like=rnd.randn_like, **arguments)
    return (x * 127.5 + 128).clip(0, 255).to(torch.uint8)[:, 0].numpy().astype(int)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (("--S_churn=20", "--steps=5"), dict(S_churn=20, num_steps=5)),
        (("--class=7", "--steps=4", "--S_churn=5"), dict(class_idx=7, num_steps=4, S_churn=5)),
        (("--noise=philox", "--S_churn=20", "--steps=5"), dict(generator=PhiloxGenerator, S_churn=20, num_steps=5)),
        (
            ("--solver=euler", "--disc=vp", "--schedule=vp", "--scaling=vp", "--steps=5", "--eps_scaler=1.01"),
            dict(sampler=ablation_sampler, solver="euler", discretization="vp", schedule="vp", scaling="vp", num_steps=5, eps_scaler=1.01),
        ),
    ],
    ids=["churn", "class", "philox", "ablation"],
)
def test_generate_draws_what_upstream_draws_for_a_seed(options, arguments, tmp_path, capsys):
    code, out, _ = run(capsys, generate.main, "--network=digits", f"--outdir={tmp_path}", "--seeds=3,5-7", "--device=cpu", *options)
    assert code == 0
    assert out.splitlines() == [f'Generating 4 images to "{tmp_path}"...', "Done."]
    found = images(tmp_path)
    assert list(found) == ["000003.png", "000005.png", "000006.png", "000007.png"]
    expected = by_hand([3, 5, 6, 7], **arguments)
    for picture, wanted in zip(found.values(), expected, strict=True):
        assert np.array_equal(picture, wanted)
    assert expected.std() > 20


def test_generate_depends_on_neither_batch_nor_neighbours(tmp_path, capsys):
    def draw(name, *options):
        folder = tmp_path / name
        assert (
            run(capsys, generate.main, "--network=digits", f"--outdir={folder}", "--steps=4", "--S_churn=9", "--device=cpu", *options)[0]
            == 0
        )
        return images(folder)

    whole, parts = draw("a", "--seeds=998-1001", "--subdirs"), draw("b", "--seeds=1001,998-1000", "--subdirs", "--batch=3")
    assert list(whole) == ["000000/000998.png", "000000/000999.png", "001000/001000.png", "001000/001001.png"]
    assert list(parts) == list(whole)
    assert max(np.abs(whole[name] - parts[name]).max() for name in whole) <= 1  # the network's own rounding


@pytest.mark.slow
def test_generate_and_fid_under_torchrun(tmp_path, capsys):
    options = ["--network=digits", "--seeds=0-6", "--steps=4", "--S_churn=9", "--batch=2", "--device=cpu"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    command = [*launch, "fastdiff.compat.edm.generate", f"--outdir={tmp_path / 'two'}", *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.count("Done.") == 1
    assert run(capsys, generate.main, f"--outdir={tmp_path / 'one'}", *options)[0] == 0
    one, two = images(tmp_path / "one"), images(tmp_path / "two")
    assert list(one) == list(two)
    assert max(np.abs(one[name] - two[name]).max() for name in one) <= 1

    reference = tmp_path / "ref.npz"
    digits_statistics(tmp_path / "one").save(reference)
    calc = ["calc", f"--images={tmp_path / 'two'}", f"--ref={reference}", "--num_expected=7", "--batch=2", "--device=cpu"]
    done = subprocess.run([*launch, "fastdiff.compat.edm.fid", *calc], check=True, capture_output=True, text=True, timeout=120)
    code, out, _ = run(capsys, fid.main, *calc)
    assert code == 0
    assert float(done.stdout.strip()) == pytest.approx(float(out.strip()), abs=1e-4)


def digits_statistics(folder) -> Statistics:
    pixels = np.stack(list(images(folder).values()))[:, None]
    return Statistics.of(digits_features()(torch.tensor(pixels / 127.5 - 1, dtype=torch.float32))[0], digits_features().name)


def test_generate_reads_a_pickle_without_executing_it(tmp_path, capsys):
    keywords = SMALL | dict(model_type="SongUNet")
    net = randomized(EDMPrecond(**keywords))
    (tmp_path / "a.pkl").write_bytes(edm_pickle(net, keywords, tmp_path / "executed"))
    out = tmp_path / "out"
    code, _, err = run(
        capsys, generate.main, f"--network={tmp_path / 'a.pkl'}", f"--outdir={out}", "--seeds=4-5", "--steps=3", "--device=cpu"
    )
    assert code == 0, err
    assert not (tmp_path / "executed").exists()
    rnd = StackedRandomGenerator("cpu", [4, 5])
    latents = rnd.randn([2, 1, 8, 8])
    x = edm_sampler(net, latents, torch.eye(3)[rnd.randint(3, size=[2])], rnd.randn_like, 3)
    expected = (x.detach() * 127.5 + 128).clip(0, 255).to(torch.uint8)[:, 0].numpy()
    assert all(np.array_equal(a, b) for a, b in zip(images(out).values(), expected, strict=True))


def test_generate_with_a_discriminator(tmp_path, capsys):
    def draw(name, *options):
        folder = tmp_path / name
        arguments = ("--network=digits-small", f"--outdir={folder}", "--seeds=0-3", "--steps=6", "--device=cpu", *options)
        code, _, err = run(capsys, generate.main, *arguments)
        assert code == 0, err
        return np.stack(list(images(folder).values()))

    plain, guided = draw("a"), draw("b", "--discriminator_ckpt=digits")
    assert (plain != guided).any()
    assert (guided != draw("c", "--discriminator_ckpt=digits", "--boosting=1")).any()
    assert np.array_equal(plain, draw("d", "--discriminator_ckpt=digits", "--dg_weight_1st_order=0"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--network=cats",), "model: expected one of"),
        (("--network=https://example.com/a.pkl",), "--network: expected a name or a local file (nothing is downloaded)"),
        (("--network=/nowhere/a.pkl",), "/nowhere/a.pkl"),
        (("--network=digits", "--class=10"), "--class: expected 0 .. 9, got 10"),
        (("--network=digits", "--seeds=1-"), "seeds: expected integers and ranges such as 1,2,5-10, got '1-'"),
        (("--network=digits", "--seeds=0-99999999999"), "seeds: expected at most"),
        (("--network=digits", "--seeds=3-1"), "--seeds: expected at least one, got '3-1'"),
        (("--network=digits", f"--outdir={__file__}"), "--outdir: expected a folder, got the file"),
        (("--network=digits", "--pretrained_classifier_ckpt=a.pt"), "--discriminator_ckpt: expected one beside"),
        (("--network=digits", "--solver=euler", "--boosting=1"), "--boosting: expected 0 beside --solver"),
        (("--network=digits", "--discriminator_ckpt=cats"), "--discriminator: expected a checkpoint or one of"),
        ((), "Missing option '--network'"),
    ],
)
def test_errors_are_one_line(options, message, tmp_path, capsys):
    code, _, err = run(capsys, generate.main, f"--outdir={tmp_path / 'out'}", "--device=cpu", *options)
    assert code == 2
    assert message in err
    assert err.strip().count("\n") == 0
    assert not (tmp_path / "out").exists()


def test_parse_int_list():
    assert generate.parse_int_list("1,2,5-10") == [1, 2, 5, 6, 7, 8, 9, 10]
    assert generate.parse_int_list([4, 2]) == [4, 2]


def test_an_image_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    pixels = np.zeros((8, 8, 3), np.uint8)
    generate.save(pixels + 9, tmp_path / "a", 5)
    before = (tmp_path / "a" / "000005.png").read_bytes()

    def broken(self, file, **_):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(OSError, match="no space"):
        generate.save(pixels, tmp_path / "a", 5)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["000005.png"]
    assert (tmp_path / "a" / "000005.png").read_bytes() == before


def write_pictures(folder, count, seed) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 8, 8), dtype=np.uint8)
    for i, picture in enumerate(pixels):
        generate.save(picture[:, :, None], folder / f"{i % 3}", i)
    return pixels


def test_fid_of_a_folder(tmp_path, capsys):
    """calc and ref against the formula of fid.py, written with SciPy, on features taken directly."""
    from scipy.linalg import sqrtm

    first, second = write_pictures(tmp_path / "a", 90, 0), write_pictures(tmp_path / "b", 90, 1)
    features = [digits_features()(torch.tensor(p[:, None] / 127.5 - 1, dtype=torch.float32))[0].double().numpy() for p in (first, second)]
    (mu_a, mu_b), (sigma_a, sigma_b) = [f.mean(0) for f in features], [np.cov(f, rowvar=False) for f in features]
    expected = ((mu_a - mu_b) ** 2).sum() + np.trace(sigma_a + sigma_b - 2 * np.real(sqrtm(sigma_a @ sigma_b)))
    code, out, err = run(capsys, fid.main, "ref", f"--data={tmp_path / 'b'}", f"--dest={tmp_path / 'new' / 'b.npz'}", "--features=digits")
    assert code == 0, err
    assert "90 images" in out
    stored = np.load(tmp_path / "new" / "b.npz")
    np.testing.assert_allclose(stored["mu"], mu_b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stored["sigma"], sigma_b, rtol=1e-4, atol=1e-6)
    code, out, err = run(capsys, fid.main, "calc", f"--images={tmp_path / 'a'}", f"--ref={tmp_path / 'new' / 'b.npz'}", "--num=90")
    assert code == 0, err
    assert "not FID" in err  # these are no Inception features
    assert float(out.splitlines()[-1]) == pytest.approx(expected, rel=1e-3)
    mu, sigma = fid.calculate_inception_stats(tmp_path / "a", features="digits", device="cpu")
    np.testing.assert_allclose(mu, mu_a, rtol=1e-5, atol=1e-6)
    assert fid.calculate_fid_from_inception_stats(mu, sigma, stored["mu"], stored["sigma"]) == pytest.approx(expected, rel=1e-3)


def test_fid_chooses_the_images_that_upstream_chooses(tmp_path):
    pixels = write_pictures(tmp_path, 30, 0)
    order = sorted(range(30), key=lambda i: f"{i % 3}/{i:06d}.png")
    shuffled = np.arange(30)
    np.random.RandomState(5).shuffle(shuffled)
    chosen = [order[i] for i in sorted(shuffled[:12])]
    data = fid.choose(fid.open_data(tmp_path), 12, seed=5)
    assert len(data) == 12
    got = ((data.batch(range(12))[0] + 1) * 127.5).round()[:, 0].numpy()
    assert np.array_equal(got, pixels[chosen])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("calc", "--images={a}", "--ref={ref}", "--num=91"), "images: expected at least 91, got 90 in"),
        (("calc", "--images={a}", "--ref=/nowhere.npz"), "/nowhere.npz"),
        (("calc", "--images={a}", "--ref={plain}", "--num=2"), "--features: expected inception:FILE"),
        (("calc", "--images={a}", "--ref={plain}", "--num=2", "--features=cats"), "features: expected digits, or inception:FILE"),
        (("ref", "--data={a}", "--dest={a}/b.npz"), "nothing is downloaded"),
        (("ref", "--data={a}/nothing", "--dest={a}/b.npz", "--features=digits"), "nothing"),
    ],
)
def test_fid_errors_are_one_line(options, message, tmp_path, capsys):
    write_pictures(tmp_path / "a", 90, 0)
    digits_statistics(tmp_path / "a").save(tmp_path / "ref.npz")
    np.savez(tmp_path / "plain.npz", mu=np.zeros(3), sigma=np.eye(3))
    names = {"a": tmp_path / "a", "ref": tmp_path / "ref.npz", "plain": tmp_path / "plain.npz"}
    code, _, err = run(capsys, fid.main, *(option.format(**names) for option in options))
    assert code == 2
    assert message in err
    assert err.strip().count("\n") == 0


def test_upstreams_functions_say_what_they_need(tmp_path):
    with pytest.raises(ValueError, match="features: expected inception:FILE"):
        fid.calculate_inception_stats(tmp_path)


def test_help_teaches(capsys):
    code, out, _ = run(capsys, generate.main, "--help")
    assert code == 0
    for option in ("--network", "--seeds", "--subdirs", "--class", "--S_churn", "--disc", "--eps_scaler", "--boosting", "torchrun"):
        assert option in out
    code, out, _ = run(capsys, fid.main)
    assert code == 0
    assert "calc" in out
