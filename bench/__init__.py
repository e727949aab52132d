"""Benchmarks: the store beside the ways people keep sessions without it, in one run.

Run `python -m bench --quick` for a first impression and `python -m bench` for figures to quote.

- `payloads`: what is stored.
- `peers`, `messaging`, `restarts`, `stalls`: who is measured, each behind the same protocol.
- `workloads`: what each of them does, how it is checked that it was done, and what the targets are.
- `measure`: threads, rounds and the order of rounds.
- `runner`, `results`, `report`, `machine`: from workloads to a table and a JSON file.

A new peer is a class in `peers` and a line in its list; a new kind of work is a `Trial` and a
`Workload` in `workloads`, or a `Sampler` and a `DelayWorkload` if it is told by its delays.
"""
