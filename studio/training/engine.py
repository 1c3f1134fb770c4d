"""From a request to an adapter: pictures, codes, the loop, samples, checkpoints. Stopped at any step it is one too."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from studio.devices import PeakMemory, is_out_of_memory
from studio.errors import Cancelled, OutOfMemoryError, RequestError
from studio.models.networks import Network
from studio.models.store import ModelStore
from studio.progress import OnStep, Step, ignore
from studio.training import checkpoints, continual, joint, samples
from studio.training.checkpoints import State
from studio.training.continual import Before, Beneath
from studio.training.course import Course
from studio.training.curves import Curves
from studio.training.feed import Prior
from studio.training.fingerprint import Fingerprint
from studio.training.folder import PLACE
from studio.training.going_on import check_steps
from studio.training.journal import Journal
from studio.training.learning import SEATS, Learned
from studio.training.loop import Loop, Point, worn
from studio.training.notes import notes
from studio.training.objective import Objective
from studio.training.preflight import check, file_name
from studio.training.processes import Processes
from studio.training.recipe import recipe
from studio.training.records import Dataset
from studio.training.request import ROWS_PER_PICTURE, ROWS_PER_SAMPLE, TrainRequest
from studio.training.result import TrainResult
from studio.training.task_sets import read_sets
from studio.training.trackers import Trackers

CLASS_FILE = "class.safetensors"


def run(
    request: TrainRequest, models: ModelStore, *, on_step: OnStep = ignore, folder: Path | None = None
) -> TrainResult:
    """Train as ``request`` says. ``folder``: the run's, for checkpoints and all that must outlast this process.

    Raises StudioError for pictures, settings or checkpoints that cannot be used. What ``on_step`` raises stops the
    run; after the first step ``Cancelled.kept`` then holds what was learned, and with a ``folder`` resume goes on.
    """
    check(request)
    processes = Processes.joined(models.device)
    processes.check(request.batch_size * request.accumulation)
    _check_folder(request, folder)
    steps = request.all_apart + request.steps
    on_step(Step(0, steps, note="Reading the pictures"))
    datasets = read_sets(request, models.assets, models.datasets)
    before = continual.before(request, models.assets, models.models_dir)
    earlier = checkpoints.latest(Path(request.resume).expanduser()) if request.resume else None
    processes.wait()  # until all have read what the first will write anew
    on_step(Step(0, steps, note="Loading the model"))

    def train(network: Network) -> TrainResult:
        trackers = Trackers(request, folder, offline=models.offline)
        training = Training(request, network, datasets, on_step, folder)
        training.before = before
        with continual.beneath(network, before.files) as training.beneath:
            return training.run(earlier, processes, trackers)

    try:
        result = models.network(request.model, train)
    except Cancelled:
        processes.leave()
        raise
    processes.leave()
    return result


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
        self,
        request: TrainRequest,
        network: Network,
        datasets: Sequence[Dataset],
        on_step: OnStep,
        folder: Path | None,
    ) -> None:
        if network.in_pixels:
            raise RequestError(
                f"model: {network.name} draws in pixels, which cannot be trained here; choose SD, SDXL or SD 3.",
                field="model",
            )
        self.request, self.network, self.datasets = request, network, tuple(datasets)
        self.on_step, self.folder = on_step, folder
        if request.tasks:
            self.course = joint.course_of(request, network, self.datasets)
        else:
            self.course = Course.plain(request, network, *self.datasets)
        self.plan = self.course.plan
        self.name = file_name(request)
        self.saved = -1  # the step of the last checkpoint
        self.before, self.beneath = Before(), Beneath({})  # earlier LoRAs
        self.curves = Curves()
        self.drawn = 0  # rows of the network for samples and class pictures

    def run(self, earlier: State | None, processes: Processes, trackers: Trackers) -> TrainResult:
        self.trackers, self.processes = trackers, processes
        for feed in self.course.feeds.values():
            feed.processes, feed.salt = processes, self.before.salt
        place = self.folder if processes.first else None
        self.journal = Journal(place, {**recipe(self.request), "seed": self.request.seed})
        self.peak = PeakMemory(self.network.device)
        self.network.residence.settle(False)  # what learns has to stay where it is
        objective = Objective.of(self.network, self.request)
        self.fingerprint = Fingerprint.of(self.request, self.datasets, self.network, self.before.hashes)
        if earlier is not None:
            self.fingerprint.check(earlier.facts["fingerprint"])
            check_steps(earlier.step, self.plan.steps)
        self.journal.begin(
            [Point(**point) for point in earlier.facts["points"]] if earlier else (),
            Path(self.request.resume).expanduser() if earlier else None,
        )
        self.course.prepare(None if self.folder is None else self.folder.parent / ".cache", self._preparing)
        if self.request.has_prior:
            (feed,) = self.course.feeds.values()
            feed.prior = Prior(self.request.class_prompt, self._class_latents())
        seat = SEATS[self.request.method]
        with seat.put(self.network, self.request) as self.learner:
            captions = [example.caption for dataset in self.datasets for example in dataset.examples]
            seat.check(self.learner, self.network, captions)
            self.loop = Loop(self.request, self.network, self.learner, self.course, objective)
            if self.request.earlier_penalty:
                self.loop.penalties = partial(self.beneath.penalties, self.learner, self.request.earlier_penalty)
            if earlier is not None:
                self.loop.restore(earlier)
                self._checkpoint()  # from now on this run's folder is enough
            self.rows_before = self.loop.rows
            for point in self.loop.points:
                self.curves.add(point)
            denoiser = self.network.denoiser
            if self.request.gradient_checkpointing:
                denoiser.enable_gradient_checkpointing()
            try:
                if processes.first:
                    self.trackers.begin(self.name)
                stopped = self._learn()
                self.trackers.close()
                result = self._result(stopped)
            finally:
                self.trackers.close()
                if self.request.gradient_checkpointing:
                    denoiser.disable_gradient_checkpointing()
        if stopped:
            raise Cancelled(kept=result)
        return result

    def _learn(self) -> bool:
        """Step by step; whether it was stopped. A stop between two steps is a checkpoint as well."""
        self.begun, self.on_step = time.perf_counter(), self.processes.patient(self.on_step)
        try:
            if not self.loop.step:
                self.loop.begin()
                self._sample()
            self.curves.before = self.loop.fell_from
            while self.loop.step < self.plan.steps and not self.loop.tired:
                self._one_step()
                self._report()
                self.processes.agree()
        except (Cancelled, KeyboardInterrupt) as stop:
            if not self.loop.step:  # nothing was learned yet
                raise
            if isinstance(stop, Cancelled):  # Ctrl+C may have come in the middle of a step
                self._checkpoint()
            return True
        except (RuntimeError, MemoryError) as error:
            # Before the first step the store makes room and tries again; later that would be from the beginning.
            if not (is_out_of_memory(error) and (self.loop.step or self.processes.several)):
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
        loop.begin()
        point = loop.advance()
        last, over = point.step == self.plan.steps, self.course.ends(point.step)
        if over or point.step % request.validate_every == 0:
            loop.validate()
        self.journal.log(loop.points[-1])
        self.trackers.log(loop.points[-1])
        self.curves.add(loop.points[-1])
        if not last and (over or point.step % request.checkpoint_every == 0):
            self._checkpoint()
        if over or loop.tired or point.step % request.sample_every == 0:
            self._sample()

    def _checkpoint(self) -> None:
        step = self.loop.step
        if self.journal.place is not None and step != self.saved:
            self.saved = step
            self.journal.keep(self.loop.state(vars(self.fingerprint)), self._learned(), self.name, self._notes(step))

    def _sample(self) -> None:
        if not self.request.sample_prompts or not self.processes.first:
            return
        count, looks = len(self.request.sample_prompts), tuple(self.course.looks(self.loop.step))
        with self.loop.averaged():
            pictures = samples.draw(
                self.network,
                self.request,
                lambda index: self.on_step(self._step(f"Drawing sample {index + 1} of {count}")),
                [look.view for look in looks],
                lambda index: self.learner.wearing(looks[index].worn if looks else {}),
            )
        self.drawn += ROWS_PER_SAMPLE * count * self.request.sample_steps
        self.journal.keep_samples(self.loop.step, pictures)
        self.trackers.draw(self.loop.step, pictures)

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
            evaluations=ROWS_PER_PICTURE * self.loop.rows + self.drawn,
            pictures=None if latest is None else lambda: latest,
            labels=self.request.sample_prompts,
            data=self._data(),
        )

    def _data(self) -> dict[str, Any]:
        """The curves so far and how fast it goes, for whoever draws them; ``words`` are the note of a plain step."""
        best, shown = self.loop.best, self.journal.samples
        return self.curves.data() | {
            "words": self._words(),
            "best": None if best is None else best[0],
            "speed": self._speed(),
            "memory": self.peak.bytes,
            "epoch": float(self.plan.epochs) * self.loop.step / self.plan.steps,
            "samples": tuple(shown),
        }

    def _speed(self) -> float:
        """Pictures a second, since it began or went on."""
        return (self.loop.rows - self.rows_before) / max(1e-6, time.perf_counter() - self.begun)

    def _words(self) -> str:
        """Such as "loss 0.0812, validation 0.0794, 12.1 pictures/s"; nothing before the first step."""
        points = self.loop.points
        if not points:
            return ""
        part = f" ({points[-1].part})" if points[-1].part else ""
        said = [f"loss {points[-1].smoothed:.4f}{part}"]
        measured = next((point.validation for point in reversed(points) if point.validation is not None), None)
        if measured is not None:
            said.append(f"validation {measured:.4f}")
        said.append(f"{self._speed():.1f} pictures/s")
        return ", ".join(said)

    def _preparing(self, step: Step) -> None:
        self.on_step(Step(0, self.plan.steps, note=f"{step.note}, {step.index + 1} of {step.total}"))

    def _learned(self, weights: Mapping[str, Tensor] | None = None) -> Learned:
        with worn(self.loop.parameters, weights or self.loop.current()):
            return SEATS[self.request.method].take(self.learner, self.network, self.request)

    def _notes(self, step: int) -> dict[str, str]:
        return notes(self.request, self.network, self.plan, self.course.examples, step) | self.before.notes()

    def _class_latents(self) -> Tensor:
        """Those of an earlier run of the same request where it kept them."""
        kept = Path(self.request.resume).expanduser() / PLACE / CLASS_FILE
        if not self.processes.first:
            found = samples.class_room(self.network, self.request)
        elif self.request.resume and kept.is_file():
            found = load_file(kept)["latents"]
        else:
            found = samples.class_latents(self.network, self.request, self._preparing)
            self.drawn += ROWS_PER_SAMPLE * len(found) * self.request.sample_steps
        if self.journal.place is not None:
            save_file({"latents": found}, self.journal.place / CLASS_FILE)
        return self.processes.shared(found)

    def _result(self, stopped: bool) -> TrainResult:
        loop, best = self.loop, None
        best_step = None if loop.best is None else loop.best[0]
        if best_step is not None and best_step != loop.step:
            best = self._learned(loop.best_weights)
        return TrainResult(
            request=self.request,
            plan=self.plan,
            last=self._learned(),
            best=best,
            best_step=best_step,
            before=loop.fell_from,
            notes={"last": self._notes(loop.step), "best": self._notes(best_step or loop.step)},
            points=tuple(loop.points),
            journal=self.journal,
            said=self._said(stopped),
            seconds=time.perf_counter() - self.begun,
            rows=ROWS_PER_PICTURE * (loop.rows - self.rows_before) + self.drawn,
            speed=self._speed(),
            stopped=stopped,
            peak_memory=self.peak.bytes,
            by_task=joint.by_task(loop),
        )

    def _said(self, stopped: bool) -> tuple[str, ...]:
        loop = self.loop
        said = [self.plan.words() + "."]
        if self.before.files:
            said.append(self.before.words())
        if stopped:
            said.append(f"Stopped after step {loop.step} of {self.plan.steps}; what was learned is kept.")
        elif loop.tired:
            said.append(f"Ended after step {loop.step}: {loop.worse} validations were no better than the best.")
        if loop.best is not None:
            step, least = loop.best
            before = loop.fell_from
            said.append(f"The validation loss fell from {before:.5f} to {least:.5f} at step {step}, its least.")
            if least >= before:
                said[-1] = f"The validation loss was never below the {before:.5f} that it began with."
        said += joint.words(loop)
        warned = [problem for dataset in self.datasets for problem in dataset.problems if not problem.fatal]
        if warned:
            first = f"{warned[0].file} {warned[0].what}".strip()
            said.append(f"Of {len(warned)} remarks on the pictures the first is: {first}")
        return (*said, *self.trackers.remarks)
