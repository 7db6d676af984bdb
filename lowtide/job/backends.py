"""The backends' sections of a job file: the names of the fields are the keys of the file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from lowtide.job import values
from lowtide.job.section import Section


class LocalBackend(Section):
    """Runs on this machine, at no price: extractive summaries and classification by similarity."""

    kind: Literal["local"] = "local"
    model: Literal["auto", "minilm", "tfidf"] = Field(
        default="auto",
        description="minilm needs the embedded model, tfidf nothing; auto takes minilm where it is installed.",
    )
    workers: Annotated[int, Field(ge=1, le=256), values.FROM_TEXT] | None = Field(
        default=None, description="Processes that do the work. By default, one for each core."
    )


class PriceSpec(Section):
    """What the provider charges by contract, in USD for `per` tokens."""

    input: values.Money = Field(description="For input tokens.")
    output: values.Money = Field(description="For output tokens, reasoning included.")
    cached_input: values.Money | None = Field(
        default=None, description="For input tokens that the provider had cached. By default, as input."
    )
    per: Annotated[int, Field(ge=1, le=1_000_000_000), values.FROM_TEXT] = Field(
        default=1_000_000, description="How many tokens the prices are for."
    )
    reason: values.OneLine = Field(default="set in the job file", description="Where the prices come from.")


class _Paid(Section):
    model: values.OneLine = Field(description="The model, by the provider's own name.")
    price: PriceSpec | None = Field(
        default=None, description="Your own prices of a batch. By default, those of the price book."
    )
    on_demand_price: PriceSpec | None = Field(
        default=None,
        description="Your own prices outside batches: for comparison, and for requests that are too few for a batch. "
        "By default, those of the price book.",
    )
    parameters: dict[values.OneLine, str | int | float | bool] = Field(
        default_factory=dict, description="Inference parameters that are sent with each request, such as temperature."
    )
    structured_output: Literal["auto", "native", "prompt"] = Field(
        default="auto",
        description="How the answer's schema is asked for: natively, or in the prompt only; auto goes by the model.",
    )
    keep_files: bool = Field(
        default=False, description="Leave uploaded and written files at the provider once they are collected."
    )


class Vpc(Section):
    """The network that a Bedrock job runs in."""

    subnet_ids: Annotated[tuple[values.OneLine, ...], Field(strict=False, min_length=1, max_length=16)] = Field(
        description="1 to 16 subnets."
    )
    security_group_ids: Annotated[tuple[values.OneLine, ...], Field(strict=False, min_length=1, max_length=5)] = Field(
        description="1 to 5 security groups."
    )


class BedrockBackend(_Paid):
    """Amazon Bedrock batch inference."""

    kind: Literal["bedrock"] = "bedrock"
    region: values.OneLine | None = Field(
        default=None, description="The AWS region. By default, that of the AWS tools."
    )
    role_arn: values.OneLine = Field(description="The service role that reads and writes the bucket for Bedrock.")
    staging: values.BucketFolder | None = Field(
        default=None,
        description="An s3:// folder for requests and raw answers. By default, the root, when it is on S3.",
    )
    invocation: Literal["converse", "invoke"] = Field(
        default="converse", description="The form of the requests: Converse, or the model's own."
    )
    kms_key: values.OneLine | None = Field(default=None, description="The key that Bedrock encrypts its output with.")
    vpc: Vpc | None = None
    tags: dict[values.OneLine, str] = Field(default_factory=dict, max_length=50, description="Tags of the jobs.")
    timeout_hours: Annotated[int, Field(ge=24, le=168), values.FROM_TEXT] = Field(
        default=24, description="Hours after which Bedrock gives a job up."
    )


class AzureRegion(Section):
    """One more deployment of the same model."""

    endpoint: values.OneLine = Field(description="https://NAME.openai.azure.com.")
    deployment: values.OneLine = Field(description="The name of the deployment there.")
    region: values.OneLine = Field(description="The name of the region, for the ledger.")


class AzureBatchBackend(_Paid):
    """Azure OpenAI batch: a Global-Batch or Data Zone Batch deployment."""

    kind: Literal["azure-batch"] = "azure-batch"
    deployment: values.OneLine = Field(description="The name of the deployment.")
    endpoint: values.OneLine | None = Field(
        default=None, description="https://NAME.openai.azure.com. By default, AZURE_OPENAI_ENDPOINT."
    )
    region: values.OneLine | None = Field(
        default=None, description="The region of the endpoint, for the ledger. By default, not told."
    )
    auth: Literal["key", "entra"] = Field(
        default="key", description="AZURE_OPENAI_API_KEY, or the Microsoft Entra identity of the environment."
    )
    api: values.OneLine = Field(default="v1", description="v1, or a dated api-version such as 2025-04-01-preview.")
    blob: values.ContainerFolder | None = Field(
        default=None, description="An abfs:// folder for requests and answers, in place of uploaded files."
    )
    regions: Annotated[tuple[AzureRegion, ...], Field(strict=False)] = Field(
        default=(), description="Further deployments: shards go where there is room."
    )
    call: Literal["chat", "responses"] = Field(default="chat", description="Chat completions, or responses.")
    enqueued_tokens: Annotated[int, Field(ge=1), values.FROM_TEXT] | None = Field(
        default=None,
        description="The deployment's quota of enqueued tokens. By default, a shard holds at most 15 million.",
    )


class OpenAIBatchBackend(_Paid):
    """OpenAI's batch API, or one that speaks the same."""

    kind: Literal["openai-batch"] = "openai-batch"
    base_url: values.OneLine | None = Field(
        default=None, description="The API's address. By default, OPENAI_BASE_URL, else OpenAI's own."
    )
    call: Literal["chat", "responses"] = Field(default="chat", description="Chat completions, or responses.")
    enqueued_tokens: Annotated[int, Field(ge=1), values.FROM_TEXT] | None = Field(
        default=None, description="The account's quota of enqueued tokens for the model."
    )


