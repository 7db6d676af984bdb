"""What a worker that is a process of this machine gets of our environment: what it needs, and no other secrets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

# To find an interpreter, packages, a GPU, and models that were downloaded before.
_PASSED_ON = (
    *("PATH", "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "PYTHONHOME", "XDG_CACHE_HOME"),
    *("LD_LIBRARY_PATH", "LD_PRELOAD", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
_PREFIXES = (
    *("CUDA_", "NVIDIA_", "HIP_", "ROCM_", "ROCR_", "NCCL_", "OMP_", "HF_", "VLLM_", "TRANSFORMERS_", "TORCH"),
    *("LOWTIDE_METADATA_", "LOWTIDE_ENGINE_"),
)
# What reaches the root: obstore reads the first two kinds itself, as `lowtide_worker.addresses` says.
_STORES: Mapping[str, tuple[str, ...]] = {
    "s3": ("AWS_",),
    "abfs": ("AZURE_", "IDENTITY_", "MSI_"),
    "abfss": ("AZURE_", "IDENTITY_", "MSI_"),
    "az": ("AZURE_", "IDENTITY_", "MSI_"),
}


def worker_environment(uri: str, ours: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker whose fleet lies at `uri`."""
    prefixes = (*_PREFIXES, *_STORES.get(uri.partition("://")[0], ()))
    given = {name: value for name, value in ours.items() if name in _PASSED_ON or name.startswith(prefixes)}
    if ours.get("PYTHONPATH"):
        entries = ours["PYTHONPATH"].split(os.pathsep)
        given["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in entries)
    if uri.startswith("s3://"):
        given |= _profile(given)
    return given | {"PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}


def _profile(given: Mapping[str, str]) -> dict[str, str]:
    """The AWS profile by name, where keys come from the default one: who does not name it gets no profile's keys."""
    if given.get("AWS_PROFILE") or given.get("AWS_ACCESS_KEY_ID"):
        return {}
    import botocore.session  # noqa: PLC0415 - half a second that roots elsewhere need not wait

    profiles = botocore.session.Session().available_profiles
    return {"AWS_PROFILE": "default"} if "default" in profiles else {}
