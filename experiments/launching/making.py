"""Make one node's run: the one place that writes records."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from experiments import ends
from experiments.composition.tree import Tree
from experiments.console import sentence
from experiments.launching.spent import FILE, spent
from experiments.runs.environment import is_rank_zero
from experiments.runs.folder import RunFolder, says_where_to_write
from experiments.runs.identity import behaviour_of
from experiments.runs.node import Node, kind_of
from experiments.runs.records import made_before


@says_where_to_write
def execute(node: Node, title: str = "") -> dict[str, Any]:
    """Make a node's run unless it is made already; its parents must be. Returns the record."""
    if node.config["threads"]:
        torch.set_num_threads(node.config["threads"])
    folder, kind, rank_zero = node.folder, kind_of(node.kind), is_rank_zero()
    with folder.locked() if rank_zero else contextlib.nullcontext():  # the others join what rank zero holds
        record = folder.record
        if record is not None:
            if wrong := next(node.outdated(), None):
                raise ValueError(wrong)
            if rank_zero and (before := made_before(record)):
                print(f"  {title or node.kind}: run {folder.path} was {before}; nothing is made anew", flush=True)
            return record
        if rank_zero and not node.as_found:
            folder.prepare(node.describe())
        if rank_zero:
            folder.clear_partial()
        with spent(folder.path) if rank_zero else contextlib.nullcontext(float) as seconds:
            if rank_zero or not kind.alone:
                with in_our_words(node.config):
                    made = kind.make(node, folder, title or f"{node.kind} {node.hash}")
        if rank_zero:
            assert made is not None
            data = {"data": node.reads, "manifest": node.manifest} if node.reads else {}
            folder.finish(
                node.result_files,
                run=node.hash,
                kind=node.kind,
                metrics=dict(made.metrics),
                seed=node.config["seed"],
                seconds=seconds(),
                parents=node.parent_hashes,
                made_from=node.made_from,
                behaviour=behaviour_of(node.config),
                **data,
                **made.facts,
            )
            kind.tidy(folder)
            (folder.path / FILE).unlink(missing_ok=True)
        if torch.distributed.is_initialized():  # from here on every process of the group finds the record
            torch.distributed.barrier()
    return folder.record or {}


@contextlib.contextmanager
def in_our_words(config: Tree) -> Iterator[None]:
    """What a machine cannot do, as a ValueError that says what to write instead: the other rows of a table go on."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        sizes = (config["data"].get("init_args") or {}).get("batch_size"), config["evaluation"].get("batch_size")
        raise ValueError(
            "the device has not enough memory: lower data.batch_size (now {}) of a training, evaluation.batch_size "
            "(now {}) of an evaluation, or data.sample.size".format(*sizes)
        ) from error
    except MisconfigurationException as error:
        trainer = {key: config["trainer"].get(key) for key in ("accelerator", "devices")}
        asked = ", ".join(f"trainer.{key}={value}" for key, value in trainer.items())
        raise ValueError(f"{' '.join(str(error).split())} Asked for is {asked}; write what this machine has") from error


@contextlib.contextmanager
def explained(folder: RunFolder) -> Iterator[None]:
    """Leave an error's sentence in the run's folder, for who waits for this process; the first of a group tells."""

    def tell(why: str) -> None:
        with contextlib.suppress(FileExistsError), open(folder.problem, "x") as file:
            file.write(why)

    ends.told.append(tell)
    try:
        yield
    except Exception as error:
        ends.wait_for_the_end(error)
        tell(sentence(error))
        raise
    finally:
        ends.told.remove(tell)
    folder.problem.unlink(missing_ok=True)