class SpotEngine(Section):
    """The inference engine that each worker starts: by default `vllm serve` with the model."""

    command: Annotated[tuple[values.Text, ...], Field(strict=False)] = Field(
        default=(),
        description="The command that serves /v1/chat/completions, word by word; {model} and {port} are filled in. By "
        "default, vllm serve {model} --host 127.0.0.1 --port {port}.",
    )
    url: values.OneLine | None = Field(
        default=None, description="The address of an engine that runs already, in place of a command."
    )
    health: values.OneLine = Field(default="/health", description="The path that answers 200 once the engine is ready.")
    environment: dict[values.OneLine, str] = Field(
        default_factory=dict,
        description="Environment variables of the engine. They are written into the root, so no secrets.",
    )
    boot: Annotated[values.Duration, values.at_least(timedelta(seconds=1), "1s")] = Field(
        default=timedelta(minutes=30), description="How long the engine may take to become ready."
    )
    hang: Annotated[values.Duration, values.at_least(timedelta(seconds=1), "1s")] = Field(
        default=timedelta(minutes=15),
        description="The engine is started again when no answer has come for so long while something is asked.",
    )
    restarts: Annotated[int, Field(ge=0, le=100), values.FROM_TEXT] = Field(
        default=3, description="How often the engine is started again for one shard."
    )


class InFlight(Section):
    """How many requests a worker asks at the same time: it finds the best number between the two."""

    least: Annotated[int, Field(ge=1, le=10_000), values.FROM_TEXT] = Field(default=4, description="At least.")
    most: Annotated[int, Field(ge=1, le=10_000), values.FROM_TEXT] = Field(default=256, description="At most.")


class SpotBackend(Section):
    """An open model on machines that may be taken away: AWS Batch on Spot, or machines of your own."""

    kind: Literal["spot"] = "spot"
    model: values.OneLine = Field(description="The model, by the name that the engine knows it by.")
    launcher: Literal["batch", "process", "none"] = Field(
        default="batch",
        description="What starts the workers: AWS Batch, this machine as processes of its own, or somebody else.",
    )
    queue: values.OneLine | None = Field(
        default=None, description="For batch: the name or ARN of the AWS Batch job queue. Required there."
    )
    job_definition: values.OneLine | None = Field(
        default=None, description="For batch: the name or ARN of the job definition. Required there."
    )
    region: values.OneLine | None = Field(
        default=None, description="For batch: the AWS region. By default, that of the AWS tools."
    )
    instances: Annotated[tuple[values.OneLine, ...], Field(strict=False)] = Field(
        default=(),
        description="For batch: the instance types that the queue starts, such as g6.xlarge; plans go by their prices.",
    )
    max_workers: Annotated[int, Field(ge=1, le=1_000), values.FROM_TEXT] = Field(
        default=4, description="The most workers at the same time."
    )
    max_usd_per_hour: values.Money | None = Field(
        default=None, description="The most that all workers together may cost an hour, in USD."
    )
    usd_per_hour: values.Money | None = Field(
        default=None,
        description="For process and none: what an hour of one worker is worth, in USD. By default, nobody knows: "
        "plans and reports say so, and no cap counts it.",
    )
    engine: SpotEngine = Field(default_factory=SpotEngine)
    parameters: dict[values.OneLine, str | int | float | bool] = Field(
        default_factory=dict, description="Inference parameters that are sent with each request, such as temperature."
    )
    structured_output: Literal["auto", "native", "prompt"] = Field(
        default="auto",
        description="How the answer's schema is asked for: natively, or in the prompt only; auto goes by the engine, "
        "natively with vLLM.",
    )
    in_flight: InFlight = Field(default_factory=InFlight)
    tokens_per_second: Annotated[int, Field(ge=1, le=10_000_000), values.FROM_TEXT] | None = Field(
        default=None,
        description="Input and output tokens that one worker gets done in a second, as you have measured it. By "
        "default, what earlier runs have shown.",
    )


BackendSpec: TypeAlias = LocalBackend | BedrockBackend | AzureBatchBackend | OpenAIBatchBackend | SpotBackend

BACKENDS: Mapping[str, type[Section]] = {
    "local": LocalBackend,
    "bedrock": BedrockBackend,
    "azure-batch": AzureBatchBackend,
    "openai-batch": OpenAIBatchBackend,
    "spot": SpotBackend,
}
LATER_BACKENDS = ("realtime",)
