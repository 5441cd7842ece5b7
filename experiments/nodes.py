"""What can be run: train, evaluate, select, as nodes of a graph; their identity decides whether they are done."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from datamodules.selection import open_objects
from experiments.compose import Tree, import_class
from experiments.runs import RunFolder, digest, file_digest, runs_root
from lightning_modules.networks.official import load_exactly, load_official, read_weights
from lightning_modules.networks.pretrained import find_pretrained

Kind = Literal["train", "weights", "evaluate", "select"]
LIST = "objects.txt"  # what a `select` run makes: ids of objects, one a line

# What does not determine a result: where and on what a run is made, and what only shows its progress.
NOT_IDENTITY = {
    # sync_batchnorm: several processes then see the statistics that one would; the record says what was done
    "trainer": ("accelerator", "devices", "num_nodes", "strategy", "check_val_every_n_epoch", "sync_batchnorm"),
    "data": ("workers", "root", "val", "val_batch_size"),
    "evaluation": ("test", "batch_size"),
    "weights": ("loss", "optimizer", "schedule", "head_lr_factor", "iteration", "corrections", "jitter"),
}
TEST_ONLY = ("test_points", "test_interpolation", "test_view", "long_side")  # of a sample: they belong to evaluations


@dataclass(frozen=True)
class Node:
    """One run to be made.

    Args:
        kind: `train`; `weights`, a file of weights that stands in for a training; `evaluate`, on its parent's network;
            `select`, the objects of its parent, an evaluation, that keep a rule.
        config: the composed tree; for `evaluate` with the one data set that it tests.
        parents: runs that this one builds on: the training that a training continues or that is evaluated, then the
            `select` runs whose lists its data name (`listed: <hash>`); of `select`, the evaluation.
        weights: the file of a `weights` node.
        rule: of a `select` node, e.g. {metric: iou, below: 0.8}: a column of the evaluation's rows and its bound.
        found: the folder that this node was read from; it keeps its name, whatever the code would call it today.
    """

    kind: Kind
    config: Tree
    parents: tuple[Node, ...] = ()
    weights: str | None = None
    rule: Mapping[str, Any] | None = None
    found: RunFolder | None = None
    _cache: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def hash(self) -> str:
        """The run's name. Opens the data it needs: raises FileNotFoundError when that is not there."""
        if self.found is not None:
            return self.found.name
        if "hash" not in self._cache:
            self._cache["hash"] = digest(self.identity())
        return self._cache["hash"]

    @property
    def folder(self) -> RunFolder:
        """Where the run is kept."""
        return self.found or RunFolder(runs_root() / self.hash)

    @property
    def start(self) -> Node | None:
        """The training, or its stand-in, that this run takes its weights from: to go on with, or to evaluate."""
        return next((parent for parent in self.parents if parent.kind in ("train", "weights")), None)

    @property
    def model(self) -> Node:
        """The training, or its stand-in, whose network this run is or is about."""
        return self if self.kind in ("train", "weights") else self.parents[0].model

    @property
    def lists(self) -> dict[str, Path]:
        """The files behind the hashes that this run's data may list."""
        return {parent.hash: parent.folder.path / LIST for parent in self.parents if parent.kind == "select"}

    def identity(self) -> dict[str, Any]:
        """All that determines the result, and nothing else."""
        if self.kind == "select":
            assert self.rule is not None
            return {"kind": self.kind, "parents": [parent.hash for parent in self.parents], "rule": dict(self.rule)}
        config, data = self.config, self.config["data"]["init_args"]
        sample = {key: value for key, value in data["sample"].items() if key not in TEST_ONLY}
        common = {
            "kind": self.kind,
            "method": config["method"],
            "behaviour": import_class(config["model"]["class_path"]).behaviour,
            "parents": [parent.hash for parent in self.parents],
            "precision": config["trainer"]["precision"],
        }
        if self.kind == "evaluate":
            test_sample = {key: value for key, value in data["sample"].items() if key in TEST_ONLY}
            unused = () if config["evaluation"]["protocol"] == "clicks" else ("clicks",)
            evaluation = _without(config["evaluation"], (*NOT_IDENTITY["evaluation"], *unused))
            return {
                **common, "evaluation": evaluation, "sample": test_sample, "seed": data["seed"],
                "manifest": self.manifest(),
            }  # fmt: skip
        model = copy.deepcopy(config["model"])
        network = model["init_args"]["network"]["init_args"]
        if self.kind == "weights":
            assert self.weights is not None
            network.pop("pretrained", None)
            kept = _without(model["init_args"], NOT_IDENTITY["weights"])
            return {**common, "file": file_digest(self.weights), "model": kept, "sample": sample}
        if "pretrained" in network:
            start = find_pretrained(network["backbone"], network["pretrained"])
            network["pretrained"] = None if start is None else file_digest(start)
        return {
            **common, "model": model, "data": {**_without(data, NOT_IDENTITY["data"]), "sample": sample},
            "trainer": _without(config["trainer"], NOT_IDENTITY["trainer"]), "seed": config["seed"],
            "manifest": self.manifest(),
        }  # fmt: skip

    def manifest(self) -> str:
        """Fingerprint of the objects that this node reads; where another run lists them, of all and that run's hash."""
        data = self.config["data"]["init_args"]
        specs = self.config["evaluation"]["test"] if self.kind == "evaluate" else data["train"]
        if not self.lists:
            return open_objects(specs, data["root"], data["seed"]).fingerprint()
        names = {text: name for name, path in self.lists.items() for text in (name, str(path))}
        listed = [names.get(str(spec.get("listed"))) if isinstance(spec, dict) else None for spec in specs]
        whole = [_without(spec, ("listed",)) if name else spec for spec, name in zip(specs, listed)]
        fingerprint = open_objects(whole, data["root"], data["seed"]).fingerprint()
        return "-".join([fingerprint, *(name or "all" for name in listed)])

    def with_lists(self) -> Node:
        """This run with the hashes in its data replaced by the lists' files, which are there when it is made."""
        if not self.lists:
            return self
        config = copy.deepcopy(self.config)
        for spec in (*config["data"]["init_args"]["train"], *config["evaluation"]["test"]):
            if isinstance(spec, dict) and spec.get("listed") in self.lists:
                spec["listed"] = str(self.lists[spec["listed"]])
        return replace(self, config=config, found=self.folder)

    def load_into(self, model: nn.Module) -> None:
        """Give a model the weights of this finished training, or of the file that stands in for it."""
        if self.kind == "weights":
            load_official(model.network, str(self.weights))  # type: ignore[arg-type]
        else:
            load_exactly(model, read_weights(self.folder.path / "weights.pt"), source=f"run {self.folder.name}")

    def describe(self) -> dict[str, Any]:
        """What config.yaml holds: enough to make the run again from the folder alone."""
        content: dict[str, Any] = {"kind": self.kind, "config": self.config}
        content["parents"] = [parent.hash for parent in self.parents]
        if self.weights is not None:
            content["weights"] = str(Path(self.weights).resolve())
        if self.rule is not None:
            content["rule"] = dict(self.rule)
        return content

    def with_ancestors(self) -> Iterator[Node]:
        """This node after everything it builds on."""
        for parent in self.parents:
            yield from parent.with_ancestors()
        yield self


def _without(tree: Tree, keys: tuple[str, ...]) -> Tree:
    return {key: value for key, value in tree.items() if key not in keys}


def load_node(folder: RunFolder) -> Node:
    """The node that a run folder describes."""
    content = folder.config
    parents = tuple(load_node(RunFolder(folder.path.parent / parent)) for parent in content["parents"])
    return Node(
        content["kind"], content["config"], parents, content.get("weights"), content.get("rule"), found=folder
    )  # fmt: skip
