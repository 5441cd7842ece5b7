"""A `train` node: the composed tree through LightningCLI, resumed where it was killed, its weights kept."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import nn

from datamodules.catalog import find, root_of
from experiments.composition.building import instantiate
from experiments.console import without_hints
from experiments.runs.folder import RunFolder
from experiments.runs.node import Node
from experiments.training.callbacks import AtomicCheckpointIO, KeyedSteps, Progress, checkpoints
from experiments.training.logs import join_logs, loggers

CHECKPOINT_MINUTES = 5.0


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
            plugins=[{"class_path": "experiments.training.callbacks.AtomicCheckpointIO"}],
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
