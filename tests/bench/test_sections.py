"""Every section of `make bench` runs, on little: a figure that cannot be made any more is found before it is wanted."""

import math

import numpy as np
import pytest

from tests.bench.__main__ import SECTIONS, table_of, workload


@pytest.fixture(scope="module")
def little(tmp_path_factory, drawn):
    """A handful of drawn objects, whatever real data there are."""
    scratch = tmp_path_factory.mktemp("bench")
    (scratch / "drawn").symlink_to(drawn / "miniature" / "0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_ROOT", str(scratch / "nowhere"))
        patch.setenv("CACHE_ROOT", str(scratch / "cache"))
        load, said = workload(1, scratch)
        assert "drawn data" in said
        load.many, load.remembered, load.loaded, load.crop = 1000, 1000, 4, 64
        load.frames = load.frames.select([i < 4 for i in range(len(load.frames))])
        yield load


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_measures_what_it_names(little, section):
    figures = list(SECTIONS[section](little))
    assert figures
    assert all(figure.what and figure.unit and math.isfinite(figure.value) for figure in figures)
    assert table_of(figures).row_count == len(figures)
    least = np.nextafter(np.float64(0), np.float64(1))
    assert least * np.float64(1) > 0, "compiled code has made this process round subnormal numbers to 0"
