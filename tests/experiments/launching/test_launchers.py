"""Where runs are made: dependent jobs, process groups, and what a table says of runs that wait or failed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import reproduce
from experiments.launching import graph, slurm
from experiments.launching.launchers import launcher
from experiments.launching.local import Failed, Subprocesses
from experiments.launching.making import execute
from experiments.launching.slurm import Job, Slurm
from experiments.reproduction.requests import FitRequest
from experiments.runs.folder import RunFolder
from experiments.runs.node import Node, in_order
from tests.experiments.processes import done_by
from tests.experiments.tiny import SHRUNK, TINY, report_of


@dataclass
class FakeExecutor:
    """Stands in for submitit: remembers what each job asked for."""

    parameters: dict = field(default_factory=dict)
    jobs: list = field(default_factory=list)

    def update_parameters(self, **parameters):
        self.parameters = parameters

    def submit(self, job):
        self.jobs.append((job, self.parameters))
        return SimpleNamespace(job_id=str(100 + len(self.jobs)))


@pytest.fixture
def cluster(monkeypatch):
    """A cluster without SLURM: an executor, and the states that squeue would print."""
    states, executor = {}, FakeExecutor()
    monkeypatch.setattr(slurm, "states_of_jobs", lambda: dict(states))
    monkeypatch.setattr(graph, "launcher", lambda name, devices: Slurm(devices, executor))
    return SimpleNamespace(states=states, executor=executor)


def chain(*extra):
    """A training and its evaluation."""
    request = FitRequest.read([*TINY, *extra])
    return in_order(request.evaluations(request.training))


def test_parents_come_before_children_and_each_once(store):
    training, evaluation = chain()
    scored = {**evaluation.config, "evaluation": {**evaluation.config["evaluation"], "threshold": 0.3}}
    other = Node("evaluate", scored, {"model": training})
    assert in_order([other, evaluation]) == [training, other, evaluation]


def test_a_job_depends_on_the_jobs_of_its_parents_and_asks_for_its_processes(store, cluster, monkeypatch):
    monkeypatch.setenv("JOB_MINUTES", "7")
    slurm = Slurm(2, cluster.executor)
    notes = [slurm.launch(node, "train + PSP") for node in chain()]
    (first, asked), (second, asked_second) = cluster.executor.jobs
    assert notes == ["job 101 is queued", "job 102 is queued"]
    assert "dependency" not in asked["slurm_additional_parameters"]
    assert asked_second["slurm_additional_parameters"] == {"kill-on-invalid-dep": "yes", "dependency": "afterok:101"}
    assert (asked["tasks_per_node"], asked["timeout_min"], asked["name"]) == (2, 7, "train-PSP")
    assert [RunFolder(job.folder).config["kind"] for job in (first, second)] == ["train", "evaluate"]


def test_jobs_that_are_queued_and_runs_that_are_done_are_not_submitted_again(store, cluster):
    training, evaluation = chain()
    Slurm(1, cluster.executor).launch(training, "t")
    cluster.states["101"] = "running"
    again = Slurm(1, cluster.executor)
    assert again.launch(training, "t") == "job 101 is running"
    assert len(cluster.executor.jobs) == 1
    training.folder.finish(kind="train", metrics={})
    assert again.launch(training, "t") == ""
    again.launch(evaluation, "e")
    assert "dependency" not in cluster.executor.jobs[-1][1]["slurm_additional_parameters"]


def test_a_failed_job_is_named_with_its_reason_and_submitted_anew(store, cluster, capsys):
    training, _ = chain("--model.jitter=far")
    Slurm(1, cluster.executor).launch(training, "t")
    with pytest.raises(ValueError, match="jitter"):
        cluster.executor.jobs[0][0]()  # what the job does on its node
    assert Slurm(1, cluster.executor).launch(training, "t") == "job 102 is queued"
    assert "job 101 ended without a record (the composed recipe does not fit" in capsys.readouterr().out
    assert training.folder.why_not == ""


def test_a_child_of_a_job_submitted_anew_waits_for_the_new_one(store, cluster):
    training, evaluation = chain()
    slurm = Slurm(1, cluster.executor)
    slurm.launch(training, "t"), slurm.launch(evaluation, "e")
    cluster.states["102"] = "queued"  # its parent failed, and SLURM has not taken it away yet
    again = Slurm(1, cluster.executor)
    assert [again.launch(training, "t"), again.launch(evaluation, "e")] == ["job 103 is queued", "job 104 is queued"]
    assert cluster.executor.jobs[-1][1]["slurm_additional_parameters"]["dependency"] == "afterok:103"


def test_a_job_with_other_processes_than_its_run_s_is_refused(store, cluster, monkeypatch):
    training, _ = chain()
    Slurm(1, cluster.executor).launch(training, "t")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with pytest.raises(ValueError, match=f"this job has 2 tasks, and run {training.hash} is to be made by 1 now"):
        cluster.executor.jobs[0][0]()
    assert training.folder.record is None


def test_a_run_that_was_cut_off_is_made_by_the_processes_that_are_asked_for_now(store, cluster):
    for processes in (1, 2):
        strategy = "ddp" if processes > 1 else "auto"
        training, _ = chain(f"--trainer.devices={processes}", f"--trainer.strategy={strategy}")
        Slurm(processes, cluster.executor).launch(training, "t")
    (first, _), (second, asked) = cluster.executor.jobs
    assert first.folder == second.folder
    told = RunFolder(second.folder).config["config"]["trainer"]
    assert told["devices"] == asked["tasks_per_node"] == 2


def test_a_refused_job_is_one_sentence(store, cluster, monkeypatch):
    def refuse(job):
        raise RuntimeError("sbatch: error: invalid account\n or partition")

    monkeypatch.setattr(cluster.executor, "submit", refuse)
    with pytest.raises(Failed, match="sbatch: error: invalid account or partition"):
        Slurm(1, cluster.executor).launch(chain()[0], "t")


def test_the_report_says_which_job_a_cell_waits_for(here, cluster, capsys):
    reproduce.main(["dextr-4", *SHRUNK, "--rows=2,3", "--launcher=slurm"])
    reasons = [cell["reason"] for cell in report_of(here, "dextr-4")["cells"][1:3]]
    assert reasons == ["job 102 is queued", "job 104 is queued"]
    assert "4 jobs are queued or running: `squeue --me` shows them" in capsys.readouterr().out


def test_the_children_of_a_failed_run_are_reported_and_other_rows_run(here, monkeypatch):
    class Stub:
        def launch(self, node, title):
            if node.config["model"]["init_args"]["guidance"] is None:
                raise Failed("the disk is full")
            assert all(parent.folder.record for parent in node.ancestors)
            node.folder.prepare(node.describe())
            if node.kind == "train":
                node.folder.finish(kind=node.kind, metrics={}, parents={})
            return "" if node.kind == "train" else "job 5 is running"

    monkeypatch.setattr(graph, "launcher", lambda name, devices: Stub())
    with pytest.raises(SystemExit) as ended:
        reproduce.main(["dextr-4", *SHRUNK, "--rows=2,3"])
    assert ended.value.code == 1
    reasons = [cell["reason"] for cell in report_of(here, "dextr-4")["cells"][1:3]]
    assert reasons == ["failed: the disk is full", "job 5 is running"]


def test_a_training_that_cannot_be_made_again_leaves_a_report_of_the_other_rows(here, monkeypatch):
    class Stub:
        def launch(self, node, title):
            if (node.folder.path / "lost").exists():
                raise Failed("its data are gone")
            node.folder.prepare(node.describe())
            metrics = {} if node.kind == "train" else {"mean_iou": 0.5, "n": 3}
            node.folder.finish(kind=node.kind, metrics=metrics, parents=node.parent_hashes)
            return ""

    monkeypatch.setattr(graph, "launcher", lambda name, devices: Stub())
    reproduce.main(["dextr-4", *SHRUNK, "--rows=2,3"])
    run = report_of(here, "dextr-4")["cells"][1]["runs"][0]
    training = RunFolder(here / "runs" / RunFolder(here / "runs" / run).record["parents"]["model"])
    (training.path / "record.json").write_text("")
    (training.path / "lost").touch()
    with pytest.raises(SystemExit):
        reproduce.main(["dextr-4", *SHRUNK, "--rows=2,3"])
    cells = report_of(here, "dextr-4")["cells"][1:3]
    assert (cells[0]["reason"], cells[1]["measured"]) == ("failed: its data are gone", 50)


def test_a_launcher_is_refused_in_one_sentence(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="there are: local, slurm"):
        launcher("pbs", 1)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="squeue is not there"):
        slurm.states_of_jobs()


@pytest.mark.slow
def test_a_group_that_fails_leaves_its_sentence(store):
    training, _ = chain("--model.jitter=far", "--trainer.devices=2", "--trainer.strategy=ddp")
    with pytest.raises(Failed, match=r"^the composed recipe does not fit its classes: jitter: expected [^{]*far$"):
        Subprocesses().launch(training, "t")


def processes_of(folder):
    """The processes with a run's folder on their command line, oldest first."""
    found = subprocess.run(["pgrep", "-f", f"experiments.execute {folder}"], capture_output=True, text=True)
    return sorted(map(int, found.stdout.split()))


