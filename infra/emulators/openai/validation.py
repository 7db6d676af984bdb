"""Is an input file a batch? Every line is looked at before the first request is answered."""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from lowtide.emulators.openai.questions import prompt_tokens
from lowtide.emulators.openai.rules import AZURE, MAX_ERRORS, OPENAI, Api, Mode, api_of
from lowtide.emulators.openai.settings import Deployment, Settings
from lowtide.emulators.openai.state import LineError

_BOM = b"\xef\xbb\xbf"
_NO_DEPLOYMENT = (
    "Validation failed: A valid model deployment name couldn't be extracted from the input file. Please ensure that "
    "each row in the input file has a valid deployment name specified in the 'model' field, and that the deployment "
    "name is consistent across all rows."
)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The models that an account may ask: deployments on Azure, models at OpenAI."""

    mode: Mode
    models: frozenset[str]
    deployments: Mapping[str, Deployment]

    @classmethod
    def of(cls, mode: Mode, settings: Settings, resource: str) -> Catalogue:
        """What the settings say of that account."""
        return cls(mode, frozenset(settings.models), settings.deployments_of(resource))

    def model(self, name: str, line: int | None = None) -> str | LineError:
        """The model behind a name in a batch, or why there is none."""
        if self.mode is OPENAI:
            if name in self.models:
                return name
            message = f"The provided model '{name}' is not supported by the Batch API."
            return LineError("model_not_found", message, line, "body.model")
        deployment = self.deployments.get(name)
        if deployment is None:
            message = (
                f"The model deployment '{name}' was not found. Please ensure that it points to a valid deployment."
            )
            return LineError("model_not_found", message, line, "body.model")
        if not deployment.is_batch:
            message = f"The deployment SKU '{deployment.sku}' is not supported for batch. It must be 'globalbatch'."
            return LineError("invalid_request", message, line, "body.model")
        return deployment.model


@dataclass
class Lines:
    """A valid input: where every line lies in the file, what they ask of, and the prompt tokens of all."""

    descriptor: int
    starts: array[int] = field(default_factory=lambda: array("Q"))
    sizes: array[int] = field(default_factory=lambda: array("L"))
    api: Api | None = None
    deployment: str = ""
    model: str = ""
    tokens: int = 0

    def __len__(self) -> int:
        return len(self.starts)

    def read(self, number: int) -> bytes:
        """One line, counted from 0."""
        return os.pread(self.descriptor, self.sizes[number], self.starts[number])


@dataclass
class _Reader:
    """Reads one file; what the lines must have in common is taken from the first."""

    catalogue: Catalogue
    endpoint: str
    most: int
    lines: Lines
    errors: list[LineError] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    url: str = ""

    def line(self, raw: bytes, number: int) -> None:
        try:
            request = orjson.loads(raw)
        except ValueError:
            request = None
        if not isinstance(request, dict):
            self._fail("invalid_json_line", "This line is not parseable as valid JSON.", number)
            return
        self._custom_id(request.get("custom_id"), number)
        azure = self.catalogue.mode is AZURE
        if request.get("method") != "POST":
            code = "invalid_request" if azure else "invalid_method"
            self._fail(code, "Invalid method. Only 'POST' is supported.", number, "method")
        self._url(request.get("url"), number)
        body = request.get("body")
        if not isinstance(body, dict):
            self._fail("invalid_request", "The request has no 'body' that is a JSON object.", number, "body")
            return
        self._model(body, number)
        self.lines.tokens += prompt_tokens(self.lines.api, body)

    def _custom_id(self, custom_id: object, number: int) -> None:
        if not isinstance(custom_id, str) or not custom_id:
            code = "invalid_request" if self.catalogue.mode is AZURE else "missing_required_parameter"
            self._fail(code, "Missing required parameter: 'custom_id'.", number, "custom_id")
        elif custom_id in self.ids:
            self._fail(
                "duplicate_custom_id",
                "The custom_id for this request is a duplicate of another request. The custom_id parameter must be "
                "unique for each request in a batch.",
                number,
                "custom_id",
            )
        else:
            self.ids.add(custom_id)

    def _url(self, url: object, number: int) -> None:
        name = url if isinstance(url, str) else ""
        if not self.url and name in self.catalogue.mode.endpoints:
            self.url = name
            self.lines.api = api_of(name)
        # Azure takes the URL from the file and compares the lines with each other only.
        expected = self.url if self.catalogue.mode is AZURE else self.endpoint
        if name != expected:
            self._fail(
                "url_mismatch",
                "The URL provided for this request does not match the batch endpoint or the rest of the file.",
                number,
                "url",
            )

    def _model(self, body: Mapping[str, Any], number: int) -> None:
        name = body.get("model")
        if not isinstance(name, str) or not name:
            self._fail("invalid_request", "Missing required parameter: 'model'.", number, "body.model")
        elif not self.lines.deployment:
            found = self.catalogue.model(name, number)
            if isinstance(found, LineError):
                self._add(found)
            else:
                self.lines.deployment, self.lines.model = name, found
        elif name != self.lines.deployment:
            self._fail(
                "model_mismatch",
                f"The provided model '{name}' does not match the rest of the file ('{self.lines.deployment}'). Each "
                "batch must contain requests for a single model.",
                number,
                "body.model",
            )

    def _fail(self, code: str, message: str, number: int | None, param: str | None = None) -> None:
        self._add(LineError(code, message, number, param))

    def _add(self, error: LineError) -> None:
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(error)


def validate(descriptor: int, catalogue: Catalogue, endpoint: str, most: int) -> Lines | list[LineError]:
    """The lines of a file that is a batch of at most `most` requests; else every error, at most `MAX_ERRORS`.

    The lines are read through `descriptor` afterwards, so the file may be deleted meanwhile.
    """
    reader = _Reader(catalogue, endpoint, most, Lines(descriptor))
    start = 0
    with os.fdopen(os.dup(descriptor), "rb") as file:
        file.seek(0)
        for number, raw in enumerate(file, 1):
            if number == 1 and raw.startswith(_BOM):
                return [_bom(catalogue.mode)]
            if number > most:
                message = f"The number of requests in the input file exceeds the maximum allowed value of {most}."
                return [LineError("too_many_tasks", message)]
            reader.line(raw, number)
            reader.lines.starts.append(start)
            reader.lines.sizes.append(len(raw))
            start += len(raw)
    if start == 0 or not len(reader.lines):
        message = "The input file is empty. Please ensure that the batch contains at least one request."
        return [LineError("empty_file", message)]
    return reader.errors or reader.lines


def count_tokens(path: Path) -> int:
    """Prompt tokens of a file as it is, lines that are no requests left out."""
    tokens = 0
    with path.open("rb") as file:
        for raw in file:
            try:
                request = orjson.loads(raw)
                tokens += prompt_tokens(api_of(str(request["url"])), request["body"])
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
    return tokens


def first_model(path: Path) -> str:
    """The model that the first line names; empty where it names none."""
    with path.open("rb") as file:
        try:
            name = orjson.loads(file.readline())["body"]["model"]
        except (ValueError, TypeError, KeyError):
            return ""
    return name if isinstance(name, str) else ""


def _bom(mode: Mode) -> LineError:
    if mode is AZURE:
        return LineError("invalid_request", _NO_DEPLOYMENT)
    return LineError("invalid_json_line", "This line is not parseable as valid JSON.", 1)
