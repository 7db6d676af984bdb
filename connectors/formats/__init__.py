"""Turn files into text: one module a format, hostile bytes parsed in a worker process of their own.

Nothing is imported here: the worker starts from this package and must stay small.
"""
