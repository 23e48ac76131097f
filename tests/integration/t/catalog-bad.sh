# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# variants: both
# no catalog, an empty one, nonsense, one anybody may write, a provider that does not exist
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
p=$(free_port)
start_server echo "$PY" "$PROGRAMS/flow.py" echo "$p"
wait_port "$p"
try() { WSD_CATALOG=$1 client timeout 30 "$PY" "$PROGRAMS/flow.py" pingpong "$p" 300 100 2 || fail "$2"; }
try "$T/none" "no catalog"
: >"$T/empty"
try "$T/empty" "an empty catalog"
random_file "$T/noise" 5000
try "$T/noise" "nonsense"
printf '[{11111111-2222-3333-4444-555555555555}]\npath=/nonexistent.so\n' >"$T/dead"
try "$T/dead" "a provider that does not exist"
chmod 666 "$T/dead"
try "$T/dead" "a catalog anybody may write"
try "$T" "a folder"
