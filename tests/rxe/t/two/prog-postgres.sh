#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# long: initdb alone takes half a minute in emulation
# seconds: 240
# PostgreSQL: pgbench, and a table copied in and out
. "$(dirname "$0")/../../programs.sh"

PG=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
AS=(setpriv --reuid=postgres --regid=postgres --clear-groups)
URL="host=$WSD_RXE_PEER port=18908 user=pg dbname=postgres"
if [ "$WSD_RXE_HOST" = 1 ]; then
	mkdir "$T/pg"
	chown postgres "$T/pg"
	"${AS[@]}" "$PG/initdb" -D "$T/pg/db" -A trust -U pg --no-sync >"$T/initdb.log" 2>&1 || fail "initdb"
	echo "host all all $WSD_RXE_PEER/32 trust" >>"$T/pg/db/pg_hba.conf"
fi

serve() {
	cd "$T/pg" || fail "no $T/pg"
	up postgres 18908 "${AS[@]}" "$PG/postgres" -D "$T/pg/db" -p 18908 -k "$T/pg" -c "listen_addresses=$WSD_RXE_ADDRESS" -c fsync=off
}

use() {
	local secs=8 rows=60000
	[ "$SIDES" = both ] || secs=1 rows=2000
	until_true 20 "$PG/pg_isready" -q -h "$WSD_RXE_PEER" -p 18908 || fail "postgres is not ready"
	"$PG/pgbench" -i -s 1 -q "$URL" >"$T/init.log" 2>&1 || fail "pgbench -i"
	client pgbench "$PG/pgbench" -S -c 4 -j 2 -T $secs "$URL" >"$T/pgbench.log" 2>&1 || fail "pgbench"
	grep -q 'failed transactions: 0' "$T/pgbench.log" || fail "pgbench failures"
	share pgbench 1
	python3 -c 'import random, sys
r = random.Random(3)
for i in range(int(sys.argv[1])): print(i, r.randbytes(40).hex(), sep="\t")' $rows >"$T/rows"
	client in "$PG/psql" -q "$URL" -c 'drop table if exists t' -c 'create table t(a int, b text)' -c "\\copy t from '$T/rows'" >"$T/psql.log" 2>&1 || fail "copy in"
	client out "$PG/psql" -q "$URL" -c "\\copy (select * from t order by a) to '$T/back'" >>"$T/psql.log" 2>&1 || fail "copy out"
	same_file "$T/rows" "$T/back"
}
over_two_hosts
