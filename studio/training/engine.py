"""From a request to an adapter: pictures, codes, the loop, samples, checkpoints. Stopped at any step it is one too."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from studio.devices import PeakMemory, is_out_of_memory
from studio.errors import Cancelled, OutOfMemoryError, RequestError
from studio.models.networks import Network
from studio.models.store import ModelStore
from studio.progress import OnStep, Step, ignore
from studio.training import checkpoints, samples
from studio.training.checkpoints import PLACE, State
from studio.training.dataset import read_dataset
from studio.training.edits import named_edits
from studio.training.export import Adapter, taken
from studio.training.feed import Feed, Prior
from studio.training.fingerprint import Fingerprint
from studio.training.injecting import injected
from studio.training.journal import Journal
from studio.training.loop import Loop, Point, worn
from studio.training.notes import notes
from studio.training.objective import Objective
from studio.training.plan import Plan, split
from studio.training.preflight import check, data_place, file_name, kind_of, planned
from studio.training.recipe import recipe
from studio.training.records import Dataset
from studio.training.request import ROWS_PER_PICTURE, TrainRequest
from studio.training.result import TrainResult

CLASS_FILE = "class.safetensors"


def run(
    request: TrainRequest, models: ModelStore, *, on_step: OnStep = ignore, folder: Path | None = None
) -> TrainResult:
    """Train as ``request`` says. ``folder``: the run's, for checkpoints and all that must outlast this process.

    Raises StudioError for pictures, settings or checkpoints that cannot be used. What ``on_step`` raises stops the
    run; after the first step ``Cancelled.kept`` then holds what was learned, and with a ``folder`` resume goes on.
    """
    check(request)
    _check_folder(request, folder)
    on_step(Step(0, request.steps, note="Reading the pictures"))
    dataset = read_dataset(
        data_place(request.data, models.assets, models.datasets),
        trigger=request.trigger,
        template=request.template,
        edits=named_edits(request.edits, models.datasets),
    )
    dataset.check()
    if request.method == "dreambooth":
        whole = tuple(replace(example, caption=request.instance_prompt) for example in dataset.examples)
        dataset = replace(dataset, examples=whole)
    earlier = checkpoints.latest(Path(request.resume).expanduser()) if request.resume else None
    on_step(Step(0, request.steps, note="Loading the model"))

    def train(network: Network) -> TrainResult:
        return Training(request, network, dataset, on_step, folder).run(earlier)

    return models.network(request.model, train)


def _check_folder(request: TrainRequest, folder: Path | None) -> None:
    """Hours of work are not written over because somebody forgot a word."""
    if folder is None or not checkpoints.listed(folder / PLACE):
        return
    if not request.resume or Path(request.resume).expanduser().resolve() != folder.resolve():
        raise RequestError(
            f"resume: {folder} holds a training already; set resume to it to go on, or choose another folder.",
            field="resume",
        )


class Training:
    """One run on a network that is lent to it."""

    def __init__(
        self, request: TrainRequest, network: Network, dataset: Dataset, on_step: OnStep, folder: Path | None
    ) -> None:
        if network.in_pixels:
            raise RequestError(
                f"model: {network.name} draws in pixels, which cannot be trained here; choose SD, SDXL or SD 3.",
                field="model",
            )
        self.request, self.network, self.dataset, self.on_step, self.folder = request, network, dataset, on_step, folder
        learn, kept = split(dataset.examples, request.validation_share, request.seed)
        self.feed = Feed(request, network, learn, kept)
        pictures = sum(example.repeats for example in learn)
        self.plan: Plan = planned(request, pictures, self.feed.batches, len(kept))
        self.journal = Journal(folder, {**recipe(request), "seed": request.seed})
        self.name = file_name(request)
        self.saved = -1  # the step of the last checkpoint

    def run(self, earlier: State | None) -> TrainResult:
        self.peak = PeakMemory(self.network.device)
        self.network.residence.settle(False)  # what learns has to stay where it is
        objective = Objective.of(self.network, self.request)
        self.fingerprint = Fingerprint.of(self.request, self.dataset, self.network)
        if earlier is not None:
            self.fingerprint.check(earlier.facts["fingerprint"])
            if earlier.step >= self.plan.steps:
                raise RequestError(
                    f"steps: {earlier.step} are done already; give more, or leave resume empty.", field="steps"
                )
        self.journal.begin(
            [Point(**point) for point in earlier.facts["points"]] if earlier else (),
            Path(self.request.resume).expanduser() if earlier else None,
        )
        self.feed.prepare(None if self.folder is None else self.folder.parent / ".cache", self._preparing)
        if self.request.has_prior:
            self.feed.prior = Prior(self.request.class_prompt, self._class_latents())
        with injected(self.network, self.request) as self.learner:
            self.loop = Loop(self.request, self.network, self.learner, self.feed, objective, self.plan.steps)
            if earlier is not None:
                self.loop.restore(earlier)
                self._checkpoint()  # from now on this run's folder is enough
            self.rows_before = self.loop.rows
            denoiser = self.network.denoiser
            if self.request.gradient_checkpointing:
                denoiser.enable_gradient_checkpointing()
            try:
                stopped = self._learn()
                result = self._result(stopped)
            finally:
                if self.request.gradient_checkpointing:
                    denoiser.disable_gradient_checkpointing()
        if stopped:
            raise Cancelled(kept=result)
        return result

    def _learn(self) -> bool:
        """Step by step; whether it was stopped. A stop between two steps is a checkpoint as well."""
        self.begun = time.perf_counter()
        try:
            if not self.loop.step:
                self.loop.validate()
                self._sample()
            while self.loop.step < self.plan.steps and not self.loop.tired:
                self._one_step()
                self._report()
        except (Cancelled, KeyboardInterrupt) as stop:
            if not self.loop.step:  # nothing was learned yet
                raise
            if isinstance(stop, Cancelled):  # Ctrl+C may have come in the middle of a step
                self._checkpoint()
            return True
        except (RuntimeError, MemoryError) as error:
            # Before the first step the store makes room and tries again; later that would be from the beginning.
            if not (is_out_of_memory(error) and self.loop.step):
                raise
            raise OutOfMemoryError(
                f"Memory ran out after step {self.loop.step}: lower batch_size or resolution, or set "
                "gradient_checkpointing; the checkpoints are kept.",
                field="batch_size",
            ) from None
        self._checkpoint()
        return False

    def _one_step(self) -> None:
        request, loop = self.request, self.loop
        point = loop.advance()
        last = point.step == self.plan.steps
        if last or point.step % request.validate_every == 0:
            loop.validate()
        self.journal.log(loop.points[-1])
        if not last and point.step % request.checkpoint_every == 0:
            self._checkpoint()
        if last or loop.tired or point.step % request.sample_every == 0:
            self._sample()

    def _checkpoint(self) -> None:
        step = self.loop.step
        if self.folder is not None and step != self.saved:
            self.saved = step
            self.journal.keep(self.loop.state(vars(self.fingerprint)), self._adapter(), self.name, self._notes(step))

    def _sample(self) -> None:
        if not self.request.sample_prompts:
            return
        count = len(self.request.sample_prompts)
        with self.loop.averaged():
            pictures = samples.draw(
                self.network,
                self.request,
                lambda index: self.on_step(self._step(f"Drawing sample {index + 1} of {count}")),
            )
        self.journal.keep_samples(self.loop.step, pictures)

    def _report(self) -> None:
        self.on_step(self._step(self._words()))

    def _step(self, note: str) -> Step:
        """Where the run stands, with the latest samples as previews."""
        shown = self.journal.samples
        latest = shown[max(shown)] if shown else None
        return Step(
            self.loop.step,
            self.plan.steps,
            note=note,
            evaluations=ROWS_PER_PICTURE * self.loop.rows,
            pictures=None if latest is None else lambda: latest,
            labels=self.request.sample_prompts,
        )

    def _words(self) -> str:
        """Such as "loss 0.0812, validation 0.0794, 12.1 pictures/s"."""
        points = self.loop.points
        said = [f"loss {points[-1].smoothed:.4f}"]
        measured = next((point.validation for point in reversed(points) if point.validation is not None), None)
        if measured is not None:
            said.append(f"validation {measured:.4f}")
        passed = time.perf_counter() - self.begun
        said.append(f"{(self.loop.rows - self.rows_before) / passed:.1f} pictures/s")
        return ", ".join(said)

    def _preparing(self, step: Step) -> None:
        self.on_step(Step(0, self.plan.steps, note=f"{step.note}, {step.index + 1} of {step.total}"))

    def _adapter(self, weights: Mapping[str, Tensor] | None = None) -> Adapter:
        several = "text_encoder_2" in self.network.parts
        with worn(self.loop.parameters, weights or self.loop.current()):
            return taken(self.learner, kind_of(self.request), several_encoders=several)

    def _notes(self, step: int) -> dict[str, str]:
        return notes(self.request, self.network, self.plan, self.feed.examples, step)

    def _class_latents(self) -> Tensor:
        """Those of an earlier run of the same request where it kept them."""
        kept = Path(self.request.resume).expanduser() / PLACE / CLASS_FILE
        if self.request.resume and kept.is_file():
            found = load_file(kept)["latents"]
        else:
            found = samples.class_latents(self.network, self.request, self._preparing)
        if self.folder is not None:
            save_file({"latents": found}, self.folder / PLACE / CLASS_FILE)
        return found

    def _result(self, stopped: bool) -> TrainResult:
        loop, best = self.loop, None
        best_step = None if loop.best is None else loop.best[0]
        if best_step is not None and best_step != loop.step:
            best = self._adapter(loop.best_weights)
        return TrainResult(
            request=self.request,
            plan=self.plan,
            last=self._adapter(),
            best=best,
            best_step=best_step,
            before=loop.before,
            notes={"last": self._notes(loop.step), "best": self._notes(best_step or loop.step)},
            points=tuple(loop.points),
            journal=self.journal,
            said=self._said(stopped),
            seconds=time.perf_counter() - self.begun,
            rows=ROWS_PER_PICTURE * (loop.rows - self.rows_before),
            stopped=stopped,
            peak_memory=self.peak.bytes,
        )

    def _said(self, stopped: bool) -> tuple[str, ...]:
        loop = self.loop
        said = [self.plan.words() + "."]
        if stopped:
            said.append(f"Stopped after step {loop.step} of {self.plan.steps}; what was learned is kept.")
        elif loop.tired:
            said.append(f"Ended after step {loop.step}: {loop.worse} validations were no better than the best.")
        if loop.best is not None:
            step, least = loop.best
            said.append(f"The validation loss fell from {loop.before:.5f} to {least:.5f} at step {step}, its least.")
            if least >= loop.before:
                said[-1] = f"The validation loss was never below the {loop.before:.5f} that it began with."
        warned = [problem for problem in self.dataset.problems if not problem.fatal]
        if warned:
            first = f"{warned[0].file} {warned[0].what}".strip()
            said.append(f"Of {len(warned)} remarks on the pictures the first is: {first}")
        return tuple(said)
