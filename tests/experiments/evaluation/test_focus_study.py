import csv
from dataclasses import replace

import cv2
import numpy as np
import pytest

from datamodules.clicks.extreme import ExtremePoints
from datamodules.recipe import SampleRecipe
from datamodules.selection import open_objects
from experiments.evaluation import focus
from experiments.evaluation.focus import study
from experiments.focus_study import main

RECIPE = SampleRecipe(size=128, relax=8)


@pytest.fixture
def cross(monkeypatch):
    """Objects whose diagonals cross at right angles, far larger than the noise."""
    points = np.array([[(0, 200), (200, 0), (400, 200), (200, 400)]], np.float64)
    monkeypatch.setattr(focus, "crop_points", lambda index, recipe, places: points.repeat(len(places), 0))


class Objects(list):
    """As much of an index as the study sees when the points are given."""

    @property
    def object_id(self):
        return np.array(self)


@pytest.mark.parametrize(("noise", "error", "shift"), [("integers", 32.11, 5.6), ("continuous", 30.61, 5.3)])
def test_errors_are_those_expected_of_the_sum_of_four_displacements(cross, noise, error, shift):
    found = study(Objects([7]), RECIPE, draws=20_000, noise=noise)
    assert found["mean_error"] == pytest.approx(error, abs=0.15)
    assert found["mean_shift"] == pytest.approx(shift, abs=0.35)
    assert found["p10_error"] < found["median_error"] < found["p90_error"]
    assert found["mean_object_shift"] == pytest.approx(found["mean_shift"])


def test_the_shift_of_a_cross_is_that_of_its_two_diagonals(cross, monkeypatch):
    """Both ends of a diagonal moved by d move the crossing by d; the error is four times as large."""

    class Fixed:
        def integers(self, low, high, shape, endpoint):
            return np.broadcast_to([3, 4], shape)

    monkeypatch.setattr(focus, "rng", lambda *key: Fixed())
    found = study(Objects([1, 2]), RECIPE, draws=4)
    assert found["mean_error"] == pytest.approx(20)
    assert found["mean_shift"] == pytest.approx(5)


def test_draws_are_shared_out_evenly_and_written_down(cross, tmp_path):
    found = study(Objects([11, 22, 33]), RECIPE, draws=300, folder=tmp_path / "new")
    rows = list(csv.DictReader((tmp_path / "new" / "focus.csv").open()))
    assert [sum(row["object_id"] == o for row in rows) for o in ("11", "22", "33")] == [100, 100, 100]
    assert np.mean([float(row["shift"]) for row in rows]) == pytest.approx(found["mean_shift"], abs=1e-4)
    assert (found["n"], found["draws"]) == (3, 300)
    few = study(Objects(range(1000)), RECIPE, draws=10)
    assert (few["n"], few["draws"]) == (10, 10)


def test_equal_seeds_give_equal_numbers_and_no_noise_is_larger_than_its_spread(cross):
    first, again, other = (study(Objects([1]), RECIPE, draws=50, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["mean_shift"] != other["mean_shift"]
    near = study(Objects([1]), RECIPE, draws=200, noise="continuous", spread=0.5)
    assert near["p90_error"] <= 4 * 0.5 * 2**0.5
    assert study(Objects([1]), RECIPE, draws=50, spread=0.9)["mean_error"] == 0  # no whole number but 0


@pytest.mark.parametrize("options", [{"draws": 0}, {"spread": 0}, {"noise": "normal"}])
def test_a_study_of_nothing_is_refused(options):
    with pytest.raises(ValueError, match="draws and a spread above 0 and integers or continuous noise"):
        study(Objects([1]), RECIPE, **options)


def test_the_command_studies_the_objects_of_a_data_set(drawn, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("DATA_ROOT", str(drawn / "miniature" / "0"))
    monkeypatch.setenv("CACHE_ROOT", str(drawn))
    main(["--data={name: pascal/val, limit: 6}", "--draws=600", "--size=128", "--relax=8", f"--out={tmp_path / 'f'}"])
    said = capsys.readouterr().out
    assert "6 objects, 600 draws of integers" in said
    assert cv2.imread(str(tmp_path / "f" / "focus.png")).std() > 5
    index = open_objects([{"name": "pascal/val", "limit": 6}])
    found = study(index, RECIPE, draws=600)
    assert f"mean {found['mean_shift']:.2f}" in said
    assert found["mean_error"] == pytest.approx(32.1, abs=1.5)
    with pytest.raises(ValueError, match="needs the four extreme points, ExtremePoints gives 3 of kinds"):
        study(index, replace(RECIPE, test_points=ExtremePoints(counts=[3])), draws=6)
