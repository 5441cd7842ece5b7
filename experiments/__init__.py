"""What a researcher runs. Libraries' talk about themselves is kept off the console."""

import logging
import warnings

warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # pytorch-lightning 2.6 uses what torch 2.15 deprecates
for _name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.seed"):
    logging.getLogger(_name).setLevel(logging.WARNING)
