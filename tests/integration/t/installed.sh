# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# variants: both
# meson install, wsdctl install, then a user who is nobody special: wsdrun starts a private daemon and connections are accelerated
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
[ -n "$WSDRUN" ] || skip "needs the switch"
require meson setpriv unshare ss
[ "$(id -u)" = 0 ] || skip "needs root, to install and to become nobody"
if [ "${1:-}" != inside ]; then
	unshare -m true 2>/dev/null || skip "no mount namespaces here"
	meson install -C "$WSD_BUILD" --no-rebuild --destdir "$T/root" >"$T/install.log" 2>&1 || fail "meson install"
	# what a person looks for after it
	for f in share/man/man1/wsdrun.1 share/man/man1/wsdctl.1 share/man/man1/wsd-bench.1 share/man/man5/wsd-catalog.5 share/man/man7/wsd.7 \
		share/man/man8/wsd-proxyd.8 share/doc/wsd/examples/proxyd.conf.example share/doc/wsd/security.md lib/systemd/system/wsd-proxyd.service; do
		found=("$T"/root/*/"$f" "$T"/root/*/*/"$f")
		[ -e "${found[0]}" ] || [ -e "${found[1]}" ] || fail "not installed: $f"
	done
	# its own place for what was installed, and for the catalog
	made=
	[ -d /etc/wsd ] || { mkdir /etc/wsd && made=yes; } || skip "cannot make /etc/wsd"
	unshare -m bash "$0" inside "$T"
	rc=$?
	[ -z "$made" ] || rmdir /etc/wsd 2>/dev/null	# not ours if something has come into it
	exit $rc
fi

W=$2
prefix=$(cd "$W/root" && find . -name bin -type d | head -1)
prefix=${prefix#.}
prefix=${prefix%/bin}
if [ ! -d "$prefix" ]; then fail "no $prefix on this machine to mount over"; fi
mkdir "$W/lib" "$W/etc"
mount --bind "$W/root$prefix" "$prefix" || skip "cannot mount here"
mount --bind "$W/etc" /etc/wsd || fail "cannot mount over /etc/wsd"
"$prefix/bin/wsdctl" install || fail "wsdctl install"
chmod 755 "$W" "$W/root" "$W/etc"
mkdir -m 700 "$W/run"
chown 65534:65534 "$W/run"
nobody() {
	setpriv --reuid=65534 --regid=65534 --clear-groups \
		env -i PATH="$prefix/bin:/usr/bin:/bin" HOME=/nonexistent XDG_RUNTIME_DIR="$W/run" WSD_OFFER_AFTER=0 "$@"
}
cp -r "$PROGRAMS" "$T/programs"
chmod -R a+rX "$T/programs"
p=$(free_port)
start echo nobody wsdrun /usr/bin/python3 "$T/programs/flow.py" echo "$p"
wait_port "$p"
nobody timeout 60 wsdrun --stats /usr/bin/python3 "$T/programs/flow.py" pingpong "$p" 1000 300 4 >"$T/client.log" 2>&1 || fail "the client"
nobody wsdctl status >"$T/status.log" 2>&1 || fail "wsdctl status"
grep -q 'uid 65534' "$T/status.log" || fail "not that user's daemon"
grep -q '[1-9][0-9]* accelerated' "$T/client.log" || fail "no connection was accelerated"
nobody wsdctl doctor >"$T/doctor.log" 2>&1 || fail "wsdctl doctor"
nobody wsdctl stop >"$T/stop.log" 2>&1 || fail "wsdctl stop"
exit 0
