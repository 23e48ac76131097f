# SPDX-License-Identifier: MIT
"""What a kernel's console may not say. Lines that programs write (oom_reaper aside) do not look like these."""
import re

# Anchored behind the time stamp where the words alone could be in an innocent line
STAMP = r"^(?:\[ *\d+\.\d+\](?:\[[^]]*\])? )?"
BAD = re.compile("|".join((
	STAMP + r"(?:watchdog: )?BUG: .*",
	STAMP + r"WARNING: (?:CPU|possible|suspicious|lock|inconsistent|bad|stack|kernel stack|workqueue).*",
	STAMP + r"-+\[ cut here \]-+",
	STAMP + r"Kernel panic - not syncing.*",
	STAMP + r"Oops.*",
	STAMP + r"(?:general protection fault|stack segment|invalid opcode|divide error|double fault|traps: PANIC).*",
	STAMP + r"Kernel BUG at .*",
	STAMP + r"(?:kernel BUG at|unable to handle|unchecked MSR access error).*",
	STAMP + r"rcu: .*detected (?:stall|expedited stall).*",
	STAMP + r"INFO: (?:task .* blocked for more than|rcu_.* detected).*",
	STAMP + r"unregister_netdevice: waiting for .*",
	STAMP + r"(?:refcount_t|list_add corruption|list_del corruption|UBSAN|KASAN|KCSAN|slab error|Bad page|Bad rss).*",
	STAMP + r"(?:Out of memory|Memory cgroup out of memory): Killed process.*",
)))
ENDS = re.compile(r"Kernel panic - not syncing")


def worst(lines):
	"""The line that names the trouble, or None. A panic explains an oops before it less well than the oops itself."""
	bad = [line for line in lines if BAD.search(line)]
	for line in bad:
		if "cut here" not in line:
			return line
	return bad[0] if bad else None
