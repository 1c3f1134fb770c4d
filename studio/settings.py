"""How this studio is run: read once from the command line and the environment, frozen ever after."""

from __future__ import annotations

import argparse
import ipaddress
import os
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]
AUTH_VARIABLE = "DUCKRABBIT_AUTH"
SPACE_VARIABLE = "SPACE_ID"
SHORTEST_PASSWORD = 8  # the login page answers some 40 guesses a second

Profile = Literal["local", "shared"]
DTYPES = ("auto", "float32", "bfloat16", "float16")
OFFLOADS = ("auto", "never", "always")


@dataclass(frozen=True)
class Launch:
    """That trainings run by ``accelerate launch``, outside the studio: in how many processes, or by which file.

    No setting of a request: how many processes share a step says nothing of what is learned, and no preset, recipe or
    visitor shall start processes on somebody's machine.
    """

    processes: int | None = None
    config: Path | None = None


@dataclass(frozen=True)
class Settings:
    """Where things lie, what may be used, and who may visit. ``profile`` is "shared" when strangers can."""

    outputs: Path = ROOT / "outputs"
    models_dir: Path | None = None
    assets: Path = ROOT / "assets"
    presets: Path = ROOT / "presets"
    device: str = "auto"
    threads: int | None = None
    memory_gb: float | None = None
    dtype: str = "auto"
    offload: Literal["auto", "never", "always"] = "auto"
    compiled: bool = False
    host: str = "127.0.0.1"
    port: int | None = 7860
    share: bool = False
    auth: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    profile: Profile = "local"
    offline: bool = False
    launch: Launch | None = None
    open_browser: bool = False

    @property
    def datasets(self) -> Path:
        """Where pictures lie that people have put in, and what they changed about these and other sets."""
        return self.outputs / "datasets"

    @classmethod
    def read(cls, argv: Sequence[str], env: Mapping[str, str]) -> Settings:
        """Settings of the page; what cannot be used ends the program with code 2 and a sentence."""
        parser = _page_parser()
        options = parser.parse_args(argv)
        auth = _auth(parser, options.auth, env.get(AUTH_VARIABLE, ""))
        on_space = bool(env.get(SPACE_VARIABLE))
        host = options.host or ("0.0.0.0" if on_space else "127.0.0.1")
        if options.share:
            _check_share(parser, auth)
        shared = options.share or on_space or not is_loopback(host)
        values = machine_values(options)
        if shared and values["launch"] is not None:
            parser.error("--processes and --accelerate-config start programs, so no page of them can be shared.")
        return cls(
            **values,
            outputs=options.outputs,
            host=host,
            port=options.port,
            share=options.share,
            auth=auth,
            profile="shared" if shared else "local",
            open_browser=options.open,
        )


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """Where models lie and what they may use: the arguments that the page and the command line share."""
    group = parser.add_argument_group("models and machine")
    group.add_argument(
        "--models",
        type=_folder,
        metavar="DIR",
        help="folder of models and LoRAs: .safetensors files, diffusers folders",
    )
    group.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    group.add_argument("--threads", type=_positive(int), metavar="N", help="CPU threads to compute with (default: all)")
    group.add_argument("--memory-gb", type=_positive(float), metavar="GB", help="memory that models may fill")
    group.add_argument("--dtype", default="auto", choices=DTYPES, help="numbers that models compute with")
    group.add_argument(
        "--offload",
        default="auto",
        choices=OFFLOADS,
        help="move a model's parts to the GPU one after the other: when memory is short (auto), never, or always",
    )
    group.add_argument("--compile", action="store_true", help="torch.compile: a wait once per shape, then quicker")
    group.add_argument("--offline", action="store_true", help="never ask the Hugging Face hub")
    group.add_argument(
        "--processes",
        type=_positive(int),
        metavar="N",
        help="train in N processes of their own (one per GPU, say), which accelerate launches",
    )
    group.add_argument(
        "--accelerate-config",
        type=_file,
        metavar="FILE",
        help="the same as a file says that `accelerate config` wrote, such as for several machines",
    )


def machine_values(options: argparse.Namespace) -> dict[str, object]:
    """The shared arguments as fields of Settings."""
    return {
        "models_dir": options.models,
        "device": options.device,
        "threads": options.threads,
        "memory_gb": options.memory_gb,
        "dtype": options.dtype,
        "offload": options.offload,
        "compiled": options.compile,
        "offline": options.offline,
        "launch": _launch(options),
    }


def machine_arguments(settings: Settings) -> list[str]:
    """The shared arguments that make these settings, for a process of the same kind; it launches none itself."""
    values = {
        "--models": settings.models_dir,
        "--device": settings.device,
        "--threads": settings.threads,
        "--memory-gb": settings.memory_gb,
        "--dtype": settings.dtype,
        "--offload": settings.offload,
    }
    switches = {"--compile": settings.compiled, "--offline": settings.offline}
    given = [text for name, value in values.items() if value is not None for text in (name, str(value))]
    return given + [name for name, on in switches.items() if on]


