"""A `train` node: the composed tree through LightningCLI, resumed where it was killed, its weights kept."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import sys
import time
import warnings
from argparse import ArgumentError
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import LightningCLI
from torch import nn

from datamodules.catalog import find, root_of
from experiments.callbacks import AtomicCheckpointIO, KeyedSteps, Progress, checkpoints
from experiments.compose import Tree
from experiments.nodes import Node
from experiments.runs import RunFolder

CHECKPOINT_MINUTES = 5.0


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
            LightningModule, LightningDataModule, subclass_mode_model=True, subclass_mode_data=True, run=False,
            save_config_callback=None, auto_configure_optimizers=False, args=arguments,
            trainer_defaults=trainer, parser_kwargs={"exit_on_error": False},
        )  # fmt: skip


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
        refused = f"{values[-1][0]}: {values[-1][1].lower()}" if values else text
        raise ValueError(f"the composed recipe does not fit its classes: {refused}") from error


@contextlib.contextmanager
def no_command_line() -> Iterator[None]:
    """LightningCLI warns when it is handed a tree while the process has options of its own; ours are composed in."""
    typed, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = typed


def under_agent() -> bool:
    """Whether a W&B sweep agent started this process."""
    return "WANDB_SWEEP_ID" in os.environ


def wandb_wanted() -> bool:
    """Under an agent, or with WANDB=1: then offline unless WANDB_MODE says online. Else it is not imported."""
    if under_agent():
        return True
    if os.environ.get("WANDB", "0") in ("", "0"):
        return False
    os.environ.setdefault("WANDB_MODE", "offline")
    return True


@contextlib.contextmanager
def own_wandb_run() -> Iterator[None]:
    """Close the W&B run that a training opened, or the next one would write into it; an agent's run stays open."""
    try:
        yield
    finally:
        if wandb_wanted() and not under_agent():
            import wandb

            wandb.finish()


def loggers(config: Tree, folder: Path) -> list[dict[str, Any]]:
    """CSV always; W&B when the user asks for it with WANDB=1, or a sweep's agent runs this."""
    started = len(list(folder.glob("log-*")))  # CSVLogger would delete what an interrupted training wrote
    wanted: list[dict[str, Any]] = [
        {
            "class_path": "pytorch_lightning.loggers.CSVLogger",
            "init_args": {"save_dir": str(folder), "name": "", "version": f"log-{started}"},
        }
    ]
    if wandb_wanted():
        named = {} if under_agent() else {"id": folder.name, "name": folder.name, "resume": "allow"}
        wanted.append(
            {
                "class_path": "pytorch_lightning.loggers.WandbLogger",
                "init_args": {"save_dir": str(folder), "project": config["method"], **named},
            }
        )
    return wanted


def join_logs(folder: Path) -> None:
    """metrics.csv of a run from the logs of its one or several starts; a step made twice counts as made last."""
    rows: dict[int, dict[str, str]] = {}
    for log in sorted(folder.glob("log-*/metrics.csv"), key=lambda path: int(path.parent.name[4:])):
        with open(log, newline="") as file:
            for row in csv.DictReader(file):  # training and validation write a row each for the same step
                rows.setdefault(int(row["step"]), {}).update({name: value for name, value in row.items() if value})
    if not rows:
        return
    with open(folder / "metrics.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows.values() for name in row)))
        writer.writeheader()
        writer.writerows(rows[step] for step in sorted(rows))


@contextlib.contextmanager
def without_hints() -> Iterator[None]:
    """Leave out Lightning's advice about what is meant to be as it is."""
    hints = [
        ".*Checkpoint directory .* exists and is not empty.*", ".*does not have many workers.*",
        ".*your dataloader is not resumable.*",  # the sampler is
        ".*`srun` command is available.*", ".*GPU available but not used.*",
    ]  # fmt: skip
    with warnings.catch_warnings():
        for hint in hints:
            warnings.filterwarnings("ignore", message=hint)
        yield


def train(node: Node, folder: RunFolder, title: str) -> None:
    """Train a node to its end, from its last checkpoint where there is one; write weights.pt and record.json."""
    started = time.perf_counter()
    last = folder.path / "last.ckpt"
    minutes = float(os.environ.get("CHECKPOINT_MINUTES", CHECKPOINT_MINUTES))
    with without_hints():
        cli = instantiate(
            node.config,
            logger=loggers(node.config, folder.path),
            callbacks=[KeyedSteps(node.config["seed"]), checkpoints(folder.path, minutes), Progress(title)],
            plugins=[{"class_path": "experiments.callbacks.AtomicCheckpointIO"}],
            default_root_dir=str(folder.path),
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=10,
            **({} if node.config["data"]["init_args"]["val"] else {"limit_val_batches": 0}),
        )
        trainer: Trainer = cli.trainer
        if node.start is not None:
            node.start.load_into(cli.model)
        if node.config["channels_last"]:
            cli.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if last.exists() and trainer.is_global_zero:
            print(f"  {title}: continuing from {last}", flush=True)
        try:
            trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=str(last) if last.exists() else None)
        except SystemExit:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from None
    if not trainer.is_global_zero:
        return
    join_logs(folder.path)
    weights = folder.path / "weights.pt"
    AtomicCheckpointIO().save_checkpoint(cli.model.state_dict(), weights)
    data = cli.datamodule
    folder.finish(
        kind="train",
        metrics={name: float(value) for name, value in trainer.callback_metrics.items()},
        seed=node.config["seed"],
        seconds=time.perf_counter() - started,
        steps=trainer.global_step,
        parents=[parent.hash for parent in node.parents],
        manifest=node.manifest(),
        data={str(spec): str(root_of_spec(spec, data.root)) for spec in data.train},
        initial_weights=initial_weights(node, cli.model),
        batch_statistics=batch_statistics(cli.model, trainer, data.batch_size),
        devices={"processes": trainer.world_size, "accelerator": type(trainer.accelerator).__name__},
        behaviour=cli.model.behaviour,
    )
    last.unlink(missing_ok=True)


def initial_weights(node: Node, model: nn.Module) -> str:
    """Where a training's first weights came from."""
    if node.start is not None:
        return f"run {node.start.hash}"
    return str(getattr(model.network.backbone, "weights_source", "random"))  # type: ignore[union-attr]


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
