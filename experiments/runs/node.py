"""What can be run, as nodes of a graph: each is known by what determines its result, and made by its kind."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from datamodules.selection import open_objects
from experiments.composition.classes import import_class
from experiments.composition.tree import Tree
from experiments.runs.files import digest
from experiments.runs.folder import CONFIG, RunFolder, runs_root
from experiments.runs.identity import behaviour_of, behaviours_of, without
from experiments.runs.naming import NAMING, named_runs
from experiments.runs.older import FORMAT
from lightning_modules.networks.official import load_exactly, load_official, read_weights

# Who makes a kind, by name: makers stand in higher rooms, which know the store, while the store knows none of them.
KINDS = {
    "train": "experiments.training.train.Training",
    "weights": "experiments.training.released.ReleasedWeights",
    "evaluate": "experiments.evaluation.evaluate.Evaluation",
    "label": "experiments.labelling.labeller.Labelling",
    "select": "experiments.evaluation.selecting.Selecting",
    "study": "experiments.evaluation.focus.FocusStudy",
}
LISTS = "lists"  # the role of runs that data name by their hashes; of all others a run has one each


@dataclass(frozen=True)
class Made:
    """What came out of a run: metrics, which reports show, and facts about how, for its record."""

    metrics: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Kind(ABC):
    """One kind of run: what determines its result, and how it is made. `execute` writes the record."""

    alone: ClassVar[bool] = False  # made by one process, also where there is a group

    @abstractmethod
    def identity(self, node: Node) -> Tree:
        """All that determines the result beside kind and parents, and nothing else."""

    def checked(self, node: Node) -> None:
        """Raises ValueError for what can never be made, whatever the data; asked before a run gets a name."""
        return

    def reads(self, config: Tree) -> list[Any]:
        """The data sets that it reads, whose objects determine the result, too."""
        return []

    def files(self, node: Node) -> list[str]:
        """The files that hold its result, in its folder or by their whole path: its record has their digests."""
        return []

    @abstractmethod
    def make(self, node: Node, folder: RunFolder, title: str) -> Made | None:
        """Make it, on every process of a group; what rank zero returns goes into the record."""

    def tidy(self, folder: RunFolder) -> None:
        """Remove what nobody needs once the record is written."""
        return


@cache
def kind_of(name: str) -> Kind:
    """The kind of this name. Raises ValueError when there is none."""
    if name not in KINDS:
        raise ValueError(f"no kind of run {name!r}; there are: {', '.join(KINDS)}")
    made: Kind = import_class(KINDS[name])()
    return made


@dataclass(frozen=True)
class Node:
    """One run to be made.

    Args:
        kind: a name of KINDS: `train`; `weights`, a file of weights that stands in for a training; `evaluate` and
            `label`, on the network of `model`; `select`, the objects of `evaluation` that keep a rule; `study`, of
            simulated points alone, without any network.
        config: the composed tree; for `evaluate` and `label` with the data that they read.
        parents: runs that this one builds on, by role: of a training `start`, which it goes on from, and whatever its
            method takes, such as `extractor`; of `evaluate` and `label` the `model` and, in two stages, the
            `first_stage`, which predicts before it; of `select` the `evaluation`.
        lists: the runs that its data name, `select` runs by their lists (`listed: <hash>`), `label` runs by their masks
            (`labelled: <hash>`).
        weights: the file of a `weights` node.
        rule: of a `select` node, e.g. {metric: iou, below: 0.8}: a column of the evaluation's rows and its bound.
        found: the folder that this node was read from. As long as nothing is changed it keeps its name, whatever the
            code would call it today.
    """

    kind: str
    config: Tree
    parents: Mapping[str, Node] = field(default_factory=dict)
    lists: tuple[Node, ...] = ()
    weights: str | None = None
    rule: Mapping[str, Any] | None = None
    found: Found | None = None

    @cached_property
    def hash(self) -> str:
        """The run's name. Opens the data it needs: raises FileNotFoundError when that is not there.

        A finished run that was read from elsewhere than its place in the store is known by what it holds: another may
        have its name.
        """
        if self.found is not None and self.as_found:
            known = self.at_home or self.found.folder.record is None
            return self.found.name if known else self._digest_of_content(self.found.name)
        kind_of(self.kind).checked(self)
        content = {"format": FORMAT, "kind": self.kind, "parents": self.parent_hashes}
        content |= {"manifest": self.manifest} if self.reads else {}  # early: missing data says how to get it
        return digest({**content, **kind_of(self.kind).identity(self)})

    @property
    def as_found(self) -> bool:
        """Whether it was read from a folder, and nothing of it has been changed since."""
        return self.found is not None and self.found.content == self.content

    @property
    def content(self) -> tuple[Any, ...]:
        """All that was read from a folder's config.yaml."""
        return self.kind, self.config, self.parents, self.lists, self.weights, self.rule

    @property
    def at_home(self) -> bool:
        """Whether it lies where the store keeps a run of its name."""
        if self.found is None or not self.as_found:
            return True
        return self.found.folder.path.resolve() == (runs_root() / self.found.name).resolve()

    def _digest_of_content(self, name: str) -> str:
        """What was made, and what came out; not where it lies."""
        digests = self.folder.digests(self.result_files)
        content = {"run": name, "config": self.config, "parents": self.parent_hashes, "files": list(digests.values())}
        return digest(content)

    @property
    def result_files(self) -> list[str]:
        """The files that hold its result."""
        return kind_of(self.kind).files(self)

    @cached_property
    def manifest(self) -> str:
        """Fingerprint of the objects that this run reads; of all, and hashes, where other runs list or label them."""
        data = self.config["data"]["init_args"]
        if not self.lists:
            return open_objects(self.reads, data["root"], data["seed"], images_alone=True).fingerprint()
        names = {text: run.hash for run in self.lists for text in (run.hash, str(_file_of(run)))}
        whole, by_run = [], []
        for spec in self.reads:
            by = {key: names[str(spec[key])] for key in named_runs(spec) if str(spec[key]) in names}
            whole.append(without(spec, by) if by else spec)
            by_run.append("+".join(by.values()) or "all")
        listed = open_objects(whole, data["root"], data["seed"], images_alone=True)
        return "-".join([listed.fingerprint(), *by_run])

    @property
    def reads(self) -> list[Any]:
        """The data sets that this run reads, as its recipe says them."""
        return kind_of(self.kind).reads(self.config)

    @property
    def folder(self) -> RunFolder:
        """Where the run is kept."""
        if self.found is not None and self.as_found:
            return self.found.folder
        return RunFolder(runs_root() / self.hash)

    @property
    def start(self) -> Node | None:
        """The training, or its stand-in, that a training goes on from."""
        return self.parents.get("start")

    @property
    def model(self) -> Node:
        """The training, or its stand-in, whose network this run is or is about; a study, which has none, is its own."""
        about = next((self.parents[role] for role in ("model", "evaluation") if role in self.parents), None)
        return self if about is None else about.model

    @property
    def made_from(self) -> dict[str, list[str]]:
        """The digests of the results that it builds on, by run, as their records have them."""
        made = {run.hash: (run.folder.record or {}).get("files", {}) for run in self.ancestors}
        return {run: sorted(d for name, d in files.items() if name != CONFIG) for run, files in made.items() if files}

    def outdated(self) -> Iterator[str]:
        """What is wrong with a finished run, a sentence each: its files were changed, or what it was made from was."""
        record = self.folder.record or {}
        yield from self.folder.changed()
        for name, digests in self.made_from.items():
            if record.get("made_from", {}).get(name, digests) != digests:
                yield (
                    f"run {self.hash} in {self.folder.path} was made from another result of run {name} than lies there "
                    "now; delete its folder and make it again"
                )

    @property
    def ancestors(self) -> tuple[Node, ...]:
        """The runs that this one builds on directly."""
        return (*self.parents.values(), *self.lists)

    @property
    def parent_hashes(self) -> dict[str, Any]:
        """Their names by role, as records and config.yaml hold them."""
        hashes: dict[str, Any] = {role: run.hash for role, run in self.parents.items()}
        return hashes | ({LISTS: [run.hash for run in self.lists]} if self.lists else {})

    @property
    def opened(self) -> Tree:
        """The composed tree with the hashes in its data replaced by files, which are there when the run is made.

        Raises ValueError for a run's file that was changed since, also where it is named by its path.
        """
        named = (Path(name) for spec in self.reads for name in named_runs(spec).values())
        for file in (*map(_file_of, self.lists), *named):
            RunFolder(file.parent).check(file.name)
        if not self.lists:
            return self.config
        config, files = copy.deepcopy(self.config), {run.hash: _file_of(run) for run in self.lists}
        for spec in (*config["data"]["init_args"]["train"], *config["evaluation"]["test"]):
            for key, name in named_runs(spec).items():
                if name in files:
                    spec[key] = str(files[name])
        return config

    def load_into(self, model: nn.Module, aside: Collection[str] = ()) -> None:
        """Give a model the weights of this finished training, or of the file that stands in for it.

        `aside`: parts of the model that other runs fill, so that this one need not have them. Raises ValueError when
        the weights are not those that the run's record was written for.
        """
        self.folder.check(*self.result_files)
        if self.kind == "weights":
            load_official(model.network, str(self.weights))  # type: ignore[arg-type]
        else:
            own = {name: value for name, value in model.state_dict().items() if name.partition(".")[0] in aside}
            weights = {**own, **read_weights(self.folder.path / "weights.pt")}
            load_exactly(model, weights, source=f"run {self.hash}")

    def describe(self) -> dict[str, Any]:
        """What config.yaml holds: enough to make the run again from the folder alone."""
        content: dict[str, Any] = {"format": FORMAT, "run": self.hash, "kind": self.kind, "config": self.config}
        content |= {"behaviour": behaviour_of(self.config), "behaviours": behaviours_of(self.config)}
        content["parents"] = self.parent_hashes
        if away := {run.hash: str(run.folder.path.resolve()) for run in self.ancestors if not run.at_home}:
            content["places"] = away
        if self.weights is not None:
            content["weights"] = str(Path(self.weights).resolve())
        if self.rule is not None:
            content["rule"] = dict(self.rule)
        return content

    def with_ancestors(self) -> Iterator[Node]:
        """This node after everything it builds on."""
        for run in self.ancestors:
            yield from run.with_ancestors()
        yield self


@dataclass(frozen=True)
class Found:
    """Where a node was read from, under which name, and what it was then, see `Node.content`."""

    folder: RunFolder
    name: str
    content: tuple[Any, ...]
    older: str = ""  # in words, what today's code would do otherwise


def _file_of(run: Node) -> Path:
    """The list of a `select` run, the masks of a `label` run. Raises ValueError for a run that makes neither."""
    if run.kind not in NAMING:
        raise ValueError(
            f"run {run.hash} is no `label` run but one of kind {run.kind!r}, and its masks are asked for: make labels "
            f"with `python -m experiments.label --run {run.hash}`, and name the run that this prints"
        )
    return run.folder.path / NAMING[run.kind][1]


def in_order(nodes: Sequence[Node]) -> list[Node]:
    """All nodes with what they build on, each once, parents first."""
    return list({node.hash: node for root in nodes for node in root.with_ancestors()}.values())
