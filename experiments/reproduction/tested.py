"""The evaluations that test a claim, known before anything is trained: by test set and seed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

from datamodules.words import data_set_in_words
from experiments.evaluation.protocols import STUDIES, protocol
from experiments.reproduction.claims import Claim, Side
from experiments.reproduction.plan import Conditions, NoData, check_data, evaluation_node
from experiments.runs.node import Node

Evaluations = dict[str, list[list[Node]]]  # by test set: of each seed one, or one for each value that a row goes over


class PlannedClaim:
    """A claim and the evaluations of both of its sides, or the reason why there are none."""

    def __init__(self, claim: Claim, conditions: Conditions, seeds: Sequence[int]) -> None:
        self.claim, self.row, self.problem = claim, claim.name, claim.untested
        self.first: Evaluations = {}
        self.second: Evaluations = {}
        if self.problem:
            return
        try:
            self.first, self.second = (evaluations_of(side, conditions, seeds) for side in (claim.first, claim.second))
            check_data(self.nodes)
        except NoData as error:
            self.problem, self.first, self.second = str(error), {}, {}

    @property
    def nodes(self) -> list[Node]:
        """All its evaluations."""
        sides = (self.first, self.second)
        return [node for side in sides for seeds in side.values() for nodes in seeds for node in nodes]


def evaluations_of(side: Side, conditions: Conditions, seeds: Sequence[int]) -> Evaluations:
    """Those of a side. Raises NoData where a value cannot be set against another object by object."""
    spec = side.spec
    assert spec is not None
    if spec.protocol in STUDIES:
        raise NoData(f"{side.name} is a study of points, which has no value for each object; its table shows it")
    if not protocol(spec.protocol).by_object:
        raise NoData(
            f"{spec.metric} of {side.name} is a value of a whole data set, not of a single object; see its table"
        )
    found: Evaluations = {}
    for number, seed in enumerate(seeds):
        for one in spec.repeated:
            node = evaluation_node(one, conditions, seed)
            for test in node.config["evaluation"]["test"]:
                config = copy.deepcopy(node.config)
                config["evaluation"]["test"] = [test]
                of_seeds = found.setdefault(data_set_in_words(test), [[] for _ in seeds])
                of_seeds[number].append(replace(node, config=config))
    return found
