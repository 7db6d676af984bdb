#!/usr/bin/env bash
# Makes .node, or mends it: the servers of infra/dev/node.txt, and .node/bin/node, which runs them.
# Does nothing when .node already holds them. Needs node and npm, version 18 or newer; a node older than the one in
# node.txt (Debian 12 has 18, and the servers want 20 or 22) only serves to install that one beside them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

list=infra/dev/node.txt
place=.node

say() { echo "lowtide: $*" >&2; }

# Two makes in one checkout take turns. macOS has no flock, and does without.
if command -v flock >/dev/null; then
  exec 9<infra/dev/node.sh
  flock 9
fi

missing=()
for program in node npm; do
  command -v "$program" >/dev/null || missing+=("$program")
done
if ((${#missing[@]})); then
  say "not installed: ${missing[*]}. The tests need servers that npm has. On Debian and Ubuntu: apt-get install nodejs npm"
  exit 1
fi

major() { "$1" -p 'process.versions.node.split(".")[0]'; }

machine=$(major node)
if ((machine < 18)); then
  say "node $(node --version) is too old: 18 or newer is needed. On Debian 12 and newer: apt-get install nodejs npm"
  exit 1
fi

tools=()
runtime=
while read -r line; do
  case "$line" in
    '' | '#'*) ;;
    node@*) runtime=${line#node@} ;;
    *) tools+=("$line") ;;
  esac
done <"$list"

own=node
if ((machine < ${runtime%%.*})); then
  own="node-$(node -p 'process.platform + "-" + process.arch')"
  tools+=("$own@$runtime")
fi

wanted="${tools[*]} on node $machine"
if [ "$(cat "$place/.made" 2>/dev/null)" = "$wanted" ] && "$place/bin/node" --version >/dev/null 2>&1; then
  exit 0
fi

say "installing ${tools[*]} into $place"
new=$place.new
rm -rf "$new"
mkdir -p "$new/bin"
echo '{"private": true}' >"$new/package.json"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! npm install --prefix "$new" --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error \
  "${tools[@]}" >"$log" 2>&1; then
  cat "$log" >&2
  say "npm could not install ${tools[*]}"
  exit 1
fi

if [ "$own" = node ]; then
  ln -s "$(command -v node)" "$new/bin/node"
else
  ln -s "../node_modules/$own/bin/node" "$new/bin/node"
fi
echo "$wanted" >"$new/.made"
rm -rf "$place"
mv "$new" "$place"
