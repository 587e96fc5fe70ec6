"""Whatever happens, a wrong map is never delivered as a right one: docs/faults.md says what is promised instead."""
