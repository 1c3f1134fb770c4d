import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "gradio", "diffusers", "transformers", "peft", "accelerate", "openai"}
LIGHT = (
    "studio",
    "studio.jobs",
    "studio.settings",
    "studio.imaging",
    "studio.policy",
    "studio.presets",
    "studio.requests",
    "studio.workbench",
    "studio.__main__",
    "studio.models.refs",
    "studio.illusions.preflight",
    "studio.merging.fit",
    "studio.merging.preflight",
    "studio.merging.recipe",
    "studio.training.dataset",
    "studio.training.preflight",
    "studio.training.buckets",
    "studio.training.sets",
    "studio.guidance.preflight",
    "studio.guidance.study_command",
    "app",
)


def python(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("module", LIGHT)
def test_a_light_module_brings_nothing_heavy_along(module):
    assert python(f"import sys, {module}; print(sorted({HEAVY} & set(sys.modules)))") == "[]"


def test_importing_the_studio_takes_under_a_third_of_a_second():
    # Processor time, so that a busy machine does not decide; the best of three, so that a cold disk does not.
    code = "import time; t = time.process_time(); import studio; print(time.process_time() - t)"
    assert min(float(python(code)) for _ in range(3)) < 0.3


def test_the_workbench_is_light_as_well():
    code = "import time; t = time.process_time(); import studio.workbench; print(time.process_time() - t)"
    assert min(float(python(code)) for _ in range(3)) < 1.5
