# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# PostgreSQL over TCP: pgbench, and a table copied in and out
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
pg=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1)
[ -n "$pg" ] || skip "PostgreSQL is not installed"
p=$(free_port)
as=()
if [ "$(id -u)" = 0 ]; then
	as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
	chown postgres "$T"
fi
cd "$T" || exit 1
"${as[@]}" env -u LD_PRELOAD "$pg/initdb" -D "$T/db" -A trust -U pg --no-sync >"$T/initdb.log" 2>&1 || fail "initdb"
start_server postgres "${as[@]}" "$pg/postgres" -D "$T/db" -p "$p" -k "$T" -c listen_addresses=127.0.0.1 -c fsync=off
ready() { "$pg/pg_isready" -q -h 127.0.0.1 -p "$p"; }
until_true 20 ready || fail "postgres is not ready"
url="host=127.0.0.1 port=$p user=pg dbname=postgres"
"$pg/pgbench" -i -s 1 -q "$url" >"$T/init.log" 2>&1 || fail "pgbench -i"
client timeout 30 "$pg/pgbench" -S -c 4 -j 2 -T "$(size 1 3)" "$url" >"$T/pgbench.log" 2>&1 || fail "pgbench"
grep -q 'failed transactions: 0' "$T/pgbench.log" || fail "pgbench failures"
"$PY" -c 'import random
r = random.Random(3)
for i in range(60000): print(i, r.randbytes(40).hex(), sep="\t")' >"$T/rows"
client timeout 60 "$pg/psql" -q "$url" -c 'create table t(a int, b text)' -c '\copy t from rows' >"$T/psql.log" 2>&1 || fail "copy in"
client timeout 60 "$pg/psql" -q "$url" -c '\copy (select * from t order by a) to back' >>"$T/psql.log" 2>&1 || fail "copy out"
same_file "$T/rows" "$T/back"
