"""Every end is clean: each process gone at once, one sentence, the exit code of the signal, finished work kept."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import ends, evaluate, fit, label, reproduce
from experiments.evaluation.scorer import ObjectScorer
from experiments.launching.local import Subprocesses
from experiments.reproduction.requests import FitRequest
from tests.experiments.processes import forked, group, until_it_says
from tests.experiments.tiny import SHRUNK, TINY

pytestmark = pytest.mark.usefixtures("heard")
ROOT = Path(__file__).parents[2]
WATCHED = "from experiments import ends; import os, signal, subprocess, sys, time; "
SLEEPS = "print('ready', flush=True); time.sleep(60)"


@pytest.fixture
def heard():
    """Signals as in a terminal: what `nohup` or a shell's `&` has ignored, the processes of a test would ignore too."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Process(subprocess.Popen):
    """A Python process without torch, whose output is read line by line."""

    def __init__(self, script, **options):
        command = [sys.executable, "-c", WATCHED + script]
        super().__init__(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)

    def said(self):
        assert self.stdout is not None
        return self.stdout.readline().strip()


def gone(pid, seconds=10.0):
    """Whether a process that is none of ours ends within that time; one that nobody buries counts as gone."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(FileNotFoundError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.02)
                continue
        return True
    return False


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [("INT", 130, "interrupted"), ("TERM", 143, "ended by SIGTERM"), ("HUP", 143, "ended by SIGHUP")],
)
def test_a_command_that_is_asked_to_end_says_so_and_takes_what_it_started_along(number, code, word):
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    process = Process(f"ends.watch(); ends.started.append({child}); print(ends.started[0].pid, flush=True); {SLEEPS}")
    started = int(process.said())
    process.send_signal(signal.Signals[f"SIG{number}"])
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (code, f"{word}; the same command continues where this one stopped\n")
    assert gone(started)


def test_a_signal_that_was_ignored_stays_ignored():
    process = Process(f"signal.signal(signal.SIGHUP, signal.SIG_IGN); ends.watch(); {SLEEPS}")  # as `nohup` begins it
    process.said()
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.kill()
    process.communicate()


def test_a_process_ends_with_the_one_that_started_it():
    child = "from experiments import ends; import time; ends.watch(); time.sleep(60)"
    process = Process(
        f"ends.watch(); print(subprocess.Popen([sys.executable, '-c', {child!r}]).pid, flush=True); {SLEEPS}"
    )
    started = int(process.said())
    process.kill()
    assert gone(started)
    _, err = process.communicate(timeout=20)
    assert err.startswith("the process that started this one is gone")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "code", "how"), [("KILL", 143, "SIGKILL"), ("INT", 130, "SIGINT"), ("TERM", 143, "SIGTERM")]
)
def test_a_group_ends_when_it_loses_a_process(lost, code, how):
    child = "import time; from experiments import ends; ends.watch(); print('up', flush=True); time.sleep(60)"
    lead = f"ends.lead([subprocess.Popen([sys.executable, '-c', {child!r}])])"
    process = Process(f"ends.watch(); {lead}; print(ends.started[0].pid, flush=True); {SLEEPS}")
    rank = sorted([process.said(), process.said(), process.said()])[0]  # its number, `ready` and `up`
    os.kill(int(rank), signal.Signals[f"SIG{lost}"])
    _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert err == f"process 1 of the group was ended by {how}, so the others end, too; {ends.GOES_ON}\n"


def test_a_loader_s_worker_is_none_of_it():
    process = Process("ends.watch(); os.fork() == 0 and print(os.getpid(), flush=True); time.sleep(60)")
    os.kill(int(process.said()), signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.terminate()
    _, err = process.communicate(timeout=20)
    assert err.count(ends.GOES_ON) == 1


# -- Commands, forked from this process, which has imported torch already


DDP = ["--trainer.devices=2", "--trainer.strategy=ddp"]
LONG = [*TINY[:-2], "--trainer.max_epochs=4000", "--trainer.max_steps=-1", TINY[-1]]
SENTENCES = {"INT": "interrupted", "TERM": "ended by SIGTERM", "HUP": "ended by SIGHUP"}


@pytest.fixture
def slow(monkeypatch):
    """Networks that take their time and say when they begin."""
    quick = ObjectScorer.probabilities

    def probabilities(self, batch):
        print("looking", flush=True)
        time.sleep(0.3)
        return quick(self, batch)

    monkeypatch.setattr(ObjectScorer, "probabilities", probabilities)


COMMANDS = {
    "fit": (lambda run: fit.main(LONG), "step"),
    "evaluate": (lambda run: evaluate.main(["--run", run, "--data", "pascal/val"]), "looking"),
    "label": (lambda run: label.main(["--run", run, "--data", "pascal/val"]), "looking"),
    "reproduce": (lambda run: reproduce.main(["dextr-4", *SHRUNK[:-2], "trainer.max_steps=9999", SHRUNK[-1]]), "step"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("fit", "INT"),
        ("fit", "TERM"),
        ("evaluate", "INT"),
        ("evaluate", "TERM"),
        ("label", "TERM"),
        ("reproduce", "HUP"),
    ],
)
def test_what_is_being_made_stays_unfinished_and_nothing_else_is_said(here, finished, slow, command, number):
    run = finished(TINY)["parents"]["model"]
    before = sorted(here.glob("runs/*/record.json"))
    main, begun = COMMANDS[command]
    process = forked(lambda: main(run), here / "log")
    until_it_says(begun, here / "log", process)
    os.kill(process.pid, signal.Signals[f"SIG{number}"])
    assert process.wait() == (130 if number == "INT" else 143)
    said = (here / "log").read_text()
    assert said.splitlines()[-1] == f"{SENTENCES[number]}; {ends.GOES_ON}"
    assert "Traceback" not in said
    assert sorted(here.glob("runs/*/record.json")) == before


@pytest.mark.slow
def test_a_table_takes_the_process_group_of_its_run_along(store, tmp_path, monkeypatch):
    training = FitRequest.read([*TINY, *DDP]).training
    (tmp_path / "python").write_text(f"#!/bin/sh\necho $$ > {tmp_path}/group\necho begun\nexec sleep 60\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    process = forked(lambda: Subprocesses().launch(training, "t"), tmp_path / "log")
    until_it_says("begun", tmp_path / "log", process)
    process.terminate()
    assert process.wait() == 143
    assert gone(int((tmp_path / "group").read_text()))
    assert (tmp_path / "log").read_text() == f"begun\nended by SIGTERM; {ends.GOES_ON}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "number", "code"), [(1, "KILL", 143), (0, "KILL", -9), (0, "TERM", 143), (1, "INT", 130)]
)
def test_no_process_of_a_training_group_outlives_another(here, lost, number, code):
    process = group(lambda: fit.main([*LONG, *DDP]), here / "log")
    until_it_says("step", here / "log", process)
    second = int((here / "second").read_text())
    os.kill((process.pid, second)[lost], signal.Signals[f"SIG{number}"])
    assert process.wait() == code
    assert gone(second)
    said = (here / "log").read_text()
    assert "Traceback" not in said
    assert said.count(ends.GOES_ON) == (0 if code < 0 else 1)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "lost"), [(evaluate, 0), (evaluate, 1), (label, 0), (label, 1)])
def test_no_process_of_a_group_that_evaluates_or_labels_outlives_another(here, finished, slow, command, lost):
    run = finished(TINY)["parents"]["model"]
    before = sorted(here.glob("runs/*/record.json"))
    on_two = ["--run", run, "--data", "pascal/val", "--devices", "2"]
    process = group(lambda: command.main(on_two), here / "log")
    until_it_says("looking", here / "log", process)
    second = int((here / "second").read_text())
    os.kill((process.pid, second)[lost], signal.SIGTERM)
    assert process.wait() == 143
    assert gone(second)
    said = (here / "log").read_text()
    assert "Traceback" not in said
    assert said.count(ends.GOES_ON) == 1
    assert sorted(here.glob("runs/*/record.json")) == before
