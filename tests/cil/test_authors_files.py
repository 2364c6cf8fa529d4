"""Files in the authors' two layouts and spellings, and files that must be refused."""

import pytest
import torch
from safetensors.torch import save_file

from cil_pack.cil import moments as M

TRUE = torch.randn(4, 16, 10, 14, generator=torch.Generator().manual_seed(0))  # [C, T, h, w]
LAYOUTS = {
    "DynamiCrafter": ("Expectation_X0", TRUE[None], "Tr_Cov_d"),
    "SVD": ("Expectation_x_0", TRUE.transpose(0, 1).contiguous(), "trCov_d"),
    "SVD with a batch": ("Expectation_x_0", TRUE.transpose(0, 1)[None].contiguous(), "trCov_d"),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads_directly(tmp_path, layout, suffix):
    mean_key, mean, variance_key = LAYOUTS[layout]
    path = tmp_path / f"authors{suffix}"
    tensors = {mean_key: mean, variance_key: torch.tensor(0.808)}
    torch.save(tensors, path) if suffix == ".pt" else save_file(tensors, path)
    loaded = M.load(path)
    assert torch.equal(loaded.mean, TRUE)
    assert loaded.variance == pytest.approx(0.808) and loaded.space == "sd"
    assert loaded.about["width"] == 14 * 8


def test_a_plain_number_as_variance(tmp_path):
    torch.save({"Expectation_X0": TRUE[None].half(), "Tr_Cov_d": 0.5}, tmp_path / "a.pt")
    assert M.load(tmp_path / "a.pt").variance == 0.5


def test_four_frames_of_four_channels_go_by_the_key(tmp_path):
    square = torch.arange(4.0)[:, None, None, None].expand(4, 4, 2, 2).contiguous()
    for key, variance, first in (("Expectation_X0", "Tr_Cov_d", 0), ("Expectation_x_0", "trCov_d", 1)):
        torch.save({key: square, variance: torch.tensor(1.0)}, tmp_path / "a.pt")
        assert torch.equal(M.load(tmp_path / "a.pt").mean, square.transpose(0, first))


class Evil:
    def __reduce__(self):
        import os

        return os.mkdir, ("this-must-not-appear",)


def test_code_in_a_file_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"Expectation_X0": TRUE, "Tr_Cov_d": Evil()}, "evil.pt")
    with pytest.raises(ValueError, match="evil.pt is refused: it holds more than tensors.*safetensors"):
        M.load(tmp_path / "evil.pt")
    assert not (tmp_path / "this-must-not-appear").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        ({"weight": torch.zeros(1)}, "is not a moments file of the paper's authors"),
        ({"Expectation_X0": torch.zeros(3, 8, 2, 2), "Tr_Cov_d": torch.tensor(1.0)}, "has the shape \\(3, 8, 2, 2\\)"),
        ({"Expectation_X0": torch.zeros(4, 8, 2, 2), "Tr_Cov_d": torch.tensor(-1.0)}, "a.pt: the variance of moments"),
        ([torch.zeros(1)], "is not a moments file of the paper's authors"),
    ],
)
def test_other_files_are_refused_in_words(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message):
        M.load(tmp_path / "a.pt")


def test_rubbish_is_refused_in_words(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match="a.pt"):
        M.load(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="b.pt"):
        M.load(tmp_path / "b.pt")


def test_a_small_file_cannot_ask_for_all_memory(tmp_path):
    """2 kB that claim 410 GB: one value, repeated by strides of 0."""
    huge = torch.zeros(1).expand(1, 4, 16, 40_000, 40_000)
    torch.save({"Expectation_X0": huge, "Tr_Cov_d": torch.tensor(0.8)}, tmp_path / "bomb.pt")
    assert (tmp_path / "bomb.pt").stat().st_size < 4000
    with pytest.raises(ValueError, match="bomb.pt is refused: its Expectation_X0 claims the shape"):
        M.load(tmp_path / "bomb.pt")
