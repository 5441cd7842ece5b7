"""Drawn data and a run store of their own for the tests of what a researcher runs."""

import os
import shutil

import pytest

from experiments import fit
from experiments.runs.records import parents_of


@pytest.fixture(scope="session")
def everyone(tmp_path_factory):
    """A folder that all workers of this run of the tests share, and no other run."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def few(drawn, tmp_path_factory):
    """The drawing with a quarter of the pictures that PASCAL and SBD are tested on: whole tables evaluate often."""
    cache = tmp_path_factory.mktemp("few")
    shutil.copytree(drawn / "miniature" / "0", cache / "miniature" / "0", copy_function=os.link)
    for listed in ("VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt", "benchmark_RELEASE/dataset/val.txt"):
        file = cache / "miniature" / "0" / listed
        pictures = file.read_text().splitlines()
        file.unlink()  # a link to the whole drawing's
        file.write_text("".join(f"{picture}\n" for picture in pictures[: len(pictures) // 4]))
    return cache


@pytest.fixture
def store(tmp_path, monkeypatch, drawn):
    monkeypatch.setenv("CACHE_ROOT", str(drawn))
    monkeypatch.setenv("RUNS_ROOT", str(tmp_path / "runs"))
    monkeypatch.delenv("DATA_ROOT", raising=False)  # it would win over the drawn data of these runs
    return tmp_path / "runs"


@pytest.fixture
def here(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def finished(store, everyone):
    """Makes what `fit` is asked for once for all tests and workers; this test's store gets a copy. Its first record."""

    def make(arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RUNS_ROOT", str(everyone / "finished"))
            record = fit.run(arguments)[0]
        for run in (record["run"], *parents_of(record)):
            shutil.copytree(everyone / "finished" / run, store / run, dirs_exist_ok=True)
        return record

    return make


@pytest.fixture
def shared_store(everyone, few, monkeypatch, tmp_path):
    """A store in which all tests of whole tables find what others have made, on a quarter of the pictures."""
    monkeypatch.setenv("CACHE_ROOT", str(few))
    monkeypatch.setenv("RUNS_ROOT", str(everyone / "tables"))
    monkeypatch.delenv("DATA_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    return everyone / "tables"
