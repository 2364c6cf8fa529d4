"""bench.rivals: what it makes is kept and compared pair by pair, and the page needs nothing else."""

import family_models
import numpy as np
import pytest
import torch
from PIL import Image

from cil_pack.bench import dial, rivals, rivals_page, sources
from cil_pack.demo.landscape import scenes

pytest.importorskip("cv2")


def test_the_frontier_is_what_no_other_beats():
    assert rivals_page.frontier([(1, 0.9), (2, 0.95), (3, 0.8), (2.5, 0.7), (4, 0.1)]) == [1, 2, 4]
    assert rivals_page.frontier([(1, 1)]) == [0]


def test_a_run_is_paired_goes_on_and_makes_a_page_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rivals, "KEPT", tmp_path / "kept")
    asked = [
        *["--checkpoint", "healthy", "--images", "1", "--seeds", "1", "--steps", "2", "--only", "plain", "--only", "FreeInit", "--only"],
        "ALG, ",
        "--out",
        str(tmp_path),
    ]
    rivals.main(asked)
    assert "4 clips, 0 of them there" in capsys.readouterr().out
    rows = table_of(tmp_path / "rivals_healthy.md")
    assert [row["cure"] for row in rows] == ["plain", "FreeInit, 3 runs", "plain, CFG 2", "ALG, 2.5 until 0.2, CFG 2"]
    assert str(tmp_path) not in (tmp_path / "rivals_healthy.md").read_text()  # the command as anybody would give it
    assert [row["evaluations"] for row in rows] == ["2", "6", "4", "5"]  # ALG's first step costs three
    page = (tmp_path / "rivals_healthy.html").read_text()
    assert page.count("data:image/webp") == 5 and "http" not in page and (tmp_path / "rivals_healthy.png").stat().st_size > 1000  # one of the truth
    rivals.main(asked)
    assert "4 clips, 4 of them there" in capsys.readouterr().out


def table_of(path):
    """The last table of a result -> a dict a row."""
    lines = [line.strip("|").split("|") for line in path.read_text().split("## All figures")[1].splitlines() if line.startswith("| ")]
    return [dict(zip([c.strip() for c in lines[0]], [c.strip() for c in line], strict=True)) for line in lines[1:]]


def test_the_dial_is_measured_on_a_trained_model_of_wans_kind():
    source = dial.source_of("wan_leaking", 1)
    picture = dial.Picture(source, 0, dial.levers.GAIN, 3, None)
    got = picture.dialled(1.0)
    assert got.calls <= 9 and got.motion >= 0 and picture.plain().calls == 3


def test_what_cannot_act_on_the_simulated_leak_is_plain_to_the_bit():
    o = rivals.arguments_of(["--checkpoint", "simulated", "--images", "1", "--steps", "8"])
    source, rows = rivals.source_of(o), {cure.name: cure for cure in rivals.cures(o)}
    clips, travel = {}, {}
    for name in ("plain", "TimeNoise at inference, gentle", "motion gain 3.33 above sigma 3"):
        clips[name], _, cost = rivals.sampled(source, rows[name], 0, 0, o)
        assert cost["evaluations"] == 8
        travel[name] = source.judged(clips[name], rivals.decoded(source, clips[name]), 0)["travel, pixels"]
    plain, noised, gained = clips.values()
    assert torch.equal(plain, noised) and not torch.equal(plain, gained)
    assert travel["motion gain 3.33 above sigma 3"] > travel["plain"] + 5


def test_the_trained_model_of_wans_kind_has_its_rows_and_its_truth():
    o = rivals.arguments_of(["--checkpoint", "wan_leaking", "--images", "2", "--steps", "6"])
    source, rows = rivals.source_of(o), {cure.name: cure for cure in rivals.cures(o)}
    assert {"DyMoS, gamma 0.6, first 20% of the steps", "Painter's scaling 1.5", "motion gain 1.4 above sigma 0.83"} <= rows.keys()
    true, found = source.true_clip(1, 0), {}
    for name in ("plain", "DyMoS, gamma 1.5, first 20% of the steps", "motion gain 2 above sigma 0.83"):
        samples, image, cost = rivals.sampled(source, rows[name], 1, 0, o)
        assert cost["evaluations"] == 6 and torch.equal(true[:1], image)
        found[name] = samples
    plain, *others = found.values()
    assert not any(torch.equal(plain, other) for other in others)
    judged = source.judged(None, true, 1)
    assert judged["distance to the nearest true clip"] < 0.05 and judged["travel, pixels"] <= scenes.SIZE
    assert source.median(0) == source.median(1) > 15


