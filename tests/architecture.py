"""The rules that the code keeps, read from its syntax trees: ``problems(module, source)`` lists what breaks them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOP_LEVEL = {"app.py", "studio", "presets", "assets", "requirements.txt", "tests", "README.md"}
MAX_FILE, MAX_FUNCTION = 400, 80

# A module may import what stands in its own line or above, never what stands below. Packages stand for what they hold.
LAYERS = (
    ("studio.errors", "studio.progress"),
    (
        "studio.settings",
        "studio.imaging",
        "studio.devices",
        "studio.previews",
        "studio.runs",
        "studio.snapshots",
        "studio.jobs",
    ),
    (
        "studio.judged",
        "studio.policy",
        "studio.upload_rules",
        "studio.passes",
        "studio.presets",
        "studio.requests",
        "studio.sampling",
        "studio.models",
        "studio.intervals",
        "studio.views",
    ),
    ("studio.merging", "studio.training", "studio.illusions", "studio.guidance", "studio.scoring"),
    ("studio.builtin",),
    ("studio.engines", "studio.workbench"),
    ("studio.ui", "studio.__main__"),
    ("app",),
)
ENGINES, BUILTIN = LAYERS[3], "studio.builtin"

# Who alone may import these, and what it is for.
ONLY_IN = {
    "gradio": ("studio.ui", "app"),
    "openai": ("studio.scoring",),
    **dict.fromkeys(
        ("threading", "_thread", "concurrent", "multiprocessing"),
        ("studio.jobs", "studio.models.store", "studio.models.hashing"),
    ),
    **dict.fromkeys(("pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"), ()),
}
# No module of these imports torch and its company, not even inside a function ...
TORCH_FREE = (
    "errors",
    "settings",
    "previews",
    "runs",
    "snapshots",
    "jobs",
    "policy",
    "upload_rules",
    "passes",
    "presets",
    "requests",
    "ui",
)
# ... and these do so only inside functions.
TORCH_LATE = ("progress", "imaging", "workbench", "__main__", "models.refs", "illusions.request", "illusions.preflight")
TORCH_LATE += ("training.dataset", "training.buckets", "training.edits", "training.events", "training.launching")
TORCH_LATE += ("views.specs", "views.permutations", "views.components", "views.view", "views.admission")
TORCH_LATE += ("training.reading", "training.uploads", "training.sets")
TORCH_LATE += ("merging.request", "merging.preflight", "merging.fit", "merging.recipe", "models.streams")
TORCH_LATE += ("guidance.request", "guidance.settings", "guidance.guiders", "guidance.grid", "guidance.preflight")
TORCH_LATE += ("guidance.study_command", "guidance.curves")
TORCH_LATE += ("merging.trials_request", "merging.trials_preflight", "models.kinds")
TORCH_LATE += tuple(f"training.{name}" for name in ("request", "preflight", "kinds", "plan", "schedules", "recipe"))
TORCH_LATE += ("training.methods",)
TORCH_LATE += tuple(f"training.{name}" for name in ("shelf", "curves", "folder", "outlook", "going_on"))
TORCH_LATE += ("models.geometry",)
TORCH = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors")

ENVIRONMENT = ("environ", "environb", "getenv", "putenv", "unsetenv")
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "hasattr"}
FORBIDDEN_KEYWORDS = {"shell", "trust_remote_code", "allow_pickle"}
AT_IMPORT = (ast.For, ast.While, ast.With, ast.AsyncFor, ast.AsyncWith)


def sources() -> dict[str, Path]:
    """Every module of the studio and the app, by its name."""
    paths = [ROOT / "app.py", *sorted((ROOT / "studio").rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def problems(module: str, source: str, known: frozenset[str] = frozenset()) -> list[str]:
    """All rules on one module; ``known`` names the modules that exist, to tell them from what they define."""
    tree = ast.parse(source)
    rules = (_layering, _only_in, _torch, _environment, _calls, _sizes, _quiet_import, _swallowing)
    names = [f"{module}: there is no place for a {module.rpartition('.')[2]}"] if module.endswith(".utils") else []
    long = [f"{module}: {len(source.splitlines())} lines"] if len(source.splitlines()) > MAX_FILE else []
    return names + long + [f"{module}: {found}" for rule in rules for found in rule(module, tree, known)]


def cycles(modules: dict[str, str]) -> list[str]:
    """Modules (name to source) that import each other while they are being imported."""
    known = frozenset(modules)
    graph = {name: imports(ast.parse(text), known, late=False) for name, text in modules.items()}

    def reaches(start: str, goal: str) -> bool:
        seen, waiting = set(), [start]
        while waiting:
            for target in graph.get(waiting.pop(), ()):
                if target == goal:
                    return True
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return False

    return sorted(f"{name} imports itself in the end" for name in graph if reaches(name, name))


def imports(tree: ast.AST, known: frozenset[str], *, late: bool = True) -> set[str]:
    """Modules that are imported; with ``late`` also inside functions and for type checking."""
    found = set()
    for node in ast.walk(tree) if late else _at_import(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            deeper = {f"{base}.{alias.name}" for alias in node.names}
            found.update(deeper & known or {base})
    return found


def _at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        if not typing_only and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from _at_import(node)


def _within(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def _layer(module: str) -> int | None:
    return next((level for level, places in enumerate(LAYERS) if _within(module, places)), None)


def _engine(module: str) -> str | None:
    return next((engine for engine in ENGINES if _within(module, (engine,))), None)


def _layering(module: str, tree: ast.AST, known: frozenset[str]) -> Iterator[str]:
    here = _layer(module)
    if here is None and module not in ("studio", ""):
        yield "stands in no layer"
    for target in sorted(imports(tree, known)):
        there = _layer(target)
        if target.startswith("."):
            yield f"imports {target} relatively"
        elif (
            target == "app" or target.split(".")[0] == "tests" or (there or 0) > (len(LAYERS) if here is None else here)
        ):
            yield f"imports {target}, which stands above it"
        elif _engine(module) and _engine(target) and _engine(module) != _engine(target):
            yield f"imports {target}, another engine"
        elif _within(target, (BUILTIN,)) and not _within(module, (BUILTIN,)):
            yield f"imports {target}, which is for making the built-in models only"


def _only_in(module: str, tree: ast.AST, known: frozenset[str]) -> Iterator[str]:
    for target in sorted(imports(tree, known)):
        places = ONLY_IN.get(target.split(".")[0])
        if places is not None and not _within(module, places):
            yield f"imports {target}, allowed in {', '.join(places) or 'no place'}"


def _torch(module: str, tree: ast.AST, known: frozenset[str]) -> Iterator[str]:
    free = _within(module, ("studio", "app")) and _within(module, tuple(f"studio.{name}" for name in TORCH_FREE))
    late = _within(module, tuple(f"studio.{name}" for name in TORCH_LATE)) or module in ("studio", "app")
    if free or late:
        for target in sorted(imports(tree, known, late=free)):
            if target.split(".")[0] in TORCH:
                yield f"imports {target}, {'which it must do without' if free else 'before it needs it'}"


def _environment(module: str, tree: ast.AST, known: frozenset[str]) -> Iterator[str]:
    if module == "studio.settings":
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT and ast.unparse(node.value) == "os":
            yield f"reads os.{node.attr}, which only studio.settings does"
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (f"imports os.{alias.name}" for alias in node.names if alias.name in ENVIRONMENT)


def _calls(module: str, tree: ast.AST, known: frozenset[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if ast.unparse(node.func) in FORBIDDEN_CALLS:
                yield f"calls {ast.unparse(node.func)} in line {node.lineno}"
            for keyword in node.keywords:
                off = isinstance(keyword.value, ast.Constant) and not keyword.value.value
                if keyword.arg in FORBIDDEN_KEYWORDS and not off:
                    yield f"sets {keyword.arg} in line {node.lineno}"
        elif isinstance(node, ast.Global):
            yield f"has global state in line {node.lineno}"


def _sizes(module: str, tree: ast.AST, known: frozenset[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION:
                yield f"{node.name} has {lines} lines"


def _quiet_import(module: str, tree: ast.Module, known: frozenset[str]) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, AT_IMPORT) or (isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)):
            yield f"does work at import, in line {node.lineno}"


def _swallowing(module: str, tree: ast.AST, known: frozenset[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            if broad and all(isinstance(part, ast.Pass | ast.Continue) for part in node.body):
                yield f"swallows every exception in line {node.lineno}"
