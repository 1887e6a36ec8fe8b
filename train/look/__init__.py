"""Jobs that show what was learnt: evaluation, imagination, planning, the demo."""
