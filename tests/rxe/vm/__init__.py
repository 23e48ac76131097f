# SPDX-License-Identifier: MIT
"""The machine of scripts/rxe-vm: guests with Soft-RoCE. main.py is the command; each other file has one idea."""
