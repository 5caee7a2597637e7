"""Coverage-guided fuzzing of one target with atheris; not part of the test suite.

    pip install atheris
    python tests/fuzzing/fuzz.py annotation -atheris_runs=50000

Atheris writes an input that fails to the current folder. Move it to `corpus/` under the name
`<target>-<description>` to make it a test.
"""

import sys
import warnings
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["kgradcam", "pickletools", "xml", "zipfile", "PIL"]):
    from fuzzing import samples, targets

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    name = sys.argv.pop(1)
    seeds = Path(targets.FOLDER, "seeds", name)
    seeds.mkdir(parents=True)
    for i, sample in enumerate(samples.SAMPLES[name]):
        (seeds / str(i)).write_bytes(sample)
    atheris.Setup([*sys.argv, str(seeds)], lambda data: targets.feed(name, data))
    atheris.Fuzz()
