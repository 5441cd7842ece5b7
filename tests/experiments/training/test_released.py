"""A file of released weights that stands in for a training."""

import pytest
import torch

from experiments.composition.building import build_part
from experiments.composition.compose import compose
from experiments.launching.making import execute
from experiments.runs.node import Node
from tests.experiments.tiny import SHRUNK

VALUES = [value for value in SHRUNK if "profile" not in value]


@pytest.mark.parametrize("fits", [True, False])
def test_only_a_file_that_fits_the_network_gets_a_record(here, fits):
    """One that does not leaves no record behind, which a later row would take for a finished run."""
    config = compose("dextr", profile="miniature", overrides=VALUES)
    network = build_part(torch.nn.Module, config["model"]["init_args"]["network"])
    torch.save(network.state_dict() if fits else {"w": torch.ones(1)}, here / "released.pth")
    node = Node("weights", config, weights=str(here / "released.pth"))
    if fits:
        assert execute(node)["weights"] == str(here / "released.pth")
    else:
        with pytest.raises(ValueError, match=r"released\.pth holds other weights"):
            execute(node)
    assert (node.folder.record is not None) == fits
