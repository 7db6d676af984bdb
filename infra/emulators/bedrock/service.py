"""Bedrock on the wire: jobs, on-demand calls, and quotas."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from lowtide.emulators.app import App, guarded
from lowtide.emulators.bedrock.jobs import ENDED, Job, Jobs, new_id
from lowtide.emulators.bedrock.models import named
from lowtide.emulators.bedrock.quota_api import QuotaApi
from lowtide.emulators.bedrock.rules import JOB_ID, JOB_NAME, STATUSES, check_create
from lowtide.emulators.bedrock.runner import Run
from lowtide.emulators.bedrock.runtime import Runtime
from lowtide.emulators.bedrock.settings import Settings
from lowtide.emulators.bedrock.storage import Storage, connect
from lowtide.emulators.bedrock.wire import Caller, caller, error, iso, not_authorized, seconds
from lowtide.emulators.faults import Fault
from lowtide.emulators.web import Refused, Request, Response, Route

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_DEFAULT_HOURS = 24
_LARGEST_PAGE = 1000
_UNSUPPORTED = "Batch inference is not supported for the requested model."


def service(app: App) -> Bedrock:
    """The service, which has no job yet."""
    return Bedrock(app)


class Bedrock:
    """Amazon Bedrock: `bedrock`, `bedrock-runtime`, and what `service-quotas` knows of them."""

    name = "bedrock"

    def __init__(self, app: App) -> None:
        self._app = app
        self._jobs = Jobs()
        self._settings = Settings()
        self._runtime = Runtime(app, lambda: self._settings)
        self._quota_api = QuotaApi(app, lambda: self._settings)

    @cached_property
    def _s3(self) -> S3Client:
        return connect(self._app.s3_url)

    def routes(self) -> Sequence[Route]:
        """The four calls about jobs, Converse and InvokeModel, and Service Quotas at /."""
        return [
            Route("POST", "/model-invocation-job", self._create),
            Route("GET", "/model-invocation-jobs", self._list),
            Route("GET", "/model-invocation-job/{job}", self._get),
            Route("POST", "/model-invocation-job/{job}/stop", self._stop),
            *self._runtime.routes(),
            *self._quota_api.routes(),
        ]

    def settings(self) -> Mapping[str, object]:
        """See `lowtide.emulators.bedrock.settings.Settings`."""
        return self._settings.shown()

    def configure(self, settings: Mapping[str, object]) -> None:
        """Change settings; jobs that run keep theirs. Raises ValueError."""
        self._settings = self._settings.changed(settings)

    def reset(self) -> None:
        """Forget every job, and go back to the first settings."""
        self._jobs.clear()
        self._runtime.reset()
        self._settings = Settings()

    def _create(self, request: Request) -> Response:
        known = self._caller(request, "CreateModelInvocationJob")
        if "iam:PassRole" in self._settings.denied:
            raise Refused(error("AccessDeniedException", not_authorized(known, "iam:PassRole")))
        try:
            asked = check_create(request.json())
        except ValueError as problem:
            raise Refused(error("ValidationException", str(problem))) from problem
        facts = {"name": asked["jobName"], "model": asked["modelId"]}
        return self._guarded("create", "CreateModelInvocationJob", lambda: self._created(asked, known), None, **facts)

    def _created(self, asked: Mapping[str, object], known: Caller) -> Response:
        settings, now = self._settings, self._app.clock.now()
        with self._jobs.lock:
            replayed = self._jobs.by_token(asked.get("clientRequestToken"), known.region)
            if replayed is not None:
                return Response.of({"jobArn": replayed.arn})
            model = named(str(asked["modelId"]), settings.models, settings.profiles)
            if model is None or not model.model.batch:
                return error("ValidationException", _UNSUPPORTED)
            if settings.unique_names and any(job.name == asked["jobName"] for job in self._jobs.of(known.region)):
                return error("ConflictException", f"A job named {asked['jobName']} exists.")
            most = settings.quotas.custom_jobs if model.custom else settings.quotas.jobs
            if self._jobs.live(model, known.region) >= most:
                return self._quota_exceeded(most)
            hours = asked.get("timeoutDurationInHours")
            lasts = 3600.0 * (hours if isinstance(hours, int) else _DEFAULT_HOURS)
            job = Job(new_id(), known.region, asked, model, submitted=now, expires=now + lasts, modified=now)
            self._jobs.add(job)
        self._app.calls.created("bedrock", "CreateModelInvocationJob", id=job.id, name=job.name, token=job.token)
        Run(self._app, self._jobs, job, settings, Storage(self._s3, settings.denied)).start()
        return Response.of({"jobArn": job.arn})

    def _get(self, request: Request) -> Response:
        known = self._caller(request, "GetModelInvocationJob")

        def shown(skew: float = 0.0) -> Response:
            job = self._job(request, known)
            with self._jobs.lock:
                return Response.of(job.shown(self._app.clock.now(), self._settings, skew))

        return self._guarded("get", "GetModelInvocationJob", shown, shown, batch=request.params["job"])

    def _list(self, request: Request) -> Response:
        known = self._caller(request, "ListModelInvocationJobs")
        return self._guarded(
            "list",
            "ListModelInvocationJobs",
            lambda: self._listed(request, known),
            lambda skew: self._listed(request, known, skew),
        )

    def _listed(self, request: Request, known: Caller, skew: float = 0.0) -> Response:
        query = request.query
        try:
            wanted = _wanted(query)
            size = int(query.get("maxResults", _LARGEST_PAGE))
            after = base64.urlsafe_b64decode(query["nextToken"]).decode() if "nextToken" in query else ""
        except ValueError as problem:
            raise Refused(error("ValidationException", f"1 validation error detected: {problem}")) from problem
        if not 1 <= size <= _LARGEST_PAGE:
            raise Refused(error("ValidationException", "maxResults must be from 1 to 1000"))
        with self._jobs.lock:
            jobs = [job for job in self._jobs.of(known.region) if self._visible(job) and wanted(job)]
            if query.get("sortOrder", "Descending") == "Descending":
                jobs.reverse()
            if after:
                places = [number for number, job in enumerate(jobs) if job.id == after]
                if not places:
                    raise Refused(error("ValidationException", "The nextToken is not valid."))
                jobs = jobs[places[0] + 1 :]
            shown = [job.shown(self._app.clock.now(), self._settings, skew) for job in jobs[:size]]
        answer: dict[str, object] = {"invocationJobSummaries": shown}
        if len(jobs) > size:
            answer["nextToken"] = base64.urlsafe_b64encode(jobs[size - 1].id.encode()).decode()
        return Response.of(answer)

    def _stop(self, request: Request) -> Response:
        known = self._caller(request, "StopModelInvocationJob")

        def stop(late: float = 0.0) -> Response:
            job = self._job(request, known)
            with self._jobs.lock:
                if job.status in ENDED or job.status == "Stopping":
                    return error("ConflictException", f"The job is in the status {job.status} and cannot be stopped.")
                self._jobs.move(job, "Stopping", self._app.clock.now())
            if late:
                threading.Thread(target=self._halt_later, args=(job, late), daemon=True).start()
            else:
                job.halt.set()
            return Response.of({})

        return self._guarded("cancel", "StopModelInvocationJob", stop, stop, batch=request.params["job"])

    def _halt_later(self, job: Job, seconds_late: float) -> None:
        self._app.clock.sleep(seconds_late, job.halt)
        job.halt.set()

    def _job(self, request: Request, known: Caller) -> Job:
        identifier = request.params["job"]
        if not JOB_ID.fullmatch(identifier):
            raise Refused(error("ValidationException", "The provided job identifier is invalid."))
        job = self._jobs.get(identifier.rsplit("/", 1)[-1], known.region)
        if job is None or not self._visible(job):
            raise Refused(error("ResourceNotFoundException", "Could not find the requested job. Check its ARN."))
        return job

    def _visible(self, job: Job) -> bool:
        return self._app.clock.now() >= job.submitted + self._settings.visible_after

    def _caller(self, request: Request, operation: str) -> Caller:
        self._app.calls.count("bedrock", operation)
        return caller(request, f"bedrock:{operation}", self._settings.denied)

    def _guarded(
        self,
        point: str,
        operation: str,
        work: Callable[[], Response],
        late: Callable[[float], Response] | None,
        **facts: object,
    ) -> Response:
        """`late` does the work under a fault that has seconds: skewed times, or a stop that takes long."""
        return guarded(
            self._app,
            point,
            work,
            lambda fault: self._refused(fault, operation),
            None if late is None else lambda fault: late(fault.seconds),
            service="bedrock",
            operation=operation,
            **facts,
        )

    def _refused(self, fault: Fault, operation: str) -> Response:
        match fault.do:
            case "throttle":
                return error("ThrottlingException", fault.message or "Rate exceeded")
            case "not_found":
                return error("ResourceNotFoundException", fault.message or "Could not find the requested resource.")
            case "quota" if operation == "CreateModelInvocationJob":
                return self._quota_exceeded(self._settings.quotas.jobs)
            case _:
                return error("InternalServerException", fault.message or "An internal error occurred. Try again.")

    def _quota_exceeded(self, most: int) -> Response:
        return error(
            "ServiceQuotaExceededException",
            f"The number of submitted and in-progress batch inference jobs exceeds the quota of {most} for the model.",
        )


def _wanted(query: Mapping[str, str]) -> Callable[[Job], bool]:
    """The filters of ListModelInvocationJobs. Raises ValueError."""
    status, name = query.get("statusEquals"), query.get("nameContains", "")
    if status is not None and status not in STATUSES:
        raise ValueError(f"Value '{status}' at 'statusEquals' is not one of {', '.join(STATUSES)}")
    if name and not JOB_NAME.fullmatch(name):
        raise ValueError(f"Value '{name}' at 'nameContains' must satisfy {JOB_NAME.pattern}")
    if query.get("sortBy", "CreationTime") != "CreationTime":
        raise ValueError("Value at 'sortBy' must be CreationTime")
    if query.get("sortOrder", "Descending") not in {"Ascending", "Descending"}:
        raise ValueError("Value at 'sortOrder' must be Ascending or Descending")
    # Times are compared as they are shown, to the millisecond.
    after = iso(seconds(query["submitTimeAfter"])) if "submitTimeAfter" in query else ""
    before = iso(seconds(query["submitTimeBefore"])) if "submitTimeBefore" in query else "~"

    def wanted(job: Job) -> bool:
        return status in {None, job.status} and name in job.name and after < iso(job.submitted) < before

    return wanted
