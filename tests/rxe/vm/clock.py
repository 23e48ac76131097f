# SPDX-License-Identifier: MIT
"""The frequency of this machine's time stamp counter, for guests that are emulated and see the same counter.

A guest measures it while it boots, by a timer that a busy machine serves late: one was seen to take it for a seventh of what it is. Its
clock then runs seven times too fast for good, and whatever in it has a deadline fails.
"""
import ctypes
import mmap
import time

CODE = bytes.fromhex("0f31 48c1e220 4809d0 c3")	# rdtsc; shl $32, %rdx; or %rdx, %rax; ret
SPAN = 0.1


def sample(counter):
	"""(seconds, ticks) of one moment: of many the one whose moment is the shortest"""
	best = None
	for _ in range(50):
		a = time.monotonic_ns()
		ticks = counter()
		b = time.monotonic_ns()
		if best is None or b - a < best[0]:
			best = (b - a, (a + b) / 2e9, ticks)
	return best[1:]


def tsc_khz():
	with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
		page.write(CODE)
		view = ctypes.c_char.from_buffer(page)
		counter = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(view))
		a = sample(counter)
		time.sleep(SPAN)
		b = sample(counter)
		del view
	return round((b[1] - a[1]) / (b[0] - a[0]) / 1000)
