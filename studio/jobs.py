"""Jobs: one worker thread per lane, immutable snapshots with a revision, owners, cancel, and run folders that last.

A job's state changes in one place, under one lock, by replacing its Snapshot; whoever watches reads the latest.
Watching is not owning: nobody has to look for a job to go on. No torch here, and no exception is ever kept.
"""

from __future__ import annotations

import gc
import logging
import secrets
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from studio import runs, snapshots
from studio.errors import Cancelled, Closing, QueueFullError, RequestError, StudioError
from studio.previews import Pace, drawn
from studio.progress import OnStep, Step
from studio.snapshots import JobError, Lane, Snapshot, Status

log = logging.getLogger(__name__)

Work = Callable[[OnStep], runs.Saveable]
WorkInFolder = Callable[[OnStep, Path], runs.Saveable]


@dataclass(frozen=True)
class Outside:
    """Work in processes that outlive a studio, by a run's folder: how to follow it on while it lives, else its end."""

    follow: Callable[[Path], Work | None] = lambda folder: None
    last_words: Callable[[Path], str] = lambda folder: ""


LANES: tuple[Lane, ...] = ("gpu", "net")
UNDO_FOR = 600.0  # seconds that a deleted run stays in the trash
PREVIEWS_KEPT = 20  # finished jobs whose last previews stay in memory
PATIENCE = 5.0  # seconds that close() waits for a running job to reach its next step


@dataclass(eq=False)
class _Job:
    """What the runner knows beyond the snapshot. Replaced under the runner's lock only."""

    snapshot: Snapshot
    work: Work | WorkInFolder | None = None
    in_folder: bool = False
    preview_px: int = 256
    pace: Pace = field(default_factory=Pace)
    stop: Status | None = None  # how it shall end at its next step


