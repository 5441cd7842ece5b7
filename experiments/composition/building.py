"""Objects of a composed tree, built as LightningCLI builds them."""

from __future__ import annotations

import contextlib
import re
import sys
from argparse import ArgumentError
from collections.abc import Iterator
from typing import Any

from jsonargparse import ArgumentParser
from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.cli import LightningCLI

from datamodules.recipe import SampleRecipe
from experiments.composition.tree import Tree


def instantiate(config: Tree, **trainer: Any) -> LightningCLI:
    """Model, data and trainer of a composed tree; `trainer` holds what is not part of a run's identity.

    Raises ValueError in one sentence when a class refuses its arguments.
    """
    arguments = {
        "seed_everything": config["seed"],
        "model": config["model"],
        "data": config["data"],
        "trainer": {"use_distributed_sampler": False, **config["trainer"]},
    }
    with refusals_in_one_sentence(), no_command_line():
        return LightningCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            run=False,
            save_config_callback=None,
            auto_configure_optimizers=False,
            args=arguments,
            trainer_defaults=trainer,
            parser_kwargs={"exit_on_error": False},
        )


def build_part(kind: type, config: Tree) -> Any:
    """One object of a composed tree, e.g. the model alone, built as LightningCLI builds it."""
    parser = ArgumentParser(exit_on_error=False)
    if "class_path" in config:
        parser.add_subclass_arguments(kind, "part")
    else:
        parser.add_argument("--part", type=kind)
    with refusals_in_one_sentence():
        return parser.instantiate(parser.parse_object({"part": config})).part


@contextlib.contextmanager
def refusals_in_one_sentence() -> Iterator[None]:
    """Turn what jsonargparse raises into a ValueError."""
    try:
        yield
    except (TypeError, ArgumentError) as error:
        text = " ".join(str(error).split())
        values = re.findall(r'Parser key "([\w.]+)": (Expected (?:(?!Parser key).)+?Got value: \S+)', text)
        refused = f"{values[-1][0]}: {values[-1][1].lower()}" if values else _refused_by_all(text)
        raise ValueError(f"the composed recipe does not fit its classes: {refused}") from error
    except ValueError as error:
        raise ValueError(said_by_the_class(str(error))) from error


def said_by_the_class(text: str) -> str:
    """A class' own sentence on its values, out of jsonargparse's report where the class may also be left out.

    That report says of every type in turn why it is none, and quotes the whole tree.
    """
    found = re.search(r"Errors: - (?!Does not validate)(.+?) - Expected a <class 'NoneType'>", " ".join(text.split()))
    return found[1] if found and text.lstrip().startswith("Does not validate against any of the Union") else text


def _refused_by_all(text: str) -> str:
    """Of a value that may be a word or a class: what is wrong with its class, else which words there are."""
    key = re.search(r'Parser key "([\w.]+)": Does not validate against any of the Union', text)
    wrong = re.search(r"(Problem with given class_path .+?) - Expected", text)
    words = re.search(r"Expected a typing\.(Literal\[.+?\]) .*Given value: (.+)$", text)
    if key and wrong and "Parser key" not in wrong[1]:
        return f"{key[1]}: {wrong[1]}"
    return f"{key[1]}: expected a {words[1]} or a class, got value: {words[2]}" if key and words else _shortened(text)


def _shortened(text: str) -> str:
    """Of a refusal that quotes types and recipe: which key it is about, what it wants there and what it got."""
    section = re.match(r"(model|data|trainer): ", text)
    keys = [*([section[1]] if section else []), *re.findall(r'Parser key "([\w.]+)"', text)]
    if not keys:
        return text if len(text) < 300 else f"{text[:300]} ..."
    kinds = dict.fromkeys(re.findall(r"Expected an? <class '([\w.]+)'>", text))
    value = re.search(r"([Gg]ot|Given) (?:value: )?(?!value)(.{1,80}?)(?= Subclass types| - |$)", text)
    wanted = f"expected {' or '.join(kinds).replace('NoneType', 'null')}" if kinds else "its class refuses this value"
    return f"{'.'.join(keys)}: {wanted}{f', got {value[2]}' if value else ''}"


@contextlib.contextmanager
def no_command_line() -> Iterator[None]:
    """LightningCLI warns when it is handed a tree while the process has options of its own; ours are composed in."""
    typed, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = typed


def sample_recipe(config: Tree) -> SampleRecipe:
    """The pre-processing of a composed tree."""
    recipe: SampleRecipe = build_part(SampleRecipe, sample_of(config))
    return recipe


def sample_of(config: Tree) -> Tree:
    """How a tree's data class shows one object. Raises ValueError where it does not: it shows images, say."""
    data = config["data"]
    sample: Tree | None = (data.get("init_args") or {}).get("sample")
    if not isinstance(sample, dict):
        raise ValueError(
            f"{data['class_path']} shows no single objects (it has no argument `sample`), which is what this run needs"
        )
    return sample
