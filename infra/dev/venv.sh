#!/usr/bin/env bash
# Makes .venv, or mends it: infra/dev/venv.sh runtime|dev
#   runtime   what Lowtide needs to run, and the embedded model
#   dev       that, and what tests, checks, benchmarks and the site need
# Does nothing when .venv already holds what the locks say. PYTHON names the interpreter to make it from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

level=${1:-}
case "$level" in
  runtime | dev) ;;
  *) echo "usage: $0 runtime|dev" >&2; exit 2 ;;
esac
also=(requirements/model.txt requirements/build.txt)
locks=("requirements/$level.txt" "${also[@]}")
venv=.venv
making=$venv/.making

say() { echo "lowtide: $*" >&2; }

# Two makes in one checkout take turns. macOS has no flock, and does without.
if command -v flock >/dev/null; then
  exec 9<"${BASH_SOURCE[0]}"
  flock 9
fi

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if new_enough "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  say "Python 3.11 or newer is needed. ${PYTHON:-python3} is: $("${PYTHON:-python3}" --version 2>&1 || true)."
  say "Install one, and say which: make PYTHON=python3.12 ..."
  return 1
}

has_pip() { "$venv/bin/python" -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("pip"))' 2>/dev/null; }

minor() { "$1" -IS -c 'import sys; print(sys.version_info[:2])'; }

# What the environment was made of.
fingerprint() {
  "$venv/bin/python" -IS - "$@" <<'PY'
import hashlib, sys
seen = hashlib.sha256(sys.version.encode())
for name in sys.argv[1:]:
    with open(name, "rb") as lock:
        seen.update(lock.read())
print(seen.hexdigest())
PY
}

stamped() { [ "$(cat "$venv/.$1" 2>/dev/null)" = "$2" ]; }
stamp() { echo "$2" >"$venv/.$1.new" && mv "$venv/.$1.new" "$venv/.$1"; }

# uv does not read pip's settings. Who has set uv up is left alone; for others pip's mirrors count for uv too. Hashes are
# pinned, so it does not matter which of several indexes a file comes from.
lend_pip_settings() {
  if env | grep -q '^UV_\(DEFAULT_INDEX\|INDEX\|INDEX_URL\|EXTRA_INDEX_URL\|FIND_LINKS\|CONFIG_FILE\)=' \
    || [ -e "${XDG_CONFIG_HOME:-$HOME/.config}/uv/uv.toml" ] || [ -e /etc/uv/uv.toml ]; then
    return
  fi
  local setting value
  while IFS='=' read -r setting value; do
    value=${value#\'}
    value=${value%\'}
    case "$setting" in
      *.index-url)       export UV_DEFAULT_INDEX=$value ;;
      *.extra-index-url) export UV_INDEX=$value UV_INDEX_STRATEGY=unsafe-best-match ;;
      *.find-links)      export UV_FIND_LINKS=${value// /,} ;;
      *.cert)            export SSL_CERT_FILE=${SSL_CERT_FILE:-$value} ;;
    esac
  done < <("$venv/bin/python" -m pip config list 2>/dev/null || true)
}

install() {
  if [ -x "$venv/bin/uv" ] && "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" "$@"; then
    return
  fi
  say "uv could not install; trying pip, which is slower"
  PIP_USER=0 "$venv/bin/python" -m pip install -qq --disable-pip-version-check "$@"
}

create() {
  local python=${chosen:-}
  [ -n "$python" ] || python=$(find_python)
  say "making $venv with $("$python" --version 2>&1)"
  rm -rf "$venv"
  mkdir "$venv"
  touch "$making"
  if ! "$python" -m venv "$venv"; then
    rm -rf "$venv"
    say "$python cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv"
    return 1
  fi
}

chosen=
if [ -n "${PYTHON:-}" ]; then
  chosen=$(find_python)
fi

if [ -e "$making" ]; then
  say "$venv was left half made; making it again"
  create
elif ! has_pip; then
  create
elif [ -e "$venv/.place" ] && ! stamped place "$PWD"; then
  say "$venv was made for $(cat "$venv/.place"), and its scripts say so"
  create
elif ! new_enough "$venv/bin/python"; then
  say "$venv holds $("$venv/bin/python" --version), which is too old"
  create
elif [ -n "$chosen" ] && [ "$(minor "$chosen")" != "$(minor "$venv/bin/python")" ]; then
  say "$venv holds another Python than $chosen"
  create
fi

packages=$(fingerprint "${locks[@]}")
everything=$(fingerprint requirements/dev.txt "${also[@]}")
if ! stamped dev "$everything" && ! stamped "$level" "$packages"; then
  touch "$making"
  say "installing what $level needs, from ${locks[*]}"
  PIP_USER=0 "$venv/bin/python" -m pip install -qq --disable-pip-version-check \
    --require-hashes --no-deps -r requirements/uv.txt || say "uv is not to be had here"
  lend_pip_settings
  # The locks name every package, so nothing is resolved. The model's own list of packages would bring 5 GB of CUDA.
  install --require-hashes --no-deps "${locks[@]/#/--requirement=}"
  stamp place "$PWD"
  stamp "$level" "$packages"
  rm "$making"
fi

project=$(fingerprint pyproject.toml)
if ! stamped project "$project"; then
  lend_pip_settings
  install --no-build-isolation --no-deps --editable .
  stamp project "$project"
fi