@pytest.mark.slow
def test_a_group_that_loses_a_process_ends_and_the_next_continues(store, monkeypatch, tmp_path, capfd):
    """With the processes that Lightning starts; who else may be lost, tests/experiments/test_ends.py asks."""
    monkeypatch.setenv("CHECKPOINT_MINUTES", "0")
    training, _ = chain("--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_epochs=8")

    def kill():
        while not (training.folder.path / "last.ckpt").exists():
            time.sleep(0.05)
        _, second = processes_of(training.folder.path)
        os.kill(second, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(Failed, match=r"^process 1 of the group was ended by SIGKILL, so the others end, too$"):
        Subprocesses().launch(training, "t")
    assert processes_of(training.folder.path) == []
    assert "Traceback" not in capfd.readouterr().err
    done_by(2, lambda: execute(training, "t"), tmp_path / "log")
    assert "continuing from" in (tmp_path / "log").read_text()
    assert training.folder.record["devices"]["processes"] == 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("sbatch") is None, reason="needs a SLURM cluster: sbatch is not on PATH")
def test_a_real_cluster_makes_the_runs_of_a_table(here):
    if subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip("sbatch is on PATH but no SLURM controller answers")
    environment = {**os.environ, "JOB_CPUS": "1", "JOB_GPUS": os.environ.get("JOB_GPUS", "0"), "JOB_MINUTES": "30"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])
    command = [sys.executable, "-m", "experiments.reproduce", "dextr-4", *SHRUNK, "--rows=3", "--launcher=slurm"]
    subprocess.run(command, check=True, env=environment)
    cell = report_of(here, "dextr-4")["cells"][2]
    assert cell["reason"].startswith("job ")
    runs = [folder for folder in (here / "runs").glob("*") if (folder / "job").exists()]
    assert len(runs) == 2
    for _ in range(600):
        if all((folder / "record.json").exists() for folder in runs):
            break
        time.sleep(0.5)
    subprocess.run(command, check=True, env=environment)
    cell = report_of(here, "dextr-4")["cells"][2]
    assert cell["state"] == "reduced profile"
    assert json.loads((runs[0] / "record.json").read_text())["run"] == runs[0].name


def test_a_requeued_job_calls_the_same_run(tmp_path):
    pytest.importorskip("submitit", reason="needs submitit: pip install -e .[cluster]")
    job = Job(tmp_path / "run", "t")
    assert job.checkpoint().function is job
