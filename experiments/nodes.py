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

Kind = Literal["train", "weights", "evaluate"]

# What does not determine a result: where and on what a run is made, and what only shows its progress.
NOT_IDENTITY = {
    "trainer": ("accelerator", "devices", "num_nodes", "strategy", "check_val_every_n_epoch"),
    "data": ("workers", "root", "val", "val_batch_size"),
}


@dataclass(frozen=True)
class Node:
    """One run to be made.

    Args:
        kind: `train`; `weights`, a file of weights that stands in for a training; `evaluate`, on its parent's network.
        config: the composed tree; for `evaluate` with the one data set that it tests.
        parents: runs that this one builds on.
        weights: the file of a `weights` node.
    """

    kind: Kind
    config: Tree
    parents: tuple[Node, ...] = ()
    weights: str | None = None
    _cache: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def hash(self) -> str:
        """The run's name. Opens the data it needs: raises FileNotFoundError when that is not there."""
        if "hash" not in self._cache:
            self._cache["hash"] = digest(self.identity())
        return self._cache["hash"]

    @property
    def folder(self) -> RunFolder:
        """Where the run is kept."""
        return RunFolder(runs_root() / self.hash)

    def identity(self) -> dict[str, Any]:
        """All that determines the result, and nothing else."""
        config, data = self.config, self.config["data"]["init_args"]
        behaviour = {
            "method": config["method"],
            "behaviour": import_class(config["model"]["class_path"]).behaviour,
            "parents": [parent.hash for parent in self.parents],
        }
        if self.kind == "evaluate":
            evaluation = {key: value for key, value in config["evaluation"].items() if key != "test"}
            return {"kind": "evaluate", **behaviour, "evaluation": evaluation, "manifest": self.manifest()}
        if self.kind == "weights":
            assert self.weights is not None
            kept = {key: config["model"]["init_args"][key] for key in ("network", "guidance")}
            return {"kind": "weights", **behaviour, "file": file_digest(self.weights), **kept, "sample": data["sample"]}
        trainer = {key: value for key, value in config["trainer"].items() if key not in NOT_IDENTITY["trainer"]}
        kept_data = {key: value for key, value in data.items() if key not in NOT_IDENTITY["data"]}
        model = copy.deepcopy(config["model"])
        pretrained = model["init_args"]["network"]["init_args"].get("pretrained")
        if isinstance(pretrained, str) and Path(pretrained).suffix:
            model["init_args"]["network"]["init_args"]["pretrained"] = file_digest(pretrained)
        return {
            "kind": "train", **behaviour, "model": model, "data": kept_data, "trainer": trainer,
            "seed": config["seed"], "manifest": self.manifest(),
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


def load_node(folder: RunFolder) -> Node:
    """The node that a run folder describes."""
    content = folder.config
    parents = tuple(load_node(RunFolder(folder.path.parent / parent)) for parent in content["parents"])
    return Node(content["kind"], content["config"], parents, content.get("weights"))
