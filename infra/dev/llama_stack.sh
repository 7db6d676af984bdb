#!/usr/bin/env bash
# Runs openai-batch against llama-stack, an implementation of the files and batches APIs that was written elsewhere, over
# the emulator's chat completions: infra/dev/llama_stack.sh [FOLDER]
# Not part of the tests, since llama-stack needs Python 3.12 or newer. Its environment is made in FOLDER, by default
# ~/.cache/lowtide/llama-stack-0.7.3; PYTHON picks the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

version=0.7.3
place=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/lowtide/llama-stack-$version}

say() { echo "lowtide: $*" >&2; }

python=${PYTHON:-}
for name in $python python3.13 python3.12; do
  if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
    python=$name
    break
  fi
  python=
done
if [ -z "$python" ]; then
  say "llama-stack needs Python 3.12 or newer, and none was found: set PYTHON to one. This check was not run."
  exit 1
fi
if [ ! -x .venv/bin/python ]; then
  say "there is no .venv: run make test once"
  exit 1
fi
if [ "$(cat "$place/.made" 2>/dev/null)" != "$version" ]; then
  say "installing llama-stack $version into $place"
  rm -rf "$place"
  "$python" -m venv "$place"
  # mcp 2 removed what llama-stack imports.
  "$place/bin/python" -m pip install --quiet --disable-pip-version-check "llama-stack==$version" 'mcp<2'
  echo "$version" >"$place/.made"
fi
exec .venv/bin/python tests/peers/llama_stack.py "$place"
