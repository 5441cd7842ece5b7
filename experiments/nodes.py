"""What can be run: train and evaluate, as nodes of a graph whose identity decides whether they are done already."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from datamodules.selection import open_objects
from experiments.compose import Tree, import_class
from experiments.runs import RunFolder, digest, file_digest, runs_root
from lightning_modules.networks.pretrained import find_pretrained

Kind = Literal["train", "weights", "evaluate"]

# What does not determine a result: where and on what a run is made, and what only shows its progress.
NOT_IDENTITY = {
    # sync_batchnorm: several processes then see the statistics that one would; the record says what was done
    "trainer": ("accelerator", "devices", "num_nodes", "strategy", "check_val_every_n_epoch", "sync_batchnorm"),
    "data": ("workers", "root", "val", "val_batch_size"),
    "evaluation": ("test", "batch_size"),
    "weights": ("loss", "optimizer", "schedule", "head_lr_factor"),
}
TEST_ONLY = ("test_points", "test_interpolation")  # of a sample: they belong to evaluations


@dataclass(frozen=True)
class Node:
    """One run to be made.

    Args:
        kind: `train`; `weights`, a file of weights that stands in for a training; `evaluate`, on its parent's network.
        config: the composed tree; for `evaluate` with the one data set that it tests.
        parents: runs that this one builds on.
        weights: the file of a `weights` node.
        found: the folder that this node was read from; it keeps its name, whatever the code would call it today.
    """

    kind: Kind
    config: Tree
    parents: tuple[Node, ...] = ()
    weights: str | None = None
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

    def identity(self) -> dict[str, Any]:
        """All that determines the result, and nothing else."""
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
            test_sample = {key: data["sample"][key] for key in TEST_ONLY}
            evaluation = _without(config["evaluation"], NOT_IDENTITY["evaluation"])
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
        """Fingerprint of the objects that this node reads."""
        data = self.config["data"]["init_args"]
        specs = self.config["evaluation"]["test"] if self.kind == "evaluate" else data["train"]
        return open_objects(specs, data["root"], data["seed"]).fingerprint()

    def describe(self) -> dict[str, Any]:
        """What config.yaml holds: enough to make the run again from the folder alone."""
        content: dict[str, Any] = {"kind": self.kind, "config": self.config}
        content["parents"] = [parent.hash for parent in self.parents]
        if self.weights is not None:
            content["weights"] = str(Path(self.weights).resolve())
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
    return Node(content["kind"], content["config"], parents, content.get("weights"), found=folder)
