"""A method, a data class and a protocol that the suite has never heard of go all the way, from classes in this file."""

import json
from functools import cached_property

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader

from datamodules.selection import open_objects
from experiments import evaluate, fit, report_check, reproduce
from experiments.evaluation.protocols import PROTOCOLS, Metric, Protocol
from experiments.evaluation.rows import read_rows
from experiments.evaluation.scorer import Scorer
from experiments.runs.folder import find_run
from experiments.runs.models import load_model


class Features(nn.Sequential):
    def __init__(self):  # images (B, 3, 16, 16) of 0..255 -> (B, 4)
        super().__init__(nn.Flatten(), nn.BatchNorm1d(3 * 16 * 16, affine=False), nn.Linear(3 * 16 * 16, 4))


class Brightness(LightningModule):  # the extractor's own training: features whose mean is the image's brightness
    def __init__(self, network: Features):
        super().__init__()
        self.network = network

    def training_step(self, batch, batch_idx):
        return (self.network(batch["image"]).mean(1) - batch["image"].mean((1, 2, 3)) / 255).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam((weight for weight in self.parameters() if weight.requires_grad), 0.05)


class Counter(Brightness):  # counts the objects of an image from the features of a frozen extractor
    takes = {"extractor": "extractor"}  # noqa: RUF012

    def __init__(self, network: nn.Linear, extractor: Features):
        super().__init__(network)
        self.extractor = extractor

    def forward(self, image):
        assert not self.extractor.training  # also while this network learns
        return self.network(self.extractor(image))[:, 0]

    def training_step(self, batch, batch_idx):
        return (self(batch["image"]) - batch["objects"]).abs().mean()


def images_of(specs, root, seed):  # whole images with the masks of all of their objects, in the order of the index
    index, found = open_objects(specs, root, seed), []
    for image in np.unique(index.image):
        objects = np.flatnonzero(index.image == image)
        pixels = np.resize(index.read_image(objects[0]), (16, 16, 3)).transpose(2, 0, 1)
        masks = np.stack([index.read_mask(i).mask > 0 for i in objects])
        found.append(
            {"position": len(found), "image": torch.tensor(pixels).float(), "objects": masks.any((1, 2)).sum()}
        )
    return found


class WholeImages(LightningDataModule):
    def __init__(self, train: list, batch_size: int = 8, workers: int = 0, root: str | None = None, seed: int = 0):
        super().__init__()
        self.arguments, self.batch_size = (train, root, seed), batch_size

    def train_dataloader(self):
        return DataLoader(images_of(*self.arguments), self.batch_size)


class CountScorer(Scorer):  # a row per counted object: an image has several, or none
    columns = ("position", "number")

    def loader(self, rank, processes):
        return DataLoader(self.images[rank::processes])

    @property
    def units(self):
        return len(self.images)

    @cached_property
    def images(self):
        data = self.config["data"]["init_args"]
        return images_of(self.config["evaluation"]["test"], data["root"], data["seed"])

    def score(self, batch):
        position, counted = int(batch["position"]), max(0, round(float(self.model(batch["image"]))))
        return [[position, number] for number in range(counted)] or [[position]]


class Counts(Protocol):  # how many objects are counted, over all images
    metrics = (Metric("counted", 1.0),)

    def scorer(self, node, folder):
        return CountScorer(load_model(node.model), node.opened, folder)

    def summarise(self, rows, settings):
        return dict.fromkeys(("counted", "n"), sum(1 for _ in read_rows(rows)))


RECIPE = """
{method: %(method)s, reading: paper, profile: miniature, seed: 0, threads: 1, channels_last: false,
 model: {class_path: %(here)s.%(method)s, init_args: %(parts)s},
 data: {class_path: %(here)s.WholeImages,
        init_args: {train: [pascal/train], batch_size: 8, workers: 0, root: null, seed: 0}},
 trainer: {max_epochs: 3, accelerator: cpu, devices: 1, num_nodes: 1, strategy: auto, precision: 32-true},
 evaluation: {protocol: counts, test: [pascal/val], batch_size: 1}, readings: {paper: {}}, profiles: {miniature: {}}}
"""
TABLE = """
{number: 1, id: counting, paper: none, title: Counting, datasets: [PASCAL], metric: objects, unit: objects,
 columns: {value: all of val}, reading: paper, run: {train: [pascal/train], test: pascal/val, protocol: counts}, rows: [
 {label: features, own: false, published: {value: null}, source: none, recipe: Brightness.yaml, run: {}},
 {label: counter, own: true, published: {value: 111}, source: drawn, recipe: Counter.yaml,
  run: {parents: {extractor: features}}}]}
"""


def test_a_method_without_points_goes_from_fit_to_a_checked_report(here, monkeypatch, capsys):
    monkeypatch.setitem(PROTOCOLS, "counts", f"{__name__}.Counts")
    features = {"class_path": f"{__name__}.Features"}
    linear = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 4, "out_features": 1}}
    parts = {"Brightness": {"network": features}, "Counter": {"network": linear, "extractor": features}}
    for method, given in parts.items():
        (here / f"{method}.yaml").write_text(RECIPE % {"method": method, "here": __name__, "parts": json.dumps(given)})
    (here / "counting.yaml").write_text(TABLE)

    (extractor,) = fit.run(["--config=Brightness.yaml", "--no-test"])
    (counted,) = fit.run(["--config=Counter.yaml", "--parent", f"extractor={extractor['run']}"])
    runs = find_run(extractor["run"]), find_run(counted["parents"]["model"])
    assert runs[1].record["parents"] == {"extractor": extractor["run"]}
    given, kept = (torch.load(run.path / "weights.pt") for run in runs)
    assert all(torch.equal(given[f"network.{name}"], kept[f"extractor.{name}"]) for name in Features().state_dict())
    images = [row["position"] for row in read_rows(find_run(counted["run"]).path / "rows.csv")]
    assert 0 < len(set(images)) < len(images) == counted["metrics"]["counted"]
    evaluate.main(["--run", counted["run"], "--data", "pascal/train"])
    assert "pascal/train: counted" in capsys.readouterr().out

    reproduce.main(["counting.yaml", "--profile=miniature", "--seeds=2"])
    assert "6 runs, 3 done, 3 to make" in capsys.readouterr().out
    report = here / "reports" / "miniature" / "counting.json"
    (cell,) = [cell for cell in json.loads(report.read_text())["cells"] if cell["runs"]]
    assert (cell["runs"][0], len(cell["runs"]), cell["n_objects"]) == (counted["run"], 2, 32)
    assert f"| extractor | run {extractor['run']} " in report.with_suffix(".md").read_text()
    report_check.main([str(report)])
    with pytest.raises(ValueError, match="takes a finished run as 'extractor', and none is given"):
        fit.run(["--config=Counter.yaml"])
