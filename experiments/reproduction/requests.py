"""What a user asks of `experiments.fit`, typed or from a sweep file, as the runs that it takes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from experiments.composition.compose import compose
from experiments.composition.tree import Tree
from experiments.console import say_once
from experiments.evaluation.evaluate import protocol_of
from experiments.options import Parser
from experiments.reproduction.plan import (
    BuiltOn,
    Conditions,
    built_on,
    continued,
    evaluation_of,
    find_spec,
    row_values,
    training_node,
)
from experiments.runs.models import finished_training
from experiments.runs.node import Node
from experiments.training.logs import profile_of_agent
from experiments.training.train import taken
from experiments.training.values import check_values

ALONE = BuiltOn()  # what is no row of a table builds on nothing


@dataclass(frozen=True)
class FitRequest:
    """A training and its evaluations.

    Args:
        config: the composed tree of the training.
        built_on: the runs that a table's row builds on.
        test: evaluate it, on every test set of the tree.
    """

    config: Tree
    built_on: BuiltOn = ALONE
    test: bool = True

    @classmethod
    def read(cls, arguments: Sequence[str] | None = None, description: str = "") -> FitRequest:
        """From a command line, by default this process' own. Raises ValueError for what does not exist."""
        options, typed = fit_parser(description).parse_with_values(arguments)
        spec = find_spec(options.row) if options.row else None
        reading = options.reading or (spec.reading if spec else None)
        profile = options.profile if options.profile is not None else profile_of_agent()

        def composed(lists: Sequence[Node | None] = ()) -> Tree:
            return compose(
                spec.recipe if spec else options.config,
                dataset=options.dataset,
                reading=reading,
                row=row_values(spec, lists) if spec else None,
                profile=profile,
                overrides=typed,
            )

        config, base = composed(), ALONE
        if spec is not None:
            same = [f"reading={options.reading}"] if options.reading else []
            base = built_on(spec, Conditions(config["profile"], (*same, *typed)), config["seed"])
            config = composed(base.lists)
            config = continued(config) if spec.start else config
        offered = _parents("offer", options.offer, kept=taken(config)) if options.offer else {}
        given = {**offered, **_parents("parent", options.parent)}
        config = continued(config) if "start" in given else config
        return cls(config, replace(base, parents={**base.parents, **given}), test=not options.no_test)

    @property
    def training(self) -> Node:
        """The training, after all that it builds on."""
        check_values(self.config)
        return training_node(self.config, self.built_on)

    def evaluations(self, training: Node) -> list[Node]:
        """One evaluation of the training per test set of the recipe; none where nobody asked."""
        if not self.test:
            return []
        protocol_of(self.config)  # the section is right, before the items of its list are taken
        tests = self.config["evaluation"]["test"]
        return [evaluation_of(training, self.built_on, [test]) for test in tests]


def fit_parser(description: str = "") -> Parser:
    """The options of `experiments.fit`; what it does not know are values of the recipe."""
    parser = Parser(description)
    parser.add_argument("--config", default="dextr", help="a recipe: its file, or its name in experiments/configs")
    parser.add_argument("--dataset", help="an overlay of experiments/configs/data: which data to train and test on")
    parser.add_argument("--reading", help="`paper` or `code`: which of the two where they contradict")
    parser.add_argument("--profile", help="`paper`, `quick`, `small` or `miniature`; by an agent: PROFILE")
    parser.add_argument("--row", help="a table's row, e.g. dextr-3/aspp (experiments/tables)")
    parser.add_argument(
        "--parent",
        action="append",
        default=[],
        metavar="ROLE=RUN",
        help="a finished run to build on; start=RUN goes on from its weights; a method may take others, extractor=RUN",
    )
    parser.add_argument(
        "--offer",
        action="append",
        default=[],
        metavar="ROLE=RUN",
        help="the same in a sweep, not all of whose trainings take such a run: those that do not are made without it",
    )
    parser.add_argument("--no-test", action="store_true", help="train only")
    return parser


def _parents(option: str, texts: Sequence[str], kept: Collection[str] | None = None) -> dict[str, Node]:
    """`extractor=3f2a` as the role and the finished training; with `kept`, of these roles alone, the others said.

    Raises ValueError for what is none, or a role twice.
    """
    found: dict[str, Node] = {}
    for text in texts:
        role, equals, reference = text.partition("=")
        if not equals:
            raise ValueError(f"--{option} is written ROLE=RUN, e.g. start=3f2a, got {text!r}")
        if role in found:
            raise ValueError(f"--{option} {role}=... is given twice; a training takes one run as {role!r}")
        if kept is not None and role not in ("start", *kept):
            say_once(f"note: this training takes no run as {role!r}: it is made without {reference}")
            continue
        found[role] = finished_training(reference)
    return found
