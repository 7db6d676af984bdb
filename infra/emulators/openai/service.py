"""The service: which paths lead to which account, who is let in, and what is kept between calls."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from lowtide.emulators.app import App
from lowtide.emulators.openai import chat, files
from lowtide.emulators.openai.batches import Batches
from lowtide.emulators.openai.blobs import Blobs
from lowtide.emulators.openai.call import Call
from lowtide.emulators.openai.errors import forbidden, not_found, unauthorized
from lowtide.emulators.openai.rules import AZURE, OPENAI, Mode
from lowtide.emulators.openai.settings import Settings
from lowtide.emulators.openai.state import Account
from lowtide.emulators.web import Request, Response, Route

Handler = Callable[[Call], Response]

_AZURE_ROOTS = ("/openai", "/azure/{resource}/openai")
_DEFAULT_RESOURCE = "default"
_STOP_SECONDS = 5.0


class OpenAIService:
    """OpenAI below /v1; Azure OpenAI below /openai/v1 and /openai?api-version, or /azure/<resource>/openai/..."""

    name = "openai"

    def __init__(self, app: App) -> None:
        self._app = app
        self._lock = threading.RLock()
        self._settings = Settings()
        self._accounts: dict[str, Account] = {}
        self._numbers = itertools.count(1)
        self._folder = app.folder / self.name
        self._folder.mkdir(exist_ok=True)
        self._batches = Batches(lambda: self._settings, None if app.blob is None else Blobs(app.blob))

    def routes(self) -> Sequence[Route]:
        """Every path of both providers."""
        found = self._api("/v1", OPENAI, versioned=False)
        for root in _AZURE_ROOTS:
            found += self._api(f"{root}/v1", AZURE, versioned=False)
            found += self._api(root, AZURE, versioned=True)
            found.append(
                self._route(
                    "POST", f"{root}/deployments/{{deployment}}/chat/completions", "chat", chat.completion, AZURE, True
                )
            )
        return found

    def settings(self) -> Mapping[str, object]:
        """Every setting, as JSON."""
        settings: Mapping[str, object] = msgspec.to_builtins(self._settings)
        return settings

    def configure(self, settings: Mapping[str, object]) -> None:
        """Change these settings and leave the others. Raises ValueError."""
        self._settings = self._settings.changed(settings)

    def reset(self) -> None:
        """Forget every file and batch, end what is running, and go back to the first settings."""
        with self._lock:
            accounts, self._accounts = list(self._accounts.values()), {}
            self._settings = Settings()
        batches = [batch for account in accounts for batch in account.batches.values()]
        for batch in batches:
            batch.stop.set()
        ids = {batch.id for batch in batches}
        for thread in threading.enumerate():
            if thread.name in ids:
                thread.join(_STOP_SECONDS)
        for account in accounts:
            shutil.rmtree(account.folder, ignore_errors=True)

    def _api(self, root: str, mode: Mode, *, versioned: bool) -> list[Route]:
        calls: Sequence[tuple[str, str, str, Handler]] = (
            ("POST", "/files", "upload", files.upload),
            ("GET", "/files", "list_files", files.listing),
            ("GET", "/files/{id}", "get_file", files.retrieve),
            ("GET", "/files/{id}/content", "download", files.content),
            ("DELETE", "/files/{id}", "delete", files.delete),
            ("POST", "/batches", "create", self._batches.create),
            ("GET", "/batches", "list", self._batches.listing),
            ("GET", "/batches/{id}", "get", self._batches.retrieve),
            ("POST", "/batches/{id}/cancel", "cancel", self._batches.cancel),
            ("POST", "/chat/completions", "chat", chat.completion),
            ("POST", "/responses", "responses", chat.response),
            ("GET", "/models", "models", chat.models),
            ("GET", "/models/{id}", "model", chat.model),
        )
        return [
            self._route(method, root + path, operation, handler, mode, versioned)
            for method, path, operation, handler in calls
        ]

    def _route(self, method: str, pattern: str, operation: str, handler: Handler, mode: Mode, versioned: bool) -> Route:
        def handled(request: Request) -> Response:
            self._app.calls.count(mode.name, operation)
            _let_in(request, mode)
            if versioned and not request.query.get("api-version"):
                raise not_found(mode, "object", "")
            resource = request.params.get("resource", _DEFAULT_RESOURCE)
            account = self._account(mode, resource)
            return handler(Call(self._app, account, self._settings, request, self._lock))

        return Route(method, pattern, handled)

    def _account(self, mode: Mode, resource: str) -> Account:
        key = mode.name if mode is OPENAI else f"{mode.name}/{resource}"
        with self._lock:
            account = self._accounts.get(key)
            if account is None:
                folder = Path(self._folder, f"account-{next(self._numbers)}")
                folder.mkdir(parents=True, exist_ok=True)
                account = self._accounts[key] = Account(key, resource, mode, folder)
            return account


def service(app: App) -> OpenAIService:
    """The service over what all services share."""
    return OpenAIService(app)


def _let_in(request: Request, mode: Mode) -> None:
    scheme, _, token = request.header("Authorization").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else ""
    if mode is AZURE:
        key = request.header("api-key") or key
    if not key or key == "invalid":
        raise unauthorized(mode)
    if key == "denied":
        raise forbidden(mode)
