#!/usr/bin/env bash
# Writes requirements/*.txt anew from pyproject.toml and requirements/*.in. Pins that still fit are kept: infra/dev/lock.sh
# Takes the newest versions with: infra/dev/lock.sh --upgrade
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

compile() {
  .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --no-annotate "$@" >/dev/null
}

# dev goes first: moto and ministack pin botocore, and what is tested has to be what is run.
compile "$@" pyproject.toml --all-extras --group test --group lint --group docs -o requirements/dev.txt
compile "$@" pyproject.toml -c requirements/dev.txt -o requirements/runtime.txt
for name in model build uv; do
  compile "$@" --no-deps "requirements/$name.in" -o "requirements/$name.txt"
done
