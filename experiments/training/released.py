"""A `weights` node: a file of released weights that stands in for a training."""

from __future__ import annotations

from pathlib import Path

from experiments.composition.tree import Tree
from experiments.runs.files import file_digest
from experiments.runs.folder import RunFolder
from experiments.runs.identity import behaviour_of, data_in_training, model_in_use
from experiments.runs.models import load_model
from experiments.runs.node import Kind, Made, Node


class ReleasedWeights(Kind):
    """Nothing is trained: the file is remembered, and what the network is to be told."""

    alone = True

    def identity(self, node: Node) -> Tree:
        """The file's content, and all that shapes the network's answers."""
        assert node.weights is not None
        config = node.config
        return {
            "file": file_digest(node.weights),
            "model": model_in_use(config["model"]),
            "behaviour": behaviour_of(config),
            "data": data_in_training(config["data"])["arguments"].get("sample"),
            "precision": config["trainer"]["precision"],
        }

    def files(self, node: Node) -> list[str]:
        """The file itself, wherever it lies."""
        return [str(Path(str(node.weights)).resolve())]

    def make(self, node: Node, folder: RunFolder, title: str) -> Made | None:
        """See Kind. Only a file that fits the network gets a record."""
        load_model(node)
        return Made(metrics={}, facts={"weights": str(node.weights)})
