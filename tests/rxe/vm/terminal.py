# SPDX-License-Identifier: MIT
"""The person's terminal in --shell: raw, joined to one guest's console; ^] goes to the other guest."""
import os
import sys
import termios
import tty

NEXT = b"\x1d"	# ^]


class Terminal:
	def __init__(self):
		self.fd = sys.stdin.fileno()
		self.current = 0
		self.before = termios.tcgetattr(self.fd)
		size = os.get_terminal_size(self.fd)
		self.rows, self.columns = size.lines, size.columns

	def __enter__(self):
		tty.setraw(self.fd)
		return self

	def __exit__(self, *_):
		termios.tcsetattr(self.fd, termios.TCSADRAIN, self.before)

	def typed(self, guests):
		data = os.read(self.fd, 4096)
		while NEXT in data:
			first, _, data = data.partition(NEXT)
			self.send(guests[self.current], first)
			self.current = (self.current + 1) % len(guests)
			os.write(1, f"\r\n[host {guests[self.current].number}]\r\n".encode())
		self.send(guests[self.current], data)

	@staticmethod
	def send(guest, data):
		channel = guest.channels["tty"]
		channel.setblocking(True)
		channel.settimeout(5)
		try:
			channel.sendall(data)
		except OSError:
			pass	# its end shows elsewhere
		channel.setblocking(False)

	def show(self, guest):
		os.write(1, guest.take_tty())
