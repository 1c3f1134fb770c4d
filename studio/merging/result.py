"""A merged checkpoint on its way to the disk: one file, or a diffusers folder, complete or not there."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from studio.devices import one_thread
from studio.errors import StudioError
from studio.merging import recipe
from studio.merging.fit import Item, Plan
from studio.merging.place import fresh_folder, output_in
from studio.merging.preflight import headline
from studio.merging.weights import Fault, Readers, Weights, readers
from studio.models.known_hashes import KnownHashes
from studio.models.streams import Writer, check_room, order
from studio.progress import OnStep, Step

MB = 10**6
SHOWN = 20  # tensors with faults that a summary lists
COPIED = (".json", ".txt", ".model")  # of a diffusers folder, beside the weights
NOT_COPIED = ("about.json", recipe.FOLDER_FILE)
PREVIEW = "latent_preview.safetensors"


class NonFiniteError(StudioError):
    """The result holds weights that are not finite, and nobody agreed to that."""

    def __init__(self, faults: dict[str, Fault]) -> None:
        super().__init__(f"{said(faults)} Nothing was saved; set accept_nonfinite to save it all the same.")
        self.field = "accept_nonfinite"
        self.faults = faults


@dataclass(frozen=True)
class Checkpoint:
    """What ``run`` returns; the tensors are computed as ``save`` writes them."""

    plan: Plan
    target: Path | None
    on_step: OnStep
    known: KnownHashes

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the checkpoint to its target, or into ``folder``; returns the summary that goes to result.json."""
        start = time.perf_counter()
        plan = self.plan
        path = self.target or output_in(folder, plan.request, plan.files, as_folder=plan.is_folder)
        check_room(path.parent, plan.size)
        work = _Work(plan, self.on_step, self.known)
        hashes, data_sha256 = work.write_folder(path) if plan.is_folder else work.write_file(path)
        return {
            "output": str(self.target) if self.target else path.name,
            "data_sha256": data_sha256,
            "bytes": plan.size,
            "seconds": round(time.perf_counter() - start, 3),
            "parts": {part: {"merged": merged, "copied": copied} for part, (merged, copied) in plan.counts.items()},
            "sources": recipe.recipe(plan.request, plan.everything, hashes)["sources"],
            "faults": {key: asdict(fault) for key, fault in list(work.faults.items())[:SHOWN]},
            "notes": [
                *plan.notes,
                *([said(work.faults)] if work.faults else []),
                f"SHA-256 of the tensors: {data_sha256}",
            ],
            "evaluations": 0,
        }


class _Work:
    """One run over all items: writes, counts, reports."""

    def __init__(self, plan: Plan, on_step: OnStep, known: KnownHashes) -> None:
        self.plan, self.on_step, self.known = plan, on_step, known
        self.faults: dict[str, Fault] = {}
        self.done = 0
        self._note = "Merging"

    def write_file(self, path: Path) -> tuple[dict[Path, str], str]:
        """The checkpoint as one file; returns the sources' hashes and that of the tensors."""
        plan = self.plan
        before = recipe.notes(plan.request, plan.everything, recipe.placeholders(plan.files), "0" * 64)
        with readers(self.tick, self.known) as files, _writer(path, plan.items, before) as out:
            self._fill(out, {item.key: item for item in plan.items}, files)
            self._refuse_faults()
            hashes, data_sha256 = self._hashes(files), out.data_sha256()
            out.annotate(recipe.notes(plan.request, plan.everything, hashes, data_sha256))
        return hashes, data_sha256

    def write_folder(self, path: Path) -> tuple[dict[Path, str], str]:
        """The checkpoint as a diffusers folder, file by file as A has them; the hash is that of the files' hashes."""
        plan, sums = self.plan, []
        with readers(self.tick, self.known) as files, fresh_folder(path) as fresh:
            copy_around(plan.sources[0].path, fresh, headline(plan.request), [source.name for source in plan.sources])
            for name, items in by_file(plan).items():
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                inside = {item.key.partition("/")[2]: item for item in items}
                tensors = [replace(item, key=key) for key, item in inside.items()]
                with _writer(fresh / name, tensors, {"format": "pt"}) as out:
                    self._fill(out, inside, files)
                    sums.append(out.data_sha256())
            self._refuse_faults()
            hashes = self._hashes(files)
            recorded = recipe.recipe(plan.request, plan.everything, hashes)
            (fresh / recipe.FOLDER_FILE).write_text(json.dumps(recorded, indent=1), encoding="utf-8")
        return hashes, hashlib.sha256("".join(sums).encode()).hexdigest()

    def tick(self) -> None:
        """Say where the work stands; whatever this raises stops it."""
        total = max(1, self.plan.size // MB)
        self.on_step(Step(min(self.done // MB, total), total, note=self._note))

    def _fill(self, out: Writer, items: Mapping[str, Item], files: Readers) -> None:
        """Write ``items`` by the names that they have inside the file.

        Pieces fit into one core's cache, and the other cores have files to hash: dividing them would cost more.
        """
        weights = Weights(self.plan, files, self.faults)
        with one_thread():
            for key in out.keys:
                self._note = f"{'Merging' if items[key].merged else 'Copying'} {items[key].part}"
                for piece in weights.pieces(items[key]):
                    self.tick()
                    out.write(piece)
                    self.done += len(piece)

    def _hashes(self, files: Readers) -> dict[Path, str]:
        self._note = "Taking the sources' hashes"
        return {path: files.sha256(path) for path in self.plan.files}

    def _refuse_faults(self) -> None:
        if self.faults and not self.plan.request.accept_nonfinite:
            raise NonFiniteError(self.faults)


def by_file(plan: Plan) -> dict[str, list[Item]]:
    """The items of a folder's weight files, by the names that A's files have."""
    first = plan.sources[0]
    homes = {key: first.relative(entry.path) for key, entry in first.tensors.items()}
    parts = {key.partition("/")[0]: home for key, home in reversed(homes.items())}
    found: dict[str, list[Item]] = {}
    for item in plan.items:
        found.setdefault(homes.get(item.key, parts.get(item.key.partition("/")[0], "")), []).append(item)
    return found


def copy_around(source: Path, folder: Path, title: str, parents: Sequence[str]) -> None:
    """Everything of a diffusers folder that is no weight: configs, tokenizers, scheduler; the card is written anew."""
    for file in sorted([*source.glob("*"), *source.glob("*/*")]):
        if file.is_file() and (file.suffix in COPIED or file.name == PREVIEW) and file.name not in NOT_COPIED:
            place = folder / file.relative_to(source)
            place.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, place)
    about = {"title": title, "about": f"Merged from {', '.join(parents)}."}
    before = source / "about.json"
    if before.exists():
        about = json.loads(before.read_text(encoding="utf-8")) | about
    (folder / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


def said(faults: dict[str, Fault]) -> str:
    """The faults in words, the first tensor by name."""
    nan, infinite, overflow = (sum(getattr(fault, kind) for fault in faults.values()) for kind in asdict(Fault()))
    counts = [f"{nan} NaN"] * bool(nan) + [f"{infinite} infinite"] * bool(infinite)
    counts += [f"{overflow} too large for the result's precision"] * bool(overflow)
    return f"{len(faults)} tensors hold weights that are not finite ({', '.join(counts)}; first {next(iter(faults))})."


def _writer(path: Path, items: Iterable[Item], notes: dict[str, str]) -> Writer:
    tensors = {item.key: (item.dtype, item.shape) for item in items}
    return Writer(path, {key: tensors[key] for key in order(tensors)}, notes)
