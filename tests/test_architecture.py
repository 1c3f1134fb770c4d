import pytest

from tests.architecture import ROOT, TOP_LEVEL, cycles, problems, sources

SOURCES = sources()
KNOWN = frozenset(SOURCES)


@pytest.mark.parametrize("module", SOURCES)
def test_every_module_keeps_the_rules(module):
    assert problems(module, SOURCES[module].read_text(encoding="utf-8"), KNOWN) == []


def test_no_modules_import_each_other_in_a_circle():
    assert cycles({module: path.read_text(encoding="utf-8") for module, path in SOURCES.items()}) == []


def test_the_top_level_is_exactly_what_the_design_says():
    made = {"outputs", "__pycache__"}  # by using it; git ignores them
    assert {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - made == TOP_LEVEL


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("studio.jobs", "from studio.workbench import Workbench", "imports studio.workbench, which stands above it"),
        ("studio.jobs", "def f():\n    from studio import policy", "imports studio.policy, which stands above it"),
        ("studio.policy", "import studio.illusions.request", "imports studio.illusions.request, which stands above it"),
        ("studio.workbench", "import app", "imports app, which stands above it"),
        ("studio.imaging", "from tests.tiny import x", "imports tests.tiny, which stands above it"),
        ("studio.illusions.engine", "from studio.guidance import x", "imports studio.guidance, another engine"),
        ("studio.merging.engine", "import studio.training.engine", "imports studio.training.engine, another engine"),
        ("studio.workbench", "import studio.builtin.world", "imports studio.builtin.world, which is for making"),
        ("studio.helpers", "", "stands in no layer"),
        ("studio.models.store", "from . import refs", "imports . relatively"),
        ("studio.illusions.engine", "import gradio as gr", "imports gradio, allowed in studio.ui, app"),
        ("studio.workbench", "from gradio.themes import Soft", "imports gradio.themes, allowed in studio.ui, app"),
        ("studio.ui.blocks", "from openai import OpenAI", "imports openai, allowed in studio.scoring"),
        ("studio.ui.live", "import threading", "imports threading, allowed in studio.jobs, studio.models.store"),
        ("studio.sampling", "from concurrent.futures import Future", "imports concurrent.futures, allowed in"),
        ("studio.models.files", "def f():\n    import pickle", "imports pickle, allowed in no place"),
        ("studio.jobs", "def f():\n    import torch", "imports torch, which it must do without"),
        ("studio.ui.stage", "from diffusers import X", "imports diffusers, which it must do without"),
        ("studio.workbench", "from torch import nn", "imports torch, before it needs it"),
        ("studio.devices", "import os\nx = os.environ.get('A')", "reads os.environ, which only studio.settings does"),
        ("studio.devices", "import os\nx = os.getenv('A')", "reads os.getenv, which only studio.settings does"),
        ("studio.devices", "from os import environ", "imports os.environ"),
        ("studio.models.files", "x = torch.load('a')", "calls torch.load in line 1"),
        ("studio.requests", "x = eval('1')", "calls eval in line 1"),
        ("studio.requests", "x = hasattr(a, 'b')", "calls hasattr in line 1"),
        ("studio.training.engine", "import os\nx = os.system('ls')", "calls os.system in line 2"),
        ("studio.training.engine", "x = run('ls', shell=True)", "sets shell in line 1"),
        ("studio.training.engine", "x = run('ls', shell=flag)", "sets shell in line 1"),
        ("studio.models.loading", "x = load('a', trust_remote_code=True)", "sets trust_remote_code in line 1"),
        ("studio.jobs", "def f():\n    global x", "has global state in line 2"),
        ("studio.jobs", "\n" * 400 + "x = 1", "401 lines"),
        ("studio.jobs", "def long():\n" + "    x = 1\n" * 80, "long has 81 lines"),
        ("studio.models.utils", "", "there is no place for a utils"),
        ("studio.models.store", "print('loaded')", "does work at import, in line 1"),
        ("studio.models.store", "for i in range(3):\n    x = i", "does work at import, in line 1"),
        ("studio.jobs", "try:\n    x = 1\nexcept Exception:\n    pass", "swallows every exception in line 3"),
        ("studio.jobs", "try:\n    x = 1\nexcept:\n    pass", "swallows every exception in line 3"),
    ],
)
def test_each_rule_can_fail(module, source, found):
    assert [problem for problem in problems(module, source, KNOWN) if found in problem]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("studio.ui.blocks", "import gradio as gr\nfrom studio.workbench import Workbench"),
        ("studio.workbench", "def f():\n    from studio.models.store import ModelStore\n    import torch"),
        ("studio.workbench", "if TYPE_CHECKING:\n    from torch import Tensor"),
        ("studio.builtin.train", "from studio.views.view import build\nfrom studio.builtin.world import Thing"),
        ("studio.models.store", "import threading\nimport torch\nfrom studio.models import files"),
        ("studio.models.networks", "def f(model):\n    model.eval()"),
        ("studio.settings", "import os\nx = os.environ"),
        ("studio.models.loading", "x = load('a', trust_remote_code=False)"),
        ("studio", "__version__ = '1'"),
    ],
)
def test_what_is_allowed_passes(module, source):
    assert problems(module, source, KNOWN) == []


def test_a_circle_is_found_but_not_one_through_a_function():
    assert cycles({"a": "import b", "b": "from c import x", "c": "import a"}) != []
    assert cycles({"a": "import b", "b": "def f():\n    import a"}) == []
