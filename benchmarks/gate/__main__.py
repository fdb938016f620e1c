"""Gate and choice, one after the other; the last line is one JSON object."""

import argparse
import json

from benchmarks.gate import choice, simulate

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="fewer cells, runs and tables")
options = parser.parse_args()
print(json.dumps({**simulate.run(options.quick), **choice.run(options.quick)}))
