#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""pnet.py NAME IBDEV NETDEV...: tells the kernel's SMC that these network devices lead to this RDMA device.

What smc_pnet and smcd of smc-tools do (Debian 12 has no such package). Without it SMC-R finds no device behind a netdev
with rxe. Version 1 wants a GID of RoCE v1, which rxe does not have; version 2 wants both ends to have one EID, NAME here.
"""
import os
import socket
import struct
import sys

GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 16, 3, 1, 2
SMC_PNETID_ADD, NAME, ETHNAME, IBNAME, IBPORT = 2, 1, 2, 3, 4
SMC_NETLINK_ADD_UEID, SMC_NLA_EID_TABLE_ENTRY = 10, 1
NLM_F_REQUEST, NLM_F_ACK, NLMSG_ERROR = 1, 4, 2


def attribute(kind, value):
	return struct.pack("HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def ask(s, family, command, version, attributes):
	body = struct.pack("BBH", command, version, 0) + b"".join(attributes)
	s.send(struct.pack("IHHII", 16 + len(body), family, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + body)
	answer = None
	while True:
		data = s.recv(65536)
		while data:
			length, kind = struct.unpack_from("IH", data)
			if kind == NLMSG_ERROR:
				error = struct.unpack_from("i", data, 16)[0]
				if error:
					raise OSError(-error, os.strerror(-error))
				return answer
			answer = data[20:length]
			data = data[(length + 3) & ~3:]


def family(s, name):
	data = ask(s, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1, [attribute(CTRL_ATTR_FAMILY_NAME, name.encode() + b"\0")])
	while data:
		length, kind = struct.unpack_from("HH", data)
		if kind == CTRL_ATTR_FAMILY_ID:
			return struct.unpack_from("H", data, 4)[0]
		data = data[(length + 3) & ~3:]
	raise OSError("no such family")


def main(name, ibdev, *netdevs):
	s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
	s.settimeout(10)
	s.bind((0, 0))
	ask(s, family(s, "SMC_GEN_NETLINK"), SMC_NETLINK_ADD_UEID, 1, [attribute(SMC_NLA_EID_TABLE_ENTRY, name.ljust(32).encode() + b"\0")])
	number = family(s, "SMC_PNETID")
	name = attribute(NAME, name.encode() + b"\0")
	ask(s, number, SMC_PNETID_ADD, 1, [name, attribute(IBNAME, ibdev.encode() + b"\0"), attribute(IBPORT, b"\1")])
	for n in netdevs:
		ask(s, number, SMC_PNETID_ADD, 1, [name, attribute(ETHNAME, n.encode() + b"\0")])


if __name__ == "__main__":
	if len(sys.argv) < 4:
		sys.exit(__doc__)
	try:
		main(*sys.argv[1:])
	except OSError as e:
		sys.exit(f"pnet.py: {e}")
