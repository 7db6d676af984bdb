"""Batch inference APIs on the loopback, for developing without an account: Amazon Bedrock, OpenAI and Azure OpenAI.

A process of its own, spoken to over HTTP with the providers' own SDKs. It shares no code with the rest of Lowtide.
"""
