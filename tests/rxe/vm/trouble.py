# SPDX-License-Identifier: MIT
"""What went wrong outside the command, said once: a sentence for the reader and what to do next."""

# Exit codes of scripts/rxe-vm besides the command's own, chosen like timeout(1)'s and docker's.
USAGE = 2
KERNEL = 120	# the guest's kernel complained, oopsed or panicked
TIMEOUT = 124	# the command, or the guest, did not end in time
SETUP = 125	# the machine could not be brought up
GONE = 126	# the guest ended without an answer


class Trouble(Exception):
	def __init__(self, message, hint=None, code=SETUP):
		super().__init__(message)
		self.hint = hint
		self.code = code


class Interrupted(Exception):
	"""A signal asked us to stop; whoever holds something lets go of it on the way out."""

	def __init__(self, signum):
		super().__init__(f"signal {signum}")
		self.signum = signum
