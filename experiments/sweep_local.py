"""Walk a W&B sweep file through the run store, without any account: `make sweep-local NAME=dextr-components`.

Grid sweeps are walked whole; of a random or Bayesian one, `--count` draws. Every run gets exactly the options that a
W&B agent would pass, so both make the same runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from datamodules.ranges import COUNT
from experiments.console import TextTable, one_sentence, show
from experiments.launching.fitting import fitted
from experiments.options import Parser
from experiments.reproduction.requests import FitRequest
from experiments.reproduction.sweeps import assignments, command_line, load_sweep


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = Parser(__doc__)
    parser.add_argument("name", help="of a file in sweeps/, or its path")
    parser.add_argument("--profile", help="`paper`, `quick`, `small` or `miniature`; default: the sweep's own")
    parser.add_argument("--count", type=COUNT, default=10, help="draws of a sweep that is no grid")
    options, rest = parser.parse_known_args(arguments)
    sweep = load_sweep(options.name)
    runs = list(assignments(sweep, options.count))
    metric = sweep.get("metric", {}).get("name", "mean_iou")
    shown = TextTable(*sweep["parameters"], "run", metric)
    for number, values in enumerate(runs, 1):
        line = command_line(sweep, values) + ([f"--profile={options.profile}"] if options.profile else []) + rest
        print(f"[{number}/{len(runs)}] experiments.fit {' '.join(line)}", flush=True)
        records = fitted(FitRequest.read(line))
        for record in records:
            shown.add_row(*map(str, values.values()), record["run"], f"{record['metrics'][metric]:.4f}")
    show(shown, Console(width=120))


if __name__ == "__main__":
    one_sentence(main)
