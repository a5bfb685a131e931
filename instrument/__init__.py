"""Tells what a piece of work cost: calls, tokens, money, time and failures, in a local log."""
