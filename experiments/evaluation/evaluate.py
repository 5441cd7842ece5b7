"""An `evaluate` node: a finished training's network through a protocol; rows, pictures and metrics."""

from __future__ import annotations

from typing import Any

from experiments.composition.tree import Tree
from experiments.evaluation.protocols import PROTOCOLS, Protocol, protocol, protocol_names
from experiments.evaluation.rows import merge_rows
from experiments.evaluation.scorer import run_through
from experiments.evaluation.settings import as_plain, check_section, read_settings
from experiments.runs.folder import RunFolder
from experiments.runs.identity import answers_of, behaviour_of, data_in_evaluation
from experiments.runs.node import Kind, Made, Node


def protocol_of(config: Tree) -> tuple[Protocol, Any]:
    """The protocol of a composed tree, and what it reads of its section `evaluation`.

    Raises ValueError in one sentence for a protocol, a key or a value that does not exist.
    """
    name = config["evaluation"].get("protocol")
    if not isinstance(name, str):
        raise ValueError(f"evaluation.protocol is {name!r}; there are: {', '.join(protocol_names())}")
    how: Protocol = protocol(name)
    how.checked(config)
    settings: Any = read_settings(how.settings, config["evaluation"])
    check_section(config["evaluation"], [protocol(each).settings for each in PROTOCOLS])
    return how, settings


class Evaluation(Kind):
    """Let a network answer, and write a row for each answer."""

    def identity(self, node: Node) -> Tree:
        """The protocol and what it reads, how the data class shows objects, precision, and the method's behaviour."""
        config = node.config
        how, settings = protocol_of(config)
        return {
            "protocol": {"name": config["evaluation"]["protocol"], "behaviour": how.behaviour, **as_plain(settings)},
            "sample": data_in_evaluation(config["data"]),
            "seed": config["data"]["init_args"]["seed"],
            "precision": config["trainer"]["precision"],
            "behaviour": behaviour_of(config),
            **({"answers": answers} if (answers := answers_of(config["model"])) else {}),
        }

    def checked(self, node: Node) -> None:
        """See Kind."""
        protocol_of(node.config)

    def reads(self, config: Tree) -> list[Any]:
        """The test sets."""
        return list(config["evaluation"]["test"])

    def files(self, node: Node) -> list[str]:
        """The rows, and what the protocol writes beside them."""
        return ["rows.csv", *protocol_of(node.config)[0].files]

    def make(self, node: Node, folder: RunFolder, title: str) -> Made | None:
        """See Kind."""
        how, settings = protocol_of(node.config)
        scorer = how.scorer(node, folder.path)
        trainer = run_through(scorer, node.model.hash)
        if not trainer.is_global_zero:
            return None
        rows = merge_rows(folder.path, scorer.units, trainer.world_size)
        scorer.finish(rows)
        metrics = how.summarise(rows, settings)
        print(f"  {title}: {how.describe(metrics, settings)}", flush=True)
        return Made(
            metrics=metrics,
            facts={
                "units": scorer.units,
                "scoring": {"protocol": node.config["evaluation"]["protocol"], **as_plain(settings)},
                "left_out": list(getattr(getattr(scorer, "index", None), "left_out", ())),
                "devices": {"processes": trainer.world_size, "accelerator": type(trainer.accelerator).__name__},
                **scorer.facts,
            },
        )

    def tidy(self, folder: RunFolder) -> None:
        """What processes of earlier, interrupted attempts wrote."""
        for part in folder.path.glob("rows.*.csv"):
            part.unlink()
