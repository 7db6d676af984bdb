"""What Azure Blob Storage and Microsoft's library say, in this project's own errors."""

from __future__ import annotations

from azure.core.exceptions import AzureError, HttpResponseError, ServiceRequestError, ServiceResponseError
from azure.storage.blob import StorageErrorCode

from lowtide.connectors.stores.failures import Failure, Failures, Service

_SIGNATURE = "sig="
_FIREWALL = (
    "check the account key or signature, and that the account's network rules let this machine in; a shared access "
    "signature has to cover blobs, containers and objects"
)
_RIGHTS = (
    "give this identity the role Storage Blob Data Reader for documents, Storage Blob Data Contributor for the root, "
    "or a shared access signature that allows it"
)

# https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
_BLOB = Service(
    passing=frozenset({
        "ServerBusy", "InternalError", "OperationTimedOut", "AccountBeingCreated", "BlobBeingRehydrated",
        "ContainerBeingDeleted", "IncompleteBody",
    }),
    passing_statuses=frozenset({408, 429}),
    conflict=frozenset({"BlobAlreadyExists", "ConditionNotMet", "TargetConditionNotMet", "ResourceAlreadyExists"}),
    conflict_statuses=frozenset({412}),
    credentials=frozenset({
        "AuthenticationFailed", "AuthorizationFailure", "InvalidAuthenticationInfo", "NoAuthenticationInformation",
        "AccountIsDisabled", "KeyBasedAuthenticationNotPermitted", "NoCredentials",
    }),
    nowhere=frozenset({"ContainerNotFound", "ContainerDisabled", "ContainerBeingDisabled"}),
    # Blob Storage drops every uncommitted block of a blob when any writer commits it.
    vanished=frozenset({"InvalidBlockList"}),
    permission={
        "list": "listing the container (a shared access signature with l, or the role Storage Blob Data Reader)",
        "read": "reading the blob (a shared access signature with r, or the role Storage Blob Data Reader)",
        "write": "writing the blob (a shared access signature with c and w, or the role Storage Blob Data Contributor)",
        "delete": "deleting the blob (a shared access signature with d, or the role Storage Blob Data Contributor)",
    },
    advice={
        "AuthorizationFailure": _FIREWALL,
        "AuthorizationPermissionMismatch": _RIGHTS,
        "InsufficientAccountPermissions": _RIGHTS,
        "KeyBasedAuthenticationNotPermitted": "the account takes no keys: unset them, and sign in with Microsoft Entra",
        "BlobImmutableDueToPolicy": "the container's immutability policy forbids it",
        "BlobArchived": "it is in the archive tier: rehydrate it first",
        "LeaseIdMissing": "another program holds a lease on it",
    },
    no_bucket="there is no such container here: check its name, and the account",
    otherwise="the Blob Storage API reference explains its error codes",
)  # fmt: skip


class _BlobFailures(Failures):
    raised = (*Failures.raised, AzureError)

    def explain(self, error: Exception) -> Failure:
        if isinstance(error, ServiceRequestError | ServiceResponseError):
            return Failure(_BLOB, 0, "", "", type(error).__name__)
        if isinstance(error, HttpResponseError) and error.status_code is not None:
            if error.status_code < 300:
                return Failure(_BLOB, 0, "", "", type(error).__name__)  # the answer broke off
            code = getattr(error, "error_code", None) or ""
            code = code.value if isinstance(code, StorageErrorCode) else str(code)
            return Failure(_BLOB, error.status_code, code, str(error.message).partition("\n")[0][:300])
        if isinstance(error, AzureError):
            return Failure(_BLOB, 401, "NoCredentials", str(error.message).partition("\n")[0][:300])
        return super().explain(error)

    def cause(self, error: Exception) -> Exception | None:
        """Nothing that shows the address of a request with a shared access signature in it."""
        return None if _SIGNATURE in str(error) else error


BLOB_FAILURES = _BlobFailures(_BLOB)
