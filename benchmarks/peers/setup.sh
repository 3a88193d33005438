#!/usr/bin/env bash
# Install the peers into an environment of their own, so that nothing of theirs gets into ours:
# .peers in the checkout (ignored by git), or the directory named by SHARDRT_PEERS.
# What cannot be installed is said, and the others go on; exits with 1 if there was any.
set -uo pipefail
home=${SHARDRT_PEERS:-$(cd "$(dirname "$0")/../.." && pwd)/.peers}
missing=()

mkdir -p "$home"
[ -x "$home/venv/bin/python" ] || python3 -m venv "$home/venv" || exit 1

"$home/venv/bin/pip" install -q 'dbos>=3.4,<4' 'psycopg[binary]>=3.2' || missing+=("dbos (PyPI)")
"$home/venv/bin/pip" install -q 'restate-sdk>=1.3,<2' 'granian>=2' 'aiohttp>=3.9' ||
    missing+=("restate-sdk (PyPI)")
if command -v npm >/dev/null; then
    npm install --silent --no-fund --no-audit --prefix "$home/npm" '@restatedev/restate-server@^1.7' ||
        missing+=("@restatedev/restate-server (npm)")
else
    missing+=("@restatedev/restate-server: there is no npm")
fi

if [ ${#missing[@]} -gt 0 ]; then
    printf 'cannot be installed here: %s\n' "${missing[@]}" >&2
    exit 1
fi
echo "ready in $home"