def _launch(options: argparse.Namespace) -> Launch | None:
    if options.processes is None and options.accelerate_config is None:
        return None
    return Launch(options.processes, options.accelerate_config)


def environment() -> Mapping[str, str]:
    """The process environment; the only place that hands it out."""
    return os.environ


def environment_of_child(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a process of ours: it finds this studio from any folder, and is told no password."""
    env = os.environ if env is None else env
    places = [str(ROOT), *filter(None, [env.get("PYTHONPATH")])]
    kept = {name: value for name, value in env.items() if name != AUTH_VARIABLE}
    return kept | {"PYTHONPATH": os.pathsep.join(places), "PYTHONUNBUFFERED": "1"}


def prepare_environment(settings: Settings, env: MutableMapping[str, str] | None = None) -> None:
    """Set what gradio, the hub's client and the maths libraries read; call it before any of them is imported."""
    env = os.environ if env is None else env
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_SSR_MODE"):
        env.setdefault(name, "False")
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS", "DO_NOT_TRACK"):
        env.setdefault(name, "1")
    if settings.offline:
        env.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"})
    if settings.threads is not None:
        env.update({"OMP_NUM_THREADS": str(settings.threads), "MKL_NUM_THREADS": str(settings.threads)})


@dataclass(frozen=True)
class Place:
    """Process ``index``, from 0, of ``count`` that do one thing together."""

    index: int = 0
    count: int = 1


def place_among_processes(env: Mapping[str, str]) -> Place:
    """As torch's and MPI's launchers number the processes that they start."""
    ranks = (env.get(name) for name in ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"))
    sizes = (env.get(name) for name in ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"))
    rank, size = next(filter(None, ranks), "0"), next(filter(None, sizes), "1")
    if not rank.isdecimal() or not size.isdecimal() or int(rank) >= int(size):
        return Place()
    return Place(int(rank), int(size))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _page_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python app.py", description="Open the Duckrabbit studio in a browser.")
    page = parser.add_argument_group("page")
    page.add_argument("--host", help="address to listen on (default: 127.0.0.1, this machine only)")
    page.add_argument("--port", type=_port, help="port to listen on (default: the first free one from 7860)")
    page.add_argument("--open", action="store_true", help="open the page in a browser")
    page.add_argument(
        "--outputs", type=_output_folder, metavar="DIR", default=ROOT / "outputs", help="folder of results"
    )
    page.add_argument("--share", action="store_true", help="make a public link; needs --auth")
    page.add_argument(
        "--auth",
        action="append",
        default=[],
        metavar="USER:PASSWORD",
        help=f"who may log in; repeat it for several people, or set {AUTH_VARIABLE} (separated by spaces)",
    )
    add_machine_arguments(parser)
    return parser


def _auth(parser: argparse.ArgumentParser, given: list[str], variable: str) -> tuple[tuple[str, str], ...]:
    """Logins of the command line, or else of the environment. Messages never repeat a password."""
    source, entries = ("--auth", given) if given else (AUTH_VARIABLE, variable.split())
    pairs = [(user, password) for user, _, password in (entry.partition(":") for entry in entries)]
    if any(not user or not password for user, password in pairs):
        parser.error(f"{source} needs USER:PASSWORD with a colon between the two.")
    if len({user for user, _ in pairs}) < len(pairs):
        parser.error(f"{source} names the same user twice; give each user one password.")
    return tuple(pairs)


def _check_share(parser: argparse.ArgumentParser, auth: tuple[tuple[str, str], ...]) -> None:
    if not auth:
        parser.error(
            f"--share makes a public link, so it needs --auth USER:PASSWORD (or {AUTH_VARIABLE} in the environment)."
        )
    if any(len(password) < SHORTEST_PASSWORD for _, password in auth):
        parser.error(
            f"--share needs passwords of at least {SHORTEST_PASSWORD} characters; choose longer ones in --auth."
        )


def _folder(text: str) -> Path:
    path = _path(text)
    if not os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"there is no folder {text!r}; make it or name another.")
    return path.resolve()


def _file(text: str) -> Path:
    path = _path(text)
    if not os.path.isfile(path):
        raise argparse.ArgumentTypeError(f"there is no file {text!r}; write it with `accelerate config`.")
    return path.resolve()


def _output_folder(text: str) -> Path:
    path = _path(text)
    try:
        taken = path.exists() and not path.is_dir()
    except OSError as error:  # a name that is too long
        raise argparse.ArgumentTypeError(f"no folder can be called so ({error.strerror}); name another.") from None
    if taken:
        raise argparse.ArgumentTypeError(f"{text!r} is a file; name a folder.")
    return path.resolve()


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"nobody here has the home of {text!r}; write the path out.") from None


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 65535, got {text!r}.")
    return int(text)


def _positive(kind: type[int] | type[float]) -> type:
    def number(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}.")
        return value

    return number
