"""What a researcher runs. Libraries' talk about themselves is kept off the console."""

import logging
import sys
import warnings

from experiments import ends

if sys.argv[:1] == ["-m"]:  # a command; other programs that import the suite have ends of their own
    ends.watch()

warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # pytorch-lightning 2.6 uses what torch 2.15 deprecates
for _name in (
    "pytorch_lightning.utilities.rank_zero",
    "pytorch_lightning.trainer.connectors.signal_connector",
    "lightning_fabric.utilities.seed",
):
    logging.getLogger(_name).setLevel(logging.WARNING)
