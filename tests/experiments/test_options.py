"""What an option may be: wrong values end a command at its door, with the option, the value and what is allowed."""

import re
import sys
from types import SimpleNamespace

import pytest

from experiments import (
    check_data,
    compare,
    evaluate,
    fit,
    focus_study,
    label,
    predict,
    report_check,
    reproduce,
    select,
    sweep_local,
    table_files,
)
from experiments.console import TextTable, one_sentence, show
from experiments.launching.slurm import Slurm

TABLE = ["dextr-4", "--profile=miniature"]
RUN = ["--run=0", "--data=pascal/val"]
ODD = "[/x] [red]:smile: %s {y}"  # markup of rich, emoji, what formatting would take


def refusal(module, arguments, capsys):
    """The one sentence with which a command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        one_sentence(lambda: sys.exit(module.main(arguments)))
    said = capsys.readouterr()
    assert ended.value.code == 1
    (line,) = (said.err or said.out).strip().splitlines()
    return line


@pytest.mark.parametrize(
    ("module", "arguments", "sentence"),
    [
        (reproduce, [*TABLE, "--rows=9"], "--rows 9: dextr-4 has rows 1 to 4"),
        (reproduce, [*TABLE, "--rows=0"], "--rows must be numbers of rows from 1 on.*got '0'"),
        (reproduce, [*TABLE, "--rows=three"], "--rows must be numbers of rows.*got 'three'"),
        (reproduce, ["iog-6", "--profile=miniature", "--rows=1"], "--rows 1: nothing of iog-6 is run for it"),
        (reproduce, [*TABLE, "--seeds=0"], "--seeds must be at least 1, got 0"),
        (reproduce, [*TABLE, "--devices=0"], "--devices must be at least 1, got 0"),
        (reproduce, [*TABLE, "--launcher=pbs"], "--launcher: invalid choice: 'pbs'.*'local', 'slurm'"),
        (reproduce, [*TABLE, "--profile="], "no profile ''; there are"),
        (reproduce, [*TABLE, "--profile=../dextr"], "no profile '../dextr'; there are"),
        (reproduce, [*TABLE, "--weights="], "no file at"),
        (reproduce, [*TABLE, f"--reports={__file__}"], "--reports must be a folder, and .* is a file"),
        (reproduce, [*TABLE, "--sedes", "3"], "no option '--sedes' here; did you mean '--seeds'"),
        (evaluate, [*RUN, "--limit", "-3"], "--limit must be at least 1, got -3"),
        (evaluate, [*RUN, "--every=0"], "--every must be at least 1, got 0"),
        (evaluate, [*RUN, "--every=two"], "--every must be a whole number at least 1, got 'two'"),
        (evaluate, [*RUN, "--threshold=2"], "--threshold must be between 0 and 1, got 2"),
        (evaluate, [*RUN, "--threshold=nan"], "--threshold must be between 0 and 1, got nan"),
        (evaluate, [*RUN, "--long-side=-5"], "--long-side must be at least 0, got -5"),
        (label, [*RUN, "--threshold=-1"], "--threshold must be between 0 and 1, got -1"),
        (label, [*RUN, "--out=nowhere/labels.json"], "--out must lie in a folder that is there"),
        (select, ["--run=0", "--below=inf"], "--below must be a finite number, got inf"),
        (compare, ["--runs=0", "--data=pascal/val", "--clicks=0"], "--clicks must be at least 1, got 0"),
        (predict, ["a.jpg", "--run=0", "--points", "1,2", "nan,3"], "points are written x,y in pixels, got nan,3"),
        (focus_study, ["--data=pascal/val", "--out=f", "--spread=0"], "--spread must be more than 0, got 0"),
        (sweep_local, ["dextr-components", "--count=0"], "--count must be at least 1, got 0"),
        (fit, ["--foo"], "no option '--foo' here"),
        (fit, ["--profile=miniature", "--data.train=[{name: pascal/train, every: 0}]"], "every must be at least 1"),
        (fit, ["--profile=miniature", "--data.train=[{name: pascal/train, limit: x}]"], "limit must be a whole number"),
        (fit, ["--profile=miniature", "--data.train=[5]"], "a data set is a name, or .*got 5"),
        (fit, ["--profile=miniature", "--data=5"], "data holds more than one value, expected a class by its name"),
        (fit, ["--profile=miniature", "--evaluation=null"], "evaluation holds .* values such as evaluation.protocol"),
        (
            fit,
            ["--profile=miniature", "--model.guidance.fwhm=x"],
            "model.guidance.fwhm: expected float or null, got x$",
        ),
        (fit, ["--profile=miniature", "--trainer.max_epochs=x"], "trainer.max_epochs: expected int or null, got x$"),
        (table_files, ["4"], "no option '4' here"),
        (check_data, ["--quik"], "did you mean '--quick'"),
    ],
)
def test_a_wrong_option_is_named_with_its_value_and_what_is_allowed(here, capsys, module, arguments, sentence):
    assert re.search(sentence, refusal(module, arguments, capsys))
    assert not (here / "reports").exists()


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (reproduce, [ODD]),
        (reproduce, ["dextr-4", f"--profile={ODD}"]),
        (evaluate, [f"--run={ODD}", "--data=pascal/val"]),
        (label, [f"--run={ODD}", "--data=pascal/val"]),
        (select, [f"--run={ODD}", "--below=0.5"]),
        (compare, ["--runs", ODD, "--data=pascal/val"]),
        (predict, [ODD, "--run=0"]),
        (focus_study, [f"--data={{name: '{ODD}'}}", "--out=f"]),
        (sweep_local, [ODD]),
        (fit, [f"--config={ODD}"]),
        (fit, [f"--model.{ODD}=3"]),
        (report_check, [ODD]),
        (check_data, [ODD]),
    ],
)
def test_what_a_user_typed_is_said_as_it_was_typed(here, capsys, module, arguments):
    assert ODD in refusal(module, arguments, capsys)


def test_the_console_shows_brackets_of_others_as_they_are(capsys):
    table = TextTable("name", ODD, title=ODD)
    table.add_row(ODD, ODD)
    show(table)
    show(ODD, style="bold")
    assert capsys.readouterr().out.count(ODD) == 5


@pytest.mark.parametrize(("variable", "value"), [("JOB_MINUTES", "1h"), ("JOB_CPUS", "0"), ("JOB_GPUS", "-1")])
def test_what_a_job_asks_for_is_checked_before_one_is_submitted(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr("experiments.launching.slurm.states_of_jobs", dict)
    with pytest.raises(ValueError, match=rf"{variable} must be .*{value}"):
        Slurm(executor=SimpleNamespace())
