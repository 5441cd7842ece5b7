"""What the tests run: the suite's own recipe, as small as it learns anything."""

import json

TINY = [
    "--config=dextr",
    "--profile=miniature",
    "--threads=1",
    "--data.sample.size=32",
    "--data.batch_size=4",
    "--data.train=[{name: pascal/train, limit: 24}]",
    "--evaluation.test=[{name: pascal/val, limit: 11}]",
    "--trainer.max_epochs=2",
    "--trainer.max_steps=-1",
    "--model.network.widths=[8, 8, 16, 16]",
]

# The size of a real miniature run is for `make reproduce-table-N PROFILE=miniature`; tests shrink it further.
SHRUNK = [
    "--profile=miniature",
    "--threads=1",
    "--data.sample.size=32",
    "--data.batch_size=8",
    "--trainer.max_steps=3",
    "--model.network.widths=[8, 8, 16, 16]",
]

CHANGED = "reports/miniature-changed"  # where a table goes whose values were changed on the command line


def report_of(folder, table):
    return json.loads((folder / CHANGED / f"{table}.json").read_text())