def row(number, name, motion, kind="other starts", idle=False, spread=0.01):
    """A row of four clips about `motion`; plain has 1."""
    clips = lambda at: [
        {
            "consistent motion": at,
            "dynamic degree": 1.0,
            "flicker": -at,
            "speed / asked": at + spread * k,
            "distance": 1.0,
            "likeness": 0.9,
            "evaluations": 15,
            "seconds": 1.0,
        }
        for k in (-1, 1, -2, 2)
    ]
    return rivals_page.Row(number, rivals.Cure(name, None, kind, ""), clips(motion), clips(1.0)[::-1], idle)


def test_the_words_beside_the_papers_table():
    rows = [
        row(1, "FrameInit, tau 0.85", 0.5),
        row(2, "FreeInit, 3 runs", 2.0),
        row(3, "progressive noise, a 1", 1.3, spread=1.0),
        row(4, "early start, Analytic-Init, sigma 7", 1.2),
    ]
    lines = rivals_page.against_paper(rows, "speed / asked", None)
    told = {name: next(line for line in lines if line.startswith(f"- against *{name}")) for name in ("FrameInit", "FreeInit", "progressive")}
    assert "motion agrees (+0.700 ±" in told["FrameInit"] and "motion **does not agree** (-0.800 ±" in told["FreeInit"]
    assert "motion cannot be told (-0.100 ±" in told["progressive"]
    idle = rivals_page.summary([*rows, row(5, "ALG", 1.0, idle=True)], "speed / asked")
    assert "- **Nothing to act on here (plain to the bit)**: 5 ALG." in idle and "- **Moves less than plain**: 1 FrameInit, tau 0.85." in idle
    assert idle[-1].endswith("consistent motion 1.00, dynamic degree the same in all, flicker -1.00.")
    assert rivals_page.against_paper(rows[:1], "speed / asked", None) == []


def test_points_on_one_another_get_one_label():
    assert rivals_page.labels([1, 2, 3], [(0, 0), (10, 1), (0.1, 0.01)]) == [("1, 3", (0, 0)), ("2", (10, 1))]
    assert rivals_page.in_words([1, 2, 4, 5, 6, 9]) == "1, 2, 4-6, 9"


def test_the_pages_little_markdown():
    made = rivals_page.as_html(["A *b* `c`", "", "- **d** <e>", "- f", "", "| g | h |", "|---|---|", "| i | j |"])
    assert (
        made
        == "<p>A <em>b</em> <code>c</code></p>\n<ul><li><b>d</b> &lt;e&gt;</li><li>f</li></ul>\n<div class=wide><table><tr><th>g</th><th>h</th></tr><tr><td>i</td><td>j</td></tr></table></div>"
    )


def test_a_model_of_wans_kind_has_dymos_and_painters_rows(tmp_path, monkeypatch):
    """On a tiny network of the host's class; with more steps than the authors' share, so that DyMoS acts at the first alone."""
    monkeypatch.setattr(rivals, "KEPT", tmp_path / "kept")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "wan.safetensors").touch()
    words = ["plain", "DyMoS", "Painter", "ALG, "]
    size = ["--width", "64", "--height", "64", "--frames", "9", "--images", "1", "--seeds", "1", "--steps", "5", "--cfg", "5"]
    files = ["--checkpoint", str(tmp_path / "wan.safetensors"), "--vae", "a", "--text-encoder", "b", "--pictures", str(tmp_path)]
    o = rivals.arguments_of([*files, *size, *(part for word in words for part in ("--only", word))])
    texts = [[[torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(k)), {}]] for k in range(2)]
    source, clips = sources.WanSource(o, family_models.model("Wan 2.2 14B I2V"), Vae(16, 8, 4), texts), {}
    for cure in (rows := rivals.cures(o)):
        clips[cure.name], _, cost = rivals.sampled(source, cure, 0, 0, o)
        assert cost["evaluations"] == (11 if cure.name.startswith("ALG") else 10)
    plain = clips.pop("plain")
    assert [c.name for c in rows] == [
        "plain",
        "DyMoS, gamma 0.6, first 20% of the steps",
        "DyMoS, gamma 1.5, first 20% of the steps",
        "Painter's scaling 1.15",
        "Painter's scaling 1.5",
        "ALG, 2.5 until 0.2, CFG 5",
    ]
    assert all(not torch.equal(plain, other) and other.isfinite().all() for other in clips.values())


class Vae(family_models.FakeVAE):
    """With grey filler frames that encode to something that is not flat."""

    def encode(self, pixels):
        latents = super().encode(pixels)
        return latents + 0.1 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))


def test_a_checkpoint_that_is_not_there_is_told(capsys):
    with pytest.raises(SystemExit):
        rivals.arguments_of(["--checkpoint", "nothing.safetensors"])
    assert "is no demo checkpoint" in capsys.readouterr().err
