"""What a researcher runs. Libraries' talk about themselves is kept off the console."""

import logging
import sys
import warnings
from typing import Any

from lightning_utilities.core.imports import RequirementCache

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

_checked = RequirementCache.__init__


def _without_text(self: RequirementCache, *arguments: Any, **options: Any) -> None:
    """torchmetrics, which Lightning imports, has metrics of text that import transformers: a quarter of the start of a
    command. None of ours reads text; Mask2Former imports transformers itself.
    """
    _checked(self, *arguments, **options)
    if str(self.requirement).startswith("transformers"):
        self.available, self.message = False, "metrics of text are left out"


RequirementCache.__init__ = _without_text  # type: ignore[method-assign]
