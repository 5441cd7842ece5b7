"""Promise 7: every row's `paper` recipe is real. Built on the meta device, and stepped once at its published size."""

import math

import pytest
import torch
from pytorch_lightning import LightningModule

from experiments import fit, reproduce
from experiments.results import main_run
from experiments.rows import Conditions, compose_row
from experiments.table_files import Pair, tables
from experiments.training import build_part
from lightning_modules.networks.deeplab import DeepLab
from tests.experiments.tiny import report_of

# Counted by hand from the published layout. ResNet-101 with 4 input channels: 42,503,296, a channel less: - 64 * 7 * 7.
# PSP: 6,297,089. ASPP: 4 * (2048 * 9 + 1). Region: a 2x2 deconvolution 2048 -> 256, a 1x1 to one logit.
# DeepLabv3+ on Xception-65 with 5 input channels: 41,051,106; a mask channel more: 32 filters of 3 x 3.
RESNET = 42_503_296
XCEPTION = 41_051_106
PARAMETERS = {
    ("DeepLab", "PSP", 4): 48_800_385,
    ("DeepLab", "PSP", 3): 48_800_385 - 3_136,
    ("DeepLab", "ASPP", 3): RESNET - 3_136 + 4 * (2048 * 9 + 1),
    ("RegionNet", "", 4): RESNET + 2048 * 256 * 4 + 256 + 257,
    ("DeepLabV3Plus", "", 5): XCEPTION,
    ("DeepLabV3Plus", "", 6): XCEPTION + 32 * 3 * 3,
}
CROP = {"dextr": 512, "itis": 350}


def specs():
    for table in tables():
        for row in table.rows:
            for column, cell in row.cells.items():
                for spec in (cell.first, cell.second) if isinstance(cell, Pair) else (main_run(cell),):
                    yield pytest.param(spec, id=f"{table.id}-{row.label}-{column}")


@pytest.mark.parametrize("spec", list(specs()))
def test_every_row_is_built_at_its_published_size(spec):
    config = compose_row(spec, Conditions("paper"), seed=0)
    with torch.device("meta"):
        model = build_part(LightningModule, config["model"])
    network = config["model"]["init_args"]["network"]
    arguments = network["init_args"]
    name = network["class_path"].rpartition(".")[2]
    head = arguments["head"]["class_path"].rpartition(".")[2] if "head" in arguments else ""
    expected = PARAMETERS[name, head, arguments["in_channels"]]
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert config["data"]["init_args"]["sample"]["size"] == CROP[config["method"]]
    coco = "coco2014/train" in [data.name for data in spec.train]
    assert config["trainer"]["max_epochs"] == (20 if config["method"] == "itis" else 10 if coco else 100)


@pytest.mark.parametrize("spec", [row for row in specs() if row.id.startswith("itis-")])
def test_every_row_of_itis_trains_as_the_released_code_does(spec):
    """Adam from 1e-5, in windows of 350; the iterative model sees no flips and batches of 5, the baselines 6."""
    config = compose_row(spec, Conditions("paper"), seed=0)
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    assert model["optimizer"] == {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-5}}
    assert (data["sample"]["view"], data["sample"]["window"], data["sample"]["geometry"]) == (
        "window",
        "corner",
        "chain",
    )
    iterative = model["iteration"]["class_path"].endswith("EpochMemory")
    assert (data["batch_size"], data["sample"]["flip"]) == ((5, 0.0) if iterative else (6, 0.5))
    if iterative:
        assert model["iteration"]["init_args"]["masks"] == (model["mask_channel"] is not None)
        assert model["iteration"]["init_args"]["reset_probability"] == 0.3
    assert data["sample"]["train_points"]["init_args"] == {
        "ring": 40, "margin": 5, "step": 20, "centre_probability": 0.3
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("row", ["dextr-4/extreme-points", "dextr-4/psp", "dextr-4/deeplab-v2-on-boxes",
                                 "dextr-3/region-based-resnet-101-c4"])  # fmt: skip
def test_each_network_makes_a_true_step_at_its_published_size(store, drawn, row):
    (record,) = fit.run([
        f"--row={row}", "--no-test", "--trainer.max_steps=1", "--trainer.accelerator=cpu", "--data.workers=0",
        "--data.batch_size=2", f"--data.root={drawn / 'miniature' / '0'}",  # two objects: five do not fit into 16 GiB
    ])  # fmt: skip
    assert record["steps"] == 1
    # With logits near 0 the balanced loss is 2 ln2 N+N-/N per object: at most half of ln2 per pixel.
    assert 0 < record["metrics"]["train/loss"] < 1.2 * 0.5 * math.log(2) * 512 * 512


@pytest.mark.slow
@pytest.mark.parametrize("row", ["itis-fig5/gaussian-iterative", "itis-fig5/gaussian-iterative-mask"])
def test_itis_makes_a_true_step_at_its_published_size(store, drawn, row):
    (record,) = fit.run([
        f"--row={row}", "--no-test", "--trainer.max_steps=1", "--trainer.accelerator=cpu", "--data.workers=0",
        "--data.batch_size=2", f"--data.root={drawn / 'miniature' / '0'}",
    ])  # fmt: skip
    assert record["steps"] == 1
    assert record["batch_statistics"] == "frozen"
    assert math.log(2) / 2 < record["metrics"]["train/loss"] < math.inf  # the worst quarter of undecided pixels
    assert record["metrics"]["train/clicks"] >= 1


@pytest.mark.slow
def test_released_weights_are_evaluated_in_place_of_training(here, tmp_path):
    network = DeepLab("resnet101", 4, init="official", bn_affine="frozen")
    names = {"backbone.": "", "head.": "layer5."}
    official = {}
    for name, weight in network.state_dict().items():
        ours = next(prefix for prefix in names if name.startswith(prefix))
        official["module." + name.replace(ours, names[ours], 1)] = weight
    torch.save(official, tmp_path / "official.pth")
    few = ["--evaluation.test=[{name: pascal/val, limit: 2}]", "--evaluation.batch_size=2"]
    reproduce.main(["dextr-4", "--profile=miniature", "--rows=4", "--weights", str(tmp_path / "official.pth"), *few])
    (cell,) = [cell for cell in report_of(here, "dextr-4")["cells"] if cell["runs"]]
    assert cell["row"] == "+ SBD data (ours)"
    assert cell["n_objects"] == 2
    choices = {choice["name"]: choice["value"] for choice in report_of(here, "dextr-4")["choices"][cell["row"]]}
    assert choices["weights"].endswith("official.pth")
    assert "512 px" in choices["network's view at test"]
