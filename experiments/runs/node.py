"""What can be run: train, evaluate, label, select, study, as nodes of a graph; identity decides whether one is done."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from datamodules.selection import open_objects
from experiments.composition.classes import import_class
from experiments.composition.tree import Tree
from experiments.runs.files import digest, file_digest
from experiments.runs.folder import RunFolder, runs_root
from experiments.runs.identity import NOT_IDENTITY, TEST_ONLY, by_content, without
from experiments.runs.naming import NAMING, named_runs
from lightning_modules.networks.official import load_exactly, load_official, read_weights
from lightning_modules.networks.pretrained import find_pretrained

Kind = Literal["train", "weights", "evaluate", "label", "select", "study"]


@dataclass(frozen=True)
class Node:
    """One run to be made.

    Args:
        kind: `train`; `weights`, a file of weights that stands in for a training; `evaluate` and `label`, a row or a
            mask for every object, on the parent's network; `select`, the objects of its parent, an evaluation, that
            keep a rule; `study`, of simulated points alone, without any network.
        config: the composed tree; for `evaluate` and `label` with the one data set that they read.
        parents: runs that this one builds on: the training that a training continues, or that is evaluated; where it
            is evaluated in two stages, that of the first stage; then the runs that its data name, `select` runs by
            their lists (`listed: <hash>`), `label` runs by their masks (`labelled: <hash>`). Of `select`, the
            evaluation.
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
        """The training, or its stand-in, whose network this run is or is about; a study, which has none, is its own."""
        return self if self.kind in ("train", "weights", "study") else self.parents[0].model

    @property
    def first(self) -> Node | None:
        """Of an evaluation or a labelling in two stages: the training, or its stand-in, of the first."""
        models = [parent for parent in self.parents if parent.kind in ("train", "weights")]
        return models[1] if len(models) > 1 else None

    @property
    def lists(self) -> dict[str, Path]:
        """The files behind the hashes that this run's data may name."""
        return {
            parent.hash: parent.folder.path / NAMING[parent.kind][1] for parent in self.parents if parent.kind in NAMING
        }

    def identity(self) -> dict[str, Any]:
        """All that determines the result, and nothing else."""
        if self.kind == "select":
            assert self.rule is not None
            return {"kind": self.kind, "parents": [parent.hash for parent in self.parents], "rule": dict(self.rule)}
        config, data = self.config, self.config["data"]["init_args"]
        if self.kind == "study":
            asked = {name: config["evaluation"][name] for name in ("protocol", "study")}
            return {"kind": self.kind, **asked, "seed": data["seed"], "manifest": self.manifest()}
        sample = {key: value for key, value in data["sample"].items() if key not in TEST_ONLY}
        common = {
            "kind": self.kind,
            "method": config["method"],
            "behaviour": import_class(config["model"]["class_path"]).behaviour,
            "parents": [parent.hash for parent in self.parents],
            "precision": config["trainer"]["precision"],
        }
        if self.kind in ("evaluate", "label"):
            manifest = self.manifest()  # first: without the data set it says how to get it, points included
            test_sample = {key: by_content(value) for key, value in data["sample"].items() if key in TEST_ONLY}
            unused = list(NOT_IDENTITY["evaluation"])
            if self.kind == "label":
                unused += ["protocol", "thresholds"]
            if self.kind == "label" or config["evaluation"]["protocol"] != "clicks":
                unused.append("clicks")
            evaluation = without(config["evaluation"], unused)
            return {
                **common, "evaluation": evaluation, "sample": test_sample, "seed": data["seed"], "manifest": manifest,
            }  # fmt: skip
        model = copy.deepcopy(config["model"])
        network = model["init_args"]["network"]["init_args"]
        if self.kind == "weights":
            assert self.weights is not None
            network.pop("pretrained", None)
            kept = without(model["init_args"], NOT_IDENTITY["weights"])
            return {**common, "file": file_digest(self.weights), "model": kept, "sample": sample}
        if "pretrained" in network:
            start = find_pretrained(network["backbone"], network["pretrained"])
            network["pretrained"] = None if start is None else file_digest(start)
        return {
            **common, "model": model, "data": {**without(data, NOT_IDENTITY["data"]), "sample": sample},
            "trainer": without(config["trainer"], NOT_IDENTITY["trainer"]), "seed": config["seed"],
            "manifest": self.manifest(),
        }  # fmt: skip

    def manifest(self) -> str:
        """Fingerprint of the objects that this node reads; of all, and hashes, where other runs list or label them."""
        data = self.config["data"]["init_args"]
        specs = data["train"] if self.kind == "train" else self.config["evaluation"]["test"]
        if not self.lists:
            return open_objects(specs, data["root"], data["seed"]).fingerprint()
        names = {text: name for name, path in self.lists.items() for text in (name, str(path))}
        whole, named = [], []
        for spec in specs:
            by = {key: names[str(spec[key])] for key in named_runs(spec) if str(spec[key]) in names}
            whole.append(without(spec, by) if by else spec)
            named.append("+".join(by.values()) or "all")
        return "-".join([open_objects(whole, data["root"], data["seed"]).fingerprint(), *named])

    def with_lists(self) -> Node:
        """This run with the hashes in its data replaced by the lists' files, which are there when it is made."""
        if not self.lists:
            return self
        config = copy.deepcopy(self.config)
        for spec in (*config["data"]["init_args"]["train"], *config["evaluation"]["test"]):
            for key, run in named_runs(spec).items():
                if run in self.lists:
                    spec[key] = str(self.lists[run])
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


def load_node(folder: RunFolder) -> Node:
    """The node that a run folder describes."""
    content = folder.config
    parents = tuple(load_node(RunFolder(folder.path.parent / parent)) for parent in content["parents"])
    return Node(
        content["kind"], content["config"], parents, content.get("weights"), content.get("rule"), found=folder
    )  # fmt: skip


def in_order(nodes: Sequence[Node]) -> list[Node]:
    """All nodes with what they build on, each once, parents first."""
    return list({node.hash: node for root in nodes for node in root.with_ancestors()}.values())
