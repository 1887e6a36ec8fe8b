"""Recorded driving, from its official layout on disk into episode files.

Reading order: `motion` (how a car moved, and the controls that this took), `rewards`, `pictures`, `recording`
(what a data set's reader gives, and how an episode is put together), one module for each data set (`kitti`,
`nuscenes`, `waymo`, `commavq`, `rollouts`), and `convert`, the job.
"""
