"""Benchmarks: the store beside the ways people keep sessions without it, in one run.

Run `python -m bench --quick` for a first impression and `python -m bench` for figures to quote.

- `payloads`: what is stored.
- `peers`, `agents`, `floor`: who keeps sessions, and what the disk itself takes.
- `messaging`, `restarts`, `stalls`, `lengths`, `openings`: what else is measured, and at whom.
- `workloads`: what each of them does, how it is checked that it was done, and what the targets are.
- `measure`: threads, rounds and the order of rounds.
- `disk`, `machine`: where.
- `runner`, `results`, `report`: from workloads to a table and a JSON file.

A new peer is a class in `peers` and a line in its list; a new kind of work is a `Trial` and a
`Workload` in `workloads`, or a `Sampler` and a `Gauge` if it is told by its delays, say.
"""
