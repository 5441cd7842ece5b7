"""Drawn data and a run store of their own for the tests of what a researcher runs."""

import os
from pathlib import Path

import pytest

from datamodules import miniature


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """One drawing for all tests, found by the profile through CACHE_ROOT."""
    cache = Path(os.environ.get("TEST_CACHE_ROOT", tmp_path_factory.getbasetemp().parent / "drawn"))
    miniature.draw(cache / "miniature" / "0")
    return cache


@pytest.fixture
def store(tmp_path, monkeypatch, drawn):
    monkeypatch.setenv("CACHE_ROOT", str(drawn))
    monkeypatch.setenv("RUNS_ROOT", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def here(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path
