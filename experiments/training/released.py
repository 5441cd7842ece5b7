"""A `weights` node: a file of released weights that stands in for a training."""

from __future__ import annotations

from experiments.composition.tree import Tree
from experiments.runs.files import file_digest
from experiments.runs.folder import RunFolder
from experiments.runs.identity import behaviour_of, data_in_training, model_in_use
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

    def make(self, node: Node, folder: RunFolder, title: str) -> Made | None:
        """See Kind."""
        return Made(metrics={}, facts={"weights": str(node.weights)})