class Runner:
    """Runs jobs one at a time per lane and remembers them in run folders under ``root``."""

    def __init__(
        self,
        root: Path,
        max_queue: int = 64,
        *,
        max_queue_per_owner: int | None = None,
        keep: int | None = None,
        outside: Outside = Outside(),
    ) -> None:
        self._root, self._max_queue, self._max_per_owner, self._keep = root, max_queue, max_queue_per_owner, keep
        self._changed = threading.Condition()
        self._queues: dict[Lane, deque[_Job]] = {lane: deque() for lane in LANES}
        self._threads: dict[Lane, threading.Thread] = {}
        self._trash: dict[str, tuple[Snapshot, float]] = {}
        self._closed = False
        runs.sweep(root)
        self._jobs = {snapshot.id: _Job(snapshot) for snapshot in snapshots.read_all(root, outside.last_words)}
        with self._changed:
            self._adopt(outside.follow)

    def submit(
        self,
        work: Work | WorkInFolder,
        *,
        engine: str,
        title: str,
        owner: str,
        request: dict[str, Any],
        lane: Lane = "gpu",
        preview_px: int = 256,
        in_folder: bool = False,
    ) -> str:
        """Queue ``work`` and return the job's id. Raises QueueFullError when too many wait already.

        ``in_folder``: the work is told its run's folder too, for what has to outlast a machine that goes down.
        """
        if not runs.ENGINE_NAME.fullmatch(engine):
            raise RequestError("engine: a name has small letters, digits, _ and - only.", field="engine")
        run_id, created = secrets.token_hex(8), time.time()
        snapshot = Snapshot(
            id=run_id,
            engine=engine,
            title=title,
            owner=owner,
            folder=runs.run_folder(self._root, engine, run_id, created),
            request=request,
            created=created,
            lane=lane,
            revision=snapshots.first_revision(),
        )
        with self._changed:
            self._refuse_if_full(owner)
            _create(snapshot)
            # Who submits is about to look, so that the first step already has its preview.
            job = _Job(snapshot, work, in_folder, preview_px, Pace(watched=time.monotonic()))
            self._jobs[run_id] = job
            self._queues[lane].append(job)
            self._renumber(lane)
            self._start(lane)
            self._changed.notify_all()
        return run_id

    def warm_up(self, work: Callable[[], object], lane: Lane = "gpu") -> None:
        """Call ``work`` in the lane's thread before its first job; nothing of it shows."""
        with self._changed:
            self._start(lane, work)

    def snapshot(self, job_id: str, owner: str) -> Snapshot | None:
        """The latest state, or None for a stranger. Asking counts as watching."""
        with self._changed:
            job = self._owned(job_id, owner)
            if job is None:
                return None
            job.pace.watched = time.monotonic()
            return job.snapshot

    def history(self, owner: str) -> tuple[Snapshot, ...]:
        """All of an owner's jobs, newest first."""
        with self._changed:
            found = [job.snapshot for job in self._jobs.values() if job.snapshot.owner == owner]
        return tuple(sorted(found, key=lambda snapshot: snapshot.created, reverse=True))

    def finished(self, engine: str) -> tuple[Snapshot, ...]:
        """What everybody's jobs of an engine came to, newest first: for the studio's own figures, never for a page."""
        with self._changed:
            found = [job.snapshot for job in self._jobs.values() if job.snapshot.engine == engine]
        done = [snapshot for snapshot in found if snapshot.status == "done"]
        return tuple(sorted(done, key=lambda snapshot: snapshot.created, reverse=True))

    def cancel(self, job_id: str, owner: str) -> bool:
        """Stop a job: at once while it waits, at its next step while it runs. False when there is nothing to stop."""
        with self._changed:
            job = self._owned(job_id, owner)
            if job is None or job.snapshot.over:
                return False
            if job.snapshot.status == "running":
                job.stop = "cancelled"
                self._publish(job, note="stopping after this step", eta=None)
                return True
            self._queues[job.snapshot.lane].remove(job)
            self._end(job, "cancelled")
            return True

    def delete(self, job_id: str, owner: str) -> bool:
        """Move a finished job to the trash, from where ``undelete`` takes it back for ten minutes."""
        with self._changed:
            job = self._owned(job_id, owner)
            if job is None or not job.snapshot.over:
                return False
            if job.snapshot.folder.exists():
                trashed = runs.discard(self._root, job.snapshot.folder)
                self._trash[job_id] = (replace(job.snapshot, folder=trashed), time.monotonic())
            del self._jobs[job_id]
            self._empty_trash(older_than=UNDO_FOR)
            return True

    def undelete(self, job_id: str, owner: str) -> bool:
        """Take a deleted job back."""
        with self._changed:
            snapshot, _ = self._trash.get(job_id, (None, 0.0))
            if snapshot is None or snapshot.owner != owner:
                return False
            del self._trash[job_id]
            back = replace(
                snapshot, folder=runs.recover(self._root, snapshot.folder), revision=snapshots.first_revision()
            )
            self._jobs[job_id] = _Job(back)
            return True

    def close(self) -> bool:
        """End everything: what waits or runs becomes "interrupted". Waits shortly for running jobs to notice.

        False if a thread did not: one that loads a model or imports cannot be told.
        """
        with self._changed:
            self._closed = True
            for queue in self._queues.values():
                while queue:
                    self._end(queue.popleft(), "interrupted")
            for job in self._jobs.values():
                if job.snapshot.status == "running":
                    job.stop = "interrupted"
            self._changed.notify_all()
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(PATIENCE)
        with self._changed:
            self._empty_trash(older_than=0.0)
        return not any(thread.is_alive() for thread in threads)

    # Everything below runs with the lock held, but for _lane, _run, _result and _report, which run in a lane's
    # thread.

    def _owned(self, job_id: str, owner: str) -> _Job | None:
        job = self._jobs.get(job_id)
        return job if job is not None and job.snapshot.owner == owner else None

    def _refuse_if_full(self, owner: str) -> None:
        if self._closed:
            raise QueueFullError("The studio is closing; start it again to run this.")
        if sum(map(len, self._queues.values())) >= self._max_queue:
            raise QueueFullError(f"The queue is full: {self._max_queue} jobs wait already; try again in a while.")
        active = sum(job.snapshot.owner == owner and not job.snapshot.over for job in self._jobs.values())
        if self._max_per_owner is not None and active >= self._max_per_owner:
            raise QueueFullError(f"You have {active} jobs waiting or running; wait for one of them or stop it.")

    def _adopt(self, follow: Callable[[Path], Work | None]) -> None:
        """What an earlier studio left at work is followed again, as if nothing had been between."""
        for job in self._jobs.values():
            work = follow(job.snapshot.folder) if job.snapshot.status == "interrupted" else None
            if work is not None:
                job.work = work
                self._publish(job, status="queued", finished=None, note="")
                self._queues[job.snapshot.lane].append(job)
                self._start(job.snapshot.lane)

    def _start(self, lane: Lane, first: Callable[[], object] | None = None) -> None:
        if lane not in self._threads and not self._closed:
            thread = threading.Thread(target=self._lane, args=(lane, first), name=f"lane-{lane}", daemon=True)
            self._threads[lane] = thread
            thread.start()

    def _publish(self, job: _Job, base: Snapshot | None = None, **changes: Any) -> None:
        job.snapshot = replace(base or job.snapshot, revision=job.snapshot.revision + 1, **changes)

    def _renumber(self, lane: Lane) -> None:
        for position, job in enumerate(self._queues[lane], start=1):
            if job.snapshot.position != position:
                self._publish(job, position=position)

    def _end(
        self, job: _Job, status: Status, error: JobError | None = None, summary: dict[str, Any] | None = None
    ) -> None:
        ended = replace(job.snapshot, status=status, finished=time.time(), error=error, summary=summary)
        job.work = None
        self._publish(job, ended, eta=None, position=0, note=snapshots.closing_note(ended))
        snapshots.write(job.snapshot)
        self._renumber(job.snapshot.lane)
        self._prune()
        self._changed.notify_all()

    def _prune(self) -> None:
        """Bound memory, and the disk where a limit is set: the oldest finished jobs give way first."""
        over = [job for job in self._jobs.values() if job.snapshot.over]
        over.sort(key=lambda job: job.snapshot.finished or 0.0)
        for job in over[:-PREVIEWS_KEPT]:
            if job.snapshot.previews or job.snapshot.data:
                self._publish(job, previews=(), data={})
        for job in over[: max(0, len(over) - self._keep)] if self._keep is not None else ():
            del self._jobs[job.snapshot.id]
            runs.remove(job.snapshot.folder)
        self._empty_trash(older_than=UNDO_FOR)

    def _empty_trash(self, older_than: float) -> None:
        now = time.monotonic()
        for job_id, (snapshot, deleted) in list(self._trash.items()):
            if now - deleted >= older_than:
                del self._trash[job_id]
                runs.remove(snapshot.folder)

    def _lane(self, lane: Lane, first: Callable[[], object] | None) -> None:
        if first is not None:
            try:
                first()
            except Exception:
                log.exception("warming up the lane %s failed; its jobs will say why", lane)
        while (job := self._next(lane)) is not None:
            self._run(job)
            del job  # or the last job's request would live until the next one comes

    def _next(self, lane: Lane) -> _Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queues[lane] or self._closed)
            if self._closed:
                return None
            job = self._queues[lane].popleft()
            started = job.snapshot.started or time.time()  # of one that is followed again: when it truly began
            self._publish(job, status="running", started=started, position=0, note="starting")
            snapshots.write(job.snapshot)
            self._renumber(lane)
            return job

    def _run(self, job: _Job) -> None:
        error, summary, status = None, None, "failed"
        try:
            summary, status = runs.keep(job.snapshot.folder, self._result(job)), "done"
        except Cancelled:
            status = job.stop or "cancelled"
        except StudioError as problem:
            error = JobError(type(problem).__name__, str(problem), problem.field)
        except BaseException as problem:  # noqa: BLE001  the lane must outlive whatever a library raises
            name = type(problem).__name__  # as text, for a handler may keep what it is given
            log.error("job %s (%s) failed\n%s", job.snapshot.id, job.snapshot.engine, traceback.format_exc())
            error = JobError(name, f"Something failed inside the studio ({name}); the log has the details.")
        with self._changed:
            self._end(job, status, error, summary)
        if status != "done":
            gc.collect()  # frees what the frames of the exception held in cycles

    def _result(self, job: _Job) -> runs.Saveable:
        """What the work returns, or what it had finished when it was stopped, if that is worth keeping."""
        try:
            report = partial(self._report, job)
            result = job.work(report, job.snapshot.folder) if job.in_folder else job.work(report)
            self._stop_if_asked(job)
        except Cancelled as stop:
            if stop.kept is None:
                raise
            result = stop.kept
        return result

    def _stop_if_asked(self, job: _Job) -> None:
        with self._changed:
            if job.stop is not None:
                raise Closing if job.stop == "interrupted" else Cancelled

    def _report(self, job: _Job, step: Step) -> None:
        """The job's ``on_step``: stop if asked to, draw previews if somebody looks, publish."""
        self._stop_if_asked(job)
        now = time.monotonic()
        previews = job.snapshot.previews
        if step.pictures is not None and job.pace.preview_due(now):
            previews = drawn(step.pictures, job.preview_px) or previews
            job.pace.previewed = now
        with self._changed:
            self._stop_if_asked(job)
            self._publish(
                job,
                step=step.index,
                total=step.total,
                note=step.note,
                evaluations=step.evaluations,
                previews=previews,
                labels=step.labels or job.snapshot.labels,
                data=step.data or job.snapshot.data,
                eta=job.pace.eta(now, step.index, step.total),
            )


def _create(snapshot: Snapshot) -> None:
    try:
        runs.create(snapshot.folder, snapshot.request, snapshots.Record.of(snapshot).model_dump())
    except OSError as error:
        raise StudioError(f"The folder for results cannot be written ({error.strerror}); make room there.") from None
