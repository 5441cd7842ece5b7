"""A `train` node: the composed tree through LightningCLI, resumed where it was killed, its weights kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.accelerators import CPUAccelerator
from torch import nn

from datamodules.catalog import find, root_of
from datamodules.ranges import Range, from_environment
from experiments.composition.building import instantiate
from experiments.composition.classes import import_class
from experiments.composition.tree import Tree
from experiments.console import trainers_manners
from experiments.runs.folder import RunFolder
from experiments.runs.identity import MACHINE, data_in_training, first_weights, model_in_training, without
from experiments.runs.models import load_model
from experiments.runs.node import LISTS, Kind, Made, Node
from experiments.training.callbacks import (
    AtomicCheckpointIO,
    FiniteLoss,
    KeyedSteps,
    Progress,
    checkpoints,
    whole_checkpoint,
)
from experiments.training.logs import join_logs, loggers, own_wandb_run
from experiments.training.precision import cost_in_words, slowdown
from experiments.training.values import check_values
from lightning_modules.networks.official import load_exactly
from lightning_modules.networks.statistics import statistics_loaded

CHECKPOINT_MINUTES = 5.0


class Training(Kind):
    """Train to the end, from the last checkpoint where there is one; leaves weights.pt and metrics.csv."""

    def identity(self, node: Node) -> Tree:
        """The method with its loss and optimiser, what it sees of its data, the trainer, the seed."""
        config = node.config
        return {
            "model": model_in_training(config["model"]),
            "data": data_in_training(config["data"]),
            "trainer": without(config["trainer"], MACHINE),
            "seed": config["seed"],
        }

    def checked(self, node: Node) -> None:
        """See Kind: roles, and values that no training can be made with."""
        check_values(node.config)
        check_roles(node)

    def reads(self, config: Tree) -> list[Any]:
        """The training sets."""
        return list(config["data"]["init_args"]["train"])

    def files(self, node: Node) -> list[str]:
        """The weights."""
        return ["weights.pt"]

    def make(self, node: Node, folder: RunFolder, title: str) -> Made | None:
        """See Kind."""
        with own_wandb_run():
            return train(node, folder, title)

    def tidy(self, folder: RunFolder) -> None:
        """The checkpoint to go on from, and one that nobody could."""
        for checkpoint in ("last.ckpt", "last.ckpt.damaged"):
            (folder.path / checkpoint).unlink(missing_ok=True)


def train(node: Node, folder: RunFolder, title: str) -> Made | None:
    """Train a node; what came out, on rank zero."""
    config, data = node.opened, node.config["data"]["init_args"]
    last = whole_checkpoint(folder.path / "last.ckpt")
    minutes = from_environment("CHECKPOINT_MINUTES", CHECKPOINT_MINUTES, Range(0))
    with trainers_manners():
        cli = instantiate(
            config,
            logger=loggers(config, folder.path),
            callbacks=[
                KeyedSteps(config["seed"]),
                FiniteLoss(),
                checkpoints(folder.path, minutes),
                Progress(title, config.get("promise")),
            ],
            plugins=[{"class_path": "experiments.training.callbacks.AtomicCheckpointIO"}],
            default_root_dir=str(folder.path),
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=10,
            **({} if data.get("val") else {"limit_val_batches": 0}),
        )
        trainer: Trainer = cli.trainer
        say_cost(trainer, config["trainer"]["precision"])
        take_parents(node, cli.model)
        started = first_weights(node.config["model"]) if trainer.is_global_zero else {}  # before they are replaced
        if config["channels_last"]:
            cli.model.to(memory_format=torch.channels_last)
        if last is not None and trainer.is_global_zero:
            print(f"  {title}: continuing from {last}", flush=True)
        trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=last)
    if not trainer.is_global_zero:
        return None
    join_logs(folder.path)
    AtomicCheckpointIO().save_checkpoint(cli.model.state_dict(), folder.path / "weights.pt")
    return Made(
        metrics={name: float(value) for name, value in trainer.callback_metrics.items()},
        facts={
            "steps": trainer.global_step,
            "roots": {str(spec): str(root_of_spec(spec, data["root"])) for spec in node.reads},
            "initial_weights": initial_weights(node, cli.model),
            "adapted": adapted_in_words(cli.model),
            "first_weights": started,
            "batch_statistics": batch_statistics(cli.model, trainer, data["batch_size"]),
            "said": said(cli.model),
            "left_out": list(getattr(cli.datamodule, "left_out", ())),
            "devices": {"processes": trainer.world_size, "accelerator": type(trainer.accelerator).__name__},
        },
    )


def say_cost(trainer: Trainer, precision: str) -> None:
    """A word on half precision where the CPU is to compute it."""
    half = isinstance(trainer.accelerator, CPUAccelerator) and str(precision).startswith(("16", "bf16"))
    if half and trainer.is_global_zero and (note := cost_in_words(precision, slowdown())):
        print(note, file=sys.stderr, flush=True)


def taken(config: Tree) -> Mapping[str, str]:
    """The roles of finished runs that a tree's method takes beside a start, and the part of it that each one fills.

    Of a method that takes runs only with some arguments, EXITS without its points, `takes` is a function of these.
    """
    model = config["model"]
    declared: Mapping[str, str] | Callable = getattr(import_class(model["class_path"]), "takes", {})
    return declared(model.get("init_args") or {}) if callable(declared) else declared


def check_roles(node: Node) -> None:
    """Raises ValueError unless a training builds on what its method takes, no less and no more."""
    takes, name = taken(node.config), str(node.config["model"]["class_path"]).rpartition(".")[2]
    if reserved := sorted({"start", "model", "first_stage", "evaluation", LISTS} & set(takes)):
        raise ValueError(f"{name} takes a run as {reserved[0]!r}, a role that the store gives itself: use another word")
    for role in takes:
        if role not in node.parents:
            raise ValueError(
                f"{name} takes a finished run as {role!r}, and none is given; name one by --parent {role}=RUN"
            )
    for role in node.parents:
        if role not in ("start", *takes):
            raise ValueError(f"{name} takes no run as {role!r}; it takes: {', '.join(('start', *takes))}")


def take_parents(node: Node, model: LightningModule) -> None:
    """The weights of a start for the whole method; of other roles, the run's network for the part that they fill.

    A start need not have the parts that the method says to follow another one (`follows`): EXITS' teacher, which the
    extractor was trained without, begins as a copy of the student that was loaded.

    Such a part, a similarity extractor say, is frozen: its method decides nothing about it but what it asks it.
    """
    for role, run in node.parents.items():
        if role == "start":
            aside = {*taken(node.config).values(), *getattr(model, "follows", ())}
            run.load_into(model, aside=aside)
            statistics_loaded(model)
            continue
        name = taken(node.config)[role]
        part = getattr(model, name, None)
        if not isinstance(part, nn.Module):
            raise ValueError(f"{type(model).__name__} takes a run as {role!r} for its part {name!r}, which it has not")
        taken_from = load_model(run)
        getattr(model, "check_taken", lambda *_: None)(role, taken_from)
        network: nn.Module = taken_from.network  # type: ignore[assignment]
        load_exactly(part, network.state_dict(), source=f"run {run.hash} as {role}")
        part.requires_grad_(False).eval()
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ValueError(f"{type(model).__name__} has nothing to train: all its weights are frozen")


def initial_weights(node: Node, model: nn.Module) -> str:
    """Where a training's first weights came from."""
    if "start" in node.parents:
        return f"run {node.parents['start'].hash}"
    sources = (getattr(module, "weights_source", None) for module in model.modules())
    return ", ".join(dict.fromkeys(filter(None, sources))) or "random"


def said(model: nn.Module) -> dict[str, Any]:
    """What a method itself says of its training, in words by what it is about: EXITS' rate for the global batch."""
    facts: Callable[[], dict[str, Any]] = getattr(model, "facts", dict)
    return facts()


def adapted_in_words(model: nn.Module) -> str:
    """Where a backbone runs at other strides and dilations than those its first weights were trained with."""
    return ", ".join(filter(None, (getattr(module, "adapted", "") for module in model.modules())))


def root_of_spec(spec: str | dict[str, Any], root: str | None) -> Path:
    """The folder that a data set of a recipe was read from."""
    return root_of(find(spec if isinstance(spec, str) else spec["name"]), root)


def batch_statistics(model: nn.Module, trainer: Trainer, batch_size: int) -> str:
    """How batch norm saw the global batch: what the loss' exactness on several processes depends on."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    live = [norm for norm in norms if norm.training]
    if not live:
        return "frozen"
    passes = trainer.world_size * trainer.accumulate_grad_batches
    if trainer.world_size > 1 and isinstance(live[0], torch.nn.SyncBatchNorm):
        passes = trainer.accumulate_grad_batches
    return f"live over {batch_size // passes} of {batch_size} objects ({len(live)} of {len(norms)} layers)"
